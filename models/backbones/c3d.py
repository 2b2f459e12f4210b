"""C3D: VGG in 3D, with its authors' layer names, and a tiny variant.

Tran, Bourdev, Fergus, Torresani and Paluri, "Learning Spatiotemporal Features with 3D Convolutional Networks" (ICCV
2015), section 3.2 and figure 3: eight 3x3x3 convolutions and two layers of 4096, on clips of 16 frames of 112x112.
Every pooling halves T, H and W, the first one H and W only. There are no norms; dropout 0.5 follows fc6 and, as
VideoNet's, fc7. The two layers before the classifier belong to the backbone: C3D's features usually mean fc6's output.

- Maps of a size other than 1x4x4, the last pooling's of such a clip, are pooled to it.
- The last pooling pads H and W by one zero on each side, as the authors' Caffe rounds up where torch rounds down.
- A pooling leaves a single frame as it is, so that any T works.
- Pixels are BGR, 0 to 255, minus the mean color (104, 117, 128); the authors subtract a mean clip, pixel by pixel.

Weights with the authors' layer names (conv1a.weight, ..., fc7.bias) load, and mmaction2's (conv1a.conv.weight). A file
with other names does not. There are no residual blocks: attention has its places at res2 to res5, the convolutions
that end in the second to the fifth pooling. `entry` is the input of their first one, `exit` and `after` the pooling's
output.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block, member
from models.layers.plain import Plain

LAYERS = {
    "stem": ("conv1a",),
    "res2": ("conv2a",),
    "res3": ("conv3a", "conv3b"),
    "res4": ("conv4a", "conv4b"),
    "res5": ("conv5a", "conv5b"),
}


@dataclass(frozen=True)
class Member:
    """One C3D: widths of the five stages, and of fc6 and fc7."""

    widths: tuple[int, int, int, int, int]
    hidden: int


MEMBERS = {
    "sports1m": Member((64, 128, 256, 512, 512), 4096),
    "tiny": Member((16, 32, 32, 64, 64), 64),
}
VARIANTS = tuple(MEMBERS)


class Stage(Block):
    """3x3x3 convolutions with ReLU and a pooling.

    (N, ins, T, H, W) -> (N, outs, T/2, H/2, W/2), rounded down.
    """

    def __init__(self, ins: int, outs: int, layers: tuple[str, ...], halve: bool, pad: int) -> None:
        super().__init__(ins, outs)
        self.layers = layers
        padding = (0, pad, pad)
        self.pool = nn.MaxPool3d((2 if halve else 1, 2, 2), padding=padding)
        self.pool_single = nn.MaxPool3d((1, 2, 2), padding=padding)
        for at, layer in enumerate(layers):
            self.add_module(layer, nn.Conv3d(outs if at else ins, outs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        for layer in self.layers:
            x = F.relu(self.get_submodule(layer)(x), inplace=True)
        pool = self.pool if x.shape[2] > 1 else self.pool_single
        return self.after(self.exit(pool(x)))


class C3D(Plain):
    """C3D without its classifier, for any T, and any H and W from 32.

    (N, 3, T, H, W) -> (N, features, 1, 1, 1).
    """

    layout, pooling = "volume", "unseen"
    mean, std, channels = (104.0, 117.0, 128.0), (1.0, 1.0, 1.0), "bgr"

    def __init__(self, member: Member) -> None:
        super().__init__()
        ins = 3
        for (stage, layers), outs in zip(LAYERS.items(), member.widths, strict=True):
            self.add_module(stage, Stage(ins, outs, layers, stage != "stem", int(stage == "res5")))
            ins = outs
        self.complete(member.widths, 4 * 4, member.hidden)

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        stage_of = {layer: stage for stage, layers in LAYERS.items() for layer in layers}
        fitted = {}
        for name, value in state.items():
            layer, _, rest = name.partition(".")
            renamed = f"{stage_of[layer]}.{layer}.{rest.removeprefix('conv.')}" if layer in stage_of else name
            fitted[renamed] = value
        return fitted

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name != "tail":
            return self.get_submodule(name)(x)
        return self.tail(x if x.shape[2:] == (1, 4, 4) else F.adaptive_avg_pool3d(x, (1, 4, 4)))[..., None, None, None]


def build(variant: str) -> C3D:
    """Build the named C3D; ValueError for an unknown variant."""
    return C3D(member("c3d", variant, MEMBERS))
