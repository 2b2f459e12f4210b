"""The cost of `dvc repro` that finds nothing to do, at 14 and 200 rows.

    python -m bench.noop [--rows 14 200] [--turns 5]

The project's dvc.yaml with its stages `code` and `inputs`, and stand-ins for the others; each count in a folder of its
own. CPU time is that of DVC and of the stages it starts.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from bench.report import save
from tests.support import project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[14, 200])
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    turns, lines = [], []
    for count in args.rows:
        with tempfile.TemporaryDirectory() as place:
            folder = prepare(Path(place), count)
            print(f"{count} rows: the first run", flush=True)
            first_run(folder, count)
            size = (folder / "dvc.lock").stat().st_size
            for turn in range(args.turns):
                start, before = time.perf_counter(), cpu()
                dvc(folder, "repro", "-q")
                seconds = {"seconds": round(time.perf_counter() - start, 2), "cpu": round(cpu() - before, 2)}
                turns.append({"rows": count, "turn": turn, **seconds, "dvc.lock": size})
        times = {kind: [turn[kind] for turn in turns if turn["rows"] == count] for kind in ("cpu", "seconds")}
        texts = [f"{statistics.median(of):.1f} ({min(of):.1f} to {max(of):.1f})" for of in times.values()]
        lines.append([str(count), *texts, f"{size / 1000:.0f}"])
    save("noop", "`dvc repro` with nothing to do", "", ["rows", "CPU s", "s", "dvc.lock, kB"], lines, turns)


def prepare(folder: Path, count: int) -> Path:
    """Return the project with `count` rows, whose stages but `code` and `inputs` only write their outs."""
    params = project.load()
    row = params["experiments"]["tsm"]
    params["experiments"] = {name(n): json.loads(json.dumps(row)) for n in range(count)}  # written out, as suites are
    params["tables"] = {}
    project.stand_in(project.copy(folder, params))
    return folder


def first_run(folder: Path, count: int) -> None:
    """Leave all rows as a run does: DVC runs the first, the others are copied, as 200 would take half an hour."""
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


def cpu() -> float:
    """CPU seconds of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def dvc(folder: Path, *arguments: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [Path(sys.executable).parent / "dvc", *arguments]
    variables = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # else DVC is compiled again in each process
    subprocess.run(command, cwd=folder, check=True, env=variables)


if __name__ == "__main__":
    main()
