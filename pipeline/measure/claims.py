"""Verdicts: a row against another, our number against a printed one, our gain against a printed gain.

All numbers are shares. A verdict about systems needs SEEDS seeds; with fewer it is about these trained nets only. A row
of other seeds, initial weights or protocol than its base's gets no verdict here: its caller says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.measure.crossed import LEVEL, SEEDS, Estimate, Z

MARGIN = 0.01  # two runs of one recipe lie up to a point apart, and papers claim gains of one to three

# Of a row whose initial weights or views aren't its base's: the comparison isn't one of systems.
OTHER_WEIGHTS, OTHER_VIEWS = "other pre-training", "other views"
BETTER, WORSE, NETS_DIFFER, CANT_TELL = "better", "worse", "these nets differ", "can't tell"
REPRODUCED, BELOW, ABOVE = "reproduced", "below", "above"
SURVIVES, SMALLER, LARGER, DOESNT, REVERSED = "survives", "survives, smaller", "larger", "doesn't", "reversed"


@dataclass(frozen=True)
class Number:
    """Our number against a printed one."""

    verdict: str
    width: float  # half the prediction interval's; NaN with fewer than two seeds
    low: float  # the prediction interval of one more run
    high: float

    def __str__(self) -> str:
        if self.verdict != CANT_TELL or math.isnan(self.width):
            return self.verdict
        return f"{CANT_TELL} (± {100 * self.width:.1f})"


@dataclass(frozen=True)
class Claim:
    """Our gain against a printed gain."""

    verdict: str
    ratio: float  # ours / printed


def lacking(seeds: int) -> str:
    """Return how many more seeds a verdict about systems needs, in words; empty where there are enough."""
    more = SEEDS - seeds
    return f"{more} more seed{'s' * (more > 1)} needed" if more > 0 else ""


def adjusted(rows: Sequence[Estimate | None]) -> list[float | None]:
    """Holm-adjusted p of a table's rows against their base, in the given order.

    None for rows without a comparison, or with too few seeds for a verdict: they don't count among the tests.
    """
    tested = [number for number, estimate in enumerate(rows) if estimate is not None and estimate.seeds >= SEEDS]
    ps = holm([rows[number].p for number in tested])  # type: ignore[union-attr]
    result: list[float | None] = [None] * len(rows)
    for number, p in zip(tested, ps, strict=True):
        result[number] = p
    return result


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in the given order (Holm 1979): each holds with all others at once."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: (ps[index], index))):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def systems(gain: Estimate, p: float | None, nets: float) -> str:
    """Compare a row with its base.

    Args:
        gain: the difference between the two.
        p: adjusted for its table; its sign is the gain's. None with fewer than SEEDS seeds.
        nets: p of the exact test on the same videos, which takes the trained nets as they are.

    Returns:
        "better", "worse" or "can't tell"; with fewer than SEEDS seeds "these nets differ" or "can't tell".
    """
    if gain.seeds < SEEDS or p is None:
        return NETS_DIFFER if nets < 1 - LEVEL else CANT_TELL
    if p >= 1 - LEVEL:
        return CANT_TELL
    return BETTER if gain.value > 0 else WORSE


def margin(printed: float, printed_gain: float | None = None) -> float:
    """Return the distance at which a print counts as equal: a point, less for a small gain or near 0 or 1."""
    bounds = [MARGIN, min(printed, 1 - printed) / 2]
    if printed_gain:
        bounds.append(abs(printed_gain) / 2)
    return max(min(bounds), 0.0)


def number(ours: Estimate, printed: float, printed_gain: float | None = None, rounding: float = 0.0) -> Number:
    """Compare our number with a printed one, which is another run on the same videos: seeds alone part the two.

    The prediction interval for one more run is mean +- t(S - 1) sd sqrt(1 + 1 / S), where the sd between seeds counts
    for at least what they would differ by if each were right on its videos at random (MS_e): seeds that agree by luck
    are no evidence. It isn't widened for videos, which are the same.

    Args:
        ours: our row.
        printed: the paper's number.
        printed_gain: what the paper claims the row gains on its base, if it does.
        rounding: half a unit of the printed number's last digit: a run that prints the same isn't below it.
    """
    seeds = ours.seeds
    if seeds < 2:
        return Number(CANT_TELL, float("nan"), 0.0, 1.0)
    reach = seed_reach(ours)  # of the mean
    width = reach * math.sqrt(seeds + 1) + rounding
    low, high = max(0.0, ours.value - width), min(1.0, ours.value + width)
    verdict = CANT_TELL
    if seeds >= SEEDS:
        near = margin(printed, printed_gain)
        inside = printed - near <= ours.value - reach and ours.value + reach <= printed + near
        off = printed - ours.value
        if abs(off) > width:
            verdict = BELOW if off > 0 else ABOVE
        elif inside:
            verdict = REPRODUCED
    return Number(verdict, width, low, high)


def seed_reach(ours: Estimate) -> float:
    """Half the interval of our mean over other seeds, on these videos. Two seeds at least."""
    tail = (1 - LEVEL) / 2
    rest = ours.spread.of_rest
    least = Z * math.sqrt(rest) if rest == rest else 0.0
    return max(-float(stdtrit(ours.seeds - 1, tail)) * math.sqrt(ours.spread.of_seeds), least)


def claim(gain: Estimate, p: float | None, printed: float) -> Claim:
    """Compare our gain with a printed one, which isn't 0.

    Better and worse go by the adjusted p; the printed gain lies inside, above or below the row's own 95 % interval,
    all counted in the printed gain's direction.

    Returns:
        "survives": better, and the printed gain inside. "survives, smaller": better, and the print above. "larger":
        better, and the print below. "reversed": worse. "doesn't": neither, and the print above. "can't tell": all else,
        and whatever has fewer than SEEDS seeds.
    """
    if not printed:
        raise ValueError("a printed gain of 0 claims nothing, so nothing can survive")
    ratio = gain.value / printed
    if gain.seeds < SEEDS or p is None:
        return Claim(CANT_TELL, ratio)
    sign = np.sign(printed)
    low, high = sorted((sign * gain.low, sign * gain.high))
    size, ours = abs(printed), sign * gain.value
    if p < 1 - LEVEL and ours < 0:
        return Claim(REVERSED, ratio)
    if p < 1 - LEVEL:
        return Claim(SMALLER if size > high else LARGER if size < low else SURVIVES, ratio)
    return Claim(DOESNT if size > high else CANT_TELL, ratio)
