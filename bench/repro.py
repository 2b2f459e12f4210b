"""Parts of the seconds of `make repro`, in a fresh clone of this commit.

    python -m bench.repro

The shell that DVC starts for a stage notes the command's begin and end. "Proper" is what is not overhead: drawing,
decoding and evaluation as their progress lines say, and a row's epochs by its runs' logs, as many side by side as
train at once. The rest of a stage is imports, Ray, nets, checks and files; "outside of stages" is DVC's. A
training step is one of row tsm (the median), while the row's other runs share the cores. It says how fast the machine
is.
"""

import heapq
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench import report
from bench.running import ROOT, machine, noting_shell, options, stage_seconds, timed
from cluster.auto import at_once

PROGRESS = re.compile(r"^(draw|decode|evaluate) .* in ([\d.]+) s$", re.MULTILINE)
PROPER = {"draw": "download", "decode": "decode", "evaluate": "evaluate"}  # progress line -> stage
STAGES = ("code", "inputs", "download", "decode", "splits", "train", "evaluate", "aggregate")


def main() -> None:
    options(__doc__)
    with TemporaryDirectory() as place:
        folder = Path(place) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        log, shell = noting_shell(Path(place)), str(Path(place) / "sh")
        environment = timed(make, folder, "env", shell).wall
        whole = timed(make, folder, "repro", shell)
        seconds: dict[str, float] = defaultdict(float)
        for command, took in stage_seconds(log):
            seconds[next(name for name in STAGES if f"stages.{name}" in command)] += took
        again = timed(make, folder, "repro", shell).wall
        proper: dict[str, float] = defaultdict(float)
        for name, took in PROGRESS.findall(whole.result):
            proper[PROPER[name]] += float(took)
        proper["train"], step = trained(folder / "data" / "tracking", len(os.sched_getaffinity(0)))
    save(environment, whole.wall, again, seconds, proper, step)


def make(folder: Path, target: str, shell: str) -> str:
    """Run a target of the Makefile; return what it prints."""
    done = subprocess.run(
        ["make", target],
        cwd=folder,
        env={**os.environ, "SHELL": shell},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:])
    return done.stdout


def trained(tracking: Path, cores: int) -> tuple[float, float]:
    """Return the wall-clock seconds of all epochs of all rows, and the median seconds of a step of row tsm."""
    rows: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for path in tracking.glob("*/*.timings.jsonl"):
        rows[path.parent.name].append([json.loads(line) for line in path.open()])
    epochs = {
        row: together([sum(line["seconds"] for line in lines if line["kind"] == "epoch") for lines in logs], cores)
        for row, logs in rows.items()
    }
    steps = [
        line["seconds"] / lines[0]["step"]  # a line has as many steps as the first
        for lines in rows["tsm"]
        for line in lines
        if line["kind"] == "steps"
    ]
    return sum(epochs.values()), median(steps)


def together(seconds: list[float], cores: int) -> float:
    """Return the wall-clock seconds of runs that take these, started as earlier ones end."""
    places = [0.0] * at_once(len(seconds), cores)
    for each in seconds:
        heapq.heapreplace(places, places[0] + each)
    return max(places)


def save(
    environment: float, whole: float, again: float, seconds: dict[str, float], proper: dict[str, float], step: float
) -> None:
    """Write the report."""
    outside = whole - sum(seconds.values())
    parts = {**{name: seconds[name] for name in STAGES}, "outside of stages": outside, "make repro": whole}
    sums = {**proper, "make repro": sum(proper.values())}
    lines = []
    for name, took in {"make env, before": environment, **parts, "make repro, again": again}.items():
        share = [f"{sums[name]:.1f}", f"{100 * sums[name] / took:.0f} %"] if name in sums else ["", ""]
        lines.append([name, f"{took:.1f}", *share])
    text = (
        f"Suite quick, all rows, from an empty clone; {machine()}. A training step of row tsm takes {1000 * step:.0f} "
        f"ms beside the row's other runs. The same work where a step takes 50 ms: {whole * 0.05 / step / 60:.1f} min."
    )
    rows = [{"part": name, "seconds": took, "proper": sums.get(name)} for name, took in parts.items()]
    heads = ["part", "seconds", "proper", "share"]
    report.save("repro", "Where the seconds of `make repro` go", text, heads, lines, rows)


if __name__ == "__main__":
    main()
