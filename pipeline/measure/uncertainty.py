"""An interval, and the exact paired test of two trained networks on the same videos."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval, of what no crossed analysis is of."""

    value: float
    low: float
    high: float


def sign_flip(differences: np.ndarray) -> float:
    """Two-sided exact p of the hypothesis that two rows are exchangeable on every video.

    `differences`: for each video an integer, in how many more runs (split x seed) the one row is right than the other.
    Under the hypothesis each difference has either sign with probability half, independently; p is the chance that
    their sum is as far from 0 as it is. With one run a video this is McNemar's exact test (McNemar 1947); videos that
    both rows get right equally often carry no information and drop out. Holds for these trained models: it says nothing
    of what other seeds would have given.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    most = int(sizes @ counts)
    # The sum is 2 Y - most, with Y the sum of those that fall positive: for each size a binomial, spread by the size.
    chance = np.ones(1)  # of Y = 0, 1, ...
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = binom.pmf(np.arange(count + 1), count, 0.5)
        spread = np.zeros(len(chance) + size * count)
        for begin in range(size):  # sums that are equal modulo the size: the others have nothing in common
            if begin < len(chance):
                spread[begin::size] = np.convolve(chance[begin::size], own)
        chance = spread
    far = np.abs(2 * np.arange(most + 1) - most) >= abs(int(differences.sum()))
    return min(1.0, float(chance[far].sum()))
