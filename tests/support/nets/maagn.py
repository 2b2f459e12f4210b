"""Small MAAGN networks."""

import torch
from torch import nn

from models import video


def tiny(backbone: str = "resnet", frames: int = 8, **knobs) -> video.VideoNet:
    torch.manual_seed(0)
    return video.build(backbone, "tiny", "maagn", frames, classes=5, knobs=knobs)


def modules(net: video.VideoNet) -> list[nn.Module]:
    return list(net.backbone.neck.pyramid.attention)
