"""VGG, frame by frame (Simonyan and Zisserman 2015), for torchvision's weights.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (ICLR 2015), table 1, net
D, without batch norm. The two layers of 4096 before the classifier, fc6 and fc7, belong to the backbone. With them its
parameters are the 138.36 million that papers count, and a module's output at the last pooling still passes through
them. Dropout 0.5 follows fc6, as published; the one after fc7 is VideoNet's. Maps of a size other than 7x7 (a frame of
224x224) are pooled to it, as torchvision does. Variant "tiny" is for the CPU.

torchvision's features.10 is res3.10 here, its classifier.0 and classifier.3 are fc6 and fc7, because Backbone.features
is a number and Backbone.classifier a name. Its files load by these names.

There are no residual blocks. Attention has its places at res2 to res5, the convolutions that end in the second to the
fifth pooling. `entry` is the input of their first convolution, `exit` and `after` the pooling's output. The last ReLU,
`relu`, has activated it; its place before or after a pooling makes no difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Block, member
from models.layers.plain import STAGES, Plain


@dataclass(frozen=True)
class Member:
    """One VGG: depths and widths of its stages, and the width of fc6 and fc7."""

    depths: tuple[int, int, int, int, int]
    widths: tuple[int, int, int, int, int]
    hidden: int


MEMBERS = {
    "16": Member((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), 4096),
    "tiny": Member((1, 1, 1, 1, 1), (16, 32, 32, 64, 64), 64),
}
VARIANTS = tuple(MEMBERS)


class Stage(Block):
    """3x3 convolutions with ReLU and a pooling.

    (B, ins, H, W) -> (B, outs, H/2, W/2), sizes rounded down. `first` is the first convolution's number among
    torchvision's layers, where a ReLU follows each.
    """

    def __init__(self, ins: int, outs: int, depth: int, first: int) -> None:
        super().__init__(ins, outs)
        self.numbers = [str(first + 2 * at) for at in range(depth)]
        for at, number in enumerate(self.numbers):
            self.add_module(number, nn.Conv2d(outs if at else ins, outs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        # The last ReLU after the pooling gives the same as before it, over a quarter of the elements.
        return self.after(self.exit(self.relu(F.max_pool2d(self._convolved(x), 2))))

    def published(self, x: Tensor) -> Tensor:
        """Return the same with the last ReLU before the pooling."""
        return self.after(self.exit(F.max_pool2d(self.relu(self._convolved(x)), 2)))

    def _convolved(self, x: Tensor) -> Tensor:
        """Return the maps before the last ReLU."""
        x = self.entry(x)
        for number in self.numbers[:-1]:
            x = F.relu(self.get_submodule(number)(x), inplace=True)
        return self.get_submodule(self.numbers[-1])(x)


class Vgg(Plain):
    """VGG without its classifier: (B, 3, H, W) -> (B, features, 1, 1), H, W from 32."""

    layout = "frames"
    classifier = "classifier.6"
    pooling = "unseen"  # no pooling follows fc7
    rounds_up = False
    shortcuts = False

    def __init__(self, member: Member) -> None:
        super().__init__()
        ins, first = 3, 0
        self.stage_of: dict[str, str] = {}
        for stage, outs, depth in zip(STAGES, member.widths, member.depths, strict=True):
            convolutions = Stage(ins, outs, depth, first)
            self.add_module(stage, convolutions)
            self.stage_of |= dict.fromkeys(convolutions.numbers, stage)
            ins, first = outs, first + 2 * depth + 1
        self.complete(member.widths, 7 * 7, member.hidden)

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {self._renamed(name): value for name, value in state.items()}

    def _renamed(self, name: str) -> str:
        """Rename features.10.<rest> to res3.10.<rest>, classifier.0 and .3 to fc6, fc7."""
        number, _, rest = name.removeprefix("features.").partition(".")
        name = f"{self.stage_of[number]}.{number}.{rest}" if number in self.stage_of else name
        return name.replace("classifier.0.", "fc6.").replace("classifier.3.", "fc7.")

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name != "tail":
            return self.get_submodule(name)(x)
        return self.tail(x if x.shape[2:] == (7, 7) else F.adaptive_avg_pool2d(x, 7))[..., None, None]

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """Return the same with torchvision's pooling to 7x7 of maps that are 7x7 already."""
        return self.tail(F.adaptive_avg_pool2d(x, 7))[..., None, None] if name == "tail" else self.stage(name, x)


def build(variant: str) -> Vgg:
    """Build the named VGG; ValueError for an unknown variant."""
    return Vgg(member("vgg", variant, MEMBERS))
