"""ECA: channels reweighted by one convolution over their averages.

Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks" (CVPR 2020), section 3.2: a
global average, a convolution with kernel k over the channels without reduction, a sigmoid. It is on the residual branch
of every block, after its last norm and before the addition.

- `k` is the same for every width, 3; the paper's rule gives 5 for 128 to 1024 channels and 7 for 2048.
- placement "stage": after the last block of each stage, where EAM's paper compares with it (table 4).
- On a backbone that takes volumes the average is over T, H and W; on one that takes frames, frame by frame.
"""

import torch
from torch import Tensor, nn

from models.backbone import Backbone, check_least, place


class EfficientChannelAttention(nn.Module):
    """Multiply each channel by a weight in (0, 1): (B, C, ...) -> the same shape."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(2).mean(2)  # (B, C)
        weight = torch.sigmoid(self.conv(pooled.unsqueeze(1)))
        return x * weight.reshape(*pooled.shape, *[1] * (x.ndim - 2))


def attach(net: Backbone, frames: int, *, k: int = 3, placement: str = "block") -> Backbone:
    """Add ECA at the exit of every residual block, or after each stage.

    Raises:
        ValueError: k is even or below 1, or the placement is neither "block" nor "stage".
    """
    check_least("eca", odd=True, k=k)
    place(net, "eca", placement, lambda channels: EfficientChannelAttention(k))
    return net
