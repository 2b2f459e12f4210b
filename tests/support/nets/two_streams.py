"""Small two-stream networks."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import video
from tests.support.nets.pairs import smallest

PLANES = 3 + 2 * 2


def build(
    backbone: str, streams: str, frames: int = 3, seed: int = 0, weights: Path | None = None, **knobs: Any
) -> video.VideoNet:
    """Build a tiny network whose norms and head are far from their initial values."""
    torch.manual_seed(seed)
    net = video.build(
        *(backbone, smallest(backbone), "istpa", frames),
        classes=5,
        knobs={"positions": 2, "streams": streams} | knobs,
        weights=weights,
        planes=PLANES,
    )
    if weights is None:
        nn.init.normal_(net.head.weight)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            elif isinstance(module, nn.Dropout):
                module.p = 0.0
    return net


def clips(n: int = 2, t: int = 3, h: int = 64, w: int = 64, seed: int = 1) -> Tensor:
    """Return standard normal clips in a loader's memory order."""
    return torch.randn(n, t, h, w, PLANES, generator=torch.Generator().manual_seed(seed)).permute(0, 1, 4, 2, 3)
