"""Plain backbones, VGG and C3D: stages without shortcuts, then two linear layers."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Block

STAGES = ("stem", "res2", "res3", "res4", "res5")


class Plain(Backbone):
    """A backbone of STAGES and a tail; a subclass's __init__ ends with complete()."""

    def complete(self, widths: Sequence[int], positions: int, hidden: int) -> None:
        """Add fc6 and fc7, and initialize all layers (He et al. 2015).

        Args:
            widths: channels of the stages' maps.
            positions: positions of the last stage's maps.
            hidden: width of fc6 and fc7.
        """
        self.fc6 = nn.Linear(widths[-1] * positions, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(0.5)
        self.parts = {stage: (stage,) for stage in STAGES} | {"tail": ("fc6", "fc7")}
        self.stages = dict(zip(self.parts, (*widths, hidden), strict=True))
        self.features = hidden
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # 0.01 at fc6's size, as published
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def blocks(self) -> Iterator[tuple[str, Block]]:
        yield from ((name, block) for name, block in super().blocks() if name != "stem")

    def tail(self, x: Tensor) -> Tensor:
        """Apply fc6 and fc7: maps (B, ...) -> (B, features)."""
        x = F.relu(self.fc6(x.flatten(1)))
        return F.relu(self.fc7(self.dropout(x)))
