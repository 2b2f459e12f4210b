"""The interface of a backbone: blocks, stages and places for attention."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from torch import Tensor, nn

from models.registry import unknown

M = TypeVar("M")


class Block(nn.Module):
    """A block of a backbone, with three places for an attention module.

    Attributes:
        entry: sees the input of the residual branch's first convolution, `in_channels` wide; the shortcut keeps the
            plain input.
        exit: sees the output of the branch's last norm, before the addition, `out_channels` wide.
        after: sees the block's output, after the addition and its ReLU, `out_channels` wide.
        relu: the last step of a residual block. A module may replace it by an identity, to see maps "without
            activation"; that module then activates them.

    The three places are identities until an attach() fills them. Identities have no parameters, so a net's weights keep
    their names.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.entry: nn.Module = nn.Identity()
        self.exit: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        self.relu: nn.Module = nn.ReLU(inplace=True)


class BehindConv2d(nn.Conv2d):
    """A 3x3 convolution of a block behind other modules, its weight and name kept.

    It replaces the convolution, for an attention module that belongs between two convolutions.
    """

    def __init__(self, conv: nn.Conv2d, **before: nn.Module) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, device="meta")
        self.stride, self.weight, self.before = conv.stride, conv.weight, tuple(before)
        for name, module in before.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.before:
            x = self.get_submodule(name)(x)
        return super().forward(x)


class Neck(nn.Module):
    """A module that works across stages: it reads and replaces each stage's maps."""

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """Return the maps for the next stage, or the backbone's output at the end.

        Args:
            stage: name of the stage.
            maps: its output, in the backbone's layout.
            seen: memory of one forward pass, empty at its start, where calls store what later ones read.
        """
        raise NotImplementedError


class Backbone(nn.Module):
    """A network from pixels to a feature map, without pooling and head.

    Attributes that a subclass sets:
        layout: "frames" if it takes (N*T, C, H, W) and gives (N*T, features, h, w); "volume" if it takes
            (N, C, T, H, W) and gives (N, features, t, h, w).
        stages: stage -> its output channels, in order: those of stem, res2, res3, res4 and res5 that exist. Layers
            behind them, without a place for attention, are the stage tail.
        parts: stage -> names of the backbone's modules that make it up, in order.
        features: channels of the feature map; a neck that changes them updates this.
        rounds_up: each stage behind res2 has half the size of the stage before, rounded up, at any size.
        shortcuts: its blocks are residual.
        neck: a Neck, or None; an attach() may set it.
        classes: number of classes of the whole net; set before an attach() is called.
        mean, std: subtracted from each channel, then its divisor, in units of 0..255; by default torchvision's.
        channels: their order, "rgb" or "bgr".
        classifier: name of the classifier in public weight files; it becomes VideoNet's head.
        pooling: the published net's last pooling, as tools that count modules see it. "adaptive" pools to a single
            value, "window" has a window of the maps' size, "unseen" is no module.

    A module may compute the published result in a cheaper order. It can keep the published order as published(), with
    the same arguments and result; a backbone as published_stage(). models/paper_flops.py counts that order.
    """

    layout: Literal["frames", "volume"]
    stages: dict[str, int]
    parts: dict[str, tuple[str, ...]]
    features: int
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    channels: Literal["rgb", "bgr"] = "rgb"
    classifier: str = "fc"
    pooling: Literal["adaptive", "window", "unseen"] = "adaptive"
    rounds_up: bool = True
    shortcuts: bool = True
    neck: Neck | None
    classes: int

    def __init__(self) -> None:
        super().__init__()
        self.neck = None

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Yield (qualified name, block) of every block, in the order of the forward pass."""
        yield from ((name, module) for name, module in self.named_modules() if isinstance(module, Block))

    def streams(self) -> tuple["Backbone", ...]:
        """Return the nets that see pixels in parallel: one, or two_streams.py's two."""
        return (self,)

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a weight file's tensors by this backbone's names and shapes."""
        return state

    def stage(self, name: str, x: Tensor) -> Tensor:
        """Return a stage's output, given the output of the stage before, or the pixels."""
        raise NotImplementedError

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """Return the same, computed in the published order."""
        return self.stage(name, x)

    def forward(self, x: Tensor) -> Tensor:
        return self._through(self.stage, x)

    def published(self, x: Tensor) -> Tensor:
        """Return the same by published_stage()."""
        return self._through(self.published_stage, x)

    def _through(self, stage: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
        seen: dict[str, Tensor] = {}
        for name in self.stages:
            x = stage(name, x)
            if self.neck is not None:
                x = self.neck(name, x, seen)
        return x


def stage_blocks(net: Backbone) -> dict[str, list[Block]]:
    """Return stage -> its blocks, in order."""
    within = {stage: tuple(f"{part}." for part in parts) for stage, parts in net.parts.items()}
    by_stage: dict[str, list[Block]] = {}
    for name, block in net.blocks():
        by_stage.setdefault(next(stage for stage in within if f"{name}.".startswith(within[stage])), []).append(block)
    return by_stage


def frame_blocks(net: Backbone, attention: str) -> dict[str, list[Block]]:
    """Return stage -> its blocks; ValueError for a backbone that sees volumes."""
    if net.layout != "frames":
        raise ValueError(
            f"attention {attention!r} needs a backbone that takes frames, not one of layout {net.layout!r}"
        )
    return stage_blocks(net)


def every(stages: Mapping[str, Sequence[Block]]) -> int:
    """Return n, where every n-th block is attended: 2 from 23 blocks on, else 1."""
    return 2 if max(map(len, stages.values())) >= 23 else 1


def second_convolutions(net: Backbone, attention: str) -> Iterator[tuple[str, Block, nn.Conv2d]]:
    """Yield (stage, block, its conv2) of a ResNet; ValueError for other backbones."""
    for stage, blocks in frame_blocks(net, attention).items():
        for block in blocks:
            conv = getattr(block, "conv2", None)
            if not isinstance(conv, nn.Conv2d):
                raise ValueError(
                    f"attention {attention!r} needs residual blocks with the layout of ResNet's: conv1, then conv2"
                )
            yield stage, block, conv


def place(net: Backbone, attention: str, placement: str, module: Callable[[int], nn.Module]) -> None:
    """Put module(channels) at the exit of every block, or after each stage.

    Args:
        net: the backbone.
        attention: name for the error.
        placement: "block" or "stage".
        module: builds a module for a number of channels.

    Raises:
        ValueError: The placement is unknown.
    """
    check_known(attention, placement=(placement, ("block", "stage")))
    for blocks in stage_blocks(net).values():
        if placement == "stage":
            blocks[-1].after = module(blocks[-1].out_channels)
        else:
            for block in blocks:
                block.exit = module(block.out_channels)


def member(backbone: str, variant: str, members: Mapping[str, M]) -> M:
    """Return a backbone's variant; ValueError lists the known ones."""
    if variant not in members:
        raise unknown(f"variant of backbone {backbone!r}", variant, members)
    return members[variant]


def check_known(attention: str, /, **knobs: tuple[object, Collection[object]]) -> None:
    """Raise ValueError unless each knob, a pair (value, known), has a known value."""
    for knob, (value, known) in knobs.items():
        if value not in known:
            raise ValueError(f"attention {attention!r}: {knob} is {value!r}; known: {', '.join(map(str, known))}")


def check_least(attention: str, least: float = 1, /, *, odd: bool = False, **knobs: float) -> None:
    """Raise ValueError unless each knob is `least` or more, and odd if asked."""
    for knob, value in knobs.items():
        if value < least or (odd and value % 2 == 0):
            kind = "an odd number, " if odd else ""
            raise ValueError(f"attention {attention!r}: {knob} is {value}; it must be {kind}{least} or more")


def check_subset(attention: str, knob: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless the knob's names are one or more of the known names."""
    if not chosen or any(name not in known for name in chosen):
        raise ValueError(f"attention {attention!r}: {knob} {list(chosen)} must be some of {', '.join(known)}")
