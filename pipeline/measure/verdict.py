"""What the difference between a printed number and ours means: verdicts, and how many videos or seeds would tell.

Legend: M videos of all splits, S runs of each (split x seed).
"""

import math

import numpy as np
from scipy.stats import norm, t

from pipeline.measure.uncertainty import LEVEL, Interval

# A share. Papers claim gains of one to three points, and two runs of one recipe that differ in their seed alone lie up
# to a point apart: a number that is surely nearer than that is the printed one for all that a reader can use it for.
MARGIN = 0.01
POWER = 0.8
MOST_SEEDS = 10_000


def of_number(ours: Interval, printed: float, margin: float = MARGIN) -> str:
    """ "reproduced", "below", "above" or "within noise": ours beside a printed number, all as shares.

    Reproduced is an equivalence test (Schuirmann 1987, two one-sided tests): the whole 95 % interval lies within
    `margin` of the printed number. Each of the two is at 2.5 %, so a row that truly is a margin or more off is called
    reproduced at most once in 20 times; in fact in 40, as it can only be off to one side. Below and above: not that,
    and the whole interval lies under, or over, the printed number. Within noise: neither; the test set, or the number
    of seeds, is too small to tell. The printed number is taken as exact: what its authors' runs scatter is not printed.
    """
    if printed - margin <= ours.low and ours.high <= printed + margin:
        return "reproduced"
    if ours.high < printed:
        return "below"
    return "above" if ours.low > printed else "within noise"


def of_gain(ours: Interval, p: float, printed: float, videos: int) -> str:
    """ "survives", "doesn't" or "can't tell (n = ...)": a printed difference to the base, not 0, and ours, as shares.

    Survives: ours has the printed one's sign by the paired test, p adjusted for the table, and by the interval; of
    whatever size, which the verdict of the number tells. Doesn't: not that, and the whole interval lies short of half
    of the printed difference (equivalence to none, with half of what is claimed for margin; no bound on the far side,
    where ours is of the other sign).
    """
    low, high = (ours.low, ours.high) if printed > 0 else (-ours.high, -ours.low)
    if p < 1 - LEVEL and low > 0:
        return "survives"
    return "doesn't" if high < abs(printed) / 2 else f"can't tell (n = {videos})"


def videos_needed(differences: np.ndarray, gain: float, tests: int = 1, power: float = POWER) -> int:
    """How many videos the paired test would need to see a true difference `gain`, not 0, with chance `power`.

    `differences` (M,S in -1, 0, 1) are those observed, of which only the share of discordant pairs counts; `tests` is
    the number of rows that Holm corrects for. McNemar's sample size (Miettinen 1968, Connor 1987):
    (z_a sqrt(q) + z_b sqrt(q - gain^2))^2 / gain^2 with q the share of discordant pairs; with several runs q is the
    mean square of a video's mean difference. q is at least what the gain itself needs.
    """
    if not gain:
        raise ValueError("no number of videos tells a difference of 0 from 0")
    square = max(float(np.mean(differences.mean(axis=1) ** 2)), abs(gain) / differences.shape[1], gain**2)
    error, miss = norm.isf((1 - LEVEL) / 2 / tests), norm.isf(1 - power)
    return math.ceil((error * math.sqrt(square) + miss * math.sqrt(square - gain**2)) ** 2 / gain**2)


def seeds_needed(gains: np.ndarray, gain: float, tests: int = 1, power: float = POWER) -> int | None:
    """How many seeds a t test over seeds would need to see a true difference `gain` on these videos.

    `gains` (S) are the differences seed by seed. The smallest number with (t_a + t_b) s / sqrt(n) <= gain, at n - 1
    degrees of freedom, s their standard deviation; two at least. None where one seed shows no spread. Two or three
    seeds know s but roughly, and so the number.
    """
    if len(gains) < 2 or not gain:
        return None
    spread = float(np.std(gains, ddof=1))
    for seeds in range(2, MOST_SEEDS):
        error, miss = t.isf((1 - LEVEL) / 2 / tests, seeds - 1), t.isf(1 - power, seeds - 1)
        if (error + miss) * spread / math.sqrt(seeds) <= abs(gain):
            return seeds
    return MOST_SEEDS
