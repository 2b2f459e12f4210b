"""The cost of `dvc repro` that finds nothing to do, at 14 and 200 rows.

    python -m bench.noop [--rows 14 200] [--turns 5]

The project's dvc.yaml with its stages `code` and `inputs`, and stand-ins for the others; each count in a separate
folder. CPU time is that of DVC and of the stages it starts.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from bench import report
from bench.running import options, timed
from tests.support import project


def main() -> None:
    args = options(__doc__, rows=[14, 200], turns=5)
    rows, lines = [], []
    for count in args.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = prepare(Path(place), count)
            print(f"{count} rows: the first run", flush=True)
            first_run(folder, count)
            size = (folder / "dvc.lock").stat().st_size
            for turn in range(args.turns):
                timing = timed(dvc, folder, "repro", "-q")
                cells = {"seconds": timing.wall, "cpu": timing.cpu, "dvc.lock": size}
                rows.append({"rows": count, "turn": turn, **cells})
        times = [report.spread(report.column(rows, key, rows=count), ".1f", "") for key in ("cpu", "seconds")]
        lines.append([count, *times, f"{size / 1000:.0f}"])
    report.save("noop", "`dvc repro` with nothing to do", "", ["rows", "CPU s", "s", "dvc.lock, kB"], lines, rows)


def prepare(folder: Path, count: int) -> Path:
    """Return the project with `count` rows; only `code` and `inputs` do their work."""
    params = project.load()
    row = params["experiments"]["tsm"]
    params["experiments"] = {name(n): json.loads(json.dumps(row)) for n in range(count)}  # written out, as suites are
    params["tables"] = {}
    project.stand_in(project.copy(folder, params))
    return folder


def first_run(folder: Path, count: int) -> None:
    """Write all rows' outputs: DVC runs the first, the others are copied.

    Running 200 would take half an hour.
    """
    dvc(folder, "repro", "-q", f"evaluate@{name(0)}")
    yaml = YAML(typ="safe")
    lock = yaml.load((folder / "dvc.lock").read_text())
    for n in range(1, count):
        for stage in ("train", "evaluate"):
            entry = json.dumps(lock["stages"][f"{stage}@{name(0)}"])
            lock["stages"][f"{stage}@{name(n)}"] = json.loads(entry.replace(name(0), name(n)))
    yaml.default_flow_style = False  # as DVC writes it
    with (folder / "dvc.lock").open("w") as file:
        yaml.dump(lock, file)
    for path in [*(folder / "data/runs").iterdir(), *(folder / "data/predictions").iterdir()]:
        for n in range(1, count):
            shutil.copytree(path, path.with_name(name(n)))
    dvc(folder, "repro", "-q")


def name(row: int) -> str:
    return f"row-{row:03d}"


def dvc(folder: Path, *arguments: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [Path(sys.executable).parent / "dvc", *arguments]
    variables = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise DVC is compiled again in each process
    subprocess.run(command, cwd=folder, check=True, env=variables)


if __name__ == "__main__":
    main()
