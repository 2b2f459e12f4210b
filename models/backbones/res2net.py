"""Res2Net, frame by frame (Gao et al. 2021), with its authors' names.

Gao et al., "Res2Net: A New Multi-scale Backbone Architecture" (TPAMI 2021), section 3 and figure 2: each part of a
bottleneck's channels but the last has a 3x3 convolution, which also sees the output of the part before. "50" is
res2net50_26w_4s, TEA's backbone: 4 parts of 26, 52, 104 and 208 channels. "tiny" is for the CPU.

As in the authors' code (github.com/Res2Net/Res2Net-PretrainedModels), whose weights load by name: in the first block of
a stage the parts do not see each other, and the last one is averaged 3x3 with the block's stride.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block, member
from models.layers.residual import Residual

# Shapes: B frames, S parts of a block's channels, W channels of a part.


@dataclass(frozen=True)
class Member:
    """One Res2Net: blocks and base widths of res2..res5, parts and their share."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    parts: int = 4
    share: int = 26
    kernel: int = 7  # of the stem's convolution


MEMBERS = {
    "50": Member((3, 4, 6, 3)),
    "tiny": Member((1, 1, 1, 2), (16, 32, 64, 128), kernel=3),
}
VARIANTS = tuple(MEMBERS)


class Bottle2neck(Block):
    """A residual block of S parts.

    (B, ins, H, W) -> (B, 4*width, H/stride, W/stride). It has two more places for modules: `inner` sees all parts
    together, (B, S*W, H, W), and `rest` the last one.
    """

    def __init__(self, ins: int, width: int, stride: int, first: bool, member: Member) -> None:
        super().__init__(ins, 4 * width)
        part = width * member.share // 64
        self.first, self.stride = first, stride
        self.conv1 = nn.Conv2d(ins, part * member.parts, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(part * member.parts)
        self.convs = nn.ModuleList(nn.Conv2d(part, part, 3, stride, 1, bias=False) for _ in range(member.parts - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(part) for _ in range(member.parts - 1))
        self.conv3 = nn.Conv2d(part * member.parts, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.inner: nn.Module = nn.Identity()
        self.rest: nn.Module = nn.Identity()
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(ins, self.out_channels, 1, stride, bias=False), nn.BatchNorm2d(self.out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(F.relu(self.bn1(self.conv1(self.entry(x))), inplace=True))
        *parts, last = out.chunk(len(self.convs) + 1, 1)  # each (B, W, H, W)
        outputs: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            seen = part if self.first or not outputs else part + outputs[-1]
            outputs.append(F.relu(norm(conv(seen)), inplace=True))
        last = self.rest(last)
        if self.first:
            last = F.avg_pool2d(last, 3, self.stride, 1)
        out = self.exit(self.bn3(self.conv3(torch.cat((*outputs, last), 1))))
        out += x if self.downsample is None else self.downsample(x)
        return self.after(self.relu(out))


class Res2Net(Residual):
    """(B, 3, H, W) -> (B, features, H/32, W/32), sizes rounded up; any H and W."""

    layout = "frames"

    def __init__(self, member: Member) -> None:
        super().__init__()
        stem = member.widths[0]
        self.conv1 = nn.Conv2d(3, stem, member.kernel, 2, member.kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1)

        def block(ins: int, at: int, number: int, stride: int) -> Bottle2neck:
            return Bottle2neck(ins, member.widths[at], stride, number == 0, member)

        self.complete(stem, member.depths, block)

    def stage(self, name: str, x: Tensor) -> Tensor:
        return self.published_stage(name, x) if name == "stem" else super().stage(name, x)


def build(variant: str) -> Res2Net:
    """Build the named Res2Net; ValueError for an unknown variant."""
    return Res2Net(member("res2net", variant, MEMBERS))
