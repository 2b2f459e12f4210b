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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block
from models.registry import unknown

STAGES = ("stem", "res2", "res3", "res4", "res5")


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
        x = self.entry(x)
        for number in self.numbers[:-1]:
            x = F.relu(self.get_submodule(number)(x), inplace=True)
        # The last ReLU after the pooling gives the same as before it, over a quarter of the elements.
        return self.after(self.exit(self.relu(F.max_pool2d(self.get_submodule(self.numbers[-1])(x), 2))))

    def published(self, x: Tensor) -> Tensor:
        """Return the same with the last ReLU before the pooling."""
        x = self.entry(x)
        for number in self.numbers[:-1]:
            x = F.relu(self.get_submodule(number)(x), inplace=True)
        return self.after(self.exit(F.max_pool2d(self.relu(self.get_submodule(self.numbers[-1])(x)), 2)))


class Vgg(Backbone):
    """VGG without its classifier, for any H and W from 32.

    (B, 3, H, W) -> (B, features, 1, 1).
    """

    layout = "frames"
    mean, std, channels = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb"  # torchvision's, times 255
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
        self.fc6 = nn.Linear(member.widths[-1] * 7 * 7, member.hidden)
        self.fc7 = nn.Linear(member.hidden, member.hidden)
        self.dropout = nn.Dropout(0.5)
        self.parts = {stage: (stage,) for stage in STAGES} | {"tail": ("fc6", "fc7")}
        self.stages = dict(zip(STAGES, member.widths, strict=True)) | {"tail": member.hidden}
        self.features = member.hidden
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # 0.01 at fc6's size, as published
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def blocks(self) -> Iterator[tuple[str, Block]]:
        yield from ((name, block) for name, block in super().blocks() if name != "stem")

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {self._own(name): value for name, value in state.items()}

    def _own(self, name: str) -> str:
        """Rename features.10.<rest> to res3.10.<rest>, classifier.0 and .3 to fc6, fc7.

        Any other name stays.
        """
        number, _, rest = name.removeprefix("features.").partition(".")
        name = f"{self.stage_of[number]}.{number}.{rest}" if number in self.stage_of else name
        return name.replace("classifier.0.", "fc6.").replace("classifier.3.", "fc7.")

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name != "tail":
            return self.get_submodule(name)(x)
        return self._tail(x if x.shape[2:] == (7, 7) else F.adaptive_avg_pool2d(x, 7))

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """Return the same with torchvision's pooling to 7x7 of maps that are 7x7 already."""
        return self._tail(F.adaptive_avg_pool2d(x, 7)) if name == "tail" else self.stage(name, x)

    def _tail(self, x: Tensor) -> Tensor:
        """Apply fc6 and fc7: (B, C, 7, 7) -> (B, features, 1, 1)."""
        x = F.relu(self.fc6(x.flatten(1)))  # (B, features)
        x = F.relu(self.fc7(self.dropout(x)))
        return x[..., None, None]


def build(variant: str) -> Vgg:
    """Build the named VGG; ValueError for an unknown variant."""
    if variant not in MEMBERS:
        raise unknown("variant of backbone 'vgg'", variant, VARIANTS)
    return Vgg(MEMBERS[variant])
