"""Each verdict follows its rule, and verdicts about systems need three seeds."""

import numpy as np
import pandas
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from pipeline.measure import claims
from pipeline.measure.crossed import Estimate, Spread, difference, row


def gain(value: float, half: float = 0.01, seeds: int = 3, p: float = 0.001) -> Estimate:
    spread = Spread(1e-5, 1e-5, 1e-5, seeds, 400, 399)
    return Estimate(value, value - half, value + half, p, (value,) * seeds, 400, spread)


def accuracies(*shares: float, videos: int = 1000) -> Estimate:
    """Return a row with these accuracies by seed."""
    return row(np.stack([np.arange(videos) < round(share * videos) for share in shares]))


def test_holm_is_that_of_statsmodels_over_the_rows_with_a_verdict() -> None:
    ps = [0.01, 0.04, 0.0005, 0.03]
    rows = [
        gain(0.02, p=ps[0]),
        None,
        gain(0.02, p=ps[1]),
        gain(0.1, seeds=2, p=1e-9),
        *(gain(0.02, p=p) for p in ps[2:]),
    ]
    expected = multipletests(ps, method="holm")[1]
    adjusted = claims.adjusted(rows)
    assert [adjusted[number] for number in (0, 2, 4, 5)] == pytest.approx(list(expected))
    assert adjusted[1] is None
    assert adjusted[3] is None
    assert claims.adjusted([]) == []


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_say_nothing_of_systems(seeds: int) -> None:
    right, wrong = np.ones((seeds, 500)), np.zeros((seeds, 500))
    wrong[:, :20] = 1
    huge = difference(right, wrong)
    assert claims.adjusted([huge]) == [None]
    assert claims.systems(huge, None, 1e-9) == claims.NETS_DIFFER
    assert claims.systems(huge, None, 0.2) == claims.CANT_TELL
    assert claims.systems(huge, 1e-9, 1e-9) == claims.NETS_DIFFER  # whatever the caller adjusts
    for printed in (0.0, 0.5, 1.0):
        assert claims.number(row(right), printed).verdict == claims.CANT_TELL
    for printed in (0.9, -0.9, 0.001):
        assert claims.claim(huge, 1e-9, printed) == claims.CANT_TELL


def test_systems_go_by_the_adjusted_p_and_its_sign() -> None:
    assert claims.systems(gain(0.02), 0.049, 1.0) == claims.BETTER
    assert claims.systems(gain(-0.02), 0.049, 1.0) == claims.WORSE
    assert claims.systems(gain(0.02), 0.051, 0.0) == claims.CANT_TELL
    assert claims.systems(gain(0.02), 1 - claims.LEVEL, 0.0) == claims.CANT_TELL  # p must be below the level


@pytest.mark.parametrize(
    ("value", "half", "p", "printed", "verdict"),
    [
        (0.02, 0.01, 0.01, 0.025, claims.SURVIVES),
        (0.02, 0.01, 0.01, 0.04, claims.SMALLER),
        (0.02, 0.005, 0.01, 0.01, claims.LARGER),
        (0.002, 0.01, 0.6, 0.04, claims.DOESNT),
        (-0.002, 0.01, 0.6, 0.04, claims.DOESNT),
        (-0.02, 0.01, 0.01, 0.04, claims.REVERSED),
        (0.01, 0.02, 0.3, 0.025, claims.CANT_TELL),
        (0.02, 0.01, 0.08, 0.025, claims.CANT_TELL),  # its interval excludes 0; the table's p doesn't
        (0.02, 0.01, 0.08, 0.04, claims.DOESNT),
        (-0.02, 0.01, 0.01, -0.025, claims.SURVIVES),  # a printed loss
        (-0.02, 0.01, 0.01, -0.04, claims.SMALLER),
        (0.02, 0.01, 0.01, -0.04, claims.REVERSED),
        (0.002, 0.01, 0.6, -0.04, claims.DOESNT),
    ],
)
def test_a_gain_against_the_printed_gain(value: float, half: float, p: float, printed: float, verdict: str) -> None:
    assert claims.claim(gain(value, half), p, printed) == verdict


def test_a_printed_gain_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="claims nothing"):
        claims.claim(gain(0.01), 0.01, 0.0)


def test_the_prediction_interval_is_that_of_statsmodels() -> None:
    shares = (0.70, 0.75, 0.72, 0.81)
    number = claims.number(accuracies(*shares), 0.9)
    fit = sm.OLS(np.array(shares), np.ones(4)).fit()
    frame: pandas.DataFrame = fit.get_prediction([1.0]).summary_frame(alpha=0.05)
    assert [number.low, number.high] == pytest.approx(frame[["obs_ci_lower", "obs_ci_upper"]].to_numpy()[0])
    assert number.width == pytest.approx((number.high - number.low) / 2)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(690, 712), min_size=3, max_size=6), st.integers(680, 720))
def test_reproduced_is_two_one_sided_tests(right: list[int], printed: int) -> None:
    shares = [count / 1000 for count in right]
    ours, target = accuracies(*shares), printed / 1000
    verdict = claims.number(ours, target).verdict
    if np.std(shares) < 0.0005:  # seeds that agree by luck have the least interval instead
        return
    equal = DescrStatsW(shares).ttost_mean(target - 0.01, target + 0.01)[0] < 0.025
    fit = sm.OLS(np.array(shares), np.ones(len(shares))).fit()
    low, high = fit.get_prediction([1.0]).summary_frame(alpha=0.05)[["obs_ci_lower", "obs_ci_upper"]].to_numpy()[0]
    expected = claims.BELOW if target > high else claims.ABOVE if target < low else None
    assert verdict == (expected or (claims.REPRODUCED if equal else claims.CANT_TELL))


def test_cant_tell_says_how_wide() -> None:
    number = claims.number(accuracies(0.70, 0.75, 0.72), 0.78)
    assert number.verdict == claims.CANT_TELL
    assert str(number) == f"can't tell (± {100 * number.width:.1f})"
    assert str(claims.number(accuracies(0.70), 0.78)) == "can't tell"
    assert str(claims.number(accuracies(0.70, 0.701, 0.699), 0.7)) == "reproduced"


def test_seeds_that_agree_exactly_still_leave_room() -> None:
    rng = np.random.default_rng(0)
    right = np.stack([rng.permutation(np.arange(400) < 300) for _ in range(3)])  # 75 % each, on other videos
    number = claims.number(row(right), 0.75)
    assert number.width > 0.02
    assert claims.number(row(right), 0.76).verdict == claims.CANT_TELL


def test_a_run_that_prints_the_same_is_not_below() -> None:
    ours = row(np.tile(np.arange(800) < 500, (3, 1)))  # 62.5 %, without any spread
    assert claims.number(ours, 0.6254).verdict == claims.BELOW
    assert claims.number(ours, 0.6254, rounding=0.0005).verdict == claims.REPRODUCED


def test_the_margin_shrinks_for_small_gains_and_near_the_ends() -> None:
    assert claims.margin(0.5) == 0.01
    assert claims.margin(0.5, 0.004) == 0.002
    assert claims.margin(0.5, -0.004) == 0.002
    assert claims.margin(0.99) == pytest.approx(0.005)
    assert claims.margin(0.01) == pytest.approx(0.005)
    assert claims.margin(1.0) == 0
