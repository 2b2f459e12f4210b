"""Power agrees with statsmodels if only seeds vary, and otherwise with simulation."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from pipeline.measure import claims, power
from pipeline.measure.crossed import Spread, difference


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_where_seeds_alone_matter_it_is_the_t_test(seeds: int) -> None:
    spread = Spread(1e-4, 0.0, 0.0, seeds, 10**9, 10**9)
    effect = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8) * math.sqrt(seeds)
    assert power.detectable(spread) == pytest.approx(0.01 * effect, rel=1e-4)
    assert power.power_of(spread, 0.01 * effect) == pytest.approx(0.8, abs=1e-4)
    harder = TTestPower().solve_power(nobs=seeds, alpha=0.05 / 7, power=0.8) * math.sqrt(seeds)
    assert power.detectable(spread, tests=7) == pytest.approx(0.01 * harder, rel=1e-3)


@pytest.mark.parametrize("system_sd", [0.0, 0.3])
def test_the_smallest_difference_is_seen_in_80_percent(system_sd: float) -> None:
    rng = np.random.default_rng(0)
    spread = power.assumed(0.01, 0.25, 500, 5, system_sd)
    size = power.detectable(spread)
    rest = math.sqrt(0.25 - system_sd**2)
    seen = 0
    for _ in range(600):
        true = size + system_sd * rng.normal(size=500) + math.sqrt(2) * 0.01 * rng.normal(size=(5, 1))
        seen += difference(true + rest * rng.normal(size=(5, 500)), np.zeros((5, 500))).p < 0.05
    assert seen / 600 == pytest.approx(0.8, abs=0.06)


def test_planning_undoes_and_extrapolates_what_was_measured() -> None:
    spread = Spread(4e-5, 3e-5, 1e-5, 3, 400, 399)
    assert vars(power.planned(spread, 3)) == pytest.approx(vars(spread))
    more = power.planned(spread, 6)
    assert more.of_rest == pytest.approx(1e-5 / 2)
    assert more.of_seeds == pytest.approx(3e-5 / 2 + 1e-5 / 2)
    assert more.between_units == pytest.approx(2e-5)
    assert (more.seeds, more.units) == (6, 400)
    assert power.planned(spread, 1).variance == pytest.approx(2e-5 + 3e-5)
    with pytest.raises(ValueError, match="one seed doesn't show"):
        power.planned(power.planned(spread, 1), 3)


def test_seeds_needed_are_the_fewest_that_see_it() -> None:
    spread = power.assumed(0.01, 0.2, 1530, 3)
    seeds = power.seeds_for_gain(spread, 0.02, tests=7)
    assert seeds is not None
    assert power.detectable(power.planned(spread, seeds), 7) <= 0.02
    assert power.detectable(power.planned(spread, seeds - 1), 7) > 0.02
    assert power.seeds_for_gain(spread, 0.9) == 3  # never fewer than give a verdict


def test_seeds_dont_make_up_for_too_few_videos() -> None:
    assert power.seeds_for_gain(power.assumed(0.01, 0.3, 300, 3, system_sd=0.4), 0.02) is None


def test_without_variance_any_difference_is_seen() -> None:
    spread = Spread(0.0, 0.0, 0.0, 3, 400, 399)
    assert power.detectable(spread) == 0.0 and power.power_of(spread, 0.01) == 1.0
    assert power.seeds_for_gain(spread, 0.01) == 3


def test_reachable_verdicts_are_known_before() -> None:
    few = power.assumed(0.01, 0.2, 400, 2)
    assert power.gain_verdicts(few, 0.5) == (claims.NETS_DIFFER, claims.CANT_TELL)
    five = power.assumed(0.005, 0.2, 3783, 5)
    assert power.gain_verdicts(five, 0.05) == (claims.SURVIVES, claims.DOESNT, claims.CANT_TELL)
    assert power.gain_verdicts(five, 0.001) == (claims.CANT_TELL,)
    assert power.gain_verdicts(five) == (claims.BETTER, claims.WORSE, claims.CANT_TELL)
