"""Residual backbones by torchvision's names: a stem, then layer1 to layer4, which are res2 to res5."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone


class Residual(Backbone):
    """A backbone of conv1, bn1, maxpool and four stages of blocks; a subclass's __init__ ends with complete()."""

    conv1: nn.Module
    bn1: nn.Module
    maxpool: nn.Module

    def complete(
        self, layers: Sequence[nn.Module], channels: Sequence[int], stem: tuple[str, ...] = ("conv1", "bn1")
    ) -> None:
        """Add the stages, and initialize every convolution (He et al. 2015, fan-out).

        Args:
            layers: The stages res2 to res5.
            channels: The channels of the stem's maps and of each stage's.
            stem: The names of the stem's modules.
        """
        for number, layer in enumerate(layers, 1):
            self.add_module(f"layer{number}", layer)
        self.parts = {"stem": stem, **{f"res{number + 1}": (f"layer{number}",) for number in range(1, 5)}}
        self.stages = dict(zip(self.parts, channels, strict=True))
        self.features = channels[-1]
        initialize(self)

    def stage(self, name: str, x: Tensor) -> Tensor:
        if name == "stem":
            # ReLU after the pooling gives the same values and gradients as before it, over a fraction of the elements.
            return F.relu(self.maxpool(self.bn1(self.conv1(x))), inplace=True)
        return self.get_submodule(self.parts[name][0])(x)

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """The same with the stem's ReLU before its pooling."""
        return self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True)) if name == "stem" else self.stage(name, x)


def initialize(net: nn.Module) -> None:
    """Draw the weights of every convolution as He et al. (2015) do, by fan-out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
