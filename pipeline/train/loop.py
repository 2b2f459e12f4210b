"""The training loop: a generator of epochs, without launcher and storage.

Legend: N clips of a micro batch, T frames, H, W pixels, K classes.

A step has `recipe.batch` clips, cut into micro batches of `recipe.micro_batch`. Gradients are means over the step, and
every micro batch is normalized by its own statistics. So the number of workers changes the result only through the
order of float additions. On CPUs that order is fixed (reduction.py), and the result has the same bits; on GPUs DDP
exchanges gradients. Workers find each other through torch.distributed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.memory_format import channels_last
from pipeline.clips import loading
from pipeline.config.schema import Recipe
from pipeline.decode.frame_store import FrameStore
from pipeline.errors import UserError
from pipeline.train import divergence, reduction, validation
from pipeline.train.optimizer import freeze, learning_rate, sgd, train_mode
from pipeline.train.run import Run
from pipeline.train.step import Worker, step
from pipeline.train.throughput import Meter

Line = dict[str, float | int | str]

WINDOWS = 10  # lines of the curve an epoch, each the mean over its steps


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its curve lines, their timings, and the state to resume."""

    number: int
    of: int
    lines: list[Line]  # functions of the run: kind, epoch, step, loss, gradient norm before clipping, lr
    timings: list[Line]  # one for each of `lines`: kind, epoch, step, and values that vary
    # model and optimizer state dicts, epoch, and the best epoch's model if there is validation; for weights_only=True
    state: dict[str, Any]


def epochs(
    run: Run, weights: Path | None, state: dict[str, Any] | None, device: torch.device, loaders: int = 0
) -> Iterator[Epoch]:
    """Train a run from `state` (an earlier Epoch's), or from the start.

    With torch.distributed, every rank calls this with equal arguments, except the device.

    Args:
        run: the run.
        weights: a file that initializes the backbone.
        state: to resume from.
        device: of this process.
        loaders: threads that prepare clips ahead (0: none).

    Raises:
        Diverged: The loss or gradient of a step isn't finite.
        UserError: The settings do not match the data, the device or the workers.
    """
    recipe, rank, world = run.recipe, *rank_and_world()
    share = recipe.batch // recipe.micro_batch
    if world > share:
        raise UserError(
            f"cluster.workers is {world}, but a step of this recipe has {share} micro batches to share; "
            f"at most {share} workers, or a smaller recipes.{run.experiment.recipe}.micro_batch"
        )
    store = FrameStore(run.frames)
    items, held = ([item for item in part if item[0] in store] for part in validation.parts(run))
    if recipe.loss == "softmax" and (many := next((item for item in items if len(item[1]) != 1), None)):
        raise UserError(
            f"{run.experiment.dataset}: video {many[0]} has {len(many[1])} labels, but "
            f"recipes.{run.experiment.recipe}.loss softmax needs exactly 1; use loss sigmoid"
        )

    if recipe.validate is not None and not held:
        raise UserError(f"{run.experiment.dataset}: no validation video was decoded; see {run.frames / 'failed.csv'}")

    torch.manual_seed(run.seed)
    net = run.net(weights)
    channels_last(net.to(device))
    freeze(net, recipe)
    wide = [m for m in net.modules() if isinstance(m, nn.Conv3d) and m.in_channels > 1 and m.kernel_size[0] > 1]
    if recipe.precision == "bf16" and device.type == "cpu" and wide:
        # On maps of two frames, oneDNN's bf16 gradients of such kernels hold memory that was never written.
        raise UserError(
            f"recipes.{run.experiment.recipe}.precision is bf16: gradients of 3D convolutions are wrong on a CPU "
            "(torch 2.13); use fp32 there"
        )
    optimizer = sgd(net, recipe)
    begin, best = 0, dict[str, Any]()
    if state:
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin, best = int(state["epoch"]) + 1, state.get("best", {})
    parallel: nn.Module = net
    ordered = world > 1 and in_order(device)
    if ordered:
        reduction.share_first(net.state_dict().values())
    elif world > 1:
        devices = [device] if device.type == "cuda" else None
        parallel = DistributedDataParallel(net, device_ids=devices, forward_sync_buffers=False)

    micros = [
        [(epoch, index) for index in micro]
        for epoch in range(begin, recipe.epochs)
        for step in loading.steps(len(items), recipe.batch, recipe.micro_batch, run.seed, epoch)
        for micro in step[rank::world]
    ]
    clips = loading.TrainClips(store, items, recipe, run.seed, run.mirrored())
    loader = loading.read_ahead(clips, micros, loaders, pinned=device.type == "cuda")
    pixels = torch.empty(recipe.micro_batch, recipe.frames, recipe.size, recipe.size, recipe.planes, device=device)
    worker = Worker(run, net, parallel, ordered, optimizer, loader, device, pixels, share, rank, world)
    steps = len(items) // recipe.batch
    window = max(1, steps // WINDOWS)
    for epoch in range(begin, recipe.epochs):
        if _patience_ends(recipe, best, epoch):
            return
        train_mode(net, recipe)
        rate = learning_rate(recipe, epoch)
        meter = Meter(device)
        lines, timings = list[Line](), list[Line]()
        measured = list[tuple[float, float]]()  # of each step: loss, gradient norm
        for number in range(steps):
            now = learning_rate(recipe, epoch, (number + 1) / steps)
            for group in optimizer.param_groups:
                group["lr"] = now * group["multiplier"]
            loss, norm = step(worker, epoch, number, meter).tolist()  # waits for the device
            divergence.check(run, epoch, number, now, loss, norm)
            measured.append((loss, norm))
            meter.add(recipe.batch)
            if (number + 1) % window == 0 or number + 1 == steps:
                place: Line = {"kind": "steps", "epoch": epoch, "step": number + 1}
                lines.append({**place, **_means(measured[number // window * window :])})
                timings.append({**place, **meter.window()})
        validated = dict[str, float]()
        if held:
            score = validation.score(run, net, store, held, device, rank, world)
            validated = score.numbers()
            if not best or score.value > best["score"]:
                model = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
                best = {"epoch": epoch, "score": score.value, "model": model}
        lines.append({"kind": "epoch", "epoch": epoch, "lr": rate, **_means(measured), **validated})
        timings.append({"kind": "epoch", "epoch": epoch, "world": world, **meter.total()})
        yield Epoch(
            epoch,
            recipe.epochs,
            lines,
            timings,
            {
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                **({"best": best} if best else {}),
            },
        )


def _patience_ends(recipe: Recipe, best: dict[str, Any], epoch: int) -> bool:
    """Return true if no epoch of the last `patience` before this one has improved the validation score."""
    return recipe.patience is not None and bool(best) and epoch - int(best["epoch"]) > recipe.patience


def in_order(device: torch.device) -> bool:
    """Return true if workers on a device add gradients in a fixed order, unlike DDP."""
    return device.type == "cpu"


def _means(measured: Sequence[tuple[float, float]]) -> Line:
    losses, norms = zip(*measured, strict=True)
    return {"loss": sum(losses) / len(losses), "grad_norm": sum(norms) / len(norms)}


def rank_and_world() -> tuple[int, int]:
    """Return (rank, world size), or (0, 1) outside torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
