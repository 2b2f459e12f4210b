"""How sure a number is: bootstrap intervals, and exact paired tests on the same videos.

Legend: M videos of a split, S seeds, B resamples, P distinct rows of an M,S matrix.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

RESAMPLES = 10_000
BLOCK = 500  # resamples drawn at once: bounds memory where there are many seeds
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval, as fractions."""

    value: float
    low: float
    high: float


def bootstrap(splits: Sequence[np.ndarray], name: str, resamples: int = RESAMPLES, least: int = 0) -> Interval:
    """The mean over splits of the mean of an M,S integer matrix each, with its percentile bootstrap interval.

    Entries are 1 for right and 0 for wrong, or differences of these between two rows (then `least`, the smallest an
    entry can be, is -1). Resampling is crossed (Owen 2007, "The pigeonhole bootstrap"): a split's videos are drawn with
    replacement, and so are its seeds where it has several; a drawn video counts under every drawn seed.

    Covers: which videos the test holds and, with several seeds, how training's chance fell. Does not cover: another
    choice of classes, data set or protocol, and with one seed nothing of training's chance. It errs on the wide side,
    as it counts the interplay of video and seed thrice: up to 1.6 times too wide in simulation where seeds hardly
    matter. But two or three seeds are few: of the variance between them it sees (S - 1) / S. Splits are drawn
    independently, so where their test parts share videos (HMDB51) the interval is a little too short. Where all entries
    are equal the bootstrap has no width, and the exact bound for an event that M trials did not show takes its place.

    A function of the matrices and `name` (the random stream's seed) alone; the order of videos doesn't matter.
    """
    value = float(np.mean([matrix.mean() for matrix in splits]))
    if len({int(entry) for matrix in splits for entry in (matrix.min(), matrix.max())}) == 1:
        bound = 1 - ((1 - LEVEL) / 2) ** (1 / sum(len(matrix) for matrix in splits))
        return Interval(value, max(least, value - bound), min(1.0, value + bound))
    rng = generator(name)
    means = np.mean([_resampled(matrix, rng, resamples) for matrix in splits], axis=0)  # B
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def generator(name: str) -> np.random.Generator:
    """The random stream that belongs to a name, on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def _resampled(matrix: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """M,S -> B: means of one split's matrix with its videos, and its seeds, drawn with replacement."""
    videos, seeds = matrix.shape
    # Videos with equal rows are exchangeable, so it is enough to draw how often each distinct row comes: the same
    # distribution as drawing videos, at a cost that doesn't grow with their number.
    if seeds < 10:  # a row as one number, in the same order: counted without sorting
        powers = 3 ** np.arange(seeds - 1, -1, -1)
        often = np.bincount((matrix.astype(np.int64) + 1) @ powers)
        codes = np.flatnonzero(often)
        rows, counts = codes[:, None] // powers % 3 - 1, often[codes]
    else:
        rows, counts = np.unique(matrix, axis=0, return_counts=True)  # P,S  P
    means = []
    block = BLOCK if seeds > 1 else resamples
    for begin in range(0, resamples, block):
        size = min(block, resamples - begin)
        right = rng.multinomial(videos, counts / videos, size=size) @ rows.astype(np.int64)  # B,S
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)  # B,S
        means.append((right * weights).sum(axis=1) / (videos * seeds))
    return np.concatenate(means)


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
        spread = np.zeros(size * count + 1)
        spread[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.convolve(chance, spread)
    far = np.abs(2 * np.arange(most + 1) - most) >= abs(int(differences.sum()))
    return min(1.0, float(chance[far].sum()))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in the given order (Holm 1979): each holds with all others at once."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: (ps[index], index))):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def verdict(difference: Interval, p: float, videos: int) -> str:
    """ "better" or "worse" than the base, or "can't tell (n = ...)".

    Both must agree: the adjusted p of the paired test, which takes the trained models as given, and the interval, which
    with several seeds also knows how they scatter.
    """
    if p < 1 - LEVEL and difference.low > 0:
        return "better"
    if p < 1 - LEVEL and difference.high < 0:
        return "worse"
    return f"can't tell (n = {videos})"


def chance(classes: int) -> float:
    """The accuracy of guessing one of `classes` evenly."""
    return 1 / classes


def above_chance(accuracy: Interval, classes: int) -> bool:
    """Whether an accuracy is above chance beyond its interval."""
    return accuracy.low > chance(classes)
