"""Residual backbones, named as torchvision's: layer1 to layer4 are res2 to res5."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block


class Residual(Backbone):
    """A stem and four stages of blocks; a subclass's __init__ ends with complete()."""

    conv1: nn.Module
    bn1: nn.Module
    maxpool: nn.Module

    def complete(
        self,
        channels: int,
        depths: Sequence[int],
        block: Callable[[int, int, int, int], Block],
        stem: tuple[str, ...] = ("conv1", "bn1"),
    ) -> None:
        """Add the stages, and initialize every convolution (He et al. 2015, fan-out).

        Args:
            channels: of the stem's maps.
            depths: numbers of blocks of res2 to res5.
            block: (its input's channels, stage from 0, number in the stage from 0, stride) -> a block.
            stem: names of the stem's modules.
        """
        self.parts, self.stages = {"stem": stem}, {"stem": channels}
        for at, depth in enumerate(depths):
            blocks: list[Block] = []
            for number in range(depth):
                blocks.append(block(channels, at, number, 2 if at and not number else 1))
                channels = blocks[-1].out_channels
            self.add_module(f"layer{at + 1}", nn.Sequential(*blocks))
            self.parts[f"res{at + 2}"] = (f"layer{at + 1}",)
            self.stages[f"res{at + 2}"] = self.features = channels
        initialize(self)

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name == "stem":
            # ReLU after the pooling gives the same values and gradients as before it, over a fraction of the elements.
            return F.relu(self.maxpool(self.bn1(self.conv1(x))), inplace=True)
        return self.get_submodule(self.parts[name][0])(x)

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """Return the same with the stem's ReLU before its pooling."""
        return self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True)) if name == "stem" else self.stage(name, x)


def initialize(net: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. (2015) do, by fan-out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
