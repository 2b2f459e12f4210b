"""Verdicts err as seldom as they say, and the numbers of videos and seeds that would tell do tell: by simulation."""

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from pipeline.measure import verdict
from pipeline.measure.uncertainty import Interval, bootstrap, sign_flip

TRIALS = 400


def said(rng: np.random.Generator, videos: int, truth: float, printed: float, trials: int = TRIALS) -> list[str]:
    """The verdicts on rows of that true accuracy."""
    rows = [rng.random((videos, 1)) < truth for _ in range(trials)]
    return [verdict.of_number(bootstrap([row.astype(int)], "row", 2_000), printed) for row in rows]


def share(words: list[str], word: str) -> float:
    return sum(one.startswith(word) for one in words) / len(words)


def most(rate: float, trials: int = TRIALS) -> float:
    """The largest share that an event of this rate has by chance, three standard errors above."""
    return rate + 3 * np.sqrt(rate * (1 - rate) / trials)


@pytest.mark.parametrize("videos", [1_500, 25_000])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_row_a_margin_off_is_seldom_called_reproduced(videos: int, side: int) -> None:
    words = said(np.random.default_rng(videos), videos, 0.6 + side * verdict.MARGIN, 0.6)
    assert share(words, "reproduced") <= most(0.025)


def test_a_row_that_has_the_printed_number_is_called_so_where_the_videos_suffice() -> None:
    rng = np.random.default_rng(0)
    # Standard error 0.3 points at 25,000 videos, 1.3 at 1,500: an interval of +-2.5 points fits into no margin of one.
    error = np.sqrt(0.6 * 0.4 / 25_000)
    expected = 2 * norm.cdf(verdict.MARGIN / error - norm.isf(0.025)) - 1
    assert share(said(rng, 25_000, 0.6, 0.6), "reproduced") == pytest.approx(expected, abs=0.06)
    assert share(said(rng, 1_500, 0.6, 0.6), "within noise") > 0.9


def test_below_and_above_are_seldom_said_of_the_printed_number_itself() -> None:
    words = said(np.random.default_rng(1), 1_500, 0.6, 0.6)
    assert share(words, "below") <= most(0.025) and share(words, "above") <= most(0.025)
    assert share(said(np.random.default_rng(2), 1_500, 0.55, 0.6), "below") > 0.9
    assert share(said(np.random.default_rng(3), 1_500, 0.65, 0.6), "above") > 0.9


def test_with_seeds_that_scatter_the_margin_is_still_kept() -> None:
    rng, words = np.random.default_rng(4), []
    for _ in range(150):
        own = 0.6 + verdict.MARGIN + rng.normal(0, 0.003, 5)  # the true accuracy of each of five seeds
        rows = (rng.random((20_000, 5)) < own).astype(int)
        words.append(verdict.of_number(bootstrap([rows], "row", 500), 0.6))
    assert share(words, "reproduced") <= most(0.025, 150)


def test_equivalence_goes_before_a_small_sure_difference() -> None:
    assert verdict.of_number(Interval(0.604, 0.601, 0.607), 0.6) == "reproduced"
    assert verdict.of_number(Interval(0.606, 0.601, 0.611), 0.6) == "above"
    assert verdict.of_number(Interval(0.594, 0.589, 0.599), 0.6) == "below"
    assert verdict.of_number(Interval(0.600, 0.585, 0.615), 0.6) == "within noise"
    assert verdict.of_number(Interval(0.600, 0.585, 0.615), 0.6, margin=0.02) == "reproduced"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_gain_survives_by_test_and_interval_and_does_not_where_half_of_it_is_out_of_reach(sign: int) -> None:
    def of(low: float, high: float, p: float) -> str:
        low, high = sorted((sign * low, sign * high))
        return verdict.of_gain(Interval((low + high) / 2, low, high), p, sign * 0.04, 1530)

    assert of(0.01, 0.05, 0.001) == "survives"
    assert of(0.01, 0.05, 0.06) == "can't tell (n = 1530)"
    assert of(-0.01, 0.05, 0.001) == "can't tell (n = 1530)"
    assert of(-0.015, 0.015, 0.9) == "doesn't"
    assert of(-0.05, -0.01, 0.001) == "doesn't"
    assert of(0.001, 0.015, 0.001) == "survives"


def drawn(rng: np.random.Generator, videos: int, gain: float, discordant: float, runs: int = 1) -> np.ndarray:
    """M,S differences with this mean and, in one run, this share of discordant pairs."""
    return rng.choice([1, -1, 0], (videos, runs), p=[(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant])


def found(rng: np.random.Generator, videos: int, gain: float, discordant: float, runs: int, level: float) -> float:
    """How often the paired test sees the gain."""
    ps = [sign_flip(drawn(rng, videos, gain, discordant, runs).sum(axis=1)) for _ in range(TRIALS)]
    return float(np.mean(np.array(ps) < level))


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("tests", [1, 5])
def test_as_many_videos_as_are_said_to_be_needed_do_tell(runs: int, tests: int) -> None:
    rng = np.random.default_rng(5)
    videos = verdict.videos_needed(drawn(rng, 200_000, 0.02, 0.2, runs), 0.03, tests)
    assert found(rng, videos, 0.03, 0.2, runs, 0.05 / tests) == pytest.approx(verdict.POWER, abs=0.08)
    assert found(rng, videos // 3, 0.03, 0.2, runs, 0.05 / tests) < verdict.POWER - 0.2


def test_the_known_sample_size_of_mcnemars_test() -> None:
    # Connor (1987): a share of 0.2 discordant, a difference of 0.1, 5 % two-sided, power 0.8.
    exact = (1.959964 * np.sqrt(0.2) + 0.841621 * np.sqrt(0.2 - 0.01)) ** 2 / 0.01
    pairs = np.array([[1]] * 12 + [[-1]] * 8 + [[0]] * 80)
    assert verdict.videos_needed(pairs, 0.1) == verdict.videos_needed(pairs, -0.1) == np.ceil(exact)
    assert verdict.videos_needed(np.zeros((50, 1), int), 0.1) == verdict.videos_needed(np.array([[1]] + [[0]] * 9), 0.1)
    with pytest.raises(ValueError, match="difference of 0"):
        verdict.videos_needed(pairs, 0)


def test_as_many_seeds_as_are_said_to_be_needed_do_tell() -> None:
    rng = np.random.default_rng(6)
    seeds = verdict.seeds_needed(rng.normal(0.01, 0.012, 4_000), 0.01)
    assert seeds is not None and 10 < seeds < 20
    ps = [ttest_1samp(rng.normal(0.01, 0.012, seeds), 0).pvalue for _ in range(2_000)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(verdict.POWER, abs=0.06)
    assert verdict.seeds_needed(np.array([0.01]), 0.01) is None
    assert verdict.seeds_needed(np.array([0.01, 0.01]), 0.01) == 2
    assert verdict.seeds_needed(np.array([0.5, -0.5]), 1e-4) == verdict.MOST_SEEDS
