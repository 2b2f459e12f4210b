"""Order of systems: the chance that one beats another with a new seed, and ranks with intervals.

Legend: R rows, S seeds, U test units, D draws, N data sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtrinc, ndtr
from scipy.stats import rankdata

from pipeline.measure.crossed import LEVEL, SEEDS

DRAWS = 10_000
FARTHEST = 1e4  # the noncentral t's inverse doesn't end far beyond, where a chance is 0 or 1 to every digit


@dataclass(frozen=True)
class Share:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def beats(by_seed: Sequence[float]) -> Share | None:
    """Return the chance that a new seed's difference is above 0, on the same test videos; None below three seeds.

    With normal seeds the chance is Phi(d / s). The interval of d / s is the exact one of the noncentral t with S - 1
    degrees of freedom. Where all seeds give the same difference, the interval ends where S such seeds have p 0.025.

    Args:
        by_seed: The difference of each seed, S.
    """
    count = len(by_seed)
    if count < SEEDS:
        return None
    mean, sd = float(np.mean(by_seed)), float(np.std(by_seed, ddof=1))
    tail = (1 - LEVEL) / 2
    if sd < 1e-12:
        if abs(mean) < 1e-12:
            return Share(0.5, 0.0, 1.0)
        return Share(1.0, tail ** (1 / count), 1.0) if mean > 0 else Share(0.0, 0.0, 1 - tail ** (1 / count))
    return _share(mean / sd, count - 1, count)


def beats_apart(first: Sequence[float], second: Sequence[float]) -> Share | None:
    """Return the chance that a new seed of the first system beats one of the second, whose seeds are others.

    As beats(), with the variance of two independent seeds; degrees of freedom are Welch's, so the interval is
    approximate (95 of 100 within 2 for 3 to 10 seeds).

    Args:
        first: The first system's accuracies, one a seed.
        second: The second system's.
    """
    sizes = np.array([len(first), len(second)])
    if sizes.min() < SEEDS:
        return None
    variances = np.array([np.var(first, ddof=1), np.var(second, ddof=1)])
    less, of_means = float(np.mean(first) - np.mean(second)), variances / sizes
    if variances.sum() < 1e-24:
        return beats([less] * int(sizes.min()))
    degrees = of_means.sum() ** 2 / (of_means**2 / (sizes - 1)).sum()
    return _share(less / float(np.sqrt(variances.sum())), degrees, variances.sum() / of_means.sum())


def _share(gain: float, degrees: float, count: float) -> Share:
    """Return Phi of a gain in deviations that `count` seeds have measured, with its interval."""
    t, tail = np.clip(gain * np.sqrt(count), -FARTHEST, FARTHEST), (1 - LEVEL) / 2
    low, high = (float(ndtr(nctdtrinc(degrees, level, t) / np.sqrt(count))) for level in (1 - tail, tail))
    return Share(float(ndtr(gain)), low, high)


def draws(means: np.ndarray, of_seeds: np.ndarray, of_units: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Draw the rows' true accuracies on one data set, (D, R), given what was measured.

    Seeds move each row alone, with the heavy tails that so few seeds leave; test units move all rows together.

    Args:
        means: R accuracies.
        of_seeds: R variances of the mean that come from seeds.
        of_units: (R, R) covariance of the means that comes from test units.
        seeds: R numbers of seeds, each above 1.
    """
    rng = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(of_units)
    shared = rng.standard_normal((DRAWS, len(means))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    degrees = np.asarray(seeds) - 1
    alone = rng.standard_t(degrees, (DRAWS, len(means))) * np.sqrt(of_seeds)
    return means + shared + alone


def ranks(drawn: Sequence[np.ndarray], means: Sequence[np.ndarray]) -> list[Share]:
    """Return each system's mean rank over data sets, 1 for the best, with its interval; ties share a rank.

    Args:
        drawn: N arrays (D, R) of draws, systems in the same order.
        means: N arrays of R accuracies.
    """
    value = np.mean([rankdata(-each) for each in means], axis=0)
    each = np.mean([rankdata(-each, axis=1) for each in drawn], axis=0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(each, [tail, 1 - tail], axis=0)
    return [Share(*map(float, ends)) for ends in zip(value, low, high, strict=True)]
