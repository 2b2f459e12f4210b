"""Ray Train's cost for data-parallel training, against loops on torchrun.

    python -m bench.ddp [--turns N] [--epochs N]

All train the same net on the same clips, read by pipeline/clips/loading.py, on one worker and on two of one thread
each, with gloo; all take turns. Ray is already running, as it is when stage 4 starts.

- Ray Train: cluster/fit.py's train_distributed(), as stage 4 trains with several workers.
- torchrun, the same loop: pipeline/train/loop.py under torchrun, with state kept each epoch as in fit.py: only the
  launcher differs.
- torchrun, plain: the shortest equivalent DDP loop: DistributedDataParallel, SGD, clipped gradients.

A step's time is that of the median epoch after the first, by each loop's clock; a ratio is within one turn. "Between
epochs" is the rest of an epoch: keeping the state, Ray Train's report. Start-up is from the call to the first step; the
end from the last epoch to the return. From the first epoch's end to the last's, every process's CPU time is counted:
that of a worker for each step (workers are the busiest processes), and that of all others on the machine, in percent of
one core. The losses of all steps' windows are compared in every turn.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bench import report, training
from bench.report import column, median, spread
from bench.running import ROOT, cpu_by_process, machine, parser, with_malloc
from cluster import fit
from cluster.session import session
from pipeline.config.schema import Cluster
from pipeline.tracking import run_log
from pipeline.train.run import Run

RAY, SAME, PLAIN = WAYS = ("Ray Train", "torchrun, the same loop", "torchrun, plain")
WORKERS = (1, 2)
TOLERANCE = 1e-4  # relative, of a loss: sums of floats in another order, over all epochs


def main() -> None:
    command = parser(__doc__, turns=5, epochs=4)
    command.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)  # way, and the folder to work in
    args = command.parse_args()
    if args.rank:
        return under_torchrun(args.rank[0], Path(args.rank[1]), args.epochs)
    rows = []
    with tempfile.TemporaryDirectory() as root, session(Cluster()):
        run = training.prepare(Path(root), args.epochs)
        for turn in range(args.turns):
            for workers in WORKERS:
                for way in WAYS:
                    folder = Path(root) / f"{turn}-{workers}-{way.replace(' ', '-')}"
                    rows.append({"turn": turn, "way": way, "workers": workers, **train(way, workers, run, folder)})
    save(rows, run, args.turns)


def train(way: str, workers: int, run: Run, folder: Path) -> dict[str, Any]:
    """Train once; return times in s, all logged losses and their windows' seconds."""
    folder.mkdir()
    if way == RAY:
        work: Callable[[], object] = partial(fit.train_distributed, training.on_ray(run, folder, workers))
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        command += ["-m", "bench.ddp", "--epochs", str(run.recipe.epochs), "--rank", way, str(folder)]
        work = partial(subprocess.run, command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    began = time.time()
    writes, busy = watched(work, folder / fit.LOG)
    ended = time.time()
    lines, epochs = run_log.lines(folder / fit.LOG), run_log.epochs(folder / fit.LOG)
    first, *others = (line["seconds"] for line in epochs)
    return {
        "step_s": training.seconds_per_step(epochs),
        "between_s": (writes[-1] - writes[0] - sum(others)) / len(others),
        "start_s": writes[0] - began - first,
        "end_s": ended - writes[-1],
        "workers_cpu_s": sum(busy[:workers]) / workers / training.STEPS / len(others),
        "others_cpu": sum(busy[workers:]) / (writes[-1] - writes[0]),
        "losses": [line["loss"] for line in lines if line["kind"] == "steps"],
        "paces": [line["seconds"] for line in lines if line["kind"] == "steps" and line["epoch"] and "seconds" in line],
    }


def watched(work: Callable[[], object], log: Path) -> tuple[list[float], list[float]]:
    """Train; return the times at which the log was written, once per epoch, and each process's CPU s between them.

    The busiest process is first.
    """
    writes: list[float] = []
    used: list[dict[int, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if log.exists() and (at := log.stat().st_mtime) not in writes[-1:]:
                writes.append(at)
                used.append(cpu_by_process())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    spent = [seconds - used[0].get(pid, seconds) for pid, seconds in used[-1].items()]
    return writes, sorted(spent, reverse=True)


def under_torchrun(way: str, folder: Path, epochs: int) -> None:
    """Run one rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    (training.same_loop if way == SAME else training.plain)(training.run_of(folder.parent, epochs), folder)
    dist.destroy_process_group()


def save(rows: list[dict[str, Any]], run: Run, turns: int) -> None:
    lines, curves = [], []
    for workers in WORKERS:
        losses = {way: column(rows, "losses", workers=workers, way=way) for way in WAYS}
        first = losses[RAY][0]
        equal = all(curve == first for way in (RAY, SAME) for curve in losses[way])
        worst = max(np.max(np.abs(np.divide(curve, first) - 1)) for each in losses.values() for curve in each)
        assert worst < TOLERANCE, f"{workers} workers: losses differ by {worst:.1e}"
        text = f"{workers}: Ray Train's and the same loop's {'' if equal else 'not '}equal to the bit"
        curves.append(f"{text}, all within {worst:.0e}")
        for way in WAYS:
            cells = {"workers": workers, "way": way}
            steps = column(rows, "step_s", **cells)
            over = [report.overhead(steps, column(rows, "step_s", workers=workers, way=base)) for base in (SAME, PLAIN)]
            times = [median(rows, key, **cells) for key in ("between_s", "start_s", "end_s")]
            cpu = 1000 * np.median(column(rows, "workers_cpu_s", **cells))
            others = spread([100 * share for share in column(rows, "others_cpu", **cells)], ".1f", " %")
            lines.append([f"{way}, {workers}", f"{1000 * np.median(steps):.1f}", *over, f"{cpu:.1f}", others, *times])
    text = (
        f"{machine()}; {training.described(run)}, {turns} turns. Losses of {len(rows[0]['losses'])} windows, by "
        f"workers: {'; '.join(curves)}."
    )
    head = ["way, workers", "ms a step", f"over {SAME}", f"over {PLAIN}", "a worker's CPU ms a step"]
    head += ["other processes' CPU", "between epochs, s", "start-up, s", "end, s"]
    every = [
        {**row, **{key: " ".join(f"{value:.9g}" for value in row[key]) for key in ("losses", "paces")}} for row in rows
    ]
    report.save("ddp", "Ray Train against torchrun", text, head, lines, every)


if __name__ == "__main__":
    with_malloc("ddp", main)
