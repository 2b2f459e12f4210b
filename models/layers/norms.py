"""Norms that torch lacks: a batch norm without a scale."""

import torch
from torch import nn


class Unscaled(nn.BatchNorm2d):
    """Batch norm that shifts and does not scale: (B, C, H, W) -> the same shape.

    Its weight is 1 and no parameter.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)
