"""ST-MANet's attention over frames and over pixels, and its similarity.

models/attention/st_manet.py names the paper and describes the use of each module. These are its equations of one stage.
Z are its maps of C channels, Z_TDA^{i-1} the branch's of C/2, and Z_c both of them, 3C/2 channels:

    TDA  A_t = softmax(phi(Z_c) omega(Z_c))    (T, T); rows are frames, of 3C/2*H*W features
         Z_TDA^i = eps(A_t tau(Z_c))           continues in the branch
         Z_t = Z + eps(A_t sigma(Z))
    SDA  A_s = softmax(alpha(Z) beta(Z))       (H*W, H*W); rows are pixels, of C*T features
         Z_s = pi(A_s eta(Z))
    L_s, L_t: sums over the ordered pairs of stages of the similarity of their A_s, or A_t

No code is public. Where the paper leaves a choice, this is ours, and why:
- Equation 2 prints tau(Z_TDA^i), but a row of 3C/2*H*W: tau sees Z_c. "Element-wise multiplied" with A is the matrix
  product.
- phi, omega, tau and sigma are depthwise 3x1x1 convolutions. Across the channels (`dense_maps`), phi and omega alone
  add 105% to the net's multiply-accumulates. alpha, beta, eta and pi only reshape, or are 1x1x1 convolutions
  (`convolved`): the text has the same words for them as for TDA's.
- eps, "reshape, 3x1x1, pool", is dense: C to C for Z_t. In the branch it maps 3C/2 to half of the next stage's
  channels, then takes a maximum over windows of 2x2x2. The last windows may be cut, because 7x7 must become 4x4, and
  time is not pooled where the backbone keeps it. `dense_branch` off makes the branch's eps one of the smallest groups.
- No convolution has a bias or a ReLU; they start by Kaiming's rule for layers without one. eps has no norm, or a batch
  norm (`normed`).
- softmax is printed once more around A tau(Z), A sigma(Z) and A eta(Z). Over 3C/2*H*W features it would flatten
  them to 1e-5, so it is off (`second_softmax`).
- Products of rows are divided by the root of their length (`scaled`), which is not printed: without it the softmax is
  one-hot. With it A_s, which has no weights, is still the identity, to 0.1%, in res3 to res5 of a fresh net on a real
  clip.
- Attention matrices are compared by the cosine of all their numbers, averaged down to the smallest stage's size. A_s is
  averaged over the height and the width of its queries and of its keys, so that the same positions are compared. As one
  square of H*W by H*W numbers it would compare rows of pixels with different ones.

Written differently, with the same result: a depthwise convolution of a clip of T frames is a T by T matrix. So phi,
omega, tau and sigma are applied to the channels' frame-by-frame products, and to the attention, instead of to the maps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.memory_format import outweighs

# Shapes: N clips, C channels, T frames, P = H*W pixels; maps (N, C, T, H, W).


@dataclass(frozen=True)
class Reading:
    """Choices where the paper is ambiguous, described in attach()."""

    scaled: bool = True
    second_softmax: bool = False
    dense_maps: bool = False
    dense_branch: bool = True
    convolved: bool = False
    normed: bool = False


class TimeConv(nn.Conv2d):
    """A 3x1x1 convolution without bias: (N, ins, T, H, W) -> (N, outs, T, H, W)."""

    weighs = True

    def __init__(self, ins: int, outs: int, groups: int = 1) -> None:
        super().__init__(ins, outs, (3, 1), padding=(1, 0), groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        # As 2D over (T, P): torch has no fast 3D depthwise convolution.
        volume = x.flatten(3)
        if outweighs(self.weight, x):
            out = super().forward(volume.contiguous()).contiguous(memory_format=torch.channels_last)
        elif self.groups == 1:
            out = super().forward(volume.contiguous(memory_format=torch.channels_last))
        else:
            out = super().forward(volume)
        return out.unflatten(3, x.shape[3:])


class Gram(torch.autograd.Function):
    """The products of all rows with all rows: (..., L, F) -> (..., L, L).

    Autograd on the matrix product takes two products for the gradient; the sum of two matrices needs one.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.transpose(-2, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        # Under autocast the products are of lower precision than the rows.
        return (grads[0] + grads[0].transpose(-2, -1)).to(rows.dtype) @ rows


def response(conv: nn.Module, channels: int, like: Tensor) -> Tensor:
    """Return a depthwise convolution over time as matrices (channels, T, T).

    `like` (..., T, T) sets T, the type and the device.
    """
    frames = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    return conv(frames.expand(1, channels, -1, -1)[..., None])[0, ..., 0]


class Aggregation(nn.Module):
    """eps(A value(x)): A (N, T, T), x (N, ins, T, H, W) -> (N, outs, T, H, W)."""

    def __init__(self, ins: int, outs: int, reading: Reading, dense: bool = True) -> None:
        super().__init__()
        self.second_softmax, self.dense_maps = reading.second_softmax, reading.dense_maps
        self.value = TimeConv(ins, ins, groups=1 if reading.dense_maps else ins)
        self.eps = TimeConv(ins, outs, groups=1 if dense else math.gcd(ins, outs))
        self.norm = nn.BatchNorm3d(outs) if reading.normed else nn.Identity()

    def forward(self, attention: Tensor, x: Tensor) -> Tensor:
        if self.dense_maps:
            return self.published(attention, x)
        matrices = attention.unsqueeze(1) @ response(self.value, x.shape[1], attention)  # (N, ins, T, T)
        return self.norm(self.eps(self._rows(matrices @ x.flatten(3), x)))

    def published(self, attention: Tensor, x: Tensor) -> Tensor:
        """Return the same in the paper's order: convolve the maps, then weigh them."""
        # One channel at a time; a copy, because tracers and the CPU disagree on the memory order of single frames.
        values = self.value(x).flatten(3).clone(memory_format=torch.contiguous_format)  # (N, ins, T, P)
        return self.norm(self.eps(self._rows(attention.unsqueeze(1) @ values, x)))

    def _rows(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return A value(x), (N, ins, T, P), in x's shape; softmaxed if it is a choice."""
        if self.second_softmax:
            rows = rows.transpose(1, 2).flatten(2).softmax(2).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
        return rows.unflatten(3, x.shape[3:])


class TemporalDynamicAttention(nn.Module):
    """TDA of one stage: Z, Z_TDA^{i-1} -> A_t (N, T, T), Z_t, Z_TDA^i.

    Z is (N, channels, T, H, W) and Z_TDA^{i-1} (N, before, T, H, W). Z_TDA^i has `after` channels, or is None if
    `after` is 0. Z_t is None if `main` is off.
    """

    def __init__(self, channels: int, before: int, after: int, reading: Reading, main: bool = True) -> None:
        super().__init__()
        self.scaled, self.dense_maps = reading.scaled, reading.dense_maps
        both = channels + before
        self.phi, self.omega = (TimeConv(both, both, 1 if reading.dense_maps else both) for _ in range(2))
        self.main = Aggregation(channels, channels, reading) if main else None
        self.branch = Aggregation(both, after, reading, reading.dense_branch) if after else None

    def forward(self, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self.dense_maps:
            return self.published(z, before)
        # Z_c, one channel at a time; a copy, because tracers and the CPU disagree on the memory order of single frames.
        both = torch.cat([z, before], 1).clone(memory_format=torch.contiguous_format)
        products = Gram.apply(both.flatten(3))  # (N, channels + before, T, T)
        phi, omega = (response(conv, both.shape[1], products) for conv in (self.phi, self.omega))
        products = (phi @ products @ omega.transpose(1, 2)).sum(1)  # (N, T, T)
        attention = softmax(products, both[0, :, 0].numel(), self.scaled)
        return self._attended(attention, z, both[:, : z.shape[1]], both)

    def published(self, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the same in the paper's order: convolve the maps, then multiply them."""
        both = torch.cat([z, before], 1)  # Z_c
        phi, omega = self.phi(both).flatten(3), self.omega(both).flatten(3)  # (N, channels + before, T, P)
        # One channel at a time, as above, and then their sum.
        attention = softmax((phi @ omega.transpose(2, 3)).sum(1), both[0, :, 0].numel(), self.scaled)  # (N, T, T)
        return self._attended(attention, z, z, both)

    def _attended(
        self, attention: Tensor, z: Tensor, attended: Tensor, both: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return A_t, Z_t and Z_TDA^i; `attended` is the part of Z_c that Z_t attends to."""
        z_t = None if self.main is None else z + self.main(attention, attended)
        return attention, z_t, None if self.branch is None else self.branch(attention, both)


class SpatialAttention(nn.Module):
    """SDA of one stage.

    Z (N, C, T, H, W) -> A_s (N, P, P), and `onto` + Z_s, of Z's shape. `channels` is C where alpha, beta, eta and pi
    are convolutions; 0 for a module without weights, of any C.
    """

    def __init__(self, reading: Reading, channels: int = 0) -> None:
        super().__init__()
        self.scaled, self.second_softmax = reading.scaled, reading.second_softmax
        self.convolutions = nn.ModuleDict()
        for name in ("alpha", "beta", "eta", "pi") if channels else ():
            self.convolutions[name] = conv = nn.Conv3d(channels, channels, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")

    def forward(self, z: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
        if self.convolutions:
            return self.published(z, onto)
        rows = z.permute(0, 3, 4, 2, 1).flatten(3).flatten(1, 2)  # (N, P, T*C)
        attention = softmax(Gram.apply(rows), rows.shape[2], self.scaled)  # (N, P, P)
        sums = attention @ rows
        if self.second_softmax:
            sums = sums.softmax(2)
        sums = sums.unflatten(2, (z.shape[2], -1)).unflatten(1, z.shape[3:])  # (N, H, W, T, C)
        return attention, onto + sums.permute(0, 4, 3, 1, 2)

    def published(self, z: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same in torch's default memory order."""
        if self.convolutions:
            alpha, beta, eta = (
                self.convolutions[name](z).flatten(3).flatten(1, 2) for name in ("alpha", "beta", "eta")
            )  # (N, C*T, P) each
            attention = softmax(alpha.transpose(1, 2) @ beta, alpha.shape[1], self.scaled)  # (N, P, P)
            mixed = eta @ attention.transpose(1, 2)
            mixed = mixed.softmax(1) if self.second_softmax else mixed
            return attention, onto + self.convolutions["pi"](mixed.reshape(z.shape))
        columns, sums = (maps.flatten(3).flatten(1, 2) for maps in (z, onto))  # (N, C*T, P): a pixel's row is a column
        attention = softmax(columns.transpose(1, 2) @ columns, columns.shape[1], self.scaled)  # (N, P, P)
        if self.second_softmax:
            sums = sums + (columns @ attention.transpose(1, 2)).softmax(1)
        else:
            sums = torch.baddbmm(sums, columns, attention.transpose(1, 2))
        return attention, sums.reshape(z.shape)


def softmax(products: Tensor, length: int, scaled: bool) -> Tensor:
    """Softmax products (N, L, L) of rows of `length`, scaled if asked."""
    return (products * length**-0.5 if scaled else products).softmax(2)


def pooled(branch: Tensor, size: Sequence[int]) -> Tensor:
    """Pool by maxima to a size: (N, C, T, H, W) -> (N, C, *size).

    Windows are 2x2x2, or 1 along an axis that keeps its size. The last window along an odd axis is cut, so that ceil(T
    / 2) frames remain, as from the backbone's strided convolutions.
    """
    window = [-(-old // new) for old, new in zip(branch.shape[2:], size, strict=True)]
    return F.max_pool3d(branch, window, ceil_mode=True)


def averaged(matrix: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Resize attention (N, L, L) from a grid `old` to a grid `new` by means.

    L is the product of `old`. Each axis of the grid is averaged separately, of the queries and of the keys.
    """
    grid = matrix.unflatten(2, tuple(old)).unflatten(1, tuple(old))  # (N, *old, *old)
    for axis, size in enumerate((*new, *new), 1):
        moved = grid.movedim(axis, -1)
        grid = F.adaptive_avg_pool1d(moved.flatten(1, -2), size).unflatten(1, moved.shape[1:-1]).movedim(-1, axis)
    return grid.flatten(1 + len(new)).flatten(1, len(new))


def likeness(matrices: Sequence[Tensor], grids: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Return L_s or L_t, (): the summed similarity over the ordered pairs of stages.

    A pair counts the cosine of its matrices, averaged down to the smallest L, as the mean over the clips.

    Args:
        matrices: the stages' attention (N, L, L), with a different L each.
        grids: shape of each stage's L positions, (H, W) for pixels; by default (L,), for frames.
    """
    grids = grids or [(matrix.shape[1],) for matrix in matrices]
    least = min(grids, key=math.prod)
    rows = [averaged(matrix, grid, least).flatten(1) for matrix, grid in zip(matrices, grids, strict=True)]
    pairs = combinations(rows, 2)
    return sum((2 * F.cosine_similarity(*pair).mean() for pair in pairs), start=matrices[0].new_zeros(()))
