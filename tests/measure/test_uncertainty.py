"""Intervals cover as often as they say, and exact tests agree with statsmodels and with counting by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pipeline.measure import uncertainty
from pipeline.measure.uncertainty import Interval, bootstrap, holm, sign_flip


def drawn(rng: np.random.Generator, videos: int, seeds: int, p: float, video_sd: float, seed_sd: float) -> np.ndarray:
    """M,S right and wrong answers: videos and seeds shift each other's chance of being right."""
    chance = p + video_sd * rng.normal(size=(videos, 1)) + seed_sd * rng.normal(size=(1, seeds))
    return (rng.random((videos, seeds)) < chance).astype(np.int64)


def covered(matrices: list[np.ndarray], truth: float) -> float:
    intervals = [bootstrap([matrix], str(number), resamples=500) for number, matrix in enumerate(matrices)]
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def test_one_seed_covers_95_percent_within_the_error_of_the_simulation() -> None:
    rng = np.random.default_rng(0)
    share = covered([drawn(rng, 200, 1, 0.7, 0.0, 0.0) for _ in range(600)], 0.7)
    # Three standard errors of 600 trials are 2.7 points; the percentile interval of 200 videos itself lacks about one.
    assert 0.913 < share < 0.977


def test_several_seeds_cover_what_videos_alone_would_not() -> None:
    rng = np.random.default_rng(1)
    matrices = [drawn(rng, 300, 8, 0.6, 0.1, 0.05) for _ in range(200)]
    crossed = covered(matrices, 0.6)
    assert crossed > 0.88  # 7/8 of the variance between seeds: 93 % expected, less three standard errors of 200 trials
    one_column = [matrix.mean(axis=1, keepdims=True) for matrix in matrices]
    means = [np.quantile(rng.choice(column[:, 0], (500, 300)).mean(1), [0.025, 0.975]) for column in one_column]
    assert np.mean([low <= 0.6 <= high for low, high in means]) < crossed - 0.1


def test_the_interval_is_that_of_drawing_videos_one_by_one() -> None:
    rng = np.random.default_rng(2)
    matrix = drawn(rng, 150, 1, 0.8, 0.0, 0.0)
    plain = np.quantile(rng.choice(matrix[:, 0], (20_000, 150)).mean(1), [0.025, 0.975])
    interval = bootstrap([matrix], "row")
    assert interval.value == matrix.mean()
    assert [interval.low, interval.high] == pytest.approx(plain, abs=1 / 150)


def test_splits_weigh_alike_and_average_their_noise() -> None:
    small, large = np.tile([[1], [0]], (20, 1)), np.tile([[1], [1], [1], [0]], (200, 1))
    interval = bootstrap([small, large], "row")
    assert interval.value == (0.5 + 0.75) / 2
    half_width = 1.96 * np.sqrt(0.25 / 40 + 0.1875 / 800) / 2
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, rel=0.1)


def test_a_row_without_spread_still_has_a_width() -> None:
    assert bootstrap([np.ones((400, 2), int)], "row") == Interval(1.0, pytest.approx(1 - 0.00918, abs=1e-4), 1.0)
    assert bootstrap([np.zeros((400, 2), int)], "row") == Interval(0.0, 0.0, pytest.approx(0.00918, abs=1e-4))
    same = bootstrap([np.zeros((400, 2), int)], "row", least=-1)
    assert same.low == -same.high < 0


def test_intervals_depend_on_the_name_and_not_on_the_order_of_videos() -> None:
    rng = np.random.default_rng(3)
    matrix = drawn(rng, 101, 3, 0.5, 0.2, 0.0)
    assert bootstrap([matrix], "a") == bootstrap([rng.permutation(matrix)], "a")
    assert bootstrap([matrix], "a") != bootstrap([matrix], "b")


@settings(max_examples=60, deadline=None)
@given(both=st.integers(0, 50), first=st.integers(0, 40), second=st.integers(0, 40))
def test_sign_flip_with_one_seed_is_mcnemars_exact_test(both: int, first: int, second: int) -> None:
    differences = np.array([0] * both + [1] * first + [-1] * second, int)
    expected = mcnemar([[both, first], [second, 3]], exact=True).pvalue
    assert sign_flip(differences) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=11))
def test_sign_flip_is_the_share_of_all_sign_changes(differences: list[int]) -> None:
    given_sum = abs(sum(differences))
    sums = [
        abs(sum(sign * size for sign, size in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert sign_flip(np.array(differences, int)) == pytest.approx(np.mean([total >= given_sum for total in sums]))


def test_sign_flip_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    ps = [sign_flip(rng.integers(0, 3, 80) - rng.integers(0, 3, 80)) for _ in range(1000)]
    assert np.mean(np.array(ps) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_a_large_clear_difference_has_a_tiny_p() -> None:
    assert sign_flip(np.array([2] * 3000 + [-1] * 500 + [0] * 20_000)) < 1e-100


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_against_statsmodels(ps: list[float]) -> None:
    expected = multipletests(ps, method="holm")[1] if ps else []
    assert holm(ps) == pytest.approx(list(expected))


def test_a_verdict_needs_the_test_and_the_interval() -> None:
    assert uncertainty.verdict(Interval(0.02, 0.01, 0.03), 0.01, 400) == "better"
    assert uncertainty.verdict(Interval(-0.02, -0.03, -0.01), 0.01, 400) == "worse"
    assert uncertainty.verdict(Interval(0.02, 0.01, 0.03), 0.06, 400) == "can't tell (n = 400)"
    assert uncertainty.verdict(Interval(0.02, -0.01, 0.05), 0.01, 400) == "can't tell (n = 400)"


def test_chance_is_beaten_only_beyond_the_interval() -> None:
    assert uncertainty.chance(8) == 0.125
    assert uncertainty.above_chance(Interval(0.2, 0.13, 0.27), 8)
    assert not uncertainty.above_chance(Interval(0.2, 0.12, 0.27), 8)
