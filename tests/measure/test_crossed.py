"""The crossed analysis against statsmodels, a study, and exact distributions."""

import numpy as np
import pandas
import pytest
import statsmodels.formula.api as models
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, stdtrit
from scipy.stats import chi2
from scipy.stats import t as student
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint

from pipeline.measure import crossed
from pipeline.measure.crossed import Spread, difference, row


def drawn(seed: int, seeds: int = 4, units: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.3 * rng.normal(size=(seeds, 1)) + rng.normal(size=units) + 0.7 * rng.normal(size=(seeds, units))


def answers(seed: int, seeds: int, videos: int, accuracy: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, videos)) + rng.random(videos)) / 2 < accuracy


def as_table(values: np.ndarray) -> pandas.DataFrame:
    seed, unit = np.indices(values.shape)
    return pandas.DataFrame({"x": values.ravel(), "seed": seed.ravel(), "unit": unit.ravel()})


def test_mean_squares_are_those_of_statsmodels_two_way_layout() -> None:
    values = drawn(0)
    squares = anova_lm(models.ols("x ~ C(seed) + C(unit)", as_table(values)).fit())
    squares = (squares["sum_sq"] / squares["df"]).to_numpy() / values.size
    spread = row(values).spread
    assert [spread.of_seeds, spread.of_units, spread.of_rest] == pytest.approx(squares)
    assert spread.degrees == pytest.approx(crossed.degrees(squares[0] / spread.variance, 4, 29))


def test_the_means_error_is_that_of_a_mixed_model() -> None:
    values = drawn(1, 5, 40)
    table = as_table(values).assign(everything=1)
    parts = {"seed": "0 + C(seed)", "unit": "0 + C(unit)"}
    fit = models.mixedlm("x ~ 1", table, groups="everything", vc_formula=parts, re_formula="0").fit(reml=True)
    spread = row(values).spread
    assert fit.bse["Intercept"] == pytest.approx(np.sqrt(spread.variance), rel=2e-3)
    assert fit.params["Intercept"] == pytest.approx(values.mean())
    seeds, units = fit.vcomp
    assert seeds == pytest.approx(5 * (spread.of_seeds - spread.of_rest), rel=0.02)
    assert units == pytest.approx(40 * spread.between_units, rel=0.02)


def test_the_van_dyke_study_as_published() -> None:
    """Two treatments, five readers, 114 cases; values printed by MRMCaov and RJafroc."""
    reader, within, across = 0.0005510306, 0.0003440748, 0.0002390284
    spread = Spread(2 * reader / 5, 2 * (within - across), 0.0, 5, 114, np.inf)
    error = np.sqrt(spread.variance)
    assert error == pytest.approx(0.02074862, rel=1e-6)
    hillis = crossed.degrees(spread.of_seeds / spread.variance, 5, exponent=2)
    assert hillis == pytest.approx(15.25967, rel=1e-6)
    assert 2 * student.sf(0.04380032 / error, hillis) == pytest.approx(0.05166569, rel=1e-5)
    half = -stdtrit(hillis, 0.025) * error
    assert [-0.04380032 - half, -0.04380032 + half] == pytest.approx([-0.0879594986, 0.0003588544], abs=1e-8)
    assert 0.0517 < spread.p(-0.04380032) < 0.07  # ours is a little more careful with five readers


@pytest.mark.parametrize("seeds", [3, 4, 5, 6, 10, 20])
def test_the_level_holds_exactly_however_seeds_and_units_share_the_variance(seeds: int) -> None:
    # Given the mean square of seeds, the mean is normal; that mean square is chi-square; units are known.
    steps = (np.arange(3000) + 0.5) / 3000
    steps, weights = steps**2, np.gradient(steps**2)  # small mean squares are where the trouble is
    worst = dict.fromkeys((0.05, 0.05 / 7), 0.0)
    for of_seeds in (1, 1.5, 2, 4, 8, 20, 100, 1000):  # times what seeds vary by if they don't matter
        drawn = of_seeds * chi2.ppf(steps, seeds - 1) / (seeds - 1)
        for units in (0, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300):
            share = drawn / (drawn + units)
            free = np.array([crossed.degrees(float(part), seeds) for part in share[::10]])
            free = np.interp(share, share[::10], free)
            for level in worst:
                wide = -stdtrit(free, level / 2) * np.sqrt(drawn + units)
                least = -stdtrit(np.inf, level / 2) * np.sqrt(1 + units)
                rejected = 2 * ndtr(-np.maximum(wide, least) / np.sqrt(of_seeds + units))
                worst[level] = max(worst[level], float(rejected @ weights / weights.sum()))
    assert worst[0.05] < 0.054
    assert worst[0.05 / 7] < 0.0108


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(2, 40), st.integers(0, 10_000), st.sampled_from([0.02, 0.4, 0.6, 0.97, 1.0]))
def test_p_and_interval_agree_and_the_interval_stays_inside(seeds: int, videos: int, seed: int, level: float) -> None:
    first, second = answers(seed, seeds, videos, level), answers(seed + 1, seeds, videos, 0.5)
    estimate, other = difference(first, second), difference(second, first)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert (estimate.p < 0.05) == (estimate.low > 0 or estimate.high < 0)
    assert 0 <= estimate.p <= 1
    assert (other.value, other.low, other.high, other.p) == pytest.approx(
        (-estimate.value, -estimate.high, -estimate.low, estimate.p)
    )
    accuracy = row(first)
    assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
    assert accuracy.high > accuracy.low
    moved = np.random.default_rng(seed).permutation(videos)
    again = row(first[::-1, moved])
    assert (again.low, again.high) == pytest.approx((accuracy.low, accuracy.high))


@pytest.mark.parametrize("wrong", [0, 1, 2, 5, 20, 26])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_near_100_and_0_percent_an_interval_isnt_shorter_than_wilsons(wrong: int, seeds: int) -> None:
    right = np.ones((seeds, 268), bool)
    right[:, :wrong] = False
    low, high = proportion_confint(268 - wrong, 268, method="wilson")
    for values, (least, most) in ((right, (low, high)), (~right, (1 - high, 1 - low))):
        estimate = row(values)
        assert estimate.low <= least + 1e-12
        assert estimate.high >= most - 1e-12
        assert 0 <= estimate.low <= estimate.high <= 1
    if not wrong:
        assert (row(right).low, row(right).high) == pytest.approx((low, high))
    scattered = np.random.default_rng(wrong).permuted(right, axis=1)  # nets that err on other videos each
    assert row(scattered).low <= low + 1e-12


def test_accuracies_in_the_middle_gain_from_seeds_that_err_on_other_videos() -> None:
    values = np.random.default_rng(0).random((10, 1000)) < 0.5
    low, high = proportion_confint(int(values.sum()) // 10, 1000, method="wilson")
    estimate = row(values)
    assert estimate.high - estimate.low < 0.9 * (high - low)


def test_groups_of_one_size_are_their_means() -> None:
    values = answers(0, 4, 60)
    order = np.random.default_rng(1).permutation(60)
    groups = np.arange(60) // 5
    means = values.reshape(4, 12, 5).mean(axis=2)
    grouped = row(values[:, order], groups[order])
    plain = row(means)
    assert grouped.units == 12
    assert grouped.videos == 60
    assert vars(grouped.spread) == pytest.approx(vars(plain.spread))


def test_groups_weigh_by_their_size() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, 400)
    groups = np.repeat(np.arange(400), sizes)
    variances, values = [], []
    for _ in range(300):
        level = rng.random(400)[groups]
        estimate = row(rng.random((3, len(groups))) < level, groups)
        variances.append(estimate.spread.variance)
        values.append(estimate.value)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.25)
    assert 200 < estimate.spread.unit_degrees < 399


def test_a_video_in_several_splits_is_one_unit() -> None:
    values = answers(3, 3, 90)
    twice = np.concatenate([values, values], axis=1)
    units = np.tile(np.arange(90), 2)
    once, both = row(values), row(twice, units)
    assert (both.value, both.p, both.units) == pytest.approx((once.value, once.p, 90))
    assert both.spread.variance == pytest.approx(once.spread.variance)
    naive = row(twice)
    assert naive.spread.between_units < 0.6 * both.spread.between_units
    splits = np.repeat([1, 2], [30, 60])
    weighted = row(values, weights=crossed.even(splits))
    assert weighted.value == pytest.approx((values[:, :30].mean() + values[:, 30:].mean()) / 2)


def test_names_serve_as_units() -> None:
    values = answers(4, 3, 12)
    names = np.array([f"g{number // 2:02d}" for number in range(12)])
    assert row(values, names) == row(values, np.arange(12) // 2)


def test_all_right_all_wrong_and_constant_differences() -> None:
    right, wrong = np.ones((3, 50)), np.zeros((3, 50))
    same = difference(right, right)
    assert (same.value, same.p) == (0, 1)
    assert same.low == -same.high == pytest.approx(-(1.96**2) / (50 + 1.96**2), abs=1e-4)
    all_differ = difference(right, wrong)
    assert all_differ.value == all_differ.high == 1
    assert all_differ.low > 0.9
    assert all_differ.p < 1e-10


def test_one_unit_tells_nothing() -> None:
    estimate = difference(np.ones((3, 1)), np.zeros((3, 1)))
    assert (estimate.low, estimate.high, estimate.p) == (-1, 1, 1)
    group = row(answers(0, 3, 8), np.zeros(8, int))
    assert (group.low, group.high, group.units) == (0, 1, 1)


def test_two_units_and_two_seeds_are_unsure() -> None:
    estimate = difference(answers(1, 2, 2), answers(2, 2, 2))
    assert estimate.high - estimate.low > 1


def test_other_seeds_than_the_base_are_a_clear_line() -> None:
    with pytest.raises(ValueError, match="compare rows of the same seeds"):
        difference(np.ones((3, 5)), np.ones((2, 5)))


@pytest.mark.parametrize("values", [np.ones(5), np.ones((0, 5)), np.ones((3, 0)), np.full((2, 2), np.nan)])
def test_what_is_no_answers_of_seeds_and_videos_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"seeds x videos|not finite"):
        row(values)


def test_seeds_that_agree_by_luck_are_no_evidence() -> None:
    # One video more in each seed, always another one: the seeds' means are equal, their mean square is 0.
    values, base = np.zeros((3, 300)), np.zeros((3, 300))
    for seed in range(3):
        values[seed, [10 * seed, 10 * seed + 1]] = 1
        base[seed, 10 * seed + 2] = 1
    estimate = difference(values, base)
    assert estimate.spread.of_seeds == pytest.approx(0)
    assert estimate.p > 0.2


def test_one_seed_is_a_t_over_videos() -> None:
    first, second = answers(5, 1, 100), answers(6, 1, 100)
    pairs = first[0].astype(int) - second[0]
    expected = student.sf(abs(pairs.mean()) / (pairs.std(ddof=1) / 10), 99) * 2
    assert difference(first, second).p == pytest.approx(expected)
    assert np.isnan(difference(first, second).sd)


def test_chance_is_the_best_constant_answer() -> None:
    assert crossed.constant(np.array([3, 3, 3, 0, 1])) == pytest.approx(0.6)
    assert crossed.constant(np.array(["a", "b"])) == 0.5
    splits = np.array([1, 1, 2, 2, 2, 2])
    assert crossed.constant(np.array([0, 0, 1, 1, 1, 1]), crossed.even(splits)) == pytest.approx(0.5)


@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_near_the_ends_an_interval_is_at_least_wilsons_and_the_bound_fades_towards_the_middle(seeds: int) -> None:
    """Each net errs on other videos, equally often, so that nothing but the bound is left."""
    videos = 20 * seeds
    values = np.ones((seeds, videos))
    values[np.arange(videos) % seeds, np.arange(videos)] = 0.0
    estimate = row(values)
    fade = max(1.0, estimate.value * (1 - estimate.value) / (crossed.ENDS * (1 - crossed.ENDS)))
    low, high = proportion_confint(estimate.value * videos * fade, videos * fade, method="wilson")
    assert estimate.value == pytest.approx(1 - 1 / seeds)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_the_covariance_of_rows_is_that_of_their_units_means() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=60)
    rows = [rng.normal(size=(3, 60)) + common, rng.normal(size=(4, 60)) + common]
    spreads = [crossed.row(np.clip(values, 0, 1)).spread for values in rows]
    found = crossed.covariance(rows, spreads)
    assert found[0, 1] == pytest.approx(np.cov(*(values.mean(axis=0) for values in rows))[0, 1] / 60)
    assert found[1, 0] == pytest.approx(found[0, 1])
    assert [found[0, 0], found[1, 1]] == [spread.between_units for spread in spreads]
