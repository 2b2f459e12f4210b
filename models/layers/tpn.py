"""The neck of the temporal pyramid network, which TPN and MAAGN share.

Yang, Xu, Shi, Dai and Zhou, "Temporal Pyramid Network for Action Recognition" (CVPR 2020), section 3. Spatial
modulation brings res4 and res5 to one size, and temporal modulation sets each level's tempo. A top-down and a bottom-up
flow add them into each other, and all is fused. As in the authors' code (github.com/decisionforce/TPN):
- Level fusion has separate weights for each flow; the neck gives as many channels as res5, 2048 in a ResNet-50.
- Flow "cascade": the bottom-up flow starts from the top-down flow's output. In the authors' code two names are one
  list, so this is what they trained. "parallel": it starts from the modulated levels, as the text reads.
- Temporal modulation pools all frames to one, as in their configurations, unless it gets scales.
- An auxiliary head on the level before the last adds half its loss in training.
- TSM's shift is "in place": the shortcut convolution of a block sees the shifted input, an identity shortcut does not.
Different from it: a ResNet-101 is shifted at every second block, as in TSM's code. A level n stages below the last
takes n convolutions of stride 2, at any width. The number of groups is reduced to a divisor of the channels.
MobileNetV2's tail, one more 1x1 convolution, sees the one map that the pyramid gives.
"""

from collections.abc import Callable, Sequence
from math import gcd
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, Neck, check_known, stage_blocks
from models.layers.residual3d import Conv3d
from models.layers.shift import Shift, TemporalShift, keep_unshifted, shift_blocks

# Shapes: N clips, T frames, C channels; a level is (N, C, T, H, W), the last has the smallest maps.

FLOWS = ("cascade", "parallel")
GROUPS = 32


def convolution(ins: int, outs: int, kernel: tuple[int, int, int] = (1, 1, 1), groups: int = 1) -> nn.Conv3d:
    """Build a convolution without bias, in at most `groups` groups.

    (N, ins, T, H, W) -> (N, outs, T, H, W).
    """
    t, h, w = kernel
    return Conv3d(ins, outs, kernel, padding=(t // 2, h // 2, w // 2), groups=gcd(groups, ins, outs), bias=False)


def normed(conv: nn.Conv3d) -> nn.Sequential:
    """Append a batch norm and a ReLU to a convolution."""
    return nn.Sequential(conv, nn.BatchNorm3d(conv.out_channels), nn.ReLU(inplace=True))


def halving(ins: int, outs: int) -> nn.Sequential:
    """Build a normed 1x3x3 convolution that halves the maps.

    (N, ins, T, H, W) -> (N, outs, T, H/2, W/2), rounded up.
    """
    return normed(Conv3d(ins, outs, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False))


def initialise(module: nn.Module) -> None:
    """Initialize a module's 3D convolutions by Xavier's uniform distribution."""
    for inner in module.modules():
        if isinstance(inner, nn.Conv3d):
            nn.init.xavier_uniform_(inner.weight)


class TemporalModulation(nn.Module):
    """Temporal modulation: (N, ins, T, H, W) -> (N, outs, T/scale, H, W), rounded up.

    Without a scale, all frames are pooled to one.
    """

    def __init__(self, ins: int, outs: int, scale: int | None = None) -> None:
        super().__init__()
        self.conv = convolution(ins, outs, (3, 1, 1), GROUPS)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(self.conv(x), (self.scale or x.shape[2], 1, 1), ceil_mode=True)


class UnitPooling(nn.Module):
    """A maximum over single values, without effect: tools count the authors'."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def published(self, x: Tensor) -> Tensor:
        return F.max_pool3d(x, 1)


class LevelFusion(nn.Module):
    """Fuse levels (N, ins, T, H, W), through `middle` channels, to `outs`."""

    def __init__(self, levels: int, ins: int, middle: int, outs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(normed(convolution(ins, middle, groups=GROUPS)) for _ in range(levels))
        self.pool = UnitPooling()
        self.fuse = normed(convolution(levels * middle, outs))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return self.fuse(torch.cat([op(self.pool(x)) for op, x in zip(self.levels, levels, strict=True)], 1))


class TemporalPyramid(nn.Module):
    """The pyramid: levels with halving H and W -> (N, features, T/scale, H, W).

    `attention` has a place for a module at each level, between spatial and temporal modulation, where all levels have
    the last one's channels and size. They are identities until an attach() fills them.

    Args:
        channels: of each level.
        width: channels of the flows.
        middle: channels of each level before fusion.
        fused: channels of each flow after fusion.
        features: channels of the output.
        scales: of temporal modulation, one per level.
        flow: one of FLOWS.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        middle: int,
        fused: int,
        features: int,
        scales: Sequence[int | None] | None = None,
        flow: str = "cascade",
    ) -> None:
        super().__init__()
        self.flow = flow
        self.spatial = nn.ModuleList(
            _to_last(ins, channels[-1], len(channels) - 1 - at) for at, ins in enumerate(channels)
        )
        self.attention = nn.ModuleList(nn.Identity() for _ in channels)
        self.temporal = nn.ModuleList(
            TemporalModulation(channels[-1], width, scale) for scale in scales or [None] * len(channels)
        )
        self.up = nn.ModuleList(convolution(width, width, (3, 1, 1)) for _ in channels[1:])
        self.pool = UnitPooling()
        self.top_down = LevelFusion(len(channels), width, middle, fused)
        self.bottom_up = LevelFusion(len(channels), width, middle, fused)
        self.fuse = normed(convolution(2 * fused, features))
        initialise(self)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        modulated = self.modulated(levels)  # all (N, width, T/scale, H, W)
        down = list(modulated)
        for at in reversed(range(len(down) - 1)):
            down[at] = down[at] + down[at + 1]
        up = list(down if self.flow == "cascade" else modulated)
        for at, conv in enumerate(self.up):
            up[at + 1] = up[at + 1] + self.pool(conv(up[at]))
        return self.fuse(torch.cat([self.top_down(down), self.bottom_up(up)], 1))

    def modulated(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels after spatial modulation, attention and temporal modulation."""
        steps = zip(self.spatial, self.attention, self.temporal, levels, strict=True)
        return [temporal(attention(spatial(x))) for spatial, attention, temporal, x in steps]


def _to_last(ins: int, outs: int, steps: int) -> nn.Sequential:
    """Build spatial modulation: each step doubles the channels and halves the maps.

    The last step gives `outs` channels.
    """
    widths = [*(ins * 2**step for step in range(steps)), outs]
    return nn.Sequential(*(halving(widths[step], widths[step + 1]) for step in range(steps)))


class AuxiliaryHead(nn.Module):
    """A classifier of a level in training; `weight` times its loss is a penalty."""

    def __init__(self, channels: int, classes: int, weight: float = 0.5, dropout: float = 0.5) -> None:
        super().__init__()
        self.weight = weight
        self.conv = halving(channels, 2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * channels, classes)
        initialise(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)
        self.logits: Tensor | None = None

    def forward(self, level: Tensor) -> None:
        """Keep the logits (N, classes) for penalty() in training; otherwise do nothing."""
        if self.training:
            self.logits = self.fc(self.dropout(self.conv(level).mean((2, 3, 4))))

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; evaluation drops the logits."""
        self.logits = self.logits if mode else None
        return super().train(mode)

    def penalty(self, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the weighted loss of the last level seen in training, or 0."""
        logits, self.logits = self.logits, None
        return self.fc.weight.new_zeros(()) if logits is None else self.weight * criterion(logits)


class PyramidNeck(Neck):
    """A pyramid over several stages that leaves one frame, in the net's layout."""

    def __init__(self, stages: Sequence[str], frames: int, pyramid: TemporalPyramid, aux: AuxiliaryHead | None) -> None:
        super().__init__()
        self.stages, self.frames = tuple(stages), frames
        self.pyramid, self.aux = pyramid, aux

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage not in self.stages:
            return maps
        folded = maps.ndim == 4
        seen[stage] = maps.unflatten(0, (-1, self.frames)).transpose(1, 2) if folded else maps  # (N, C, T, H, W)
        if self.aux is not None and stage == self.stages[-2]:
            self.aux(seen[stage])
        if stage != self.stages[-1]:
            return maps
        out = self.pyramid([seen[stage] for stage in self.stages])
        return out.transpose(1, 2).flatten(0, 1) if folded else out


def attach_pyramid(
    net: Backbone,
    frames: int,
    attention: str,
    flow: str,
    aux: bool,
    shift: bool,
    stages: tuple[str, ...] = ("res4", "res5"),
) -> TemporalPyramid:
    """Give the net a PyramidNeck over its last stages.

    Args:
        net: the backbone.
        frames: T.
        attention: name for the errors.
        flow: one of FLOWS.
        aux: add an auxiliary head.
        shift: add TSM's shift in place, if the net takes frames.
        stages: the last stages, which the pyramid fuses.

    Raises:
        ValueError: The flow is unknown, or the backbone ends in other stages.
    """
    check_known(attention, flow=(flow, FLOWS))
    names = tuple(name for name in net.stages if name != "tail" or not net.rounds_up)
    if names[-len(stages) :] != stages:
        raise ValueError(
            f"attention {attention!r} needs a backbone of another layout, that ends in {' and '.join(stages)}, "
            f"not in {' and '.join(names[-len(stages) :])}"
        )
    if shift and net.layout == "frames":
        shift_in_place(net, frames, 8, attention)
    channels = [net.stages[stage] for stage in stages]
    half = channels[-1] // 2
    pyramid = TemporalPyramid(channels, half, half, channels[-1], channels[-1], flow=flow)
    head = AuxiliaryHead(channels[-2], net.classes) if aux else None
    net.pooling = "unseen"
    net.neck = PyramidNeck(stages, frames, pyramid, head)
    return pyramid


class ShiftedShortcut(nn.Sequential):
    """A block's shortcut, names kept, that sees the shifted input (N*T, C, H, W)."""

    def __init__(self, shortcut: nn.Sequential, frames: int, fold: int) -> None:
        super().__init__(*shortcut)
        self.frames, self.fold = frames, fold
        self[0].register_forward_hook(keep_unshifted)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Shift.apply(x, self.frames, x.shape[1] // self.fold, False))


def shift_in_place(net: Backbone, frames: int, fold: int, attention: str) -> None:
    """Add TSM's shift to residual branches and shortcut convolutions.

    Raises:
        ValueError: As in shift_blocks().
    """
    shift_blocks(net, frames, fold, attention)
    for blocks in stage_blocks(net).values():
        for block in blocks:
            if isinstance(block.entry, TemporalShift) and isinstance(getattr(block, "downsample", None), nn.Sequential):
                block.downsample = ShiftedShortcut(cast(nn.Sequential, block.downsample), frames, fold)
