"""Rates of wrong verdicts: a short, seeded form of bench/statistics.py."""

import pytest

from bench import statistics
from bench.statistics import Cell

TRIALS = 300


@pytest.mark.parametrize(
    "cell",
    [
        Cell("same", 268, 3, 0.0),
        Cell("same", 268, 3, 6.0),
        Cell("same", 400, 5, 1.0),
        Cell("same", 1530, 10, 2.0),
        Cell("groups", 400, 3, 2.0, group=5),
        Cell("groups", 400, 5, 0.5, group=6.5),
        Cell("elsewhere", 500, 3, 2.0, 0.9, 0.7, system=0.3),
        Cell("elsewhere", 268, 3, 0.3, 0.98, 0.7),
    ],
    ids=str,
)
def test_rows_of_one_system_and_replications_are_rarely_called_different(cell: Cell) -> None:
    result = statistics.measured(cell, TRIALS)
    assert result["verdicts"] <= 0.08
    assert result["covered_gain"] >= 0.92
    assert result["covered_accuracy"] >= 0.92
    assert result["replication_off"] <= 0.08


def test_seven_rows_of_one_system_rarely_have_any_verdict() -> None:
    assert statistics.measured(Cell("family", 268, 3, 2.0), TRIALS)["family"] <= 0.10


def test_a_true_gain_is_seen_about_as_often_as_an_oracle_sees_it() -> None:
    result = statistics.measured(Cell("power", 400, 5, 1.0, oracle=0.8), TRIALS)
    sampling_error = 0.04  # twice the standard error of 300 trials; the bench holds 1,000 to 5 points
    assert result["ours"] >= result["oracle_t"] - 0.05 - sampling_error


def test_each_bar_is_judged_by_its_worst_cell() -> None:
    rows = [{**vars(Cell("family", 400, 3, 0.0)), "family": share, "hillis": 0.2} for share in (0.03, 0.12)]
    family, hillis = statistics.judged(rows)
    assert (family["worst"], family["holds"], family["cells"]) == (0.12, False, 2)
    assert hillis["holds"]  # has no bar
