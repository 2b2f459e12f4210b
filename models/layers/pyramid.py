"""ISTPA's layer: attention over several stages merges the frames' maps.

Du, Yuan, Li, Hu et al., section 3; models/attention/istpa.py describes our reading and attaches the layer.
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
# are P if a net sees the size it was built for; x (N, K*R, C) is the paper's X transposed.

STARTS = ("xavier", "normal")
FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"product": torch.mul, "sum": torch.add, "max": torch.maximum}


def interaction_loss(x: Tensor, attention: Tensor) -> Tensor:
    """Return equation 8 for each clip; no gradient flows to x.

    Args:
        x: (N, K*R, C).
        attention: (N, K*R, P).

    Returns:
        (N,).
    """
    kept = (x.detach().transpose(1, 2) @ attention).square().sum((1, 2))
    gram = attention.transpose(1, 2) @ attention  # (N, P, P)
    lengths = gram.diagonal(dim1=1, dim2=2).square().sum(1)
    return gram.square().sum((1, 2)) - lengths - kept


def attention_loss(attention: Tensor, scores: Sequence[Tensor], frames: int) -> Tensor:
    """Return equations 14 and 15 for each clip.

    The loss falls as the distance from each scale's attention grows. The deltas' squares add up over the frames: a
    column's sum is the squared distance of its two attentions.

    Args:
        attention: (N, K*R, P).
        scores: of each scale, (N, K*R, P).
        frames: K.

    Returns:
        (N,).
    """
    squares = torch.stack([(attention - score.softmax(1)).square().sum((1, 2)) for score in scores]).sum(0)
    ones = len(scores) * attention.shape[2] * frames
    return (ones - squares).clamp_min(1e-12).sqrt()


class Scores(nn.Linear):
    """Equation 2: x (N, K*R, C) -> scores (N, K*R, columns), in the precision of x.

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
    """Attention with columns of length 1, from each scale's scores (N, K*R, P)."""

    def __init__(self, fusion: str) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, scores: Sequence[Tensor]) -> Tensor:
        return F.normalize(reduce(FUSIONS[self.fusion], scores).softmax(1), dim=1)


class InteractionPyramid(Neck):
    """ISTPA's layer, which merges the maps of several stages.

    Maps (N*K, C, H, W) of each stage -> one map per clip (N, C, h, w).

    Args:
        frames: K.
        channels: stage -> channels of its maps, in order; the last stage's are merged.
        size: h and w of the merged map. X keeps the size of the top stage's maps.
        fusion: of the stages' scores, one of FUSIONS.
        start: initial weights of the scores, one of STARTS.
        shared: one score for each position of x, for all positions of the merged map.
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
        """Return the weighted losses of the last clips seen in training, ()."""
        loss, self.loss = self.loss, None
        return next(self.parameters()).new_zeros(()) if loss is None else loss

    def _positions(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Pool maps (N*K, C, H, W) to `size`: x (N, K*R, C), in fp32 at least."""
        pooled = (F.adaptive_avg_pool2d if self.average else F.adaptive_max_pool2d)(maps, size)
        x = pooled.unflatten(0, (-1, self.frames)).flatten(3).transpose(2, 3)  # (N, K, R, C)
        # Tracers and the CPU disagree on the memory order that adaptive pooling gives; a copy has a known order.
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
        """Build the layer that scores maps with `channels` channels."""
        return Scores(channels, self.columns, self.start, self.bias)

    def _maps(self) -> int:
        """Return the number of maps per clip and stage: one per frame."""
        return self.frames

    def _scored(self, stage: str, x: Tensor) -> Tensor:
        """Return the scores (N, K*R, columns) of a stage's x (N, K*R, C)."""
        return self.scores[stage](x)

    def _losses(self, x: Tensor, attention: Tensor, scores: Sequence[Tensor]) -> Tensor | None:
        """Return the sum of the losses that have a weight, (); None if none has."""
        losses = {
            "interaction": lambda: interaction_loss(x, attention),
            "attention": lambda: attention_loss(attention, scores, self._maps()),
        }
        terms = [weight * losses[name]().mean() for name, weight in self.weights.items() if weight]
        return torch.stack(terms).sum() if terms else None


def _without_autocast(device: str) -> contextlib.AbstractContextManager:
    """Turn autocast off; the meta device, which serves to count layers, has none."""
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)
