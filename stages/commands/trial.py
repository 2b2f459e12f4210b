"""Forward passes and training steps of a row's net on noise: time and memory."""

import itertools
import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Experiment, Params, Protocol, Recipe

if TYPE_CHECKING:
    import torch

Penalty = Callable[["Callable[[torch.Tensor], torch.Tensor]"], "torch.Tensor"]
NAMES = ("forward", "training", "latency")


@dataclass(frozen=True)
class Row:
    """Everything that determines a row's speed."""

    name: str
    experiment: Experiment
    recipe: Recipe
    protocol: Protocol
    classes: int

    def clips(self, turn: str) -> tuple[int, int, int]:
        """Return clips, frames and pixels of the input of one of NAMES."""
        recipe, protocol = self.recipe, self.protocol
        if turn == "training":
            return recipe.micro_batch, recipe.frames, recipe.size
        return protocol.batch if turn == "forward" else 1, protocol.frames or recipe.frames, protocol.size


def row_of(params: Params, name: str, data: Path) -> Row:
    """Return a row of params, with 100 classes if their number is unknown."""
    from stages.commands.catalogue import class_count

    experiment = params.experiments[name]
    classes = class_count(params.datasets[experiment.dataset], data / "splits" / experiment.dataset) or 100
    return Row(name, experiment, params.recipe(experiment), params.protocols[experiment.protocol], classes)


def passes(row: Row, device: "torch.device") -> dict[str, Callable[[], Any]]:
    """Return NAMES -> a function that runs such a pass."""
    import torch
    import torch.nn.functional as F

    from models import memory_format, video
    from pipeline.train import numerics, optimizer

    experiment, recipe = row.experiment, row.recipe
    net = video.build(
        *(experiment.backbone, experiment.variant, experiment.attention, recipe.frames, row.classes, recipe.dropout),
        knobs=experiment.knobs,
        planes=recipe.planes,
    )
    net.retime(row.clips("forward")[1])  # an error is early
    memory_format.channels_last(net.to(device))
    optimizer.freeze(net, recipe)
    sgd = torch.optim.SGD(optimizer.groups(net, recipe), lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov)
    for group in sgd.param_groups:
        group["lr"] = 0.0  # avoids infinities, which are slow
    batches = {}
    for name in NAMES:
        n, t, size = row.clips(name)
        batches[name] = torch.randn(n, t, size, size, recipe.planes, device=device).permute(0, 1, 4, 2, 3)
    labels = torch.zeros(len(batches["training"]), dtype=torch.long, device=device)

    def criterion(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)

    def forward(name: str) -> None:
        net.eval()
        net.retime(row.clips(name)[1])
        with torch.inference_mode(), numerics.autocast(recipe, device):
            net(batches[name])

    def step() -> None:
        optimizer.train_mode(net, recipe)
        net.retime(recipe.frames)
        sgd.zero_grad(set_to_none=True)
        with numerics.autocast(recipe, device):
            logits = net(batches["training"])
        (criterion(logits) + net.penalty(criterion)).backward()
        sgd.step()
        sgd.zero_grad(set_to_none=True)  # frees memory for other rows

    return {"forward": lambda: forward("forward"), "training": step, "latency": lambda: forward("latency")}


def timed(do: Callable[[], Any], device: "torch.device") -> float:
    """Return the seconds of a call, to its end on a GPU."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    do()
    wait()
    return time.perf_counter() - began


def memory(row: Row, device: "torch.device") -> tuple[int, int]:
    """Return Measured.forward_bytes and training_bytes of a new net.

    On a CPU, this process must do nothing else.
    """
    import torch

    before = torch.cuda.memory_allocated() if device.type == "cuda" else resident()
    actor, peaks = passes(row, device), []
    for name in ("forward", "training"):  # in this order, because the second needs more
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        actor[name]()
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")
        peaks.append(peak - before)
    return peaks[0], peaks[1]


def resident(field: str = "VmRSS") -> int:
    """Return the bytes of RAM of this process ("VmRSS") or their peak ("VmHWM")."""
    match = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(match[1]) if match else 0


@dataclass(frozen=True)
class Rehearsal:
    """Results of some training steps of a row and of one evaluation batch.

    Attributes:
        losses, norms: Of each training step on one repeated batch, before it; empty for a row without training.
        memory: Peak bytes with the net: of the GPU, or of RAM beyond that of the process before.
        clips_per_second: In training, without the first step; views_per_second: in evaluation. 0.0 is unknown.
        error: The reason that the row would fail, or "".
    """

    device: str = ""
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    memory: int = 0
    clips_per_second: float = 0.0
    views_per_second: float = 0.0
    error: str = ""


def rehearsal(row: Row, weights: Path | None, steps: int, clips: int | None, threads: int) -> Rehearsal:
    """Train a row's net on one repeated batch of noise, and evaluate a batch."""
    import torch

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    )
    before = 0 if device.type == "cuda" else resident()
    try:
        trial = _rehearsed(row, weights, steps, clips, device)
    except Exception as error:  # whatever it is, the other rows are rehearsed
        words = " ".join(str(error).partition("\n")[0].split()) or type(error).__name__
        return Rehearsal(name, error=words[:300])
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")
    return replace(trial, device=name, memory=peak - before)


def _rehearsed(row: Row, weights: Path | None, steps: int, clips: int | None, device: "torch.device") -> Rehearsal:
    import torch

    from models import memory_format
    from pipeline.train import numerics, optimizer
    from pipeline.train.run import Run
    from pipeline.train.step import Worker, step
    from pipeline.train.throughput import Meter

    recipe, protocol = row.recipe, row.protocol
    micro = min(recipe.micro_batch, clips or recipe.micro_batch)
    batch = recipe.batch if clips is None else min(clips, recipe.batch) // micro * micro
    recipe = replace(recipe, batch=batch, micro_batch=micro, lr=recipe.lr * batch / recipe.batch)
    run = Run(row.name, row.experiment, recipe, protocol, 1, 0, Path())
    torch.manual_seed(0)
    net = run.net(weights, row.classes)
    net.retime(run.test_frames)  # an error is early
    net.retime(recipe.frames)
    memory_format.channels_last(net.to(device))
    measured, seconds, penalties = list[list[float]](), list[float](), list[float]()
    if row.experiment.recipe:
        optimizer.freeze(net, recipe)
        shape = micro, recipe.frames, recipe.size, recipe.size, recipe.planes
        noise = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(batch // micro)]
        labels = [_labels(recipe, micro, row.classes) for _ in noise]
        pixels = torch.empty(shape, device=device)
        loader = itertools.cycle(zip(noise, labels, strict=True))
        worker = Worker(run, net, net, False, optimizer.sgd(net, recipe), loader, device, pixels, batch // micro, 0, 1)
        optimizer.train_mode(net, recipe)
        net.penalty = _recorded(net.penalty, penalties)  # type: ignore[assignment,method-assign]
        for _ in range(steps):  # always the first step's place in the run, so that dropout and mixing are the same
            seconds.append(timed(lambda: measured.append(step(worker, 0, 0, Meter(device)).tolist()), device))
            if not all(map(math.isfinite, measured[-1])):
                raise ValueError(f"step {len(measured)}: loss {measured[-1][0]:g}, gradient norm {measured[-1][1]:g}")
    losses, norms = ([values[at] for values in measured] for at in (0, 1))
    if steps > 1 and losses and losses[-1] >= losses[0]:
        # ISTPA's own losses have no lower bound, and follow the size of the maps.
        first, *_, last = classification(losses, penalties)
        if last >= first:
            raise ValueError(f"its loss doesn't fall on a repeated batch: {losses[0]:g} to {losses[-1]:g}")
    views = min(protocol.batch, clips or protocol.batch)
    x = torch.randn(views, run.test_frames, protocol.size, protocol.size, recipe.planes, device=device)
    x, scores = x.permute(0, 1, 4, 2, 3), list[torch.Tensor]()
    net.eval().retime(run.test_frames)
    with torch.inference_mode(), numerics.autocast(recipe, device):
        taken = timed(lambda: scores.append(net(x)), device)
    if not bool(scores[0].isfinite().all()):
        raise ValueError("its logits aren't finite in evaluation")
    rest = seconds[1:] or seconds
    rate = batch * len(rest) / sum(rest) if rest else 0.0
    return Rehearsal("", tuple(losses), tuple(norms), 0, rate, views / taken)


def classification(losses: Sequence[float], penalties: Sequence[float]) -> list[float]:
    """Return each step's loss without the penalties, of which every micro batch has one."""
    each = len(penalties) // len(losses)
    return [loss - statistics.fmean(penalties[at * each : (at + 1) * each]) for at, loss in enumerate(losses)]


def _recorded(penalty: Penalty, values: list[float]) -> Penalty:
    """Return the penalty of a net such that each result is appended to `values`."""

    def recorded(criterion: "Callable[[torch.Tensor], torch.Tensor]") -> "torch.Tensor":
        result = penalty(criterion)
        values.append(float(result.detach()))
        return result

    return recorded


def _labels(recipe: Recipe, clips: int, classes: int) -> "torch.Tensor":
    """Draw labels of a micro batch: (N,) classes, or (N, K) of 0 and 1."""
    import torch

    if recipe.loss == "softmax":
        return torch.randint(0, classes, (clips,))
    return torch.randint(0, 2, (clips, classes)).float()
