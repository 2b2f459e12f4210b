"""An interval, and the exact paired test of two trained networks."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval, in any unit."""

    value: float
    low: float
    high: float


def sign_flip(differences: np.ndarray) -> float:
    """Return the exact two-sided p that two rows are exchangeable on every video.

    Under that hypothesis each difference has either sign with probability half, independently. The p is the chance that
    their sum is at least as far from 0 as observed. With one run a video this is McNemar's exact test (McNemar 1947).
    Videos that both rows get right equally often carry no information and drop out. The p holds for these trained
    models, not for other seeds.

    Args:
        differences: For each video, the runs (split x seed) in which the row is right, less those of its base.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    total = abs(int(differences.sum()))
    if not total:
        return 1.0
    # The sum is 2 Y - most, with Y the sum of the positive ones: for each size a binomial, times the size.
    *others, (last, often) = sorted(zip(sizes.tolist(), counts.tolist(), strict=True), key=lambda pair: pair[1])
    chance = np.ones(1)  # of Y = 0, 1, ... without the last size
    for size, count in others:
        binomial = binom.pmf(np.arange(count + 1), count, 0.5)
        spread = np.zeros(len(chance) + size * count)
        for begin in range(size):  # only sums that are equal modulo the size combine
            if begin < len(chance):
                spread[begin::size] = np.convolve(chance[begin::size], binomial)
        chance = spread
    # Of the most frequent size, only the tail matters, so that no convolution is as long as the videos are many.
    tail = np.append(np.cumsum(binom.pmf(np.arange(often + 1), often, 0.5)[::-1])[::-1], 0.0)
    least = (total + int(sizes @ counts)) // 2  # the Y of this sum
    needed = -((np.arange(len(chance)) - least) // last)  # rounded up
    return min(1.0, 2 * float(chance @ tail[np.clip(needed, 0, often + 1)]))
