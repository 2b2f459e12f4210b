"""Small image networks and their weight files."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models import video
from models.backbones import resnet


def build(attention: str = "none", classes: int = 5, weights: Path | None = None, **knobs) -> video.VideoNet:
    return video.build("resnet", "tiny", attention, frames=4, classes=classes, knobs=knobs, weights=weights)


def image_net(classes: int = 5) -> dict[str, Tensor]:
    """Return a state dict with torchvision's names: the backbone's and fc."""
    torch.manual_seed(7)
    net = resnet.build("tiny")
    fc = nn.Linear(net.features, classes)
    return {**net.state_dict(), "fc.weight": fc.weight.detach(), "fc.bias": fc.bias.detach()}
