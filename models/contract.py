"""What a backbone is: the places it offers to attention modules and the facts about it that others need."""

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn


class Block(nn.Module):
    """A block of a backbone, with two places for an attention module.

    `entry` sees what the first convolution of the residual branch sees (the shortcut keeps the plain input) and is
    `in_channels` wide; `exit` sees what the branch's last norm gives, before the addition, and is `out_channels` wide.
    Both are identities until an attach() fills them: without parameters, so that a net's weights keep their names.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.entry: nn.Module = nn.Identity()
        self.exit: nn.Module = nn.Identity()


class Backbone(nn.Module):
    """A network from pixels to a feature map, without pooling and head.

    Attributes a subclass sets:
        layout: "frames" if it takes (N*T, C, H, W) and gives (N*T, features, h, w); "volume" if it takes
            (N, C, T, H, W) and gives (N, features, t, h, w).
        stages: stage -> channels it gives, in order: stem, res2, res3, res4, res5 (as many as there are).
        parts: stage -> names of the backbone's own children that make it up, in order.
        features: channels of the feature map.
        mean, std: what is taken off each channel and what it is then divided by, in units of 0..255.
        channels: their order, "rgb" or "bgr".
        classifier: name of the classifier in the weight files that users have; it becomes VideoNet's head.
    """

    layout: Literal["frames", "volume"]
    stages: dict[str, int]
    parts: dict[str, tuple[str, ...]]
    features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["rgb", "bgr"]
    classifier: str = "fc"

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """(qualified name, block) of every block, in the order of the forward pass."""
        yield from ((name, module) for name, module in self.named_modules() if isinstance(module, Block))

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def frame_blocks(net: Backbone, attention: str) -> dict[str, list[Block]]:
    """stage -> its blocks, of a backbone that sees frames; ValueError for any other, which names the attention."""
    if net.layout != "frames":
        raise ValueError(
            f"attention {attention!r} needs a backbone that takes frames, not one of layout {net.layout!r}"
        )
    stage_of = {part: stage for stage, parts in net.parts.items() for part in parts}
    by_stage: dict[str, list[Block]] = {}
    for name, block in net.blocks():
        by_stage.setdefault(stage_of[name.split(".")[0]], []).append(block)
    return by_stage
