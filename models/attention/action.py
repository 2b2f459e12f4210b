"""ACTION: spatio-temporal, channel and motion excitation of frame features.

Wang, She and Smolic, "ACTION-Net: Multipath Excitation for Action Recognition" (CVPR 2021), section 3. At the start of
every residual block are STE (3.1, equations 1 to 3), CE (3.2, equations 4 to 8) and ME (3.3, equation 9). They are
added up (3.4). Equation 10 is the efficiency, a figure of its tables, and the recipe is section 4.2. `paths` and
`stages` are the paper's ablations (tables 3 and 4).

Where the authors' code (github.com/V-Sense/ACTION-Net) and the paper differ, the printed parameters and FLOPs follow
the code, and so does this file:
- All paths see features shifted in time by a learnable depthwise convolution that starts as TSM's shift. The paper has
  no shift. The ablations with a single path keep it.
- CE has a ReLU after its convolution over time. ME has a batch norm after its squeeze, and its 3x3 convolution is
  depthwise. No convolution has a bias.
- The three outputs x*(1 + mask) are added, not averaged: about 4.5 times x when training starts.
- The paper leaves open if table 4's stages without ACTION keep the shift. They are plain, or shifted as in TSM
  (`rest`).
- Of the recipe (conf/recipe/action.yaml): the code takes floor(n / T) frames of a segment, so that it never sees a
  video's tail, lowers the rate an epoch later, trains EgoGesture on validation videos too, and keeps the epoch that is
  best on the videos it reports. Here it is as printed; the training parts are a row of the suite.
- A net with a stage of 23 blocks or more (ResNet-101) has ACTION at every second block of each stage.
Written differently, with the same result:
- The paths' sum is x*(3 + masks), in fp32 under lower precision too: in bf16 the factor would have ten values. ME pools
  its two maps before it subtracts them, and 1x1 convolutions of pooled features are linear layers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone, check_known, check_least, check_subset, every, frame_blocks
from models.layers.shift import TemporalShift, TemporalShiftConv

# Shapes: N clips, T frames, C channels, R = max(1, C // reduction), x (N*T, C, H, W).


class SpatioTemporalExcitation(nn.Module):
    """STE's mask: (N*T, C, H, W) -> (N*T, 1, H, W)."""

    def __init__(self, channels: int, reduced: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv3d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1).unflatten(0, (-1, 1, self.frames))  # (N, 1, T, H, W)
        return torch.sigmoid(self.conv(mean)).reshape(len(x), 1, *x.shape[2:])


class ChannelExcitation(nn.Module):
    """CE's mask: (N*T, C, H, W) -> (N*T, C, 1, 1)."""

    def __init__(self, channels: int, reduced: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.squeeze = nn.Linear(channels, reduced, bias=False)
        self.conv = nn.Conv1d(reduced, reduced, 3, padding=1, bias=False)
        self.expand = nn.Linear(reduced, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x.mean((2, 3))).unflatten(0, (-1, self.frames))  # (N, T, R)
        mixed = torch.relu(self.conv(squeezed.transpose(1, 2))).transpose(1, 2)  # (N, T, R)
        return torch.sigmoid(self.expand(mixed)).reshape(*x.shape[:2], 1, 1)


class MotionExcitation(nn.Module):
    """ME's mask: (N*T, C, H, W) -> (N*T, C, 1, 1)."""

    def __init__(self, channels: int, reduced: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.squeeze = nn.Conv2d(channels, reduced, 1, bias=False)
        self.norm = nn.BatchNorm2d(reduced)
        self.conv = nn.Conv2d(reduced, reduced, 3, padding=1, groups=reduced, bias=False)
        self.expand = nn.Linear(reduced, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.squeeze(x))  # (N*T, R, H, W)
        now = features.mean((2, 3)).unflatten(0, (-1, self.frames))  # (N, T, R)
        then = self.conv(features).mean((2, 3)).unflatten(0, (-1, self.frames))
        motion = F.pad(then[:, 1:] - now[:, :-1], (0, 0, 0, 1))  # the last frame has no next frame: zero
        return torch.sigmoid(self.expand(motion)).reshape(*x.shape[:2], 1, 1)

    def published(self, x: Tensor) -> Tensor:
        """Return the same mask in the paper's order: subtract maps, then pool."""
        features = self.norm(self.squeeze(x))  # (N*T, R, H, W)
        now, then = (maps.unflatten(0, (-1, self.frames)) for maps in (features, self.conv(features)))
        motion = F.pad(then[:, 1:] - now[:, :-1], (0,) * 7 + (1,)).flatten(0, 1)  # (N*T, R, H, W)
        return torch.sigmoid(self.expand(motion.mean((2, 3)))).reshape(*x.shape[:2], 1, 1)


PATHS = {"ste": SpatioTemporalExcitation, "ce": ChannelExcitation, "me": MotionExcitation}
STAGES = ("res2", "res3", "res4", "res5")


class Action(nn.Module):
    """The sum over the paths of x*(1 + mask), with x shifted in time.

    (N*T, C, H, W) -> the same shape.
    """

    def __init__(self, channels: int, frames: int, paths: Sequence[str] = tuple(PATHS), reduction: int = 16) -> None:
        super().__init__()
        reduced = max(1, channels // reduction)
        self.shift = TemporalShiftConv(channels, frames)
        self.paths = nn.ModuleDict({path: PATHS[path](channels, reduced, frames) for path in paths})

    def forward(self, x: Tensor) -> Tensor:
        x = self.shift(x)
        masks = {name: path(x) for name, path in self.paths.items()}
        # Smallest masks first: CE's and ME's add up before STE's broadcasts the sum to the full shape.
        wide = torch.promote_types(x.dtype, torch.float32)
        gate = sum((masks[name].to(wide) for name in ("ce", "me", "ste") if name in masks), start=float(len(masks)))
        return (x * gate).to(x.dtype)


def attach(
    net: Backbone,
    frames: int,
    *,
    paths: Sequence[str] = tuple(PATHS),
    stages: Sequence[str] = STAGES,
    reduction: int = 16,
    rest: str = "plain",
) -> Backbone:
    """Add ACTION at the entry of the blocks of the given stages.

    Args:
        net: a backbone that takes frames.
        frames: T.
        paths: the excitations to use, of PATHS.
        stages: the stages to use, of STAGES; those that the backbone lacks are skipped.
        reduction: C / R.
        rest: the other stages are "plain", or "shifted" as in TSM.

    Raises:
        ValueError: The backbone takes volumes or has none of the stages; the reduction is below 1; paths or stages are
            empty or unknown; or `rest` is unknown.
    """
    check_known("action", rest=(rest, ("plain", "shifted")))
    check_least("action", reduction=reduction)
    check_subset("action", "paths", paths, tuple(PATHS))
    check_subset("action", "stages", stages, STAGES)
    by_stage = {stage: blocks for stage, blocks in frame_blocks(net, "action").items() if stage in STAGES}
    present = [stage for stage in stages if stage in by_stage]
    check_subset("action", "stages", present or stages, list(by_stage))
    for stage in present:
        for block in by_stage[stage][:: every(by_stage)]:
            block.entry = Action(block.in_channels, frames, paths, reduction)
    for stage in by_stage.keys() - set(present) if rest == "shifted" else ():
        for block in by_stage[stage][:: every(by_stage)]:
            block.entry = TemporalShift(frames, 8)
    return net
