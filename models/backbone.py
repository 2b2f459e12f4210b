"""What a backbone is: the places it offers to attention modules and the facts about it that others need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn


class Block(nn.Module):
    """A block of a backbone, with three places for an attention module.

    `entry` sees what the first convolution of the residual branch sees (the shortcut keeps the plain input) and is
    `in_channels` wide; `exit` sees what the branch's last norm gives, before the addition; `after` sees what the block
    gives, after the addition and its ReLU; both are `out_channels` wide. All are identities until an attach() fills
    them: without parameters, so that a net's weights keep their names. `relu` is what a residual block does last; with
    an identity in its place the block gives its maps "without activation", and who put it there has to activate them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.entry: nn.Module = nn.Identity()
        self.exit: nn.Module = nn.Identity()
        self.after: nn.Module = nn.Identity()
        self.relu: nn.Module = nn.ReLU(inplace=True)


class BehindConv2d(nn.Conv2d):
    """A 3x3 convolution of a block, its weight and the weight's name kept, behind modules of these names.

    For an attention module that belongs between two convolutions: it is put in the convolution's place.
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
    """A module that works across stages: it sees each stage's maps, and says what the next stage gets instead."""

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """`maps` of `stage`, in the backbone's layout -> what goes on; after the last stage, the backbone's output.

        `seen` is the memory of one forward pass: empty at its start, it keeps what earlier calls have put there.
        """
        raise NotImplementedError


class Backbone(nn.Module):
    """A network from pixels to a feature map, without pooling and head.

    Attributes a subclass sets:
        layout: "frames" if it takes (N*T, C, H, W) and gives (N*T, features, h, w); "volume" if it takes
            (N, C, T, H, W) and gives (N, features, t, h, w).
        stages: stage -> channels it gives, in order: stem, res2, res3, res4, res5 (as many as there are), and tail
            where layers without a place for attention follow.
        parts: stage -> names of the modules of the backbone's own that make it up, in order.
        features: channels of the feature map; a neck that changes them says so here.
        rounds_up: whether each stage behind res2 has half the size of the one before, rounded up, whatever that is.
        shortcuts: whether its blocks are residual.
        neck: a Neck, or None; an attach() may set it.
        classes: what the net that it is part of tells apart; set before an attach() is called.
        mean, std: what is taken off each channel and what it is then divided by, in units of 0..255.
        channels: their order, "rgb" or "bgr".
        classifier: name of the classifier in the weight files that users have; it becomes VideoNet's head.
        pooling: how the published net pools its last maps, as tools that count modules see it: by one to a single value
            ("adaptive"), by one with a window of the maps' size ("window"), or by none ("unseen").

    A module whose forward() computes what was published in a cheaper order may keep that order as published(), with the
    same arguments and result, a backbone as published_stage(): models/paper_flops.py counts that one.
    """

    layout: Literal["frames", "volume"]
    stages: dict[str, int]
    parts: dict[str, tuple[str, ...]]
    features: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Literal["rgb", "bgr"]
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
        """(qualified name, block) of every block, in the order of the forward pass."""
        yield from ((name, module) for name, module in self.named_modules() if isinstance(module, Block))

    def streams(self) -> tuple["Backbone", ...]:
        """The nets that see pixels side by side: itself, or the two of models/layers/two_streams.py."""
        return (self,)

    def fitted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A weight file's tensors by this backbone's names, made to fit where its users' files are of another shape."""
        return state

    def stage(self, name: str, x: Tensor) -> Tensor:
        """What one stage makes of the one before, or of the pixels."""
        raise NotImplementedError

    def published_stage(self, name: str, x: Tensor) -> Tensor:
        """The same in the order that was published."""
        return self.stage(name, x)

    def forward(self, x: Tensor) -> Tensor:
        return self._through(self.stage, x)

    def published(self, x: Tensor) -> Tensor:
        """The same by published_stage()."""
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
    """Return stage -> its blocks; ValueError, which names the attention, for a backbone that sees volumes."""
    if net.layout != "frames":
        raise ValueError(
            f"attention {attention!r} needs a backbone that takes frames, not one of layout {net.layout!r}"
        )
    return stage_blocks(net)


def place(net: Backbone, attention: str, placement: str, module: Callable[[int], nn.Module]) -> None:
    """Puts a module(channels) at the exit of every block ("block"), or after the last block of each stage ("stage").

    Raises ValueError, which names the attention, for any other placement.
    """
    if placement not in ("block", "stage"):
        raise ValueError(f"attention {attention!r}: placement is {placement!r}; known: block, stage")
    for blocks in stage_blocks(net).values():
        if placement == "stage":
            blocks[-1].after = module(blocks[-1].out_channels)
        else:
            for block in blocks:
                block.exit = module(block.out_channels)


def check_subset(attention: str, knob: str, given: Sequence[str], known: Sequence[str]) -> None:
    """ValueError unless a knob's `given` names are one or more of the known."""
    if not given or any(name not in known for name in given):
        raise ValueError(f"attention {attention!r}: {knob} {list(given)} must be some of {', '.join(known)}")
