"""ISTPA's layer: the frames' maps merged into one by attention whose scores come from several stages, and its losses.

Du, Yuan, Li, Hu et al., section 3; models/attention/istpa.py says how it is read, and puts it into nets.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Neck

# Shapes: N clips, K frames, C channels, P = h*w positions of the merged map, R positions of the top stage's maps, which
# are P if a net sees the size it was made for; x (N, K*R, C) is the paper's X transposed.

STARTS = ("xavier", "normal")
FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"product": torch.mul, "sum": torch.add, "max": torch.maximum}


def interaction_loss(x: Tensor, attention: Tensor) -> Tensor:
    """Equation 8, clip by clip: x (N, K*R, C), attention (N, K*R, P) -> (N,); no gradient goes to x."""
    kept = (x.detach().transpose(1, 2) @ attention).square().sum((1, 2))
    gram = attention.transpose(1, 2) @ attention  # (N, P, P)
    own = gram.diagonal(dim1=1, dim2=2).square().sum(1)
    return gram.square().sum((1, 2)) - own - kept


def attention_loss(attention: Tensor, scores: Sequence[Tensor], frames: int) -> Tensor:
    """Equations 14 and 15, clip by clip: attention and each scale's scores (N, K*R, P), frames K -> (N,).

    It falls as the distance from each scale's own attention grows.

    The deltas' squares add up over the frames: a column's are the squared distance of its two attentions.
    """
    squares = torch.stack([(attention - score.softmax(1)).square().sum((1, 2)) for score in scores]).sum(0)
    ones = len(scores) * attention.shape[2] * frames
    return (ones - squares).clamp_min(1e-12).sqrt()


class Scores(nn.Linear):
    """x (N, K*R, C) -> scores (N, K*R, columns), in the precision of x; equation 2.

    `start`: "xavier", uniform, with zero biases; or "normal", deviation 0.01, with biases that start at `bias`.
    """

    def __init__(self, channels: int, columns: int, start: str, bias: float) -> None:
        super().__init__(channels, columns)
        if start == "xavier":
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.normal_(self.weight, std=0.01)
        nn.init.constant_(self.bias, bias if start == "normal" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class PyramidAttention(nn.Module):
    """Scores of each scale, (N, K*R, P) -> attention (N, K*R, P), whose columns have length 1."""

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
        size: h and w of the merged map. X keeps the size of the top stage's maps.
        fusion: of the stages' scores, one of FUSIONS.
        start: how the scores' weights start, one of STARTS.
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
        start: str = "xavier",
    ) -> None:
        super().__init__()
        self.frames, self.size, self.bare, self.average = frames, size, frozenset(bare), average
        self.top = list(channels)[-1]
        self.columns = 1 if shared else size[0] * size[1]
        # The bias of "normal" for products: at 0 no score would get a gradient.
        self.start, self.bias = start, 1.0 if fusion == "product" else 0.0
        self.scores = nn.ModuleDict({stage: self._scorer(width) for stage, width in channels.items()})
        self.attention = PyramidAttention(fusion)
        self.weights = {"interaction": interaction, "attention": attention}
        self.loss: Tensor | None = None

    def forward(self, stage: str, maps: Tensor, seen: dict[str, Tensor]) -> Tensor:
        if stage not in self.scores:
            return maps
        seen[stage] = maps
        if stage == self.top:
            size = (1, 1) if self.average else (maps.shape[2], maps.shape[3])
            seen |= {name: self._positions(seen[name], size) for name in self.scores}
            maps = self._merged(seen).to(maps.dtype)
        return torch.relu(maps) if stage in self.bare else maps

    def train(self, mode: bool = True) -> Self:
        self.loss = None  # a net that holds part of a graph cannot be copied
        return super().train(mode)

    def penalty(self, criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """The weighted losses of the last clips seen in training, ()."""
        loss, self.loss = self.loss, None
        return next(self.parameters()).new_zeros(()) if loss is None else loss

    def _positions(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """(N*K, C, H, W), pooled to the top stage's size -> x (N, K*R, C), in fp32 at least."""
        pooled = (F.adaptive_avg_pool2d if self.average else F.adaptive_max_pool2d)(maps, size)
        x = pooled.unflatten(0, (-1, self.frames)).flatten(3).transpose(2, 3)  # (N, K, R, C)
        # Tracers and the CPU differ on the memory order of what adaptive pooling gives; of a copy there is no doubt.
        x = x.clone(memory_format=torch.contiguous_format).flatten(1, 2)
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _merged(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Return M (N, C, h, w) for x (N, K*R, C) of each stage."""
        x = seen[self.top]
        with _without_autocast(x.device.type):
            positions = self.size[0] * self.size[1]
            scores = [self._scored(stage, seen[stage]).expand(-1, -1, positions) for stage in self.scores]
            attention = self.attention(scores)
            if self.training:
                self.loss = self._losses(x, attention, scores)
            return (x.transpose(1, 2) @ attention).unflatten(2, self.size)

    def _scorer(self, channels: int) -> Scores:
        """What scores maps of so many channels."""
        return Scores(channels, self.columns, self.start, self.bias)

    def _maps(self) -> int:
        """How many maps a clip has of each stage: a frame each."""
        return self.frames

    def _scored(self, stage: str, x: Tensor) -> Tensor:
        """Return the scores (N, K*R, columns) of a stage's x (N, K*R, C)."""
        return self.scores[stage](x)

    def _losses(self, x: Tensor, attention: Tensor, scores: Sequence[Tensor]) -> Tensor | None:
        """The sum of the losses that have a weight, (); None if none has."""
        losses = {
            "interaction": lambda: interaction_loss(x, attention),
            "attention": lambda: attention_loss(attention, scores, self._maps()),
        }
        terms = [weight * losses[name]().mean() for name, weight in self.weights.items() if weight]
        return torch.stack(terms).sum() if terms else None


def _without_autocast(device: str) -> contextlib.AbstractContextManager:
    """Turns autocast off; the meta device, on which layers are counted, has none."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
