"""SE: squeeze-and-excitation, channels reweighted from their averages.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks" (CVPR 2018), equations 2 to 4 and figure 3: a global average, two
fully connected layers with reduction r = 16, a sigmoid. It is on the residual branch of every block, after its last
norm and before the addition.

- The layers have no bias, as in the ports that the video papers compare with; the paper leaves it open.
- placement "stage": after the last block of each stage, where EAM's paper compares with it (table 4).
- On a backbone that takes volumes the average is over T, H and W; on one that takes frames, frame by frame.
"""

import torch
from torch import Tensor, nn

from models.backbone import Backbone, check_least, place


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a weight in (0, 1): (B, C, ...) -> the same shape."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.expand = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(2).mean(2)  # (B, C)
        weight = torch.sigmoid(self.expand(torch.relu(self.squeeze(pooled))))
        return x * weight.reshape(*pooled.shape, *[1] * (x.ndim - 2))


def attach(net: Backbone, frames: int, *, reduction: int = 16, placement: str = "block") -> Backbone:
    """Add SE at the exit of every residual block, or after each stage.

    Raises:
        ValueError: The reduction is below 1, or the placement is neither "block" nor "stage".
    """
    check_least("se", reduction=reduction)
    place(net, "se", placement, lambda channels: SqueezeExcitation(channels, reduction))
    return net
