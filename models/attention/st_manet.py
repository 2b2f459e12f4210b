"""ST-MANet: attention over frames and over pixels, with multi-level fusion.

"Spatio-temporal-based multi-level aggregation network for action recognition", on a 3D ResNet-50. TDA (temporal dynamic
attention) is a separate branch; SDA is spatial, and MF fuses several levels. A loss keeps the stages' attention apart.
Stage i's maps Z^i become

    Zhat^i = (Z^i + Z_t + Z_s) / 3, Z_t from TDA and Z_s from SDA (models/layers/st_attention.py)

and the means of Zhat^2 .. Zhat^5, 3840 concatenated features, are classified. The loss is the classification's
+ lambda1 L_s + lambda2 L_t. `parts` are table 4's rows, `readout` Fig. 4's, `lambda1` and `lambda2` Fig. 5's.

No code is public. Where the paper leaves a choice, this is ours, and why. models/layers/st_attention.py lists the
choices for the modules.
- The paper prints the sum of the three maps. The readout's squared length is then 26 times the baseline's (56,721
  against 2,215). At the published rate the loss is not a number at step 7. So it is their mean. `joined` "sum" is as
  printed, and needs clipped gradients. A part that is off leaves its term out; MF alone fuses the plain stages. Without
  MF the last stage is read out.
- Z_t contains Z^i, so Zhat has it twice, as printed; `once`: Z_t is the attended maps alone.
- The next stage sees Zhat with SDA, Z_t with TDA alone ("integrated into the main branch"), or (`feed` off) Z.
- TDA's branch starts with a 3x1x1 convolution of the stem's maps. Behind res5 it is not pooled and has that stage's
  channels ("the same dimensions for subsequent feature fusion"). It is one more map to join there, or (`branch`
  "apart") left out.
- A readout before res5 ends the net at that stage, whose Zhat is the same as in the whole net: no branch is added.
- The printed +24% of FLOPs is out of reach: it is +88% here, the attention's matrix products alone +28%. A count of
  layers, which has no matrix products, is +25.5% with `dense_branch` off.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from models.backbone import Backbone, Neck, check_known, check_subset
from models.layers.st_attention import Reading, SpatialAttention, TemporalDynamicAttention, TimeConv, likeness, pooled

# Shapes: N clips, C channels, T frames; maps (N, C, T, H, W).

PARTS = ("tda", "sda", "mf")


class StManet(Neck):
    """TDA and SDA of every stage but the stem, with MF over them.

    The last call returns the features to classify: with MF, (N, the stages' channels concatenated, 1, 1, 1); without
    it, the last stage's Zhat.

    Args:
        stages: stage -> channels.
        parts: of PARTS.
        reading: the choices of models/layers/st_attention.py.
        weights: lambda1 and lambda2.
        feed: the next stage sees the attended maps.
        branched: the branch is a map of the last stage.
        joined: maps are joined by "mean" or "sum".
        once: Z_t is without Z.
    """

    def __init__(
        self,
        stages: Mapping[str, int],
        parts: Sequence[str],
        reading: Reading,
        weights: tuple[float, float],
        feed: bool,
        branched: bool,
        joined: str = "mean",
        once: bool = False,
    ) -> None:
        super().__init__()
        self.stem, *self.levels = stages
        self.feed, self.fused, self.averaged, self.once = feed, "mf" in parts, joined == "mean", once
        self.weights = {"A_s": weights[0], "A_t": weights[1]}
        self.kept: dict[str, list[Tensor]] = {}  # the attention that the penalty reads
        self.grids: dict[str, tuple[int, ...]] = {}  # height and width of each stage's maps
        self.sda = nn.ModuleDict(
            {
                level: SpatialAttention(reading, stages[level] if reading.convolved else 0)
                for level in (self.levels if "sda" in parts else ())
            }
        )
        self.start = None
        self.tda = nn.ModuleDict()
        if "tda" not in parts:
            return
        # The branch's channels before each stage, half of the stage's, and after the last.
        widths = [*(stages[level] // 2 for level in self.levels), stages[self.levels[-1]] if branched else 0]
        self.start = TimeConv(stages[self.stem], widths[0])
        for at, level in enumerate(self.levels):
            used = feed or self.fused or level == self.levels[-1]
            self.tda[level] = TemporalDynamicAttention(stages[level], widths[at], widths[at + 1], reading, used)

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage == self.stem:
            if self.start is not None:
                seen["branch"] = self.start(maps)
            return maps
        z_t = branch = None
        zhat = onward = maps
        count = 1
        if self.start is not None:
            before = pooled(seen["branch"], maps.shape[2:])
            seen["A_t " + stage], z_t, branch = self.tda[stage](maps, before)
        if z_t is not None:
            onward = z_t
            zhat, count = z_t if self.once else maps + z_t, 2  # z_t includes maps
        if branch is not None:
            seen["branch"] = branch
        if stage in self.sda:
            seen["A_s " + stage], zhat = self.sda[stage](maps, zhat)
            count += 1
            if self.training:
                self.grids[stage] = tuple(maps.shape[3:])
        if branch is not None and stage == self.levels[-1]:
            zhat, count = zhat + branch, count + 1
        if self.averaged and count > 1:
            zhat = zhat / count
        if stage in self.sda:
            onward = zhat
        if stage != self.levels[-1]:
            if self.fused:
                seen[stage] = zhat.mean((2, 3, 4))
            return onward if self.feed else maps
        if self.training:
            self.kept = {
                name: [seen[f"{name} {level}"] for level in self.levels]
                for name, weight in self.weights.items()
                if weight and f"{name} {stage}" in seen
            }
        if not self.fused:
            return zhat
        means = [*(seen[level] for level in self.levels[:-1]), zhat.mean((2, 3, 4))]
        return torch.cat(means, 1)[..., None, None, None]

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation, which drops the attention kept for a penalty."""
        self.kept = self.kept if mode else {}
        return super().train(mode)

    def penalty(self, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """Return lambda1 L_s + lambda2 L_t of the last clips seen in training mode, ()."""
        kept, self.kept = self.kept, {}
        grids = {"A_s": [self.grids.get(level, ()) for level in self.levels], "A_t": None}
        terms = [self.weights[name] * likeness(matrices, grids[name]) for name, matrices in kept.items()]
        return sum(terms, start=torch.zeros(()))


def attach(  # noqa: D417
    net: Backbone,
    frames: int,
    *,
    parts: Sequence[str] = PARTS,
    readout: str = "res5",
    lambda1: float = 0.01,
    lambda2: float = 0.001,
    feed: bool = True,
    scaled: bool = True,
    second_softmax: bool = False,
    dense_maps: bool = False,
    dense_branch: bool = True,
    joined: str = "mean",
    once: bool = False,
    convolved: bool = False,
    normed: bool = False,
    branch: str = "added",
) -> Backbone:
    """Add ST-MANet.

    Without "mf" the net ends at stage `readout`, which is classified. The module docstring describes `feed`, `joined`,
    `once` and `branch`, that of models/layers/st_attention.py the other options.

    Args:
        net: a backbone of layout "volume" that ends with res5.
        frames: T; not used.
        parts: of PARTS.
        readout: res2 to res5.
        lambda1: weight of L_s, of SDA.
        lambda2: weight of L_t, of TDA.

    Raises:
        ValueError: The backbone takes frames or continues behind res5; parts are empty or unknown; a name is unknown;
            or `readout` is not res5 with "mf".
    """
    *_, last = net.stages
    if net.layout != "volume" or last != "res5":
        raise ValueError(
            "attention 'st_manet' needs a backbone of layout 'volume' that ends with res5, not one of "
            f"{net.layout!r} that ends with {last}"
        )
    check_subset("st_manet", "parts", parts, PARTS)
    _, *levels = net.stages
    check_known(
        "st_manet", readout=(readout, levels), joined=(joined, ("mean", "sum")), branch=(branch, ("added", "apart"))
    )
    whole = readout == last
    if "mf" in parts and not whole:
        raise ValueError(f"attention 'st_manet': readout {readout!r} does not go with the part 'mf'")
    for level in levels[levels.index(readout) + 1 :]:
        del net.stages[level]
        for part in net.parts.pop(level):
            delattr(net, part)
    net.features = sum(net.stages[level] for level in levels) if "mf" in parts else net.stages[readout]
    reading = Reading(scaled, second_softmax, dense_maps, dense_branch, convolved, normed)
    branched = whole and branch == "added"
    net.neck = StManet(net.stages, parts, reading, (lambda1, lambda2), feed, branched, joined, once)
    return net
