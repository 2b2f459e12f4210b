"""MAAGN: SDM and MTAM weigh the frames of a temporal pyramid; AGM merges both.

"Multipath Attention and Adaptive Gating Network for Video Action Recognition" (2024): SDM (equations 1 to 6), MTAM (7
to 13) and AGM on TPN (models/layers/tpn.py), at each level after spatial and before temporal modulation. `arrangement`,
`mask` and `pooling` are the ablations of tables 3, 4 and 5.

No code is public. Where the paper leaves a choice or can't be met, this is ours, and why:
- The weights are for frames, as the text states (SDM compares the clip's first half with its second), so a net takes
  one T only. Layers T wide can't have the printed parameters, 0.89 M of SDM and 1.22 M of MTAM. Axis "C" halves and
  weighs channels, and has them in the right order: 0.393 M, and 1.049 M without ISO.
- Hidden layers T/2/r and T/r wide, r = 16, would be empty at T = 8, so they have at least one unit. A single unit
  starts with weights of 0 or more: its pooled inputs are positive, and half of all seeds would shut its ReLU for good.
- With an odd T the middle frame is in neither half. With T = 1 there are no halves: a ValueError.
- ISO's convolution of kernel 3 gets N x 2T x 1, average before maximum: only its middle tap ever meets a value.
- AGM's "3D convolution 3x3" is 1x3x3 over (C, H, W) with the frames as its channels. Its softmax is over the frames,
  and alpha is one scalar per level. No layer has a bias, so that the gate gives 0 when training starts.
- AGM's conv2 and conv3 start as the identity, their center taps at 1: by the text, "at the beginning" it sums S and T.
  `start` "xavier" is TPN's start for them too; in suite quick it is 6 points worse.
- The gate multiplies the softmax, times alpha, with a convolution of X, which is read as the module's input. If X were
  the softmax itself (`gated` "softmax"), the gate would give less than 5e-5 of the maps.
- AGM's output replaces the features: it has no shortcut.
- In testing, a mirrored view's scores are swapped back, and frames of 100 pixels give crops of 7/8 of their side
  (pipeline/clips/views.py, augmentation.py). TPN's crops by area, colors and decay are rows of the suite.
- With axis "C" ISO's and AGM's convolutions are depthwise: dense ones would be above 200 M.
- The pyramid has one input; figure 1's "multiple inputs at different rates" are its levels.
"""

import torch
from torch import Tensor, nn

from models.backbone import Backbone, check_known, check_least
from models.layers.tpn import attach_pyramid, initialise

# Shapes: N clips, T frames, C channels; x (N, D, A, H, W), D the weighed one of T and C, A the other.

AXES = ("T", "C")
ARRANGEMENTS = ("sdm", "mtam", "serial", "serial_reversed", "parallel_sum", "parallel")
MASKS = ("F*H", "F+H", "F+F*H", "F-H")
POOLINGS = ("max", "avg", "both", "both+ISO")
STARTS = ("center", "xavier")
GATED = ("input", "softmax")


def mlp(ins: int, outs: int, reduction: int) -> nn.Sequential:
    """Build a perceptron (N, ins) -> (N, outs), reduced between."""
    hidden = max(1, ins // reduction)
    first = nn.Linear(ins, hidden, bias=False)
    if hidden == 1:
        with torch.no_grad():
            first.weight.abs_()
    return nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, outs, bias=False))


def paired(a: Tensor, b: Tensor, groups: int) -> Tensor:
    """Join two (N, D, ...) as (N, 2D, ...), interleaved for groups."""
    return torch.cat((a, b), 1) if groups == 1 else torch.stack((a, b), 2).flatten(1, 2)


class Sdm(nn.Module):
    """Equations 1 to 6, from the difference of x's halves: x -> the same shape."""

    def __init__(self, dim: int, mask: str = "F+F*H", reduction: int = 16) -> None:
        super().__init__()
        self.length, self.mask = dim // 2, mask  # frames or channels of a half
        self.mlp = mlp(self.length, dim, reduction)

    def forward(self, x: Tensor) -> Tensor:
        difference = x[:, -self.length :] - x[:, : self.length]  # (N, D//2, A, H, W)
        h = torch.sigmoid(self.mlp(difference.amax((2, 3, 4))))[..., None, None, None]  # (N, D, 1, 1, 1)
        match self.mask:
            case "F*H":
                return x * h
            case "F+H":
                return x + h
            case "F-H":
                return x - h
            case _:
                return x * (1 + h)


class Mtam(nn.Module):
    """Equations 7 to 13, from x's maximum and average: x -> the same shape."""

    def __init__(self, dim: int, pooling: str = "both+ISO", reduction: int = 16, groups: int = 1) -> None:
        super().__init__()
        self.pooling = pooling
        self.mlp = mlp(dim, dim, reduction)
        self.iso = nn.Conv1d(2 * dim, dim, 3, padding=1, groups=groups, bias=False) if "ISO" in pooling else None

    def forward(self, x: Tensor) -> Tensor:
        pooled = []  # (N, D) each
        if self.pooling != "max":
            pooled.append(self.mlp(x.mean((2, 3, 4))))
        if self.pooling != "avg":
            pooled.append(self.mlp(x.amax((2, 3, 4))))
        weights = torch.stack(pooled).sigmoid().sum(0)
        if self.iso is not None:
            average, maximum = pooled
            both = paired(average, maximum, self.iso.groups).unsqueeze(2)  # (N, 2D, 1)
            weights = weights + torch.sigmoid(self.iso(both)).squeeze(2)
        return x * (1 + weights)[..., None, None, None]


class Agm(nn.Module):
    """The gate that merges SDM's and MTAM's features of x, all (N, D, A, H, W)."""

    def __init__(self, dim: int, groups: int = 1, start: str = "center", gated: str = "input") -> None:
        super().__init__()
        self.of_input = gated == "input"

        def conv(ins: int) -> nn.Conv3d:
            return nn.Conv3d(ins, dim, (1, 3, 3), padding=(0, 1, 1), groups=groups, bias=False)

        self.groups = groups
        self.merge, self.gate_in, self.gate_out = conv(2 * dim), conv(dim), conv(dim)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.conv2, self.conv3 = conv(dim), conv(dim)
        initialise(self)
        for last in (self.conv2, self.conv3) if start == "center" else ():
            nn.init.dirac_(last.weight, groups)

    def forward(self, s: Tensor, t: Tensor, x: Tensor) -> Tensor:
        return self.conv3(s + self.conv2(self.gated(s, t, x) + t))

    def gated(self, s: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """Return Y0, which is zero while alpha is zero."""
        share = torch.softmax(self.merge(paired(s, t, self.groups)), 1)
        return self.gate_out(share * self.alpha * self.gate_in(x if self.of_input else share))


class Maagn(nn.Module):
    """SDM, MTAM or both at one level: (N, C, T, H, W) -> the same shape.

    `dim` is T for axis "T" and C for axis "C".
    """

    def __init__(
        self,
        dim: int,
        axis: str,
        arrangement: str,
        mask: str,
        pooling: str,
        reduction: int,
        start: str = "center",
        gated: str = "input",
    ) -> None:
        super().__init__()
        groups = 1 if axis == "T" else dim
        self.axis, self.arrangement = axis, arrangement
        self.retimable = axis != "T"
        if axis == "T":
            self.frames = dim
        self.sdm = None if arrangement == "mtam" else Sdm(dim, mask, reduction)
        self.mtam = None if arrangement == "sdm" else Mtam(dim, pooling, reduction, groups)
        self.agm = Agm(dim, groups, start, gated) if arrangement == "parallel" else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2) if self.axis == "T" else x  # (N, D, A, H, W)
        x = self._arranged(x)
        return x.transpose(1, 2) if self.axis == "T" else x

    def _arranged(self, x: Tensor) -> Tensor:
        if self.sdm is None or self.mtam is None:
            return (self.sdm or self.mtam)(x)  # type: ignore[misc]
        if self.arrangement == "serial":
            return self.mtam(self.sdm(x))
        if self.arrangement == "serial_reversed":
            return self.sdm(self.mtam(x))
        s, t = self.sdm(x), self.mtam(x)
        return s + t if self.agm is None else self.agm(s, t, x)


def attach(
    net: Backbone,
    frames: int,
    *,
    arrangement: str = "parallel",
    mask: str = "F+F*H",
    pooling: str = "both+ISO",
    axis: str = "T",
    reduction: int = 16,
    flow: str = "cascade",
    aux: bool = True,
    shift: bool = True,
    start: str = "center",
    gated: str = "input",
) -> Backbone:
    """Add a TPN on top of the net, with MAAGN at both levels.

    `flow`, `aux` and `shift` are TPN's.

    Raises:
        ValueError: A name is unknown; the reduction is below 1; SDM would halve a single frame; the backbone does not
            end in res4 and res5; or, with axis "T", it strides over frames.
    """
    check_known("maagn", arrangement=(arrangement, ARRANGEMENTS), mask=(mask, MASKS), pooling=(pooling, POOLINGS))
    check_known("maagn", axis=(axis, AXES), start=(start, STARTS), gated=(gated, GATED))
    check_least("maagn", reduction=reduction)
    if axis == "T" and _strides_over_frames(net):
        raise ValueError("attention 'maagn': axis 'T' needs a backbone of a layout that keeps all frames up to res5")
    if axis == "T" and arrangement != "mtam" and frames < 2:
        raise ValueError(f"attention 'maagn': SDM halves the clip's frames; it needs 2 or more, not {frames}")
    pyramid = attach_pyramid(net, frames, "maagn", flow, aux, shift)
    dim = frames if axis == "T" else net.stages["res5"]
    for at in range(len(pyramid.attention)):
        pyramid.attention[at] = Maagn(dim, axis, arrangement, mask, pooling, reduction, start, gated)
    return net


def _strides_over_frames(net: Backbone) -> bool:
    """Return true if a volume loses frames on its way through the net."""
    layers = (module for module in net.modules() if isinstance(module, nn.Conv3d | nn.MaxPool3d))
    strides = (layer.stride if isinstance(layer.stride, tuple) else (layer.stride,) for layer in layers)
    return any(stride[0] != 1 for stride in strides)
