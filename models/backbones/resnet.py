"""ResNet, frame by frame (He et al. 2016), with torchvision's names.

He et al., "Deep Residual Learning for Image Recognition", section 3.3 and table 1, in the variant of torchvision
("v1.5"): the stride of a bottleneck is on its 3x3 convolution, not on the first 1x1. torchvision's weight files load
by name; there is no `fc` here, the head is VideoNet's. Variant "tiny" is for the CPU.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block, member
from models.layers.residual import Residual


class BasicBlock(Block):
    """Two 3x3 convolutions: (B, in, H, W) -> (B, channels, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(self.entry(x))), inplace=True)
        out = self.exit(self.bn2(self.conv2(out)))
        out += x if self.downsample is None else self.downsample(x)
        return self.after(self.relu(out))


class Bottleneck(Block):
    """1x1, 3x3, 1x1: (B, in, H, W) -> (B, 4*channels, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(in_channels, self.expansion * channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.downsample = _shortcut(in_channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(self.entry(x))), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.exit(self.bn3(self.conv3(out)))
        out += x if self.downsample is None else self.downsample(x)
        return self.after(self.relu(out))


@dataclass(frozen=True)
class Member:
    """One ResNet: its block, blocks and widths of res2..res5, and the stem's kernel."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    kernel: int = 7


MEMBERS = {
    "18": Member(BasicBlock, (2, 2, 2, 2)),
    "50": Member(Bottleneck, (3, 4, 6, 3)),
    "101": Member(Bottleneck, (3, 4, 23, 3)),
    "tiny": Member(BasicBlock, (1, 1, 1, 1), (16, 32, 64, 128), kernel=3),
}
VARIANTS = tuple(MEMBERS)


class ResNet(Residual):
    """(B, 3, H, W) -> (B, features, H/32, W/32), sizes rounded up; any H and W."""

    layout = "frames"

    def __init__(self, member: Member) -> None:
        super().__init__()
        width = member.widths[0]
        self.conv1 = nn.Conv2d(3, width, member.kernel, 2, member.kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)

        def block(ins: int, at: int, number: int, stride: int) -> Block:
            return member.block(ins, member.widths[at], stride)

        self.complete(width, member.depths, block)


def build(variant: str) -> ResNet:
    """Build the named ResNet; ValueError for an unknown variant."""
    return ResNet(member("resnet", variant, MEMBERS))


def _shortcut(ins: int, outs: int, stride: int) -> nn.Sequential | None:
    """Build a 1x1 convolution and norm where the shape changes, otherwise None."""
    if stride == 1 and ins == outs:
        return None
    return nn.Sequential(nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))
