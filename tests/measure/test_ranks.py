"""The chance that one system beats another, and ranks with intervals."""

import numpy as np
import pytest
from scipy.special import ndtr

from pipeline.measure import ranks


def test_fewer_than_three_seeds_give_no_chance() -> None:
    assert ranks.beats([0.1, 0.2]) is None


def test_the_chance_is_that_of_normal_seeds() -> None:
    by_seed = [0.1, -0.02, 0.05]
    chance = ranks.beats(by_seed)
    assert chance
    assert chance.value == pytest.approx(ndtr(np.mean(by_seed) / np.std(by_seed, ddof=1)))
    assert 0 < chance.low < chance.value < chance.high < 1


def test_the_other_way_round_is_the_complement() -> None:
    by_seed = np.array([0.1, -0.02, 0.05, 0.03])
    chance, other = ranks.beats(by_seed), ranks.beats(-by_seed)
    assert chance and other
    assert [chance.value, chance.low, chance.high] == pytest.approx([1 - other.value, 1 - other.high, 1 - other.low])


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0])
def test_the_interval_holds_the_truth_in_95_of_100(seeds: int, gain: float) -> None:
    rng = np.random.default_rng(seeds)
    chances = [ranks.beats(rng.normal(gain, 1, seeds)) for _ in range(1000)]
    held = np.mean([chance.low <= ndtr(gain) <= chance.high for chance in chances if chance])
    assert held == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("seeds", [(3, 3), (5, 5), (3, 10)])
@pytest.mark.parametrize("spreads", [(1.0, 1.0), (1.0, 10.0)])
def test_the_interval_of_other_seeds_holds_the_truth_too(seeds: tuple[int, int], spreads: tuple[float, float]) -> None:
    rng, gain = np.random.default_rng(0), float(np.hypot(*spreads))
    chances = [
        ranks.beats_apart(rng.normal(gain, spreads[0], seeds[0]), rng.normal(0, spreads[1], seeds[1]))
        for _ in range(1000)
    ]
    held = np.mean([chance.low <= ndtr(1) <= chance.high for chance in chances if chance])
    assert held == pytest.approx(0.95, abs=0.03)


def test_the_order_of_other_seeds_does_not_matter() -> None:
    """In their order these pairs differ by 1.75, 1 and 1.75, which looks certain."""
    first, second = [90.0, 84.25, 87.25], [88.25, 83.25, 85.5]
    chance = ranks.beats_apart(first, second)
    turned = ranks.beats_apart(first, second[::-1])
    assert chance and turned and (turned.low, turned.high) == pytest.approx((chance.low, chance.high))
    sd = np.hypot(np.std(first, ddof=1), np.std(second, ddof=1))
    assert chance.value == pytest.approx(ndtr(1.5 / sd)) and chance.low < 0.5 < chance.high
    assert ranks.beats_apart(first, second[:2]) is None
    assert ranks.beats_apart([0.5] * 3, [0.5] * 3) == ranks.Share(0.5, 0.0, 1.0)


def test_equal_seeds_end_where_so_many_wins_are_likely() -> None:
    equal, better = ranks.beats([0.0, 0.0, 0.0]), ranks.beats([0.1, 0.1, 0.1])
    assert equal == ranks.Share(0.5, 0.0, 1.0)
    assert better and (better.value, better.high) == (1.0, 1.0) and better.low**3 == pytest.approx(0.025)


def test_seeds_that_nearly_agree_have_an_end() -> None:
    assert ranks.beats([0.1, 0.1 + 1e-9, 0.1]) == ranks.Share(1.0, 1.0, 1.0)


def drawn(means: list[float], seed_variance: float = 1e-6) -> np.ndarray:
    count = len(means)
    return ranks.draws(np.array(means), np.full(count, seed_variance), np.zeros((count, count)), [5] * count)


def test_rows_far_apart_have_their_rank_for_certain() -> None:
    means = [0.5, 0.9, 0.7]
    assert ranks.ranks([drawn(means)], [np.array(means)]) == [
        ranks.Share(3, 3, 3),
        ranks.Share(1, 1, 1),
        ranks.Share(2, 2, 2),
    ]


def test_rows_that_seeds_mix_have_wide_ranks() -> None:
    means = [0.50, 0.51, 0.9]
    first, second, best = ranks.ranks([drawn(means, 0.01**2)], [np.array(means)])
    assert (first.low, first.high, second.low, second.high) == (2, 3, 2, 3)
    assert best == ranks.Share(1, 1, 1)


def test_ties_share_a_rank() -> None:
    means = [0.5, 0.5]
    assert [rank.value for rank in ranks.ranks([drawn(means)], [np.array(means)])] == [1.5, 1.5]


def test_units_move_rows_together() -> None:
    """Difficulty shared by all rows changes no order; the same variance in separate rows does."""
    means, seeds = np.array([0.50, 0.52]), np.full(2, 1e-12)
    together, apart = np.full((2, 2), 0.05**2), np.eye(2) * 0.05**2
    held, mixed = (ranks.ranks([ranks.draws(means, seeds, units, [3, 3])], [means]) for units in (together, apart))
    assert (held[1].low, held[1].high) == (1, 1)
    assert (mixed[1].low, mixed[1].high) == (1, 2)


def test_data_sets_are_averaged() -> None:
    first, second = [0.9, 0.5], [0.4, 0.6]
    both = ranks.ranks([drawn(first), drawn(second)], [np.array(first), np.array(second)])
    assert [(rank.value, rank.low, rank.high) for rank in both] == [(1.5, 1.5, 1.5)] * 2
