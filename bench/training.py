"""The training of bench/overhead.py and bench/ddp.py: clips, plain loop, log."""

import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from bench.decoding import decode, sources_of
from bench.running import ROOT
from cluster import fit
from models.memory_format import channels_last
from pipeline import splits
from pipeline.clips import loading
from pipeline.config.load import load
from pipeline.config.schema import Cluster
from pipeline.decode import shards
from pipeline.decode.frame_store import FrameStore
from pipeline.download import sources
from pipeline.storage import atomic
from pipeline.train import keys, loop, rows
from pipeline.train.run import Run

STEPS = 20  # per epoch
Line = dict[str, Any]


def prepare(root: Path, epochs: int) -> Run:
    """Write a few drawn clips, STEPS steps per epoch, and return their run_of()."""
    params = load(ROOT / "params.yaml")
    options = {"train": params.recipes["quick"].batch * STEPS, "test": 16, "splits": 1}
    dataset = params.datasets["shapes"]
    dataset = replace(dataset, options={**dataset.options, **options})
    videos = sources.fetch("shapes", dataset, root, root / "videos")
    entries = sources.manifest("shapes", dataset, videos)
    splits.write(splits.build("shapes", dataset, entries, videos), root / "splits" / "shapes")
    decode(shards.plan(root / "frames" / "shapes", videos, sources_of(entries), dataset.decode))
    return run_of(root, epochs)


def run_of(root: Path, epochs: int) -> Run:
    """Return the run of row tsm, on prepare()'s clips."""
    run = rows.runs(load(ROOT / "params.yaml"), "tsm", root)[0]
    return replace(run, recipe=replace(run.recipe, epochs=epochs, steps=()))


def on_ray(run: Run, folder: Path, workers: int = 1) -> fit.Training:
    """Return cluster/fit.py's description of the run, with its state in a folder."""
    cluster, token = Cluster(workers=workers, storage=str(folder)), folder / "token"
    token.write_text(token.name)
    return fit.Training(run, None, cluster, folder, keys.training(run, None), token)


def plain(run: Run, folder: Path) -> None:
    """Train in the shortest loop, on one process or on each of torchrun's.

    A logged loss is the mean of a window of steps.
    """
    recipe, (rank, world) = run.recipe, loop.rank_and_world()
    torch.manual_seed(run.seed)
    net = run.net()
    channels_last(net)
    model: nn.Module = DistributedDataParallel(net) if dist.is_initialized() else net
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    items, share = run.part("train"), recipe.batch // recipe.micro_batch
    order = [
        [(epoch, index) for index in micro]
        for epoch in range(recipe.epochs)
        for step in loading.steps(len(items), recipe.batch, recipe.micro_batch, run.seed, epoch)
        for micro in step[rank::world]
    ]
    clips = loading.TrainClips(FrameStore(run.frames), items, recipe, run.seed, run.mirrored())
    loader = iter(DataLoader(clips, sampler=order, batch_size=None))
    pixels = torch.empty(recipe.micro_batch, recipe.frames, recipe.size, recipe.size, 3)
    micros, window, lines = range(share)[rank::world], max(1, STEPS // loop.WINDOWS), list[Line]()
    net.train()
    for epoch in range(recipe.epochs):
        began, losses = time.perf_counter(), []
        for step in range(1, STEPS + 1):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros(())
            for micro in micros:
                batch, labels = next(loader)
                model.require_backward_grad_sync = micro == micros[-1]  # type: ignore[assignment]
                x = loading.normalise(batch, net.mean, net.std, net.channels, pixels)
                part = nn.functional.cross_entropy(model(x), labels)
                # DDP takes the mean over workers, each of which has its part of the step's micro batches.
                (part * world / share).backward()
                loss += part.detach()
            if world > 1:
                dist.all_reduce(loss)
            losses.append(loss.item() / share)
            if recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_grad)
            optimizer.step()
            if step % window == 0:
                mean = float(np.mean(losses[-window:]))
                lines.append({"kind": "steps", "epoch": epoch, "step": step, "loss": mean})
        lines.append({"kind": "epoch", "epoch": epoch, "seconds": time.perf_counter() - began})
        if rank == 0:
            torch.save(net.state_dict(), folder / fit.STATE)
            log(folder, lines)


def same_loop(run: Run, folder: Path) -> None:
    """Train in pipeline/train/loop.py without Ray.

    State is kept each epoch, as in cluster/fit.py.
    """
    lines = list[Line]()
    for epoch in loop.epochs(run, None, None, torch.device("cpu")):
        lines += [{**timing, **line} for line, timing in zip(epoch.lines, epoch.timings, strict=True)]
        if loop.rank_and_world()[0] == 0:
            with atomic.writing(folder / fit.STATE) as temporary:
                torch.save({"lines": json.dumps(lines), **epoch.state}, temporary)
            log(folder, lines)


def log(folder: Path, lines: Iterable[Line]) -> None:
    """Write a log as a run has it while it trains."""
    atomic.write(folder / fit.LOG, "".join(json.dumps(line) + "\n" for line in lines))


def seconds_per_step(epochs: list[Line]) -> float:
    """Return the seconds per step in the median epoch after the first."""
    return statistics.median(line["seconds"] for line in epochs[1:]) / STEPS


def described(run: Run) -> str:
    """Describe a step."""
    recipe, row = run.recipe, run.experiment
    return (
        f"a step is {recipe.batch} clips of {recipe.frames}x{recipe.size}x{recipe.size} in micro batches of "
        f"{recipe.micro_batch} through {row.backbone} {row.variant}, {row.attention}; {STEPS} steps an epoch, "
        f"{recipe.epochs} epochs"
    )
