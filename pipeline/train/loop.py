"""The training loop: a generator of epochs that knows neither its launcher nor where its state is kept.

Legend: N clips of a micro batch, T frames, H, W pixels, K classes.

A step's clips are `recipe.batch`, cut into micro batches of `recipe.micro_batch`. Gradients are means over the step,
and every micro batch is normalised by its own statistics, so the result depends on how many workers share a step's
micro batches only through the order of float additions. On CPUs that is always the same one (reduction.py), and the
result has the same bits; on GPUs the exchange is DDP's. Workers are found through torch.distributed.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from models.memory_format import channels_last
from models.video import VideoNet
from pipeline.clips import loading
from pipeline.config.schema import Recipe
from pipeline.decode.frame_store import FrameStore
from pipeline.errors import UserError
from pipeline.train import reduction
from pipeline.train.numerics import autocast
from pipeline.train.optimizer import freeze, groups, learning_rate, train_mode
from pipeline.train.run import Run
from pipeline.train.throughput import Meter

Line = dict[str, float | int | str]

SHARED_MEMORY, PATIENCE = Path("/dev/shm"), 50  # of loaders; seconds without a micro batch
WINDOWS = 10  # lines of the curve an epoch, each the mean over its steps


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its lines for the curve, their timings, and all that resuming after it needs."""

    number: int
    of: int
    lines: list[Line]  # functions of the run: kind, epoch, step, loss, lr
    timings: list[Line]  # one for each of `lines`: kind, epoch, step, and what differs from run to run
    state: dict[str, Any]  # model and optimizer state dicts, epoch; loads with weights_only=True


def epochs(
    run: Run, weights: Path | None, state: dict[str, Any] | None, device: torch.device, loaders: int = 0
) -> Iterator[Epoch]:
    """Trains a run, from `state` (an earlier Epoch's) or from the start; yields after each epoch.

    `weights` initialise the backbone; `loaders` processes prepare clips (0: this one). Where torch.distributed is
    initialised, every rank calls this with equal arguments but for the device.
    """
    recipe, rank, world = run.recipe, *rank_and_world()
    share = recipe.batch // recipe.micro_batch
    if world > share:
        raise UserError(
            f"cluster.workers is {world}, but a step of this recipe has {share} micro batches to share; "
            f"at most {share} workers, or a smaller recipes.{run.experiment.recipe}.micro_batch"
        )
    store = FrameStore(run.frames)
    items = [(name, labels) for each in recipe.train for name, labels in run.part(each) if name in store.videos]
    if recipe.loss == "softmax" and (many := next((name for name, labels in items if len(labels) != 1), None)):
        raise UserError(
            f"{run.experiment.dataset}: {many} has not one label, but recipes.{run.experiment.recipe}.loss softmax "
            "trains on single labels; videos of several take sigmoid"
        )

    torch.manual_seed(run.seed)
    net = run.net(weights)
    channels_last(net.to(device))
    freeze(net, recipe)
    wide = [m for m in net.modules() if isinstance(m, nn.Conv3d) and m.in_channels > 1 and m.kernel_size[0] > 1]
    if recipe.precision == "bf16" and device.type == "cpu" and wide:
        # On maps of two frames, oneDNN's bf16 gradients of such kernels hold memory that was never written.
        raise UserError(
            f"recipes.{run.experiment.recipe}.precision: bf16 gradients of 3D convolutions come out wrong on a CPU "
            "(torch 2.13); use fp32 there"
        )
    optimizer = torch.optim.SGD(
        groups(net, recipe), recipe.lr, recipe.momentum, dampening=recipe.dampening, nesterov=recipe.nesterov
    )
    begin = 0
    if state:
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = int(state["epoch"]) + 1
    parallel: nn.Module = net
    ordered = world > 1 and in_order(device)
    if ordered:
        reduction.share_first(net.state_dict().values())
    elif world > 1:
        devices = [device] if device.type == "cuda" else None
        parallel = DistributedDataParallel(net, device_ids=devices, forward_sync_buffers=False)

    own = [
        [(epoch, index) for index in micro]
        for epoch in range(begin, recipe.epochs)
        for step in loading.steps(len(items), recipe.batch, recipe.micro_batch, run.seed, epoch)
        for micro in step[rank::world]
    ]
    check_memory(recipe, loaders)
    loader = DataLoader(
        loading.TrainClips(store, items, recipe, run.seed, run.mirrored()),
        sampler=own,
        batch_size=None,  # a key is a micro batch already
        num_workers=loaders,
        pin_memory=device.type == "cuda",
        persistent_workers=loaders > 0,
        timeout=PATIENCE if loaders else 0,
    )
    pixels = torch.empty(recipe.micro_batch, recipe.frames, recipe.size, recipe.size, recipe.planes, device=device)
    worker = _Worker(run, net, parallel, ordered, optimizer, iter(loader), device, pixels, share, rank, world)
    steps = len(items) // recipe.batch
    window = max(1, steps // WINDOWS)
    for epoch in range(begin, recipe.epochs):
        train_mode(net, recipe)
        rate = learning_rate(recipe, epoch)
        meter = Meter(device)
        lines, timings = list[Line](), list[Line]()
        losses, fresh = list[float](), list[Tensor]()
        for step in range(steps):
            now = learning_rate(recipe, epoch, (step + 1) / steps)
            for group in optimizer.param_groups:
                group["lr"] = now * group["multiplier"]
            fresh.append(_step(worker, epoch, step, meter))
            meter.add(recipe.batch)
            if (step + 1) % window == 0 or step + 1 == steps:
                means = torch.stack(fresh).tolist()  # the one place that waits for the device
                place: Line = {"kind": "steps", "epoch": epoch, "step": step + 1}
                lines.append({**place, "loss": sum(means) / len(means)})
                timings.append({**place, **meter.window()})
                losses, fresh = [*losses, *means], []
        lines.append({"kind": "epoch", "epoch": epoch, "lr": rate, "loss": sum(losses) / len(losses)})
        timings.append({"kind": "epoch", "epoch": epoch, "world": world, **meter.total()})
        yield Epoch(
            epoch,
            recipe.epochs,
            lines,
            timings,
            {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch},
        )


def check_memory(recipe: Recipe, loaders: int) -> None:
    """UserError where the loaders' clips in flight don't fit in shared memory: they would be lost in silence."""
    if not loaders or not SHARED_MEMORY.is_dir():
        return
    clip = recipe.frames * recipe.size**2 * recipe.planes
    needed, free = (2 * loaders + 1) * recipe.micro_batch * clip, shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise UserError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB left, but {loaders} loaders keep {needed / 2**20:.0f} MiB of "
            "clips there; give it more (Docker: --shm-size=1g), or set cluster.loader_workers to 0"
        )


def loader_died(words: str) -> str:
    """The line for a loader's process that died or keeps silent, from torch's words."""
    free = f"{shutil.disk_usage(SHARED_MEMORY).free / 2**20:.0f} MiB" if SHARED_MEMORY.is_dir() else "nothing"
    return (
        f"a process that loads clips died or sent nothing for {PATIENCE} s ({' '.join(words.split())[:160]}); "
        f"{SHARED_MEMORY} has {free} left; set cluster.loader_workers lower, 0 for none"
    )


@dataclass(frozen=True)
class _Worker:
    """What stays the same over a run's steps, as one worker has it."""

    run: Run
    net: VideoNet
    parallel: nn.Module  # net, or DDP round it
    ordered: bool  # several workers, and what their micro batches give is added in one order
    optimizer: torch.optim.Optimizer
    loader: Iterator[tuple[Tensor, Tensor]]  # this worker's micro batches, all epochs one after another
    device: torch.device
    pixels: Tensor  # (N, T, H, W, C) float: the memory of every micro batch in turn, free again after its backward pass
    share: int  # micro batches of a step; those from `rank` on in steps of `world` are this worker's
    rank: int
    world: int


def _step(worker: _Worker, epoch: int, step: int, meter: Meter) -> Tensor:
    """One optimizer step over this worker's micro batches; the mean loss of the whole step's, over all workers."""
    # Running means and variances, and the count of batches; VGG has none.
    statistics = [b for name, b in worker.net.named_buffers() if "running_" in name or "num_batches_tracked" in name]
    worker.optimizer.zero_grad(set_to_none=True)
    losses = _micros(worker, epoch, step, meter, statistics)
    if worker.ordered:
        place = worker.rank, worker.world, worker.share
        loss, *summed = reduction.summed_in_order(worker.net, losses, statistics, *place)
    else:
        loss, *summed = reduction.summed(losses, statistics, worker.world)  # of gradients DDP takes care
    # The step's update of the running statistics is the mean of its micro batches' updates.
    if statistics:
        torch._foreach_copy_(statistics, torch._foreach_div(summed, worker.share))
    if worker.run.recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(worker.net.parameters(), worker.run.recipe.clip_grad)
    worker.optimizer.step()
    return loss / worker.share


def _micros(worker: _Worker, epoch: int, step: int, meter: Meter, statistics: list[Tensor]) -> Iterator[Tensor]:
    """The losses of this worker's micro batches; each of them finds the statistics as they were before the step."""
    before = [buffer.clone() for buffer in statistics]
    for micro in range(worker.rank, worker.share, worker.world):
        if statistics:
            torch._foreach_copy_(statistics, before)
        yield micro_step(worker, epoch, step, micro, meter)


def micro_step(worker: _Worker, epoch: int, step: int, micro: int, meter: Meter) -> Tensor:
    """Return a micro batch's loss, and add its gradients to those of the step."""
    recipe, net = worker.run.recipe, worker.net
    with meter.waiting():
        try:
            batch, labels = next(worker.loader)
        except RuntimeError as error:  # torch's, where a loader's process died or keeps silent
            if "DataLoader" not in str(error):
                raise
            raise UserError(loader_died(str(error))) from None
    # (N, T, H, W, C) uint8 -> (N, T, C, H, W) float
    x = loading.normalise(batch.to(worker.device, non_blocking=True), net.mean, net.std, net.channels, worker.pixels)
    # (N,) classes, or (N, K) of 0 and 1 for sigmoid; mixing makes it (N, K) shares
    target = labels.to(worker.device, non_blocking=True)
    # Dropout and mixing draw from the micro batch's place in the run, whichever worker does it.
    seed = loading.seed_of(worker.run.seed, epoch, step, micro)
    torch.manual_seed(seed)
    if recipe.augment.mixup:
        x, target = loading.mixup(x, target, net.head.out_features, recipe.augment.mixup, seed)

    def criterion(scores: Tensor) -> Tensor:
        return loss_of(recipe, scores.float(), target)

    exchanging = worker.parallel is not net
    hold = exchanging and micro + worker.world < worker.share  # DDP exchanges gradients once a step
    with worker.parallel.no_sync() if hold else contextlib.nullcontext():  # type: ignore[operator]
        with autocast(recipe, worker.device):
            try:
                logits = worker.parallel(x)  # (N, K)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise UserError(
                    f"recipes.{worker.run.experiment.recipe}: this net has a norm over maps of one value at size "
                    f"{recipe.size}, which needs a micro_batch of 2 at least, not {len(x)}; raise micro_batch or size"
                ) from None
        loss = criterion(logits) + net.penalty(criterion)
        # A step's gradient is the mean over its micro batches; DDP divides by the number of workers.
        (loss * ((worker.world if exchanging else 1) / worker.share)).backward()
    return loss.detach()


def in_order(device: torch.device) -> bool:
    """Whether workers on such devices add their gradients in one order, and not as DDP does."""
    return device.type == "cpu"


def loss_of(recipe: Recipe, scores: Tensor, target: Tensor) -> Tensor:
    """The recipe's loss of scores (N, K), a scalar.

    softmax: cross entropy, the mean over clips; target is (N,) classes or (N, K) shares. sigmoid: binary cross
    entropy, the mean over clips and classes; target is (N, K), 1 where the clip has the class, all 0 where it has
    none, and anything between after mixup. Smoothing by s leaves 1 - s of the target: the rest goes evenly to the K
    classes of a softmax (Szegedy et al. 2016, section 7), and to the two answers to each class's own question here.
    """
    smoothing = recipe.label_smoothing
    if recipe.loss == "softmax":
        return F.cross_entropy(scores, target, label_smoothing=smoothing)
    return F.binary_cross_entropy_with_logits(scores, target * (1 - smoothing) + smoothing / 2)


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) if nothing is distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
