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
end from the last epoch to the return. The losses of all steps' windows are compared in every turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from bench import overhead, report
from cluster import fit
from cluster.session import MALLOC, session
from pipeline.clips import loading
from pipeline.config.schema import Cluster
from pipeline.decode.frame_store import FrameStore
from pipeline.storage import atomic
from pipeline.train import loop
from pipeline.train.run import Run

ROOT = Path(__file__).parents[1]
RAY, SAME, PLAIN = "Ray Train", "torchrun, the same loop", "torchrun, plain"
WORKERS = (1, 2)
TOLERANCE = 1e-4  # relative, of a loss: sums of floats in another order, over all epochs


def main() -> None:
    parser = argparse.ArgumentParser(description="What Ray Train costs data-parallel training, against torchrun")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)  # way, and the folder to work in
    given = parser.parse_args()
    if given.rank:
        return under_torchrun(given.rank[0], Path(given.rank[1]), given.epochs)
    rows = []
    with tempfile.TemporaryDirectory() as place, session(Cluster()):
        root = Path(place)
        one = overhead.prepare(root, given.epochs)
        for turn in range(given.turns):
            for workers in WORKERS:
                for way in (RAY, SAME, PLAIN):
                    rows.append({"turn": turn, "way": way, "workers": workers, **run(way, workers, one, root, turn)})
    save(rows, one, given.turns, given.epochs)


def run(way: str, workers: int, one: Run, root: Path, turn: int) -> dict[str, Any]:
    """Train once; return times in s, all logged losses and their windows' seconds."""
    place = root / f"{turn}-{workers}-{way.replace(' ', '-')}"
    place.mkdir()
    (place / "token").write_text("token")
    train: Callable[[], object]
    if way == RAY:
        cluster = Cluster(workers=workers)
        train = lambda: fit.train_distributed(one, None, cluster, place, "token")  # noqa: E731
    else:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        command += ["-m", "bench.ddp", "--epochs", str(one.recipe.epochs), "--rank", way, str(place)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        train = lambda: subprocess.run(command, cwd=ROOT, env=env, check=True)  # noqa: E731
    began = time.time()
    ends = watched(train, place / "log.jsonl")
    ended = time.time()
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    epochs = [line["seconds"] for line in lines if line["kind"] == "epoch"]
    between = (ends[-1] - ends[0] - sum(epochs[1:])) / len(epochs[1:])
    return {
        "step_s": overhead.steady(lines),
        "between_s": between,
        "start_s": ends[0] - began - epochs[0],
        "end_s": ended - ends[-1],
        "losses": [line["loss"] for line in lines if line["kind"] == "steps"],
        "paces": [line["seconds"] for line in lines if line["kind"] == "steps" and line.get("epoch", 0) > 0],
    }


def watched(train: Callable[[], object], log: Path) -> list[float]:
    """Train, and return the times of the log's writes by epoch.

    There are a first and a last one at least.
    """
    seen: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            if log.exists() and (at := log.stat().st_mtime) not in seen[-1:]:
                seen.append(at)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        train()
    finally:
        over.set()
        thread.join()
    return seen


def under_torchrun(way: str, place: Path, epochs: int) -> None:
    """Run one rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    one = overhead.run_of(place.parent, epochs)
    (same if way == SAME else plain)(one, place)
    dist.destroy_process_group()


def same(one: Run, place: Path) -> None:
    lines: list[dict[str, Any]] = []
    for epoch in loop.epochs(one, None, None, torch.device("cpu")):
        lines += epoch.lines
        if dist.get_rank() == 0:
            state = {"fingerprint": "", "lines": json.dumps(lines), **epoch.state}
            with atomic.writing(place / "state.pt") as temporary:
                torch.save(state, temporary)
            logged(place, lines)


def plain(one: Run, place: Path) -> None:
    """Train in the shortest loop; a loss is a window's mean, as loop.py logs it."""
    recipe, rank, world = one.recipe, dist.get_rank(), dist.get_world_size()
    torch.manual_seed(one.seed)
    net = one.net()
    loop.channels_last(net)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    store, items = FrameStore(one.frames), one.part("train")
    share = recipe.batch // recipe.micro_batch
    order = [
        [(epoch, index) for index in micro]
        for epoch in range(recipe.epochs)
        for step in loading.steps(len(items), recipe.batch, recipe.micro_batch, one.seed, epoch)
        for micro in step[rank::world]
    ]
    data = loading.TrainClips(store, items, recipe, one.seed, one.mirrored())
    loader = iter(DataLoader(data, sampler=order, batch_size=None))
    pixels = torch.empty(recipe.micro_batch, recipe.frames, recipe.size, recipe.size, 3)
    steps, own, lines = len(items) // recipe.batch, range(share)[rank::world], []
    window = max(1, steps // loop.WINDOWS)
    net.train()
    for _ in range(recipe.epochs):
        began, losses = time.perf_counter(), []
        for step in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros(())
            for micro in own:
                batch, labels = next(loader)
                model.require_backward_grad_sync = micro == own[-1]
                x = loading.normalise(batch, net.mean, net.std, net.channels, pixels)
                part = torch.nn.functional.cross_entropy(model(x), labels)
                # DDP takes the mean over workers, each of which has its part of the step's micro batches.
                (part * world / share).backward()
                loss += part.detach()
            dist.all_reduce(loss)
            losses.append(loss.item() / share)
            if recipe.clip_grad is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_grad)
            optimizer.step()
            if (step + 1) % window == 0:
                lines.append({"kind": "steps", "loss": float(np.mean(losses[-window:]))})
        lines.append({"kind": "epoch", "seconds": time.perf_counter() - began})
        if rank == 0:
            torch.save(net.state_dict(), place / "state.pt")
            logged(place, lines)


def logged(place: Path, lines: list[dict[str, Any]]) -> None:
    atomic.write(place / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def save(rows: list[dict[str, Any]], one: Run, turns: int, epochs: int) -> None:
    lines, curves = [], []
    for workers in WORKERS:
        here = {
            way: [row for row in rows if (row["way"], row["workers"]) == (way, workers)] for way in (RAY, SAME, PLAIN)
        }
        first = here[RAY][0]["losses"]
        equal = all(row["losses"] == first for way in (RAY, SAME) for row in here[way])
        worst = max(np.max(np.abs(np.divide(row["losses"], first) - 1)) for own in here.values() for row in own)
        assert worst < TOLERANCE, f"{workers} workers: losses differ by {worst:.1e}"
        curves.append(
            f"{workers}: Ray Train's and the same loop's {'' if equal else 'not '}equal to the bit, "
            f"all within {worst:.0e}"
        )
        for way, own in here.items():
            line = [f"{way}, {workers}", f"{1000 * statistics.median(row['step_s'] for row in own):.1f}"]
            for base in (SAME, PLAIN):
                over = [100 * (a["step_s"] / b["step_s"] - 1) for a, b in zip(own, here[base], strict=True)]
                line.append(f"{statistics.median(over):+.1f} % ({min(over):+.1f} to {max(over):+.1f})")
            line += [f"{statistics.median(row[key] for row in own):.2f}" for key in ("between_s", "start_s", "end_s")]
            lines.append(line)
    recipe = one.recipe
    text = (
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f} meanwhile; a step is {recipe.batch} "
        f"clips of {recipe.frames}x{recipe.size}x{recipe.size} in micro batches of {recipe.micro_batch} through "
        f"{one.experiment.backbone} {one.experiment.variant}, {one.experiment.attention}; {overhead.STEPS} steps an "
        f"epoch, {epochs} epochs, {turns} turns. Losses of {len(rows[0]['losses'])} windows, by workers: "
        f"{'; '.join(curves)}."
    )
    head = ["way, workers", "ms a step", f"over {SAME}", f"over {PLAIN}", "between epochs, s", "start-up, s", "end, s"]
    keys = ("step_s", "between_s", "start_s", "end_s")
    every = [
        {
            **row,
            **{key: round(row[key], 5) for key in keys},
            **{key: " ".join(f"{value:.9g}" for value in row[key]) for key in ("losses", "paces")},
        }
        for row in rows
    ]
    report.save("ddp", "Ray Train against torchrun", text, head, lines, every)


if __name__ == "__main__":
    if MALLOC.items() <= os.environ.items():
        main()
    else:  # as in bench/overhead.py: all loops start with the settings that Ray's workers inherit
        os.execve(sys.executable, [sys.executable, "-m", "bench.ddp", *sys.argv[1:]], {**os.environ, **MALLOC})
