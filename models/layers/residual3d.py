"""3D residual networks of bottlenecks: Hara's ResNet and ResNeXt, SlowOnly.

Parameters have the names of torchvision's ResNet, as in Hara's code: conv1, bn1, layer1.0.conv1, ...,
layer1.0.downsample.0, ...; the classifier is fc. Kernels and strides are (t, h, w).
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block
from models.layers.residual import Residual
from models.memory_format import outweighs

ACTIVITYNET_MEAN = (114.7748, 107.7354, 99.4750)  # of pixels 0 to 255, subtracted by Hara's nets
Four = tuple[int, int, int, int]  # one number each for res2..res5


@dataclass(frozen=True)
class Member:
    """One network: numbers of blocks, widths, and each convolution's extent in time."""

    depths: Four
    widths: Four = (64, 128, 256, 512)  # channels of the blocks' middle convolution
    expansion: int = 4  # a block gives expansion * width channels
    groups: int = 1  # of the middle convolution: ResNeXt's cardinality
    stem: int = 64  # channels of the stem
    kernel: tuple[int, int, int] = (7, 7, 7)  # of the stem's convolution
    first: Four = (1, 1, 1, 1)  # frames that a block's first convolution sees
    middle: int = 3  # frames that the middle convolutions and the stem's pooling see
    stride: int = 2  # in time, of that pooling, res3, res4 and res5


class Conv3d(nn.Conv3d):
    """nn.Conv3d that runs flat kernels as 2D in channels-last memory.

    A flat kernel covers one frame or one pixel. The views cost nothing. For fewer than 16 clips on one thread, torch's
    1x1x1 and 3x1x1 convolutions do not use oneDNN. They take two to three times as long and lose the memory order.
    Maps that the weights outweigh run in torch's default order (models/memory_format.py). Channels-last maps give
    channels-last output, also where torch loses that order, because it convolves them without oneDNN.
    """

    weighs = True

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.kernel_size
        along, *across = self.stride
        before, *around = cast(tuple[int, int, int], self.padding)
        # Maps of one pixel have an ambiguous order: a compiled net would expect another than its gradients have.
        if not x.is_contiguous(memory_format=torch.channels_last_3d) or x.shape[3:].numel() == 1:
            return super().forward(x)
        if outweighs(self.weight, x):
            out = super().forward(x.contiguous())
        elif t == along == 1:
            frames = x.transpose(1, 2).flatten(0, 1)  # (N*T, C, H, W)
            out = F.conv2d(frames, self.weight.squeeze(2), self.bias, across, around, 1, self.groups)
            out = out.unflatten(0, (-1, x.shape[2])).transpose(1, 2)
        elif (h, w) == (1, 1) == (*across,):
            pixels = x.flatten(3)  # (N, C, T, H*W)
            out = F.conv2d(pixels, self.weight.squeeze(4), self.bias, (along, 1), (before, 0), 1, self.groups)
            out = out.unflatten(3, x.shape[3:])
        else:
            out = super().forward(x)
        return out.contiguous(memory_format=torch.channels_last_3d)


class Bottleneck3D(Block):
    """A residual block of 1x1x1, 3x3x3 and 1x1x1 convolutions.

    (N, in, T, H, W) -> (N, expansion*width, T/stride[0], H/stride[1], W/stride[2]).
    """

    def __init__(self, ins: int, width: int, first: int, stride: tuple[int, int, int], member: Member) -> None:
        super().__init__(ins, member.expansion * width)
        pads = (member.middle // 2, 1, 1)
        self.conv1 = Conv3d(ins, width, (first, 1, 1), padding=(first // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = Conv3d(width, width, (member.middle, 3, 3), stride, pads, groups=member.groups, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = Conv3d(width, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(self.out_channels)
        self.downsample = None
        if stride != (1, 1, 1) or ins != self.out_channels:
            self.downsample = nn.Sequential(
                Conv3d(ins, self.out_channels, 1, stride, bias=False), nn.BatchNorm3d(self.out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(self.entry(x))), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.exit(self.bn3(self.conv3(out)))
        out += x if self.downsample is None else self.downsample(x)
        return self.after(self.relu(out))


class ResNet3D(Residual):
    """Any (N, 3, T, H, W) -> (N, features, T/stride**4, H/32, W/32), rounded up."""

    layout = "volume"
    mean: tuple[float, ...] = ACTIVITYNET_MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pooling = "window"

    def __init__(self, member: Member) -> None:
        super().__init__()
        t, h, w = member.kernel
        self.conv1 = Conv3d(3, member.stem, member.kernel, (1, 2, 2), (t // 2, h // 2, w // 2), bias=False)
        self.bn1 = nn.BatchNorm3d(member.stem)
        self.maxpool = nn.MaxPool3d((member.middle, 3, 3), (member.stride, 2, 2), (member.middle // 2, 1, 1))

        def block(ins: int, at: int, number: int, stride: int) -> Bottleneck3D:
            strides = (member.stride if stride > 1 else 1, stride, stride)
            return Bottleneck3D(ins, member.widths[at], member.first[at], strides, member)

        self.complete(member.stem, member.depths, block)
