"""Small networks with the modules that papers compare with."""

import math

import torch
from torch import nn

from models import video


def made(backbone: str, variant: str, attention: str, frames: int, classes: int, **knobs: object) -> video.VideoNet:
    """Build a network on the meta device."""
    with torch.device("meta"):
        return video.build(backbone, variant, attention, frames, classes, knobs=knobs)


def scrambled(module: nn.Module) -> nn.Module:
    """Return the module in double precision and evaluation mode, with no value at its initial value."""
    module = module.double().eval()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in name else torch.randn_like(value) / 2)
    return module


def normed(norm: nn.Module, x: float, channel: int) -> float:
    """Return a batch norm's output for one value in evaluation."""
    scale = norm.weight[channel] / math.sqrt(norm.running_var[channel] + norm.eps)
    return ((x - norm.running_mean[channel]) * scale + norm.bias[channel]).item()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
