"""Ray's cost per training step: plain PyTorch, our loop, a Ray task, Ray Train.

    python -m bench.overhead

All do the same steps on the same clips, one worker and one thread, in turns. "Plain" is a user's shortest loop: the
same loader, normalizing, forward, backward and SGD step, without counting or logging. A step's time is the median of
the epochs' after the first, which is robust against bursts of other load; a ratio is the median over turns. Start-up,
all outside the epochs, is listed separately.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import ray
import torch
from torch.utils.data import DataLoader

from bench.report import save
from cluster import fit
from cluster.session import MALLOC, session
from pipeline import splits
from pipeline.clips import loading
from pipeline.config.load import load
from pipeline.config.schema import Cluster
from pipeline.decode import shards
from pipeline.decode.frame_store import FrameStore
from pipeline.download import sources
from pipeline.train import loop, rows
from pipeline.train.run import Run

ROOT = Path(__file__).parents[1]
STEPS = 20  # per epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cluster = Cluster()
    rows = []
    with tempfile.TemporaryDirectory() as folder, session(cluster):
        one = prepare(Path(folder), given.epochs)
        racers: dict[str, Callable[[Run, Path], float]] = {
            "plain PyTorch": plain,
            "this loop, no Ray": alone,
            "Ray task (one worker)": task,
            "Ray Train (one worker)": train,
        }
        for turn in range(given.turns):
            for name, racer in racers.items():
                place = Path(folder) / f"{turn}-{name}".replace(" ", "-")
                began = time.perf_counter()
                step = racer(one, place)
                wall = time.perf_counter() - began
                seconds = wall - step * STEPS * given.epochs
                rows.append(
                    {"turn": turn, "loop": name, "ms_a_step": round(1000 * step, 2), "rest_s": round(seconds, 2)}
                )
    base = {row["turn"]: row["ms_a_step"] for row in rows if row["loop"] == "plain PyTorch"}
    lines = []
    for name in racers:
        own = [row for row in rows if row["loop"] == name]
        over = [100 * (row["ms_a_step"] / base[row["turn"]] - 1) for row in own]
        lines.append(
            [
                name,
                f"{statistics.median(row['ms_a_step'] for row in own):.1f}",
                f"{statistics.median(over):+.1f} % ({min(over):+.1f} to {max(over):+.1f})",
                f"{statistics.median(row['rest_s'] for row in own):.1f}",
            ]
        )
    text = (
        f"A step is {one.recipe.batch} clips of {one.recipe.frames}x{one.recipe.size}x{one.recipe.size} through "
        f"{one.experiment.backbone} {one.experiment.variant}, {one.experiment.attention}; {STEPS} steps an epoch, "
        f"{given.epochs} epochs, {given.turns} turns."
    )
    head = ["loop", "ms a step", "over plain PyTorch (least to most)", "start-up and end, s"]
    save("overhead", "What Ray costs a training step", text, head, lines, rows)


def prepare(root: Path, epochs: int) -> Run:
    """Write a few drawn clips, STEPS steps per epoch, and return their run_of()."""
    params = load(ROOT / "params.yaml")
    recipe = params.recipes["quick"]
    options = {**params.datasets["shapes"].options, "train": recipe.batch * STEPS, "test": 16, "splits": 1}
    dataset = replace(params.datasets["shapes"], options=options)
    videos = sources.fetch("shapes", dataset, root, root / "videos")
    entries = sources.manifest("shapes", dataset, videos)
    splits.write(splits.build("shapes", dataset, entries, videos), root / "splits" / "shapes")
    listed = [shards.Source(entry.video, entry.path, entry.sha256) for entry in entries]
    tasks = shards.plan(root / "frames" / "shapes", videos, listed, dataset.decode)
    for one in tasks:
        shards.decode_shard(one)
    shards.finish(root / "frames" / "shapes", tasks)
    return run_of(root, epochs)


def run_of(root: Path, epochs: int) -> Run:
    """Return the run of row tsm, on prepare()'s clips."""
    one = rows.runs(load(ROOT / "params.yaml"), "tsm", root)[0]
    return replace(one, recipe=replace(one.recipe, epochs=epochs, steps=()))


def plain(run: Run, place: Path) -> float:
    """Return the seconds per step of the shortest loop."""
    recipe, store = run.recipe, FrameStore(run.frames)
    torch.manual_seed(run.seed)
    net = run.net()
    loop.channels_last(net)
    items = run.part("train")
    order = [
        [(epoch, index) for index in micro]
        for epoch in range(recipe.epochs)
        for step in loading.steps(len(items), recipe.batch, recipe.micro_batch, run.seed, epoch)
        for micro in step
    ]
    plan = loading.TrainClips(store, items, recipe, run.seed, run.mirrored())
    loader = iter(DataLoader(plan, sampler=order, batch_size=None))
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    pixels = torch.empty(recipe.micro_batch, recipe.frames, recipe.size, recipe.size, 3)
    share = recipe.batch // recipe.micro_batch
    net.train()
    began = [time.perf_counter()]
    for step in range(STEPS * recipe.epochs):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(share):
            batch, labels = next(loader)
            x = loading.normalise(batch, net.mean, net.std, net.channels, pixels)
            (torch.nn.functional.cross_entropy(net(x), labels) / share).backward()
        optimizer.step()
        if (step + 1) % STEPS == 0:
            began.append(time.perf_counter())
    return steady([{"kind": "epoch", "seconds": end - begin} for begin, end in pairwise(began)])


def alone(run: Run, place: Path) -> float:
    return steady([line for epoch in loop.epochs(run, None, None, torch.device("cpu")) for line in epoch.lines])


def task(run: Run, place: Path) -> float:
    prepared(place)
    ray.get(ray.remote(fit.train_run).options(num_cpus=1).remote(run, None, Cluster(), place, "token"))
    return logged(place)


def train(run: Run, place: Path) -> float:
    prepared(place)
    fit.train_distributed(run, None, Cluster(), place, "token")
    return logged(place)


def prepared(place: Path) -> None:
    place.mkdir()
    (place / "token").write_text("token")


def logged(place: Path) -> float:
    return steady([json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()])


def steady(lines: list[dict]) -> float:
    """Return the seconds per step in the median epoch after the first."""
    epochs = [line["seconds"] for line in lines if line["kind"] == "epoch"]
    return statistics.median(epochs[1:]) / STEPS


if __name__ == "__main__":
    if MALLOC.items() <= os.environ.items():
        main()
    else:  # the settings that Ray's workers inherit must be set from this process's start
        os.execve(sys.executable, [sys.executable, "-m", "bench.overhead", *sys.argv[1:]], {**os.environ, **MALLOC})
