"""TEA: motion excitation, and multiple temporal aggregation in a block's parts.

Li, Ji, Shi, Zhang, Kang and Wang, "TEA: Temporal Excitation and Aggregation for Action Recognition" (CVPR 2020),
section 3, in every block of a Res2Net. ME (3.1) reduces x by 16 and subtracts a frame's features from those of the next
frame, convolved 3x3 channel by channel. It averages that over H and W (zero for the last frame), expands it to a mask
of x's channels and adds x*mask to x. It follows the block's first convolution. MTA (3.2) puts a depthwise convolution
over time before the 3x3 convolution of each part, so that later parts see ever more frames. The knob `parts` leaves one
of the two out.

Where the authors' code (github.com/Phoenix1327/tea-action-recognition) and the paper differ, the code is followed:
- ME's mask is sigmoid(.) - 1/2; in the paper twice that.
- ME has a norm after the reduction and one after the expansion.
- The last part, which has no 3x3 convolution, is convolved over time too.
- Convolutions over time start as the identity, the last part's as a shift: half of its channels from the next frame,
  the other half from the previous one; of an odd number the last channel stays.
Written differently, with the same result: ME's two maps are averaged before they are subtracted.

The ResNet-50 of TEA's tables is Res2Net-50, as in the authors' code: backbone res2net.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, BehindConv2d, check_least, check_subset, frame_blocks
from models.layers.shift import TemporalShiftConv

# Shapes: N clips, T frames, C channels, R = max(1, C // reduction), x (N*T, C, H, W).

PARTS = ("me", "mta")


class MotionExcitation(nn.Module):
    """ME, x + x*mask: (N*T, C, H, W) -> the same shape."""

    def __init__(self, channels: int, frames: int, reduction: int = 16) -> None:
        super().__init__()
        self.frames = frames
        reduced = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, reduced, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(reduced)
        self.conv = nn.Conv2d(reduced, reduced, 3, padding=1, groups=reduced, bias=False)
        self.expand = nn.Linear(reduced, channels, bias=False)
        self.expand_norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        features = self.squeeze_norm(self.squeeze(x))  # (N*T, R, H, W)
        now = features.mean((2, 3)).unflatten(0, (-1, self.frames))  # (N, T, R)
        then = self.conv(features).mean((2, 3)).unflatten(0, (-1, self.frames))
        motion = F.pad(then[:, 1:] - now[:, :-1], (0, 0, 0, 1))  # the last frame has no next frame: zero
        mask = torch.sigmoid(self.expand_norm(self.expand(motion.flatten(0, 1)))) - 0.5  # (N*T, C)
        return x * (1 + mask)[..., None, None]


def attach(net: Backbone, frames: int, *, parts: Sequence[str] = PARTS, reduction: int = 16) -> Backbone:
    """Add ME and MTA, or one of them, to every block of a Res2Net.

    Raises:
        ValueError: Parts are empty or unknown, the reduction is below 1, or the backbone is not a Res2Net.
    """
    check_subset("tea", "parts", parts, PARTS)
    check_least("tea", reduction=reduction)
    for blocks in frame_blocks(net, "tea").values():
        for block in blocks:
            convs = [conv for conv in getattr(block, "convs", ()) if isinstance(conv, nn.Conv2d)]
            if not convs:
                raise ValueError("attention 'tea' needs blocks with the layout of Res2Net's: backbone 'res2net'")
            width = convs[0].in_channels
            if "me" in parts:
                block.inner = MotionExcitation(width * (len(convs) + 1), frames, reduction)
            if "mta" in parts:
                block.convs = nn.ModuleList(
                    BehindConv2d(conv, time=TemporalShiftConv(width, frames, fold=None)) for conv in convs
                )
                block.rest = TemporalShiftConv(width, frames, fold=2)
    return net
