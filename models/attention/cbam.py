"""CBAM: a channel gate from averages and maxima, then a spatial gate.

Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module" (ECCV 2018), section 3, equations 1 to 3: a
shared perceptron with reduction r = 16 over the pooled channels, then a 7x7 convolution over the maximum and the
average of the channels. It is on the residual branch of every block, after its last norm and before the addition.

- As in the authors' code (github.com/Jongchan/attention-module), the perceptron has biases. A batch norm with momentum
  0.01 follows the 7x7 convolution, which has no bias.
- placement "stage": after the last block of each stage, where EAM's paper compares with it (table 4).
- On a backbone that takes volumes, the channel gate pools T, H and W. The spatial gate is one map for all frames, from
  maximum and average over C and T. The FLOPs of EAM's table 4 rule out the other 3D versions: a 7x7x7 gate, or one map
  per frame. On a backbone that takes frames, both gates work frame by frame.
"""

import torch
from torch import Tensor, nn

from models.backbone import Backbone, check_least, place


class ChannelGate(nn.Module):
    """Weights in (0, 1) of channels: (B, C, ...) -> (B, C)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return torch.sigmoid(self.mlp(flat.mean(2)) + self.mlp(flat.amax(2)))


class SpatialGate(nn.Module):
    """Weights in (0, 1) of positions: (B, C, H, W), (B, C, T, H, W) -> (B, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        pooled = tuple(range(1, x.ndim - 2))  # C, or C and T
        return torch.sigmoid(self.norm(self.conv(torch.stack([x.amax(pooled), x.mean(pooled)], dim=1))))


class Cbam(nn.Module):
    """Multiply by the channel weights, then by the spatial weights.

    (B, C, H, W) or (B, C, T, H, W) -> the same shape.
    """

    def __init__(self, channels: int, reduction: int = 16, spatial: bool = True) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate() if spatial else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.channel(x)
        x = x * weight.reshape(*weight.shape, *[1] * (x.ndim - 2))
        if self.spatial is None:
            return x
        places = self.spatial(x)  # (B, 1, H, W)
        return x * (places if x.ndim == 4 else places.unsqueeze(2))


def attach(
    net: Backbone, frames: int, *, reduction: int = 16, spatial: bool = True, placement: str = "block"
) -> Backbone:
    """Add CBAM at the exit of every residual block, or after each stage.

    Args:
        net: any backbone.
        frames: T; not used.
        reduction: of the channel gate's perceptron.
        spatial: use the spatial gate.
        placement: "block" or "stage".

    Raises:
        ValueError: The reduction is below 1, or the placement is unknown.
    """
    check_least("cbam", reduction=reduction)
    place(net, "cbam", placement, lambda channels: Cbam(channels, reduction, spatial))
    return net
