"""Inception-ResNet-v2, frame by frame (Szegedy et al. 2017), with Cadene's names.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (AAAI 2017), section
3.2. Widths are TF-slim's, which differ from the paper's figures and which all weight files have. Files of
pretrained-models.pytorch (last_linear is the classifier) load by name. It is published for frames of 299x299, at least
75x75: the convolutions that halve the size, and a few of the stem, have no padding.

Variants: "cadene"; "slim", TF-slim's norms without a scale; "tiny", an eighth of the widths, padded to take any size.
TF-slim's count has 2,597,760 parameters and 769 per class more: those of an auxiliary classifier behind res4, which
serves only its training for ImageNet. A net that held them here would hold parameters without a gradient.

Attention has its places in the 40 residual blocks. Their branch ends with a convolution and a scale, without a norm,
and the last block has no ReLU after the addition. The reductions and the two layers of res2 (71x71) have no place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block, member
from models.layers.norms import Unscaled
from models.layers.residual import initialize

Kernel = int | tuple[int, int]
Step = tuple[int, Kernel]  # a convolution: channels out, kernel


@dataclass(frozen=True)
class Member:
    """One Inception-ResNet-v2: blocks of res3, res4 and res5, changes to Cadene's."""

    depths: tuple[int, int, int] = (10, 20, 10)
    divisor: int = 1  # of all widths
    padded: bool = False  # every convolution and pooling is padded
    scaled: bool = True  # norms have a scale


MEMBERS = {
    "cadene": Member(),
    "slim": Member(scaled=False),
    "tiny": Member((1, 1, 2), divisor=8, padded=True),
}
VARIANTS = tuple(MEMBERS)


class Unit(nn.Module):
    """Convolution, norm, ReLU: (B, ins, H, W) -> (B, outs, h, w)."""

    def __init__(self, ins: int, outs: int, kernel: Kernel, stride: int, padding: Kernel, scaled: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn = (nn.BatchNorm2d if scaled else Unscaled)(outs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bare(x), inplace=True)

    def bare(self, x: Tensor) -> Tensor:
        """Return the same without its ReLU."""
        return self.bn(self.conv(x))


class Branches(nn.Module):
    """Parallel branches, concatenated: children branch0, branch1, ..."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for at, branch in enumerate(branches):
            self.add_module(f"branch{at}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Residual(Block):
    """x + scale * conv2d(branches(x)), and a ReLU.

    (B, channels, H, W) -> the same shape. The branches' last ReLUs act on the concatenation: autograd keeps that for
    the gradient, and no single branch.
    """

    def __init__(
        self, channels: int, mixed: int, scale: float, branches: Sequence[nn.Module], last: bool = False
    ) -> None:
        super().__init__(channels, channels)
        self.scale, self.names = scale, [f"branch{at}" for at in range(len(branches))]
        self.relu = nn.Identity() if last else self.relu
        for name, branch in zip(self.names, branches, strict=True):
            self.add_module(name, branch)
        self.conv2d = nn.Conv2d(mixed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.entry(x)
        mixed = F.relu(torch.cat([self._bare(name, inside) for name in self.names], 1), inplace=True)
        return self._added(x, mixed)

    def published(self, x: Tensor) -> Tensor:
        """Return the same with a ReLU in every branch."""
        inside = self.entry(x)
        return self._added(x, torch.cat([self.get_submodule(name)(inside) for name in self.names], 1))

    def _bare(self, name: str, x: Tensor) -> Tensor:
        """Return a branch's output before its last ReLU."""
        branch = self.get_submodule(name)
        *before, last = branch if isinstance(branch, nn.Sequential) else [branch]
        for unit in before:
            x = unit(x)
        assert isinstance(last, Unit)
        return last.bare(x)

    def _added(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the block's output for x and the branches' maps (B, mixed, H, W)."""
        return self.after(self.relu(x + self.exit(self.scale * self.conv2d(mixed))))


class InceptionResNetV2(Backbone):
    """Inception-ResNet-v2 without its head.

    Any H and W if padded, otherwise from 75. (B, 3, H, W) -> (B, features, h, w), h about H/32 - 1.
    """

    layout = "frames"
    mean, std, channels = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "rgb"
    classifier = "last_linear"
    pooling = "window"
    rounds_up = False

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member
        edge = self.edge = 1 if member.padded else 0
        self.conv2d_1a = self._branch(3, (32, 3), halves=True)
        self.conv2d_2a = self._branch(32, (32, 3), padding=edge)
        self.conv2d_2b = self._branch(32, (64, 3))
        self.conv2d_3b = self._branch(64, (80, 1))
        self.conv2d_4a = self._branch(80, (192, 3), padding=edge)
        self.mixed_5b = Branches(
            self._branch(192, (96, 1)),
            self._branch(192, (48, 1), (64, 5)),
            self._branch(192, (64, 1), (96, 3), (96, 3)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), self._branch(192, (64, 1))),
        )
        self.repeat = nn.Sequential(*(self._block35() for _ in range(member.depths[0])))
        self.mixed_6a = Branches(
            self._branch(320, (384, 3), halves=True),
            self._branch(320, (256, 1), (256, 3), (384, 3), halves=True),
            nn.MaxPool2d(3, 2, edge),
        )
        self.repeat_1 = nn.Sequential(*(self._block17() for _ in range(member.depths[1])))
        self.mixed_7a = Branches(
            self._branch(1088, (256, 1), (384, 3), halves=True),
            self._branch(1088, (256, 1), (288, 3), halves=True),
            self._branch(1088, (256, 1), (288, 3), (320, 3), halves=True),
            nn.MaxPool2d(3, 2, edge),
        )
        self.repeat_2 = nn.Sequential(*(self._block8() for _ in range(member.depths[2] - 1)))
        self.block8 = self._block8(last=True)
        self.conv2d_7b = self._branch(2080, (1536, 1))
        self.parts = {
            "stem": ("conv2d_1a", "conv2d_2a", "conv2d_2b"),
            "res2": ("conv2d_3b", "conv2d_4a"),
            "res3": ("mixed_5b", "repeat"),
            "res4": ("mixed_6a", "repeat_1"),
            "res5": ("mixed_7a", "repeat_2", "block8"),
            "tail": ("conv2d_7b",),
        }
        widths = {"stem": 64, "res2": 192, "res3": 320, "res4": 1088, "res5": 2080, "tail": 1536}
        self.stages = {stage: width // member.divisor for stage, width in widths.items()}
        self.features = self.stages["tail"]
        initialize(self)

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name in ("res2", "res3"):
            x = F.max_pool2d(x, 3, 2, self.edge)
        for part in self.parts[name]:
            x = self.get_submodule(part)(x)
        return x

    def _branch(self, ins: int, *steps: Step, halves: bool = False, padding: int | None = None) -> nn.Module:
        """Build units in sequence.

        They keep the size, unless the last halves it or `padding` is set. Widths are the full net's. A single unit
        comes without a Sequential.
        """
        units, width = [], ins if ins == 3 else ins // self.member.divisor
        for at, (outs, kernel) in enumerate(steps):
            halved = halves and at == len(steps) - 1
            around: Kernel = (kernel[0] // 2, kernel[1] // 2) if isinstance(kernel, tuple) else kernel // 2
            if halved or padding is not None:
                around = self.edge if padding is None else padding
            narrowed = outs // self.member.divisor
            units.append(Unit(width, narrowed, kernel, 2 if halved else 1, around, self.member.scaled))
            width = narrowed
        return units[0] if len(units) == 1 else nn.Sequential(*units)

    def _block35(self) -> Residual:
        branches = (
            self._branch(320, (32, 1)),
            self._branch(320, (32, 1), (32, 3)),
            self._branch(320, (32, 1), (48, 3), (64, 3)),
        )
        return Residual(320 // self.member.divisor, 128 // self.member.divisor, 0.17, branches)

    def _block17(self) -> Residual:
        branches = self._branch(1088, (192, 1)), self._branch(1088, (128, 1), (160, (1, 7)), (192, (7, 1)))
        return Residual(1088 // self.member.divisor, 384 // self.member.divisor, 0.1, branches)

    def _block8(self, last: bool = False) -> Residual:
        branches = self._branch(2080, (192, 1)), self._branch(2080, (192, 1), (224, (1, 3)), (256, (3, 1)))
        scale = 1.0 if last else 0.2
        return Residual(2080 // self.member.divisor, 448 // self.member.divisor, scale, branches, last)


def build(variant: str) -> InceptionResNetV2:
    """Build the named Inception-ResNet-v2; ValueError for an unknown variant."""
    return InceptionResNetV2(member("inception_resnet_v2", variant, MEMBERS))
