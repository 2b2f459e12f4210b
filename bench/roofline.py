"""The minimum time of a net's pass on a device, by its highest measured rates.

See bench/models.py.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from models import paper_flops
from models.video import VideoNet
from stages.commands.trial import timed


def least(work: list[tuple[int, int]], passed: str, version: str, device: torch.device) -> float:
    """Return the minimum milliseconds of a pass over layers of such work."""
    dtype = torch.bfloat16 if "bf16" in version else torch.float32
    arithmetic, copies = ceilings(dtype, device)
    maps = dtype.itemsize / copies
    seconds = sum(max(2 * macs / arithmetic, elements * maps) for macs, elements in work)
    return 1000 * seconds * (3 if passed == "training" else 1)


def layers(net: VideoNet, clips_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return each layer's multiply-accumulates, and elements read and written."""
    return [(layer.macs, layer.inputs + layer.outputs) for layer in paper_flops.layers(net, clips_shape)]


@cache
def ceilings(dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Return the highest measured operations/s, and bytes/s of a copy.

    Bytes are read and written.
    """
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    works: list[tuple[float, Callable[[], Any]]] = [(2 * size**3, partial(torch.mm, a, b))]
    for channels, side in ((64, 56), (256, 28)):
        x = torch.randn(32, channels, side, side, device=device, dtype=dtype)
        conv = nn.Conv2d(channels, channels, 3, padding=1, device=device, dtype=dtype)
        work = 2 * x.numel() * channels * 9
        last = torch.channels_last
        works.append((work, partial(conv.to(memory_format=last), x.contiguous(memory_format=last))))
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        fastest = max(work / min(timed(do, device) for _ in range(10)) for work, do in works)
        copied = min(timed(partial(target.copy_, source), device) for _ in range(10))
    return fastest, 2 * source.nbytes / copied
