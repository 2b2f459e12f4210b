"""ISTPA: the frames' maps merged into one by attention whose scores come from a pyramid of stages.

"Interaction-Aware Spatio-Temporal Pyramid Attention Networks for Action Classification" (Du, Yuan, Li, Hu et al.; ECCV
2018, and its journal version, whose numbers of equations and tables these are), section 3. X_j, C_j x K*P, are the maps
of stage j of all K frames, max-pooled to P positions each. Their scores X_j^T W_j + b_j (K*P x P, equation 2) are fused
over the stages. Each column, softmaxed over all positions of all frames and divided by its length, says what one
position of the merged map is made of: M = X A (C x P, equation 4), X being the last stage's. M takes the place
of K maps, so the rest of the net sees one map a clip. No weight depends on K; K = 1 is the attention of images (table
6). Two losses are added with the weights `interaction` and `attention` (equations 12 and 16; 0.0 switches one off).
Equation 8 asks of each column a share of the maps' energy, and of any two that they differ; equations 14 and 15 want a
column near what each stage alone would attend to, frame by frame.

net.backbone.neck.attention is a module that gives A (N, K*P, P) in each forward pass, rows frame by frame and in a
frame row by row: a forward hook on it sees what a clip's map is made of.

Ablations: `scales` (table 2; 0 is the plain net, TSN), `position` (table 1: after res3 "A", res4 "B", res5 "C", or
"fc", of the frames' pooled features, a weight a frame), `fusion` (table 3), the losses (table 4), `shared` (table 5),
`shift` (table 14: TSM's shift below). Tables 1 to 3 are without the losses, as their numbers in table 4 say.

There is no code of the authors. What the paper leaves open, and how it is read here:
- `positions` is the side of the merged map. Maps of any other size, the last stage's too, are pooled to it by adaptive
  maxima, so frames of any size will do. As published it is the last stage's size: 7 at 224x224; at 299x299, for
  Inception-ResNet-v2, 8, with 17 and 35 for positions "B" and "A".
- Stages are those that the backbones have, not all of the printed widths: in BN-Inception's place these are
  GoogLeNet's, and the fourth of Inception-ResNet-v2 is 71x71x192 (res2), printed 92.
- Maps "without activation" are those before the last ReLU of a stage's last residual block; that ReLU follows behind
  the pyramid, and behind M. VGG and BN-Inception have no such place and give their maps with it, as does
  Inception-ResNet-v2's res2. Inception-ResNet-v2's res5 and MobileNetV2's blocks have none to begin with.
- Weights start normal with deviation 0.01, biases at 1 for the product (at 0 no score would get a gradient), else at 0.
  With one scale or the sum, a column's bias does nothing to its softmax: it is there because table 10 counts it.
- `shared`: W_j is C_j x 1, one score for all columns. All positions of M are then equal.
- Scores, softmax and A are computed in fp32 under lower precision too: products of three scores are large.
- Columns have length 1, not sum 1, so M grows with K: as sqrt(K) where attention is even.
Misprints, put right:
- Equation 12 subtracts the classification loss; it is added.
- The radicand of equation 14 may be negative for K = 1, for no delta is bound by 1: it is 1e-12 at least.
- Equation 8 has no lower bound in X, which it therefore holds fixed: its gradient goes by way of A. It is large: with
  ResNet-18 from random weights, 112x112 and 4 clips of 3 frames, -446 at the published 1e-4, beside a cross entropy of
  5.5, with a gradient 7 times that one's in the backbone and 200 times in W and b. Losses are means over the clips.
- Equation 16 averages the classification loss over K frames, of which M leaves one.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Backbone, Neck, frame_blocks
from models.shift import shift_blocks

# Shapes: N clips, K frames, C channels, P = h*w positions of the merged map; x (N, K*P, C) is the paper's X transposed.

FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"product": torch.mul, "sum": torch.add, "max": torch.maximum}
TOPS = {"A": "res3", "B": "res4", "C": "res5", "fc": None}
STAGES = ("res2", "res3", "res4", "res5")


def interaction_loss(x: Tensor, attention: Tensor) -> Tensor:
    """Equation 8, clip by clip: x (N, K*P, C), attention (N, K*P, P) -> (N,); no gradient goes to x."""
    kept = (x.detach().transpose(1, 2) @ attention).square().sum((1, 2))
    gram = attention.transpose(1, 2) @ attention  # (N, P, P)
    own = gram.diagonal(dim1=1, dim2=2).square().sum(1)
    return gram.square().sum((1, 2)) - own - kept


def attention_loss(attention: Tensor, scores: Sequence[Tensor], frames: int) -> Tensor:
    """Equations 14 and 15, clip by clip: attention and each scale's scores (N, K*P, P), frames K -> (N,).

    The deltas' squares add up over the frames: a column's are the squared distance of its two attentions.
    """
    squares = torch.stack([(attention - score.softmax(1)).square().sum((1, 2)) for score in scores]).sum(0)
    ones = len(scores) * attention.shape[2] * frames
    return (ones - squares).clamp_min(1e-12).sqrt()


class Scores(nn.Linear):
    """x (N, K*P, C) -> scores (N, K*P, columns), in the precision of x; equation 2. Biases start at `bias`."""

    def __init__(self, channels: int, columns: int, bias: float) -> None:
        super().__init__(channels, columns)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class PyramidAttention(nn.Module):
    """Scores of each scale, (N, K*P, P) -> attention (N, K*P, P), whose columns have length 1."""

    def __init__(self, fusion: str) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, scores: Sequence[Tensor]) -> Tensor:
        return F.normalize(reduce(FUSIONS[self.fusion], scores).softmax(1), dim=1)


class InteractionPyramid(Neck):
    """The layer: maps (N*K, C, H, W) of several stages -> of the last, one map a clip (N, C, h, w).

    Args:
        frames: K.
        channels: stage -> channels of its maps, in order; the last stage's are merged.
        size: h and w of the merged map.
        fusion: of the stages' scores, one of FUSIONS.
        shared: one score a position of x, for all positions of the merged map.
        interaction, attention: weights of the two losses.
        bare: stages whose maps come without their ReLU, which then follows here.
        average: maps are pooled to their averages, not maxima.
    """

    def __init__(
        self,
        frames: int,
        channels: Mapping[str, int],
        size: tuple[int, int],
        fusion: str = "product",
        shared: bool = False,
        interaction: float = 0.0,
        attention: float = 0.0,
        bare: Collection[str] = (),
        average: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.size, self.bare, self.average = frames, size, frozenset(bare), average
        self.top = list(channels)[-1]
        columns = 1 if shared else size[0] * size[1]
        start = 1.0 if fusion == "product" else 0.0
        self.scores = nn.ModuleDict({stage: Scores(width, columns, start) for stage, width in channels.items()})
        self.attention = PyramidAttention(fusion)
        self.weights = {"interaction": interaction, "attention": attention}
        self.loss: Tensor | None = None

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage not in self.scores:
            return maps
        seen[stage] = self._positions(maps)
        if stage == self.top:
            maps = self._merged(seen).to(maps.dtype)
        return torch.relu(maps) if stage in self.bare else maps

    def train(self, mode: bool = True) -> Self:
        self.loss = None  # a net that holds part of a graph cannot be copied
        return super().train(mode)

    def penalty(self, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """The weighted losses of the last clips seen in training, ()."""
        loss, self.loss = self.loss, None
        return next(self.parameters()).new_zeros(()) if loss is None else loss

    def _positions(self, maps: Tensor) -> Tensor:
        """(N*K, C, H, W) -> x (N, K*P, C), in fp32 at least."""
        pooled = (F.adaptive_avg_pool2d if self.average else F.adaptive_max_pool2d)(maps, self.size)
        x = pooled.unflatten(0, (-1, self.frames)).flatten(3).transpose(2, 3)  # (N, K, P, C)
        # Tracers and the CPU differ on the memory order of what adaptive pooling gives; of a copy there is no doubt.
        x = x.clone(memory_format=torch.contiguous_format).flatten(1, 2)
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _merged(self, seen: Mapping[str, Tensor]) -> Tensor:
        """x (N, K*P, C) of each stage -> M (N, C, h, w)."""
        x = seen[self.top]
        with _without_autocast(x.device.type):
            positions = self.size[0] * self.size[1]
            scores = [score(seen[stage]).expand(-1, -1, positions) for stage, score in self.scores.items()]
            attention = self.attention(scores)
            if self.training:
                self.loss = self._losses(x, attention, scores)
            return (x.transpose(1, 2) @ attention).unflatten(2, self.size)

    def _losses(self, x: Tensor, attention: Tensor, scores: Sequence[Tensor]) -> Tensor | None:
        """The sum of the losses that have a weight, (); None if none has."""
        losses = {
            "interaction": lambda: interaction_loss(x, attention),
            "attention": lambda: attention_loss(attention, scores, self.frames),
        }
        terms = [weight * losses[name]().mean() for name, weight in self.weights.items() if weight]
        return torch.stack(terms).sum() if terms else None


def attach(
    net: Backbone,
    frames: int,
    *,
    scales: int = 3,
    fusion: str = "product",
    position: str = "C",
    positions: int = 7,
    shared: bool = False,
    interaction: float = 1e-4,
    attention: float = 1e-4,
    shift: bool = False,
) -> Backbone:
    """The layer after the stage of `position`, with the scores of this and the stages before it, `scales` in all.

    Raises ValueError for a backbone that takes volumes, more scales than it has stages up to there (after the pooling,
    "fc", there is one), an unknown fusion or position, positions below 1, a weight below 0, and a shift where blocks
    see merged maps.
    """
    blocks = frame_blocks(net, "istpa")
    for knob, given, known in (("fusion", fusion, FUSIONS), ("position", position, TOPS)):
        if given not in known:
            raise ValueError(f"attention 'istpa': {knob} is {given!r}; known: {', '.join(known)}")
    if positions < 1:
        raise ValueError(f"attention 'istpa': positions is {positions}; the side of a map is 1 or more")
    for knob, weight in (("interaction", interaction), ("attention", attention)):
        if weight < 0:
            raise ValueError(f"attention 'istpa': {knob} is {weight}; the weight of a loss is 0.0 or more")

    top = TOPS[position] or list(net.stages)[-1]
    below = [stage for stage in STAGES if stage in net.stages and stage <= top] if TOPS[position] else [top]
    if not 0 <= scales <= len(below):
        raise ValueError(
            f"attention 'istpa': scales is {scales}; position {position!r} of this backbone has 0 to {len(below)}: "
            + ", ".join(reversed(below))
        )
    if shift and scales and position in ("A", "B"):
        raise ValueError(f"attention 'istpa': shift needs position C or fc; behind {position} blocks see merged maps")
    if shift:
        shift_blocks(net, frames, 8, "istpa")
    if scales == 0:
        return net

    channels = {stage: net.stages[stage] for stage in below[-scales:]}
    bare = []
    for stage in channels if TOPS[position] else ():
        last = blocks[stage][-1] if stage in blocks else None
        if last is not None and not isinstance(last.relu, nn.Identity):
            last.relu = nn.Identity()
            bare.append(stage)
    pooled = not TOPS[position]
    side = 1 if pooled else positions
    net.neck = InteractionPyramid(
        frames, channels, (side, side), fusion, shared, interaction, attention, bare, average=pooled
    )
    return net


def _without_autocast(device: str) -> contextlib.AbstractContextManager:
    """Turns autocast off, on devices that have it."""
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else contextlib.nullcontext()
