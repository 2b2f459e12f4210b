"""TDN: differences of frames in the first stages, of segments in later blocks.

Wang, Tong, Ji and Wu, "TDN: Temporal Difference Networks for Efficient Action Recognition" (CVPR 2021), section 3, on
ResNet. `parts` leaves one of the two modules out:
- `short` (3.1 and 3.2): F + Upsample(CNN(Downsample(D))), where D are the four differences between a frame and two
  neighbors on either side. It is added to the maps of the stem, and, through a copy of res2, to those of res2.
- `long` (3.1 and 3.3): X + X * (M(X_t, X_t+1) + M(X_t, X_t-1)) / 2 of features X_t of segments, where
  M(A, B) = sigmoid(Conv(sum of CNN_j(A - Conv(B)))). A and B have 1/16 of the channels, the inner convolution is
  channel-wise and 3x3, and the CNN_j see the difference at several scales. A depthwise convolution over time follows.
  It stands after the first convolution, norm and ReLU of every block from res3 on.

One reading is ours: the authors' segment is five frames, of which the outer four only make differences. Here it is one
frame of the clip, and its neighbors are the clip's, first and last repeated. So `short` sees motion as coarse as
`long` does. Printed results of TDN have read five times as many frames.

Where the authors' code (github.com/MCG-NJU/TDN) adds to the paper or differs from it, the code is followed:
- Maps are weighed, (1 - share) and `share`, before they are added: share is 1/2 with 8 segments, 1/4 with others. It is
  a knob, because a net keeps it when it takes another T.
- Differences are pooled by 2. Their first convolution is as the stem's, and starts as its mean over the planes; norm,
  ReLU and pooling follow. Maps are upsampled by nearest neighbor to the size they are added to.
- M is sigmoid(.) - 1/2, and the difference is zero where there is no neighbor. Scales are three: the difference, the
  difference convolved 3x3, and the difference pooled by 2, convolved 3x3 and upsampled; their mean is taken. Each
  convolution but the channel-wise one has a norm, and both directions share all weights.
- The convolution over time starts as TSM's shift of 1/8 of the channels each way.
Differences from that code:
- Differences have the paper's sign. The code's is the opposite, which its weights can reverse.
- Convolutions have no bias, as in torchvision, and maps of one row or column are not pooled along it.
- Blocks of two 3x3 convolutions take `long` as well, between the two.
Written differently, with the same result: frames are pooled before they are subtracted.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, BehindConv2d, Neck, check_subset, second_convolutions
from models.layers.shift import TemporalShiftConv

# Shapes: N clips, T frames, P planes of a frame, C channels, R = max(1, C // 16), x (N*T, C, H, W).

PARTS = ("short", "long")


def halved(x: Tensor) -> Tensor:
    """Halve maps, to one pixel at least: (B, C, H, W) -> (B, C, H // 2, W // 2)."""
    height, width = x.shape[2:]
    return F.avg_pool2d(x, (min(2, height), min(2, width)))


class ShortTerm(Neck):
    """S-TDM: add maps of the frames' differences to those of the stem and of res2."""

    def __init__(self, stem: nn.Conv2d, res2: nn.Module, frames: int, share: float) -> None:
        super().__init__()
        self.frames, self.share = frames, share
        planes, channels = 4 * stem.in_channels, stem.out_channels
        size = stem.kernel_size[0]
        self.conv = nn.Conv2d(planes, channels, size, stem.stride[0], size // 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(stem.weight.mean(1, keepdim=True).expand_as(self.conv.weight))
        self.norm = nn.BatchNorm2d(channels)
        self.res2 = copy.deepcopy(res2)

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        match stage:
            case "pixels":
                features = self.norm(self.conv(self.differences(maps)))
                # ReLU after the pooling gives the same values as before it.
                seen["motion"] = F.relu(F.max_pool2d(features, 3, 2, 1))
                return maps
            case "stem":
                return self._added(maps, seen["motion"])
            case "res2":
                return self._added(maps, self.res2(seen["motion"]))
            case _:
                return maps

    def differences(self, x: Tensor) -> Tensor:
        """Return the differences from two frames before each frame to two after.

        (N*T, P, H, W) -> (N*T, 4*P, H // 2, W // 2).
        """
        clips = halved(x).unflatten(0, (-1, self.frames))  # (N, T, P, h, w)
        steps = F.pad(clips[:, 1:] - clips[:, :-1], (0,) * 6 + (2, 2))  # (N, T + 3, P, h, w): 0 at a repeated frame
        return torch.cat([steps[:, at : at + self.frames] for at in range(4)], 2).flatten(0, 1)

    def _added(self, maps: Tensor, motion: Tensor) -> Tensor:
        return maps * (1 - self.share) + F.interpolate(motion, maps.shape[2:]) * self.share


class LongTerm(nn.Module):
    """L-TDM, x + x*mask: (N*T, C, H, W) -> the same shape."""

    def __init__(self, channels: int, frames: int, reduction: int = 16) -> None:
        super().__init__()
        self.frames = frames
        reduced = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, reduced, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(reduced)
        self.align = nn.Conv2d(reduced, reduced, 3, padding=1, groups=reduced, bias=False)
        self.fine = nn.Conv2d(reduced, reduced, 3, padding=1, bias=False)
        self.fine_norm = nn.BatchNorm2d(reduced)
        self.coarse = nn.Conv2d(reduced, reduced, 3, padding=1, bias=False)
        self.coarse_norm = nn.BatchNorm2d(reduced)
        self.expand = nn.Conv2d(reduced, channels, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        features = self.squeeze_norm(self.squeeze(x))  # (N*T, R, H, W)
        now, other = (maps.unflatten(0, (-1, self.frames)) for maps in (features, self.align(features)))
        following = F.pad(now[:, :-1] - other[:, 1:], (0,) * 7 + (1,))  # (N, T, R, H, W): zero for the last frame
        previous = F.pad(now[:, 1:] - other[:, :-1], (0,) * 6 + (1, 0))
        return x + x * (self._mask(following.flatten(0, 1)) + self._mask(previous.flatten(0, 1))) / 2

    def _mask(self, motion: Tensor) -> Tensor:
        """Return one direction's mask, -1/2 to 1/2: (N*T, R, H, W) -> (N*T, C, H, W)."""
        fine = self.fine_norm(self.fine(motion))
        coarse = F.interpolate(self.coarse_norm(self.coarse(halved(motion))), motion.shape[2:])
        return torch.sigmoid(self.expand_norm(self.expand((fine + coarse + motion) / 3))) - 0.5


def attach(net: Backbone, frames: int, *, parts: Sequence[str] = PARTS, share: float = 0.5) -> Backbone:
    """Add S-TDM to the stem and res2 of a ResNet, and L-TDM to its later blocks.

    For `short` the net has one more stage, before the stem: `pixels`, the frames as they are.

    Raises:
        ValueError: Parts are empty or unknown, share is not between 0 and 1, the backbone takes volumes, or its blocks
            are not ResNet's.
    """
    check_subset("tdn", "parts", parts, PARTS)
    if not 0 < share < 1:
        raise ValueError(f"attention 'tdn': share is {share}; it must be between 0 and 1")
    for stage, block, conv in second_convolutions(net, "tdn"):
        if "long" in parts and stage != "res2":
            channels = conv.in_channels
            block.conv2 = BehindConv2d(conv, tdm=LongTerm(channels, frames), time=TemporalShiftConv(channels, frames))
    if "short" in parts:
        modules = [net.get_submodule(part) for part in net.parts["stem"]]
        (stem,) = (module for module in modules if isinstance(module, nn.Conv2d))
        (res2,) = net.parts["res2"]
        net.pixels = nn.Identity()
        net.stages = {"pixels": stem.in_channels, **net.stages}
        net.parts = {"pixels": ("pixels",), **net.parts, "res2": (res2, "neck.res2")}
        net.neck = ShortTerm(stem, net.get_submodule(res2), frames, share)
    return net
