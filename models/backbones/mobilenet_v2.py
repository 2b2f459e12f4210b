"""MobileNetV2, frame by frame (Sandler et al. 2018), for torchvision's weights.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (CVPR 2018), tables 1 and 2: a 1x1 expansion, a
depthwise 3x3, a linear 1x1. torchvision's features.3 is res2.3 here, because Backbone.features is a number; its files
load by these names. Variant "tiny" is for the CPU.

Attention has its places only in the blocks with a shortcut, 10 in the full net, as in TSM's and ACTION-Net's code.
`entry` is the input of the 1x1 expansion. Behind the last of them res5 has one more layer, to 320 channels without
an activation. The last 1x1 convolution, to 1280, its norm and its ReLU6 are the stage `tail`.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from models.backbone import Backbone, Block, member


@dataclass(frozen=True)
class Row:
    """A row of table 2: `repeats` layers of `channels`, the first with the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


@dataclass(frozen=True)
class Member:
    """One MobileNetV2: channels of the first and last convolution, and rows by stage."""

    first: int
    rows: dict[str, tuple[Row, ...]]
    last: int


MEMBERS = {
    "1.0": Member(
        32,
        {
            "stem": (Row(1, 16, 1, 1),),
            "res2": (Row(6, 24, 2, 2),),
            "res3": (Row(6, 32, 3, 2),),
            "res4": (Row(6, 64, 4, 2), Row(6, 96, 3, 1)),
            "res5": (Row(6, 160, 3, 2), Row(6, 320, 1, 1)),
        },
        1280,
    ),
    "tiny": Member(
        16,
        {
            "stem": (Row(1, 8, 1, 1),),
            "res2": (Row(2, 32, 2, 2),),
            "res3": (Row(2, 32, 2, 2),),
            "res4": (Row(2, 48, 2, 2),),
            "res5": (Row(2, 64, 2, 2),),
        },
        128,
    ),
}
VARIANTS = tuple(MEMBERS)


class Bottleneck(nn.Module):
    """A layer without a shortcut: (B, ins, H, W) -> (B, outs, H/stride, W/stride)."""

    def __init__(self, ins: int, outs: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.conv = _convolutions(ins, outs, expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class InvertedResidual(Block):
    """A layer with a shortcut: (B, channels, H, W) -> the same shape."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__(channels, channels)
        self.relu = nn.Identity()  # a linear bottleneck
        self.conv = _convolutions(channels, channels, expansion, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.exit(self.conv(self.entry(x))))


class MobileNetV2(Backbone):
    """(B, 3, H, W) -> (B, features, H/32, W/32), sizes rounded up; any H and W."""

    layout = "frames"
    classifier = "classifier.1"
    pooling = "unseen"  # two means

    def __init__(self, member: Member) -> None:
        super().__init__()
        layers: dict[str, dict[str, nn.Module]] = {stage: {} for stage in member.rows}
        layers["stem"]["0"] = _unit(3, member.first, 3, 2)
        ins, at = member.first, 1
        self.stages = {}
        for stage, rows in member.rows.items():
            for row in rows:
                for stride in (row.stride, *[1] * (row.repeats - 1)):
                    layers[stage][str(at)] = _layer(ins, row.channels, row.expansion, stride)
                    ins, at = row.channels, at + 1
            self.stages[stage] = ins
        layers["tail"] = {str(at): _unit(ins, member.last, 1, 1)}
        self.stages["tail"] = self.features = member.last
        self.parts = {stage: (stage,) for stage in layers}
        self.stage_of = {number: stage for stage, numbered in layers.items() for number in numbered}
        for stage, numbered in layers.items():
            self.add_module(stage, nn.Sequential(OrderedDict(numbered)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Not torchvision's fan_out: torch's ignores groups, and depthwise convolutions would start near zero.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {self._renamed(name): value for name, value in state.items()}

    def _renamed(self, name: str) -> str:
        """Rename features.3.<rest> to res2.3.<rest>; any other name stays."""
        number, _, rest = name.removeprefix("features.").partition(".")
        return f"{self.stage_of[number]}.{number}.{rest}" if number in self.stage_of else name

    def stage(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)


def build(variant: str) -> MobileNetV2:
    """Build the named MobileNetV2; ValueError for an unknown variant."""
    return MobileNetV2(member("mobilenet_v2", variant, MEMBERS))


def _unit(ins: int, outs: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Convolution, norm and ReLU6: (B, ins, H, W) -> (B, outs, H/stride, W/stride)."""
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), nn.ReLU6(inplace=True))


def _layer(ins: int, outs: int, expansion: int, stride: int) -> nn.Module:
    """Build a layer: Bottleneck, or with a shortcut where the shape stays."""
    if stride == 1 and ins == outs:
        return InvertedResidual(ins, expansion)
    return Bottleneck(ins, outs, expansion, stride)


def _convolutions(ins: int, outs: int, expansion: int, stride: int) -> nn.Sequential:
    """Build expansion (none for 1), depthwise convolution and linear projection.

    (B, ins, H, W) -> (B, outs, H/stride, W/stride).
    """
    hidden = ins * expansion
    expand = [_unit(ins, hidden, 1, 1)] if expansion > 1 else []
    project = nn.Conv2d(hidden, outs, 1, bias=False), nn.BatchNorm2d(outs)
    return nn.Sequential(*expand, _unit(hidden, hidden, 3, stride, hidden), *project)
