"""Verdicts on a row and its base, and on our numbers and gains and printed ones.

All numbers are shares. A verdict about systems needs SEEDS seeds; with fewer it is about these trained nets only.
Callers exclude rows whose seeds, initial weights or protocol differ from their base's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.measure.crossed import LEVEL, SEEDS, Estimate, Z

MARGIN = 0.01  # two runs of one recipe lie up to a point apart, and papers claim gains of one to three

# A row whose initial weights or views differ from its base's compares more than the systems.
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


def lacking(seeds: int) -> str:
    """Name the seeds that a verdict about systems still needs; empty if none."""
    more = SEEDS - seeds
    return f"{more} more seed{'s' * (more > 1)} needed" if more > 0 else ""


def with_lacking(verdict: str, seeds: int) -> str:
    """Return the verdict to read, with the seeds that it still needs."""
    return f"{verdict} ({more})" if (more := lacking(seeds)) else verdict


def adjusted(rows: Sequence[Estimate | None]) -> list[float | None]:
    """Return the p values of a table's rows, adjusted for their number (Holm 1979).

    A row without a comparison, or with too few seeds for a verdict, has None and doesn't count among the tests.
    """
    ps = {number: row.p for number, row in enumerate(rows) if row is not None and row.seeds >= SEEDS}
    order = sorted(ps, key=lambda number: ps[number])
    steps = [(len(ps) - rank) * ps[number] for rank, number in enumerate(order)]
    holm = dict(zip(order, np.minimum(np.maximum.accumulate(steps), 1.0).tolist(), strict=True)) if ps else {}
    return [holm.get(number) for number in range(len(rows))]


def systems(gain: Estimate, p: float | None, nets: float) -> str:
    """Compare a row with its base.

    Args:
        gain: The difference between the two.
        p: The p value adjusted for its table, whose sign is the gain's; None with fewer than SEEDS seeds.
        nets: p of the exact test on the same videos, which takes the trained nets as fixed.

    Returns:
        "better", "worse" or "can't tell"; with fewer than SEEDS seeds "these nets differ" or "can't tell".
    """
    if gain.seeds < SEEDS or p is None:
        return NETS_DIFFER if nets < 1 - LEVEL else CANT_TELL
    if p >= 1 - LEVEL:
        return CANT_TELL
    return BETTER if gain.value > 0 else WORSE


def margin(printed: float, printed_gain: float | None = None) -> float:
    """Return the distance within which a print counts as equal.

    It is MARGIN, but at most half a printed gain and half the distance to 0 or 1.
    """
    bounds = [MARGIN, min(printed, 1 - printed) / 2]
    if printed_gain:
        bounds.append(abs(printed_gain) / 2)
    return max(min(bounds), 0.0)


def number(ours: Estimate, printed: float, printed_gain: float | None = None, rounding: float = 0.0) -> Number:
    """Compare our number with a printed one.

    The print is one more run on the same videos, so only seeds separate it from ours. The prediction interval for one
    more run is mean +- t(S - 1) sd sqrt(1 + 1 / S). The sd is at least that of nets that are right on videos at random
    (MS_e), because seeds that agree by luck are no evidence. Videos don't widen the interval, for they are the same.

    Args:
        ours: Our row.
        printed: The paper's number.
        printed_gain: The gain over its base that the paper claims for the row, if any.
        rounding: Half a unit of the printed number's last digit: a run that prints the same isn't below it.
    """
    seeds = ours.seeds
    if seeds < 2:
        return Number(CANT_TELL, float("nan"), 0.0, 1.0)
    rest = ours.spread.of_rest
    least = Z * math.sqrt(rest) if rest == rest else 0.0
    # Half the interval of our mean over other seeds.
    reach = max(-float(stdtrit(seeds - 1, (1 - LEVEL) / 2)) * math.sqrt(ours.spread.of_seeds), least)
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


def claim(gain: Estimate, p: float | None, printed: float) -> str:
    """Compare our gain with a printed one.

    Better and worse follow from the adjusted p. The printed gain is inside, above or below the row's unadjusted 95 %
    interval, measured in the printed gain's direction.

    Returns:
        "survives": better, and the printed gain inside. "survives, smaller": better, and the print above. "larger":
        better, and the print below. "reversed": worse. "doesn't": neither, and the print above. "can't tell": all else,
        and any gain with fewer than SEEDS seeds.

    Raises:
        ValueError: The printed gain is 0.
    """
    if not printed:
        raise ValueError("a printed gain of 0 claims nothing, so nothing can survive")
    if gain.seeds < SEEDS or p is None:
        return CANT_TELL
    sign = np.sign(printed)
    low, high = sorted((sign * gain.low, sign * gain.high))
    size, ours = abs(printed), sign * gain.value
    if p < 1 - LEVEL and ours < 0:
        return REVERSED
    if p < 1 - LEVEL:
        return SMALLER if size > high else LARGER if size < low else SURVIVES
    return DOESNT if size > high else CANT_TELL
