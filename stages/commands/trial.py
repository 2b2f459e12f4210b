"""One row's net on trial: forward passes and training steps of noise, how long they take and what memory they hold."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Experiment, Protocol, Recipe

if TYPE_CHECKING:
    import torch

NAMES = ("forward", "training", "latency")


@dataclass(frozen=True)
class Row:
    """What decides a row's speed."""

    name: str
    experiment: Experiment
    recipe: Recipe
    protocol: Protocol
    classes: int

    def clips(self, turn: str) -> tuple[int, int, int]:
        """Clips, frames and pixels of what is fed in one of NAMES."""
        recipe, protocol = self.recipe, self.protocol
        if turn == "training":
            return recipe.micro_batch, recipe.frames, recipe.size
        return protocol.batch if turn == "forward" else 1, protocol.frames or recipe.frames, protocol.size


def passes(row: Row, device: "torch.device") -> dict[str, Callable[[], Any]]:
    """NAMES -> what does one such pass."""
    import torch
    import torch.nn.functional as F

    from models import memory_format, video
    from pipeline.train import numerics, optimizer

    given, recipe = row.experiment, row.recipe
    net = video.build(
        *(given.backbone, given.variant, given.attention, recipe.frames, row.classes, recipe.dropout),
        knobs=given.knobs,
        planes=recipe.planes,
    )
    net.retime(row.clips("forward")[1])  # says at once if it can't be
    memory_format.channels_last(net.to(device))
    optimizer.freeze(net, recipe)
    sgd = torch.optim.SGD(optimizer.groups(net, recipe), lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov)
    for group in sgd.param_groups:
        group["lr"] = 0.0  # noise is not to lead to infinities, where arithmetic is slower
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
        sgd.zero_grad(set_to_none=True)  # not to be held while other rows have their turn

    return {"forward": lambda: forward("forward"), "training": step, "latency": lambda: forward("latency")}


def timed(do: Callable[[], Any], device: "torch.device") -> float:
    """Seconds that it takes, to its end on a GPU."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    do()
    wait()
    return time.perf_counter() - began


def memory(row: Row, device: "torch.device") -> tuple[int, int]:
    """Measured.forward_bytes and training_bytes of a net built for this alone; on a CPU, of a process that does."""
    import torch

    before = torch.cuda.memory_allocated() if device.type == "cuda" else resident()
    actor, found = passes(row, device), []
    for name in ("forward", "training"):  # in this order: the second's is never less
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        actor[name]()
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")
        found.append(peak - before)
    return found[0], found[1]


def resident(field: str = "VmRSS") -> int:
    """Bytes of RAM that this process holds ("VmRSS"), or held at most ("VmHWM"); Linux says so."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0
