"""The training loop: a generator of epochs that knows neither its launcher nor where its state is kept.

Legend: N clips of a micro batch, T frames, H, W pixels, K classes.

A step's clips are `recipe.batch`, cut into micro batches of `recipe.micro_batch`. Gradients are means over the step, and
every micro batch is normalised by its own statistics, so the result depends on how many workers share a step's micro
batches only through the order of float additions. Workers are found through torch.distributed.
"""

import contextlib
import itertools
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from models import video
from pipeline import clips
from pipeline.cells import Cell, classes, part
from pipeline.errors import UserError
from pipeline.frames import FrameStore
from pipeline.params import Recipe

WINDOWS = 10  # log lines an epoch, each the mean over its steps


@dataclass(frozen=True)
class Epoch:
    """One epoch done: its log lines, and all that is needed to go on from here."""

    number: int
    of: int
    lines: list[dict[str, float | int | str]]
    state: dict[str, Any]  # model and optimizer state dicts, epoch; loads with weights_only=True


def epochs(
    cell: Cell, weights: Path | None, state: dict[str, Any] | None, device: torch.device, loaders: int = 0
) -> Iterator[Epoch]:
    """Trains a cell, from `state` (an earlier Epoch's) or from the start; yields after each epoch.

    `weights` initialise the backbone; `loaders` processes prepare clips (0: this one). Where torch.distributed is
    initialised, every rank calls this with equal arguments but for the device.
    """
    recipe, rank, world = cell.recipe, *_place()
    share = recipe.batch // recipe.micro_batch
    if world > share:
        raise UserError(
            f"cluster.workers is {world}, but a step of this recipe has {share} micro batches to share; "
            f"at most {share} workers, or a smaller recipes.{cell.experiment.recipe}.micro_batch"
        )
    store = FrameStore(cell.frames)
    items = [(name, labels) for name, labels in part(cell, "train") if name in store.videos]
    if many := next((name for name, labels in items if len(labels) != 1), None):
        raise UserError(f"{cell.experiment.dataset}: {many} has not one label; this recipe trains on single labels")

    torch.manual_seed(cell.seed)
    experiment, names = cell.experiment, classes(cell)
    net = video.build(
        experiment.backbone,
        experiment.variant,
        experiment.attention,
        frames=recipe.frames,
        classes=len(names),
        dropout=recipe.dropout,
        knobs=dict(experiment.knobs),
        weights=weights,
    )
    channels_last(net.to(device))
    freeze(net, recipe)
    optimizer = torch.optim.SGD(groups(net, recipe), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    begin = 0
    if state:
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begin = int(state["epoch"]) + 1
    parallel: nn.Module = net
    if world > 1:
        parallel = DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False)

    own = [
        [(epoch, index) for index in micro]
        for epoch in range(begin, recipe.epochs)
        for step in clips.steps(len(items), recipe.batch, recipe.micro_batch, cell.seed, epoch)
        for micro in step[rank::world]
    ]
    loader = iter(
        DataLoader(
            clips.TrainClips(store, items, recipe, cell.seed),
            batch_sampler=own,
            num_workers=loaders,
            pin_memory=device.type == "cuda",
            persistent_workers=loaders > 0,
        )
    )
    steps = len(items) // recipe.batch
    window = max(1, steps // WINDOWS)
    for epoch in range(begin, recipe.epochs):
        train_mode(net, recipe)
        rate = learning_rate(recipe, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        meter, lines = _Meter(device), []
        for step in range(steps):
            micros = list(range(share))[rank::world]
            losses = _step(cell, parallel, net, optimizer, loader, epoch, step, micros, share, world, device, meter)
            meter.add(losses, recipe.batch)
            if (step + 1) % window == 0 or step + 1 == steps:
                lines.append({"kind": "steps", "epoch": epoch, "step": step + 1, **meter.window()})
        lines.append({"kind": "epoch", "epoch": epoch, "lr": rate, **meter.total()})
        yield Epoch(
            epoch,
            recipe.epochs,
            lines,
            {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch},
        )


def _step(
    cell: Cell,
    parallel: nn.Module,
    net: video.VideoNet,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[tuple[Tensor, Tensor]],
    epoch: int,
    step: int,
    micros: list[int],
    share: int,
    world: int,
    device: torch.device,
    meter: "_Meter",
) -> Tensor:
    """One optimizer step over this worker's micro batches; the mean loss of the whole step's, over all workers."""
    recipe = cell.recipe
    statistics = [buffer for name, buffer in net.named_buffers() if "running_" in name]
    before = [buffer.clone() for buffer in statistics]
    summed = [torch.zeros_like(buffer) for buffer in statistics]
    loss_sum = torch.zeros((), device=device)
    optimizer.zero_grad(set_to_none=True)
    for place, micro in enumerate(micros):
        with meter.waiting():
            batch, labels = next(loader)
        # N,T,H,W,3 uint8 -> N,T,C,H,W float
        x = clips.normalise(batch.to(device, non_blocking=True), net.mean, net.std, net.channels)
        target = labels.to(device, non_blocking=True)
        # Dropout and mixing draw from the micro batch's place in the run, whichever worker does it.
        seed = clips.seed_of(cell.seed, epoch, step, micro)
        torch.manual_seed(seed)
        mixed = clips.mixup(x, target, net.head.out_features, recipe.augment.mixup, seed) if recipe.augment.mixup else None
        if share > 1:
            torch._foreach_copy_(statistics, before)
        last = place == len(micros) - 1
        quiet = contextlib.nullcontext() if last or world == 1 else parallel.no_sync()  # type: ignore[operator]
        with quiet, autocast(recipe, device):
            logits = parallel(mixed[0] if mixed else x)  # N,K
            wanted = mixed[1] if mixed else target
            loss = F.cross_entropy(logits.float(), wanted, label_smoothing=recipe.label_smoothing) + net.penalty()
            # DDP divides by the number of workers; a step's gradient is the mean over its micro batches.
            (loss * (world / share)).backward()
        loss_sum += loss.detach()
        torch._foreach_add_(summed, statistics)
    if world > 1:
        flat = torch.cat([loss_sum.reshape(1), *(total.flatten() for total in summed)])
        dist.all_reduce(flat)
        loss_sum = flat[0]
        rest = flat[1:].split([total.numel() for total in summed])
        summed = [part.reshape(total.shape) for part, total in zip(rest, summed, strict=True)]
    if share > 1:
        # The step's update of the running statistics is the mean of its micro batches' updates.
        torch._foreach_copy_(statistics, torch._foreach_div(summed, share))
    if recipe.clip_grad is not None:
        nn.utils.clip_grad_norm_(net.parameters(), recipe.clip_grad)
    optimizer.step()
    return loss_sum / share


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate of an epoch: linear warm-up to recipe.lr, then recipe.factor at each of recipe.steps passed."""
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1) / recipe.warmup_epochs
    return recipe.lr * recipe.factor ** sum(epoch >= at for at in recipe.steps)


def groups(net: video.VideoNet, recipe: Recipe) -> list[dict[str, Any]]:
    """Optimizer groups of the parameters that train, by the first of recipe.groups whose kind is theirs."""
    rules = {}
    for group in recipe.groups:
        rules.setdefault(group.kind, (group.lr, group.decay))
    gathered: dict[tuple[float, float], list[nn.Parameter]] = {}
    for kind, parameter in kinds(net):
        if parameter.requires_grad:
            gathered.setdefault(rules.get(kind, (1.0, 1.0)), []).append(parameter)
    return [
        {"params": members, "lr": recipe.lr * lr, "multiplier": lr, "weight_decay": recipe.weight_decay * decay}
        for (lr, decay), members in sorted(gathered.items(), key=lambda item: item[0])
    ]


def kinds(net: video.VideoNet) -> Iterator[tuple[str, nn.Parameter]]:
    """(kind, parameter) in a fixed order; kinds are those of params.Group."""
    norms = {id(p) for m in net.modules() if isinstance(m, _BatchNorm | nn.GroupNorm | nn.LayerNorm) for p in m.parameters(False)}
    for name, parameter in net.named_parameters():
        if name in ("head.weight", "head.bias"):
            yield name, parameter
        elif id(parameter) in norms:
            yield "norm", parameter
        elif name in net.attention_parameters:
            yield "attention", parameter
        else:
            yield ("bias" if name.endswith("bias") else "weight"), parameter


def freeze(net: video.VideoNet, recipe: Recipe) -> None:
    """Parameters of recipe.frozen stages stay as loaded; attention modules inside them train.

    Raises UserError for a stage that the backbone hasn't.
    """
    for stage in recipe.frozen:
        if stage not in net.backbone.stages:
            raise UserError(f"recipe freezes {stage!r}; the backbone's stages: {', '.join(net.backbone.stages)}")
        for module in net.backbone.stage_modules(stage):
            module.requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name in net.attention_parameters:
            parameter.requires_grad_(True)


def train_mode(net: video.VideoNet, recipe: Recipe) -> None:
    """Training mode, but for the batch norm of frozen stages and, under partial batch norm, of all but the first."""
    net.train()
    for stage in recipe.frozen:
        for root in net.backbone.stage_modules(stage):
            for module in root.modules():
                if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
                    module.eval()
    if recipe.partial_bn:
        norms = [module for module in net.backbone.modules() if isinstance(module, _BatchNorm)]
        for module in norms[1:]:
            module.eval()


def channels_last(net: nn.Module) -> None:
    """Convolution weights in the memory order that CPUs' and GPUs' fast kernels read."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in net.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager:
    """The recipe's precision on this device; "auto" is bf16 on a GPU that has it, else fp32."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and able)
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def _place() -> tuple[int, int]:
    """(rank, world size); (0, 1) where nothing is distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Meter:
    """Loss, throughput, share of time spent waiting for clips, and peak memory, of a window and of an epoch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.losses: list[Tensor] = []
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()
        self.done: list[tuple[list[float], int, float, float]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin

    def add(self, loss: Tensor, clips_done: int) -> None:
        self.losses.append(loss)
        self.clips += clips_done

    def window(self) -> dict[str, float]:
        losses = torch.stack(self.losses).tolist()  # the one place that waits for the device
        seconds = time.perf_counter() - self.began
        self.done.append((losses, self.clips, seconds, self.waited))
        self.losses, self.clips, self.waited, self.began = [], 0, 0.0, time.perf_counter()
        return self._means([self.done[-1]])

    def total(self) -> dict[str, float]:
        return self._means(self.done)

    def _means(self, windows: list[tuple[list[float], int, float, float]]) -> dict[str, float]:
        losses = list(itertools.chain.from_iterable(window[0] for window in windows))
        seconds = sum(window[2] for window in windows)
        cuda = self.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(self.device) if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "loss": sum(losses) / len(losses),
            "seconds": round(seconds, 3),
            "clips_per_second": round(sum(window[1] for window in windows) / seconds, 2),
            "data_wait": round(sum(window[3] for window in windows) / seconds, 4),
            "memory_mb": round(memory / 2**20, 1),
        }
