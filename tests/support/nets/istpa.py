"""Small ISTPA networks, and the layer in numpy."""

import math

import torch
from torch import Tensor, nn

from models import video
from models.layers.pyramid import InteractionPyramid


def build(backbone: str = "resnet", frames: int = 3, seed: int = 0, **knobs) -> video.VideoNet:
    """Build the tiny variant with ISTPA and a head whose logits are far from zero."""
    torch.manual_seed(seed)
    net = video.build(backbone, "tiny", "istpa", frames, classes=5, knobs={"positions": 2} | knobs)
    nn.init.normal_(net.head.weight)
    return net


def clips(n: int = 2, t: int = 3, side: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(n, t, 3, side, side, generator=torch.Generator().manual_seed(seed))


def attended(net: video.VideoNet) -> list[Tensor]:
    """Return a list that collects A of every later forward pass."""
    seen: list[Tensor] = []
    net.backbone.neck.attention.register_forward_hook(lambda m, scores, out: seen.append(out.detach()))
    return seen


def run(neck: InteractionPyramid, maps: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the scores, A and M of a neck on maps (N, K, C, H, W) of its stages."""
    caught: list = []
    hook = neck.attention.register_forward_hook(lambda m, inputs, out: caught.extend((inputs[0], out)))
    seen: dict[str, Tensor] = {}
    for stage, x in maps.items():
        merged = neck(stage, x.flatten(0, 1), seen)
    hook.remove()
    return *caught, merged


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]
