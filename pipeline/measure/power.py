"""Power: the differences that a comparison could see, and the seeds it needs.

All follows from the crossed analysis (pipeline.measure.crossed). With S' seeds the variance from seeds shrinks by
S / S', and that between units stays. The degrees of freedom follow from the shares of both. Power is that of the
noncentral t.
"""

import math
from dataclasses import replace

from scipy.special import nctdtr, nctdtrinc

from pipeline.measure.claims import BETTER, CANT_TELL, DOESNT, NETS_DIFFER, SURVIVES, WORSE
from pipeline.measure.crossed import LEVEL, SEEDS, Spread

POWER = 0.8
MOST_SEEDS = 1000


def assumed(seed_sd: float, discordant: float, videos: int, seeds: int, system_sd: float = 0.0) -> Spread:
    """Return the variances of a difference of which nothing has been measured.

    Args:
        seed_sd: Standard deviation of each row's accuracy between seeds.
        discordant: Share of videos on which two nets of the same seed disagree.
        videos: Number of test units.
        seeds: Number of seeds.
        system_sd: Standard deviation over videos of the true difference between the systems.
    """
    of_rest = max(discordant - system_sd**2, 0.0) / videos / seeds
    of_seeds = 2 * seed_sd**2 / seeds + of_rest
    return Spread(of_seeds, system_sd**2 / videos + of_rest, of_rest, seeds, videos, videos - 1)


def planned(spread: Spread, seeds: int) -> Spread:
    """Return the variances to expect with another number of seeds.

    Args:
        spread: The variances measured with two seeds or more.
        seeds: The number of seeds to plan for.

    Raises:
        ValueError: One seed was measured.
    """
    if spread.seeds < 2:
        raise ValueError("one seed doesn't show how seeds vary; assume it, or run two")
    fewer = spread.seeds / seeds
    of_rest = spread.of_rest * fewer
    of_seeds = max(spread.of_seeds - spread.of_rest, 0.0) * fewer + of_rest
    of_units = spread.between_units + of_rest
    if seeds == 1:
        return replace(spread, of_seeds=math.nan, of_units=of_units, of_rest=math.nan, seeds=1)
    return Spread(of_seeds, of_units, of_rest, seeds, spread.units, spread.unit_degrees)


def detectable(spread: Spread, tests: int = 1) -> float:
    """Return the smallest true difference that is seen with chance POWER.

    If `tests` rows share the table, the first of them must pass the level divided by their number, as Holm's does.
    """
    error = math.sqrt(spread.variance)
    if not error:
        return 0.0
    return float(nctdtrinc(spread.degrees, 1 - POWER, spread.half(_level(tests)) / error)) * error


def power_of(spread: Spread, gain: float, tests: int = 1) -> float:
    """Return the chance that a true difference `gain` is seen, with its sign."""
    error = math.sqrt(spread.variance)
    if not error:
        return 1.0
    return float(1 - nctdtr(spread.degrees, abs(gain) / error, spread.half(_level(tests)) / error))


def seeds_for_gain(spread: Spread, gain: float, tests: int = 1) -> int | None:
    """Return the fewest seeds that would see `gain`; None if videos are too few."""

    def enough(seeds: int) -> bool:
        return detectable(planned(spread, seeds), tests) <= abs(gain)

    if not enough(MOST_SEEDS):
        return None
    low, high = SEEDS - 1, MOST_SEEDS  # not enough (or too few for any verdict), enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def gain_verdicts(spread: Spread, printed: float | None = None, tests: int = 1) -> tuple[str, ...]:
    """Return the verdicts that a comparison reaches with chance POWER, if true.

    "survives" is in reach if a gain as large as the printed one would be seen. "doesn't" is if the interval around no
    gain would exclude the printed one. Without a printed gain, "better" and "worse" are always in reach.
    """
    if spread.seeds < SEEDS:
        return NETS_DIFFER, CANT_TELL
    if printed is None:
        return BETTER, WORSE, CANT_TELL
    chances = ((SURVIVES, power_of(spread, printed, tests)), (DOESNT, power_of(spread, printed)))
    return (*(verdict for verdict, chance in chances if chance >= POWER), CANT_TELL)


def _level(tests: int) -> float:
    return 1 - (1 - LEVEL) / tests
