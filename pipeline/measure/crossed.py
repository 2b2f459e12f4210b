"""Crossed random-effects analysis of seeds and test units.

Legend: S seeds, R rows (a video in a split), U units (a video, or a group of videos from one source).

The model is x(s, u) = mean + seed(s) + unit(u) + rest(s, u). Seeds and units are both random samples, so a verdict
holds for other seeds and other videos of the same kind. The source is the multi-reader multi-case analysis of radiology
(Dorfman, Berbaum, Metz 1992; Obuchowski, Rockette 1995; Hillis 2007), with seeds for readers. MS_s, MS_v and MS_e are
the mean squares of the two-way layout without replication. The mean's variance is (MS_s + max(MS_v - MS_e, 0)) / (S U).
Hillis's t has (S - 1) / share^2 degrees of freedom, where share = MS_s / (MS_s + max(MS_v - MS_e, 0)).

With three to five seeds that t rejects too often. Two things differ here. Both follow from the exact distribution, in
which MS_s is chi-square with S - 1 degrees of freedom. They hold for any accuracy, number and variance, if units are
many:

- Degrees of freedom are (S - 1) / share^k, with k = 2 - 3 / (S - 1). Hillis's formula turns an MS_s that is small by
  luck into many degrees of freedom. With 3 seeds it rejects up to 7.8 % at 5 %, and up to 3.1 % at the 0.7 % that Holm
  needs. This k is about the largest that keeps 5 % (5.3 % at most) for every share; it tends to Hillis's 2.
- The interval is never shorter than that for seeds without effect, with variance max(MS_v, MS_e) / (S U). Seeds that
  agree by luck are no evidence. The p is the larger of the two, so it agrees with the interval.

Units of several rows (groups, videos in several splits) weigh by their rows. Each sum of squares is that of a weighted
mean with the correction 1 / (1 - weight), as in cluster-robust errors (CR2). Few or unequal units have
(sum w^2)^2 / sum w^4 - 1 degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

LEVEL = 0.95
Z = float(ndtri((1 + LEVEL) / 2))
SEEDS = 3  # fewer give no verdict about systems
ENDS = 0.1  # accuracies nearer to 0 or 1 than this have an interval of at least Wilson's length


@dataclass(frozen=True)
class Spread:
    """The mean squares, each divided by S U, so that they are variances of the mean."""

    of_seeds: float  # NaN with one seed
    of_units: float  # NaN with one unit
    of_rest: float  # NaN with one seed or unit
    seeds: int
    units: int
    unit_degrees: float  # U - 1, fewer where units weigh differently

    @property
    def between_units(self) -> float:
        """Part of the mean's variance that more seeds don't reduce."""
        return self.of_units if self.seeds == 1 else max(self.of_units - self.of_rest, 0.0)

    @property
    def variance(self) -> float:
        return self.between_units + (0.0 if self.seeds == 1 else self.of_seeds)

    @property
    def least(self) -> float:
        """Variance of the mean if seeds have no effect."""
        return self.of_units if self.seeds == 1 else max(self.of_units, self.of_rest)

    @property
    def degrees(self) -> float:
        share = self.of_seeds / self.variance if self.seeds > 1 and self.variance else 0.0
        return degrees(share, self.seeds, self.unit_degrees)

    def half(self, level: float = LEVEL) -> float:
        """Return half the length of the mean's interval."""
        tail = (1 - level) / 2
        wide = -stdtrit(self.degrees, tail) * np.sqrt(self.variance)
        return float(max(wide, -stdtrit(self.unit_degrees, tail) * np.sqrt(self.least)))

    def p(self, mean: float) -> float:
        """Return the two-sided p of a true mean of 0."""
        if not mean:
            return 1.0
        pairs = ((self.degrees, self.variance), (self.unit_degrees, self.least))
        return max(
            2 * float(stdtr(free, -abs(mean) / np.sqrt(variance))) if variance else 0.0 for free, variance in pairs
        )


@dataclass(frozen=True)
class Estimate:
    """A row's mean, or the difference between two rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float  # of a true value of 0; without meaning for a row's mean
    by_seed: tuple[float, ...]
    videos: int  # rows, so a video in two splits counts twice
    spread: Spread

    @property
    def seeds(self) -> int:
        return len(self.by_seed)

    @property
    def units(self) -> int:
        return self.spread.units

    @property
    def sd(self) -> float:
        """Standard deviation between seeds on these videos; NaN with one seed."""
        return float(np.std(self.by_seed, ddof=1)) if self.seeds > 1 else float("nan")


def degrees(share: float, seeds: int, unit_degrees: float = np.inf, exponent: float | None = None) -> float:
    """Return the degrees of freedom of a mean.

    Args:
        share: The share of the mean's variance that comes from seeds; the rest comes from units.
        seeds: The number of seeds.
        unit_degrees: The degrees of freedom of the units.
        exponent: 2 is Hillis's, None the module docstring's k.
    """
    if seeds == 1:
        return unit_degrees
    power = max(2 - 3 / (seeds - 1), 0.0) if exponent is None else exponent
    inverse = share**power / (seeds - 1) + (1 - share) ** 2 / unit_degrees
    return 1 / inverse if inverse else np.inf


def row(values: np.ndarray, units: np.ndarray | None = None, weights: np.ndarray | None = None) -> Estimate:
    """Analyze one row: accuracy, or another mean between 0 and 1.

    The interval is a score interval (Wilson 1927) with the crossed variance in place of the binomial's, so it stays
    inside 0..1. Within ENDS of 0 or 1 it is at least as long as Wilson's for the number of videos. There, few right or
    wrong videos show too little of the variance. That bound fades out towards 1/2. If all answers are equal, the
    interval is Wilson's for the number of units. The bound applies to right and wrong answers, not to scores.

    Args:
        values: Right (1) or wrong (0), or any score, such as the jackknife's pseudo-values: S,R.
        units: The number or name of each row's unit: R; None if each row is a unit.
        weights: Each row's weight: R; None if all weigh the same.
    """
    values = np.asarray(values)
    spread, by_seed, mean = _analyzed(_checked(values), units, weights)
    mean = min(max(mean, 0.0), 1.0)
    binary = bool(((values == 0) | (values == 1)).all())
    bulge = mean * (1 - mean)
    if spread.units == 1:
        low, high = 0.0, 1.0
    elif bulge <= 1e-12:  # all right or all wrong
        low, high = _score(mean, Z**2 / spread.units)
    else:
        ratio = spread.half() ** 2 / bulge
        if binary:
            ratio = max(ratio, Z**2 / values.shape[1] / max(1.0, bulge / (ENDS * (1 - ENDS))))
        low, high = _score(mean, ratio)
    p = spread.p(mean) if spread.units > 1 else 1.0
    return Estimate(mean, low, high, p, by_seed, values.shape[1], spread)


def difference(
    values: np.ndarray, base: np.ndarray, units: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Estimate:
    """Analyze the difference between two rows: S,R each, in the same order.

    Pairs are by seed, too, since the same seed means the same initialization and order. In suite quick two rows' seeds
    move together, so the difference varies much less than either row. If all pairs are equal, the interval is that of
    an event not seen in U units, and p is 1.

    Raises:
        ValueError: The two have other seeds or videos.
    """
    if np.shape(values) != np.shape(base):
        raise ValueError(
            f"{np.shape(values)} and {np.shape(base)} seeds and videos can't be paired; compare rows of the same seeds"
        )
    pairs = _checked(values) - _checked(base)
    spread, by_seed, mean = _analyzed(pairs, units, weights)
    mean = min(max(mean, -1.0), 1.0)
    if spread.units == 1:
        return Estimate(mean, -1.0, 1.0, 1.0, by_seed, pairs.shape[1], spread)
    if spread.least <= 1e-16:  # every unit has the same difference: as if one in U could have another
        unseen = Z**2 / (spread.units + Z**2)
        doubt = (unseen / -stdtrit(spread.unit_degrees, (1 - LEVEL) / 2)) ** 2
        spread = Spread(spread.of_seeds, doubt, 0.0, spread.seeds, spread.units, spread.unit_degrees)
    half = spread.half()
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Estimate(mean, low, high, spread.p(mean), by_seed, pairs.shape[1], spread)


def covariance(
    rows: Sequence[np.ndarray],
    spreads: Sequence[Spread],
    units: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the covariance of rows' means that comes from their common test units, (n, n).

    The diagonal is Spread.between_units, without what the rows' own seeds add.

    Args:
        rows: n arrays of S,R values, of the same videos in the same order; S may differ.
        spreads: The rows' own, as row() returns them.
        units: As in row().
        weights: As in row().
    """
    of_unit: list[np.ndarray] = []
    for values in rows:
        means, shares = _by_unit(_checked(values), units, weights)
        of_unit.append(means.mean(axis=0))
    squares = shares**2
    levers = squares / np.maximum(1 - shares, 1e-12)
    moved = np.stack(of_unit)
    moved -= (moved @ shares)[:, None]
    result = (moved * levers) @ moved.T
    np.fill_diagonal(result, [spread.between_units for spread in spreads])
    return result


def constant(labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the accuracy of the best constant answer to R labels."""
    _, index = np.unique(labels, return_inverse=True)
    counts = np.bincount(index, weights)
    return float(counts.max() / counts.sum())


def even(splits: np.ndarray) -> np.ndarray:
    """Return R weights under which each split counts the same, whatever its size."""
    _, index, counts = np.unique(splits, return_inverse=True, return_counts=True)
    return 1 / counts[index] / len(counts)


def _score(mean: float, ratio: float) -> tuple[float, float]:
    """Solve (mean - x)^2 = ratio x (1 - x): Wilson's interval if ratio is z^2 / n."""
    middle, reach = mean + ratio / 2, np.sqrt(ratio * mean * (1 - mean) + ratio**2 / 4)
    # The smaller root times the larger is mean^2 / (1 + ratio): without the difference of two near numbers.
    low = mean**2 / (middle + reach)
    high = 1 - (1 - mean) ** 2 / (1 + ratio - middle + reach)
    return float(low), float(high)


def _checked(values: np.ndarray) -> np.ndarray:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"seeds x videos are {matrix.shape}; both must be above 0")
    if matrix.dtype.kind not in "biu" and not np.isfinite(matrix).all():
        raise ValueError("a score is not finite; a video that wasn't decoded counts as wrong")
    return matrix.astype(float, copy=False)


def _analyzed(
    values: np.ndarray, units: np.ndarray | None, weights: np.ndarray | None
) -> tuple[Spread, tuple[float, ...], float]:
    """Return the variances of the mean of S,R values, each seed's mean, and the mean."""
    means, shares = _by_unit(values, units, weights)
    seeds, count = means.shape
    by_seed = means @ shares if units is not None or weights is not None else means.mean(axis=1)  # exact at 0 and 1
    mean = float(by_seed.mean())
    of_unit = means.mean(axis=0)
    squares = shares**2
    unit_degrees = float(squares.sum() ** 2 / (squares**2).sum() - 1)
    levers = squares / np.maximum(1 - shares, 1e-12)
    # einsum, not BLAS, which splits such sums over threads: the same bits on any number of cores.
    of_units = float(np.einsum("u,u->", levers, (of_unit - mean) ** 2)) if count > 1 else float("nan")
    of_seeds = of_rest = float("nan")
    if seeds > 1:
        of_seeds = float(by_seed.var(ddof=1)) / seeds
        # U: the sum over seeds of (means - by_seed - of_unit)^2, without another S,U array.
        moved = by_seed - mean
        rest = np.einsum("su,su->u", means, means) - seeds * of_unit**2 - 2 * np.einsum("s,su->u", moved, means)
        rest += moved @ moved
        of_rest = max(float(np.einsum("u,u->", levers, rest)), 0.0) / (seeds * (seeds - 1)) if count > 1 else of_rest
    spread = Spread(of_seeds, of_units, of_rest, seeds, count, unit_degrees)
    return spread, tuple(by_seed.tolist()), mean


def _by_unit(values: np.ndarray, units: np.ndarray | None, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return means by unit of S,R values (S,U), and the units' weights (U)."""
    rows = values.shape[1]
    each = np.full(rows, 1 / rows) if weights is None else np.asarray(weights, float) / np.sum(weights)
    if units is None:
        return values, each
    _, index = np.unique(units, return_inverse=True)
    shares = np.bincount(index, each)
    sums = np.stack([np.bincount(index, each * line) for line in values])
    return sums / shares, shares
