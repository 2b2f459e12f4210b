"""Planning: the smallest difference a comparison could see, and how many seeds or which verdicts it takes.

All follow from the crossed analysis (pipeline.measure.crossed): under S' seeds the variance that comes from seeds
shrinks by S / S', that between units stays, and the degrees of freedom follow from the shares of both. Power is that of
the noncentral t.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from scipy.special import nctdtr, nctdtrinc, ndtr, stdtrit

from pipeline.measure.claims import ABOVE, BELOW, BETTER, CANT_TELL, DOESNT, NETS_DIFFER, REPRODUCED, SURVIVES, WORSE
from pipeline.measure.crossed import LEVEL, SEEDS, Spread

POWER = 0.8
MOST_SEEDS = 1000


def assumed(
    seed_sd: float, discordant: float, videos: int, seeds: int, system_sd: float = 0.0, paired: float = 0.0
) -> Spread:
    """The variances of a difference that nothing has been measured of.

    Args:
        seed_sd: standard deviation of each row's accuracy between seeds.
        discordant: share of videos on which two nets of the same seed disagree.
        videos: number of test units.
        seeds: number of seeds.
        system_sd: standard deviation over videos of the true difference between the systems.
        paired: correlation of the two rows' seeds.
    """
    of_rest = max(discordant - system_sd**2, 0.0) / videos / seeds
    of_seeds = 2 * seed_sd**2 * (1 - paired) / seeds + of_rest
    return Spread(of_seeds, system_sd**2 / videos + of_rest, of_rest, seeds, videos, videos - 1)


def planned(spread: Spread, seeds: int, units: int | None = None) -> Spread:
    """The variances to expect with another number of seeds, and of units, from those measured with two or more."""
    if spread.seeds < 2:
        raise ValueError("one seed doesn't show how seeds vary; assume it, or run two")
    ratio = 1.0 if units is None else spread.units / units
    fewer = spread.seeds / seeds
    between = spread.between_units * ratio
    of_rest = spread.of_rest * ratio * fewer
    of_seeds = max(spread.of_seeds - spread.of_rest, 0.0) * fewer + of_rest
    if seeds == 1:
        return replace(spread, of_seeds=math.nan, of_units=between + of_rest, of_rest=math.nan, seeds=1)
    degrees = spread.unit_degrees if units is None else (spread.unit_degrees + 1) / ratio - 1
    return Spread(of_seeds, between + of_rest, of_rest, seeds, units or spread.units, degrees)


def detectable(spread: Spread, tests: int = 1, power: float = POWER) -> float:
    """The smallest true difference that is called better or worse with chance `power`.

    `tests` rows share the table: the first of them must be seen at the level divided by their number, as Holm's is.
    """
    error = math.sqrt(spread.variance)
    if not error:
        return 0.0
    threshold = spread.half(_level(tests)) / error
    return float(nctdtrinc(spread.degrees, 1 - power, threshold)) * error


def power_of(spread: Spread, gain: float, tests: int = 1) -> float:
    """Chance that a true difference `gain` is seen, with its sign."""
    error = math.sqrt(spread.variance)
    if not error:
        return 1.0
    threshold = spread.half(_level(tests)) / error
    return float(1 - nctdtr(spread.degrees, abs(gain) / error, threshold))


def seeds_for_gain(spread: Spread, gain: float, tests: int = 1, power: float = POWER) -> int | None:
    """How many seeds would see a true difference `gain`; None where no number would, as there are too few videos."""
    return _least(lambda seeds: detectable(planned(spread, seeds), tests, power) <= abs(gain))


def seeds_for_number(sd: float, margin: float, power: float = POWER) -> int | None:
    """How many seeds would call a perfect replication of a printed number reproduced, with chance `power`.

    The print is one more run, so its distance to our mean has variance sd^2 (1 + 1 / S). None where seeds vary so much
    that no number would.
    """
    return _least(lambda seeds: chance_to_reproduce(sd, seeds, margin) >= power)


def chance_to_reproduce(sd: float, seeds: int, margin: float) -> float:
    """Chance that a perfect replication is called reproduced, roughly: the sd is taken for known."""
    if seeds < SEEDS:
        return 0.0
    reach = -stdtrit(seeds - 1, (1 - LEVEL) / 2) * sd / math.sqrt(seeds)
    room = min(margin - reach, reach * math.sqrt(seeds + 1))
    if room <= 0:
        return float(sd == 0 and margin >= 0)
    return float(2 * ndtr(room / (sd * math.sqrt(1 + 1 / seeds))) - 1)


def gain_verdicts(spread: Spread, printed: float | None = None, tests: int = 1) -> tuple[str, ...]:
    """The verdicts that a comparison with such variances can reach, with chance POWER where it is true.

    `printed` is the paper's gain: "survives" if a gain so large would be seen; "doesn't" if the interval around no gain
    would exclude it. Without a printed gain, "better" and "worse" are always within reach of some difference.
    """
    if spread.seeds < SEEDS:
        return NETS_DIFFER, CANT_TELL
    if printed is None:
        return BETTER, WORSE, CANT_TELL
    chances = ((SURVIVES, power_of(spread, printed, tests)), (DOESNT, power_of(spread, printed)))
    return (*(verdict for verdict, chance in chances if chance >= POWER), CANT_TELL)


def number_verdicts(sd: float, seeds: int, margin: float) -> tuple[str, ...]:
    """The verdicts that our number against a printed one can reach with such an sd between seeds."""
    if seeds < SEEDS:
        return (CANT_TELL,)
    near = (REPRODUCED,) if chance_to_reproduce(sd, seeds, margin) >= POWER else ()
    return (*near, BELOW, ABOVE, CANT_TELL)


def _level(tests: int) -> float:
    return 1 - (1 - LEVEL) / tests


def _least(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds that is enough, where more are never worse; None where MOST_SEEDS aren't."""
    if not enough(MOST_SEEDS):
        return None
    low, high = SEEDS - 1, MOST_SEEDS  # not enough (or too few for any verdict), enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
