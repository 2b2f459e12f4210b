"""EAM: channels and frames reweighted by one small convolution each.

Jiang, Jiang, Fang and Chen, "An efficient attention module for 3D convolutional neural networks in action recognition"
(Applied Intelligence, 2021), equations 1 to 11: EAM-S weighs channels, EAM-T frames, EAM-ST first channels, then
frames. The output is V + V'', in the stages res2 to res5. `k`, `mode` and `stages` are the ablations of tables 1 to 3.

No code is public. Where the paper leaves a choice, this is ours, and why:
- One module after the last block of each stage, not one per block: table 4 prints parameters for SE in EAM's places,
  and only that gives them.
- The convolutions have no bias and pad k//2 zeros, as in ECA; table 4's parameters and FLOPs agree.
- EAM-S and EAM-T alone are V + V*w. EAM-S//T, "parallel with fusion", is the sum V + V*w_c + V*w_t, both from V.
- Equation 9's k <= W is read as k <= C.
- Where only res5, the last layer and EAM are trained (4.2), the frozen stages' batch norms are in train mode (recipe
  eam). So they are in Hara's code. EAM multiplies its stage's maps by 1 to 2, four times in a row. Norms in eval mode
  would not correct this: the maps would be 5.3 times the plain net's, against 1.15 times.
- Of the recipe (conf/recipe/eam.yaml) the paper leaves open what Hara's code has: crops at the corners and the center,
  resized with a filter that averages, and torch's default start of the head. Its momentum is dampened by 0.9, by which
  a steady step is a tenth; here it is not, and a row of the suite has it.
Written differently, with the same result:
- V is read once: both gates work on the mean and the maximum over each frame, because a weight in (0, 1) factors out
  of both.
Beyond the paper: on a backbone that takes frames, a clip's frames are unfolded first, so that EAM sees the clip's T.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbone import Backbone, check_known, check_least, check_subset, stage_blocks

# Shapes: N clips, C channels, T frames; V (N, C, T, H, W), or (N*T, C, H, W) on a backbone that takes frames.

MODES = ("S", "T", "S//T", "TS", "ST")
STAGES = ("res2", "res3", "res4", "res5")


class Gate(nn.Module):
    """sigmoid(Conv1d(average + maximum)): two descriptors (N, L) -> weights (N, L)."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, average: Tensor, maximum: Tensor) -> Tensor:
        return torch.sigmoid(self.conv((average + maximum).unsqueeze(1))).squeeze(1)


class Eam(nn.Module):
    """V*(1 + weights), with weights of channels, of frames, or of both.

    V -> the same shape; weights are (N, C, 1), (N, 1, T) or (N, C, T).

    Args:
        frames: T of the maps (N*T, C, H, W) that are unfolded; not used for volumes.
        mode: one of MODES.
        k: kernel of the gates' convolutions.
    """

    def __init__(self, frames: int = 1, mode: str = "ST", k: int = 3) -> None:
        super().__init__()
        self.frames, self.mode = frames, mode
        self.gates = nn.ModuleDict({axis: Gate(k) for axis in ("S", "T") if axis in mode})

    def forward(self, v: Tensor) -> Tensor:
        average, maximum = v.mean((-2, -1)), v.amax((-2, -1))  # (N, C, T), or (N*T, C)
        if v.ndim == 4:
            average, maximum = (x.unflatten(0, (-1, self.frames)).transpose(1, 2) for x in (average, maximum))
        if self.mode == "S//T":
            weights = self._weights("S", average, maximum) + self._weights("T", average, maximum)  # (N, C, T)
        else:
            weights = average.new_ones(1, 1, 1)
            for axis in self.mode:
                weights = weights * self._weights(axis, average * weights, maximum * weights)
        if v.ndim == 4:
            weights = weights.expand(-1, v.shape[1], self.frames).transpose(1, 2).flatten(0, 1)  # (N*T, C)
        return v * (1 + weights)[..., None, None]

    def _weights(self, axis: str, average: Tensor, maximum: Tensor) -> Tensor:
        """Return weights of channels "S" (N, C, 1) or frames "T" (N, 1, T)."""
        rest = 2 if axis == "S" else 1
        return self.gates[axis](average.mean(rest), maximum.amax(rest)).unsqueeze(rest)

    def published(self, v: Tensor) -> Tensor:
        """Return the same by equations 1 to 11: each gate pools all of its input."""
        folded = v.ndim == 4
        v = v.unflatten(0, (-1, self.frames)).transpose(1, 2) if folded else v  # (N, C, T, H, W)
        if self.mode == "S//T":
            out = v + self._weigh("S", v) + self._weigh("T", v)
        else:
            weighed = v
            for axis in self.mode:
                weighed = self._weigh(axis, weighed)
            out = v + weighed
        return out.transpose(1, 2).flatten(0, 1) if folded else out

    def _weigh(self, axis: str, v: Tensor) -> Tensor:
        """Multiply v (N, C, T, H, W) by the weights of its channels or frames."""
        v = v if axis == "S" else v.transpose(1, 2)  # the paper's T_trans
        weights = self.gates[axis](v.flatten(2).mean(2), v.flatten(2).amax(2))
        v = v * weights[..., None, None, None]
        return v if axis == "S" else v.transpose(1, 2)


def attach(net: Backbone, frames: int, *, mode: str = "ST", k: int = 3, stages: Sequence[str] = STAGES) -> Backbone:
    """Add EAM after the last block of each of the given stages.

    Raises:
        ValueError: The mode is unknown, k is even or below 1, or stages are empty or unknown.
    """
    check_known("eam", mode=(mode, MODES))
    check_least("eam", odd=True, k=k)
    by_stage = stage_blocks(net)
    check_subset("eam", "stages", stages, tuple(by_stage))
    for stage in stages:
        by_stage[stage][-1].after = Eam(frames, mode, k)
    return net
