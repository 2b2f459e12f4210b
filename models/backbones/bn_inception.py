"""BN-Inception, frame by frame (Ioffe and Szegedy 2015), with Cadene's names.

Ioffe and Szegedy, "Batch Normalization" (ICML 2015), section 4.2 and the appendix's figure 5. This is the Caffe net
that TSN, TSM and ACTION-Net start from: convolutions keep their biases, and pixels are BGR, 0 to 255 minus a mean.
Files of pretrained-models.pytorch (last_linear is the classifier) load by name.

- Batch norms have torch's momentum. TSM's and ACTION-Net's copies have 0.9, Caffe's number for torch's 0.1.
- Variant "slim" is TF-slim's Inception-v2 with a plain first convolution. It is narrower in 4c and 4d, TF-slim's 4d
  and 4e, its convolutions have no biases, its norms no scale. ISTPA counts its parameters.
- A maximum pooling with stride 2 pads odd sizes, because the block's branches would not fit each other otherwise. The
  published net, at 224x224, never meets them.
- Variant "tiny" is for the CPU.

There are no shortcuts. The ReLUs that end a block's branches act on their concatenation, as `relu`. Attention has its
places at every inception block, `entry` before its branches, `exit` and `after` behind that ReLU, and at conv2, the
stem's second part. So ACTION and TSM are placed as in their authors' code. ACTION is on the outputs of conv2, 3a, ...,
5a (10 modules, stages res3 to res5), TSM before conv2, 3a, ..., 5b. A stage starts with the block that halves the
size: 3c and 4e.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block, member
from models.layers.norms import Unscaled
from models.layers.residual import initialize


@dataclass(frozen=True)
class Widths:
    """Channels of a block's convolutions; without `single` it halves the size."""

    single: int
    reduce: int
    three: int
    double_reduce: int
    double: int
    project: int
    pool: str = "average"


@dataclass(frozen=True)
class Member:
    """One BN-Inception: channels of conv1 and conv2, and the blocks by name."""

    stem: tuple[int, int]
    blocks: dict[str, Widths]
    slim: bool = False  # convolutions have no bias, norms no scale


BLOCKS = {
    "3a": Widths(64, 64, 64, 64, 96, 32),
    "3b": Widths(64, 64, 96, 64, 96, 64),
    "3c": Widths(0, 128, 160, 64, 96, 0),
    "4a": Widths(224, 64, 96, 96, 128, 128),
    "4b": Widths(192, 96, 128, 96, 128, 128),
    "4c": Widths(160, 128, 160, 128, 160, 128),
    "4d": Widths(96, 128, 192, 160, 192, 128),
    "4e": Widths(0, 128, 192, 192, 256, 0),
    "5a": Widths(352, 192, 320, 160, 224, 128),
    "5b": Widths(352, 192, 320, 192, 224, 128, "maximum"),
}
NARROWER = {name: replace(BLOCKS[name], project=96) for name in ("4c", "4d")}
MEMBERS = {
    "cadene": Member((64, 192), BLOCKS),
    "slim": Member((64, 192), {**BLOCKS, **NARROWER}, slim=True),
    "tiny": Member(
        (16, 32),
        {
            "3a": Widths(16, 8, 16, 8, 8, 8),
            "3c": Widths(0, 8, 16, 8, 16, 0),
            "4a": Widths(16, 8, 16, 8, 16, 16),
            "4e": Widths(0, 8, 16, 8, 16, 0),
            "5b": Widths(32, 8, 32, 8, 32, 32, "maximum"),
        },
    ),
}
VARIANTS = tuple(MEMBERS)
STAGE_OF = {"3a": "res3", "3b": "res3", "3c": "res4", "4e": "res5", "5a": "res5", "5b": "res5"}  # all others are res4


class Inception(Block):
    """An inception block.

    (B, ins, H, W) -> (B, outs, H, W), or half of H and W, rounded up. Its convolutions and norms are children of the
    net, as Cadene's flat names need; forward() takes the net.
    """

    def __init__(self, name: str, ins: int, widths: Widths) -> None:
        concatenated = widths.three + widths.double + (widths.single + widths.project if widths.single else ins)
        super().__init__(ins, concatenated)
        if not widths.single:
            self.relu = nn.Identity()  # the pooled input is activated already; each other branch has a ReLU
        self.name, self.widths = name, widths

    def units(self) -> dict[str, tuple[int, int, int, int]]:
        """Return convolution -> (channels in, out, kernel, stride), in Cadene's order."""
        ins, w = self.in_channels, self.widths
        stride = 1 if w.single else 2
        units = {
            "1x1": (ins, w.single, 1, 1),
            "3x3_reduce": (ins, w.reduce, 1, 1),
            "3x3": (w.reduce, w.three, 3, stride),
            "double_3x3_reduce": (ins, w.double_reduce, 1, 1),
            "double_3x3_1": (w.double_reduce, w.double, 3, 1),
            "double_3x3_2": (w.double, w.double, 3, stride),
            "pool_proj": (ins, w.project, 1, 1),
        }
        return {f"inception_{self.name}_{unit}": shape for unit, shape in units.items() if shape[1]}

    def forward(self, x: Tensor, net: "BNInception") -> Tensor:
        def through(x: Tensor, *units: str) -> Tensor:
            *before, last = (f"inception_{self.name}_{unit}" for unit in units)
            for unit in before:
                x = net.unit(unit, x)
            return net.bare(last, x) if self.widths.single else net.unit(last, x)

        x = self.entry(x)
        branches = [
            through(x, "3x3_reduce", "3x3"),
            through(x, "double_3x3_reduce", "double_3x3_1", "double_3x3_2"),
        ]
        if self.widths.single:
            average = self.widths.pool == "average"
            pooled = F.avg_pool2d(x, 3, 1, 1) if average else F.max_pool2d(x, 3, 1, 1)
            branches = [through(x, "1x1"), *branches, through(pooled, "pool_proj")]
        else:
            branches.append(_halved(x))
        return self.after(self.exit(self.relu(torch.cat(branches, 1))))


class BNInception(Backbone):
    """(B, 3, H, W) -> (B, features, H/32, W/32), sizes rounded up; any H and W."""

    layout = "frames"
    mean, std, channels = (104.0, 117.0, 128.0), (1.0, 1.0, 1.0), "bgr"
    classifier = "last_linear"
    pooling = "window"
    shortcuts = False

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.slim = member.slim
        first, second = member.stem
        self._add("conv1_7x7_s2", 3, first, 7, 2)
        self._add("conv2_3x3_reduce", first, first, 1, 1)
        self._add("conv2_3x3", first, second, 3, 1)
        self.parts = {"stem": tuple(name for name, _ in self.named_children())}
        self.stages = {"stem": second}
        self.conv2 = Block(first, second)
        self.parts["stem"] += ("conv2",)
        for name, widths in member.blocks.items():
            block = Inception(name, next(reversed(self.stages.values())), widths)
            for unit, shape in block.units().items():
                self._add(unit, *shape)
            self.add_module(f"inception_{name}", block)
            stage = STAGE_OF.get(name, "res4")
            part_names = [f"inception_{name}", *(part for unit in block.units() for part in (unit, f"{unit}_bn"))]
            self.parts[stage] = (*self.parts.get(stage, ()), *part_names)
            self.stages[stage] = self.features = block.out_channels
        self.names = tuple(member.blocks)
        initialize(self)

    def _add(self, name: str, ins: int, outs: int, kernel: int, stride: int) -> None:
        """Add a convolution `name` and its norm `name`_bn."""
        self.add_module(name, nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=not self.slim))
        self.add_module(f"{name}_bn", Unscaled(outs, eps=0.001) if self.slim else nn.BatchNorm2d(outs))

    def unit(self, name: str, x: Tensor) -> Tensor:
        """Apply the named convolution, its norm and a ReLU."""
        return F.relu(self.bare(name, x), inplace=True)

    def bare(self, name: str, x: Tensor) -> Tensor:
        """Apply the named convolution and its norm."""
        return self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x))

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name == "stem":
            x = _halved(self.unit("conv1_7x7_s2", x))
            x = self.unit("conv2_3x3", self.unit("conv2_3x3_reduce", self.conv2.entry(x)))
            return self.conv2.after(self.conv2.exit(_halved(x)))
        for block in self.parts[name]:
            if block.removeprefix("inception_") in self.names:
                x = self.get_submodule(block)(x, self)
        return x


def build(variant: str) -> BNInception:
    """Build the named BN-Inception; ValueError for an unknown variant."""
    return BNInception(member("bn_inception", variant, MEMBERS))


def _halved(x: Tensor) -> Tensor:
    """Halve maps by a 3x3 maximum with stride 2, padded as a convolution pads.

    (B, C, H, W) -> (B, C, H/2, W/2), rounded up.
    """
    return F.max_pool2d(x, 3, 2, (x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
