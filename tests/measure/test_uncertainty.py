"""The exact test of two trained networks against statsmodels and enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from pipeline.measure.uncertainty import sign_flip


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
