"""R(2+1)D: ResNet with 3D convolutions split into space and time.

Tran, Wang, Torresani, Ray, LeCun and Paluri, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(CVPR 2018), section 3.5 and table 1. A convolution t x d x d from I to O channels is split: 1 x d x d to M, norm,
ReLU, then t x 1 x 1 to O. M = t*d*d*I*O / (d*d*I + t*O), rounded down, keeps the number of weights. Clips are
112x112, and have all their frames in the stem and res2. Parameters have torchvision's names.

- "18" is torchvision's r2plus1d_18: a block's second convolution has the M of its first, and the shortcut is one
  1x1x1 convolution. torchvision's weights load by name.
- "34" is the authors' (Caffe2): M is computed for each convolution, and norms have epsilon 0.001. The weights of 65
  million videos, in torchvision's names (github.com/moabitcoin/ig65m-pytorch), load by name.
- The stem's M is 45 in both, as in the authors' code; the formula gives 83.
- "34-224" is mmaction2's, for clips of 224x224: it pools after the stem, whose M is 83, and splits shortcuts too. Its
  parameters are exactly the printed 63.8 M. Its FLOPs at 32x256x256 are 212.9 G here and 212.7 G printed, at 8x256x256
  53.23 and 53.18. The authors' net has 63.7 M.
- "tiny" is for the CPU.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block, member
from models.layers.residual import Residual

Three = tuple[int, int, int]  # (t, h, w)


@dataclass(frozen=True)
class Member:
    """One network: blocks and widths of res2..res5, details of implementations."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    stem: int = 45  # M of the stem
    separate: bool = True  # a block's second convolution has an M computed for it
    pool: bool = False  # maximum pooling halves the stem's maps in space
    split: bool = False  # shortcuts are split too
    epsilon: float = 1e-5  # of the norms


MEMBERS = {
    "18": Member((2, 2, 2, 2), separate=False),
    "34": Member((3, 4, 6, 3), epsilon=1e-3),
    "34-224": Member((3, 4, 6, 3), stem=83, pool=True, split=True, epsilon=1e-3),
    "tiny": Member((1, 1, 1, 1), (16, 32, 64, 128), stem=12, separate=False),
}
VARIANTS = tuple(MEMBERS)


class Conv2Plus1d(nn.Sequential):
    """A convolution in space to `middle` channels, norm, ReLU, then one in time.

    (N, ins, T, H, W) -> (N, outs, T', H', W').
    """

    def __init__(self, ins: int, outs: int, middle: int, kernel: Three, stride: Three = (1, 1, 1)) -> None:
        t, h, w = kernel
        super().__init__(
            nn.Conv3d(ins, middle, (1, h, w), (1, *stride[1:]), (0, h // 2, w // 2), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, outs, (t, 1, 1), (stride[0], 1, 1), (t // 2, 0, 0), bias=False),
        )


def middle_channels(ins: int, outs: int, t: int, d: int) -> int:
    """Return M of a t x d x d convolution, which keeps the number of weights."""
    return t * d * d * ins * outs // (d * d * ins + t * outs)


class BasicBlock2Plus1d(Block):
    """Two split 3x3x3 convolutions and a shortcut.

    (N, ins, T, H, W) -> (N, outs, T/stride, H/stride, W/stride).
    """

    def __init__(self, ins: int, outs: int, stride: int, member: Member) -> None:
        super().__init__(ins, outs)
        middle = middle_channels(ins, outs, 3, 3)
        second = middle_channels(outs, outs, 3, 3) if member.separate else middle
        self.conv1 = nn.Sequential(
            Conv2Plus1d(ins, outs, middle, (3, 3, 3), (stride, stride, stride)),
            nn.BatchNorm3d(outs),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(Conv2Plus1d(outs, outs, second, (3, 3, 3)), nn.BatchNorm3d(outs))
        self.downsample = None
        if stride != 1 or ins != outs:
            shortcut: nn.Module = nn.Conv3d(ins, outs, 1, stride, bias=False)
            if member.split:
                shortcut = Conv2Plus1d(ins, outs, middle_channels(ins, outs, 3, 1), (1, 1, 1), (stride, stride, stride))
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.exit(self.conv2(self.conv1(self.entry(x))))
        out += x if self.downsample is None else self.downsample(x)
        return self.after(self.relu(out))


class R2Plus1d(Residual):
    """R(2+1)D without its classifier, for any T, H and W.

    (N, 3, T, H, W) -> (N, features, T/8, H/16, W/16), sizes rounded up; with pooling H/32 and W/32.
    """

    layout = "volume"
    # Kinetics' statistics, times 255, as in torchvision and the authors' code
    mean, std, channels = (110.2008, 100.63983, 95.99475), (58.14765, 56.46975, 55.332195), "rgb"

    def __init__(self, member: Member) -> None:
        super().__init__()
        width = member.widths[0]
        split = Conv2Plus1d(3, width, member.stem, (3, 7, 7), (1, 2, 2))
        self.stem = nn.Sequential(*split, nn.BatchNorm3d(width), nn.ReLU(inplace=True))
        self.pool = member.pool

        def block(ins: int, at: int, number: int, stride: int) -> BasicBlock2Plus1d:
            return BasicBlock2Plus1d(ins, member.widths[at], stride, member)

        self.complete(width, member.depths, block, stem=("stem",))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = member.epsilon

    def stage(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(self.parts[name][0])(x)
        return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) if name == "stem" and self.pool else x

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        return self.stage(name, x)


def build(variant: str) -> R2Plus1d:
    """Build the named R(2+1)D; ValueError for an unknown variant."""
    return R2Plus1d(member("r2plus1d", variant, MEMBERS))
