"""How long `dvc repro` takes to find that there is nothing to do, at 10 and 200 rows.

    python -m bench.noop

The project's own dvc.yaml, with stand-ins for what its stages do; each count in a folder of its own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from bench.report import save

ROOT = Path(__file__).parents[1]
STAND_IN = """
import sys
from pathlib import Path
for out in map(Path, sys.argv[1:]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("{}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 200])
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    rows = []
    for count in given.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = prepare(Path(place), count)
            print(f"{count} rows: the first run", flush=True)
            first_run(folder, count)
            for turn in range(given.turns):
                began = time.perf_counter()
                dvc(folder, "repro", "-q")
                rows.append({"rows": count, "turn": turn, "seconds": round(time.perf_counter() - began, 2)})
    lines = [
        [str(count), f"{statistics.median(own):.1f}", f"{min(own):.1f} to {max(own):.1f}"]
        for count in given.rows
        if (own := [row["seconds"] for row in rows if row["rows"] == count])
    ]
    save("noop", "`dvc repro` with nothing to do", "", ["rows", "median s", "least to most"], lines, rows)


def prepare(folder: Path, count: int) -> Path:
    """The project with `count` rows, its stages replaced by writing their outputs."""
    for package in ("models", "pipeline", "cluster", "stages"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dvcignore", folder)
    yaml = YAML(typ="safe")
    params = yaml.load((ROOT / "params.yaml").read_text())
    row = params["experiments"]["tsm"]
    params["experiments"] = {name(n): row for n in range(count)}
    params["tables"] = {}
    stages = yaml.load((ROOT / "dvc.yaml").read_text())
    for stage in stages["stages"].values():
        body = stage.get("do", stage)
        outs = [*body["outs"], *body.get("metrics", []), *body.get("plots", [])]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        body["cmd"] = "python stand_in.py " + " ".join(
            path if "." in Path(path).name else f"{path}/x" for path in paths
        )
    for path, content in (("params.yaml", params), ("dvc.yaml", stages)):
        with (folder / path).open("w") as file:
            yaml.dump(content, file)
    (folder / "stand_in.py").write_text(STAND_IN)
    dvc(folder, "init", "--no-scm", "-q")
    return folder


def first_run(folder: Path, count: int) -> None:
    """All rows as a run leaves them: DVC runs the first, the others are its copies, for 200 would take half an hour."""
    dvc(folder, "repro", "-q", f"evaluate@{name(0)}")
    yaml = YAML(typ="safe")
    lock = yaml.load((folder / "dvc.lock").read_text())
    for n in range(1, count):
        for stage in ("train", "evaluate"):
            entry = json.dumps(lock["stages"][f"{stage}@{name(0)}"])
            lock["stages"][f"{stage}@{name(n)}"] = json.loads(entry.replace(name(0), name(n)))
    with (folder / "dvc.lock").open("w") as file:
        yaml.dump(lock, file)
    for path in [*(folder / "data").glob(f"*/{name(0)}*"), *(folder / "reports").glob(f"*/{name(0)}*")]:
        for n in range(1, count):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, path.with_name(path.name.replace(name(0), name(n))))
    dvc(folder, "repro", "-q")


def name(row: int) -> str:
    return f"row-{row:03d}"


def dvc(folder: Path, *arguments: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [Path(sys.executable).parent / "dvc", *arguments], cwd=folder, check=True, env={**os.environ, "PATH": path}
    )


if __name__ == "__main__":
    main()
