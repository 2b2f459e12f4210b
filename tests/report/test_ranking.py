"""The order of a suite's systems, ranks over data sets, and the chance that one beats another."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from pipeline.measure import ranks
from pipeline.measure.results import Result, drawn
from pipeline.report import ranking
from tests.support import invented

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Return three systems with 50, 75 and 95 % accuracy."""
    params = invented.params(["low", "middle", "high"], seeds=SEEDS)
    folder = invented.splits(tmp_path_factory.mktemp("rows"), videos=400)
    rates = {"low": 0.5, "middle": 0.75, "high": 0.95}
    return [invented.result(params, row, folder, rate, seed) for seed, (row, rate) in enumerate(rates.items())]


def test_the_most_accurate_comes_first(rows: list[Result]) -> None:
    table = ranking.order("test", rows)
    assert table
    records = table.records()
    assert [record["row"] for record in records] == ["high", "middle", "low"]
    assert [record["rank"] for record in records] == ["1.00", "2.00", "3.00"]
    assert [record["next"] for record in records] == ["middle", "low", ""]


def test_the_chance_is_that_of_the_seeds_differences(rows: list[Result]) -> None:
    low, middle, _ = rows
    lines = list(csv.DictReader(io.StringIO(ranking.pairs(rows))))
    line = next(line for line in lines if (line["row"], line["other"]) == ("low", "middle"))
    assert not isinstance(low.accuracy, str) and not isinstance(middle.accuracy, str)
    by_seed = [a - b for a, b in zip(low.accuracy.main.by_seed, middle.accuracy.main.by_seed, strict=True)]
    chance = ranks.beats(by_seed)
    assert chance and [float(line[name]) for name in ("beats", "beats_low", "beats_high")] == pytest.approx(
        [100 * chance.value, 100 * chance.low, 100 * chance.high], abs=0.051
    )
    assert len(lines) == 3


def test_rows_are_paired_by_their_seeds_or_not_at_all(tmp_path: Path) -> None:
    folder = invented.splits(tmp_path)
    params = [invented.params(["a", "b"], seeds=seeds) for seeds in ((0, 1, 2), (7, 8, 9), (0, 1, 2, 3))]
    a, apart, more = (
        invented.result(each, row, folder, 0.8, n) for n, (each, row) in enumerate(zip(params, "abb", strict=True))
    )
    values = [row.accuracy.main.by_seed for row in (a, apart, more) if not isinstance(row.accuracy, str)]
    expected = [ranks.beats_apart(values[0], values[1]), ranks.beats(np.subtract(values[0], values[2][:3]))]
    for other, chance in zip((apart, more), expected, strict=True):
        (line,) = csv.DictReader(io.StringIO(ranking.pairs([a, other])))
        assert chance and float(line["beats"]) == pytest.approx(100 * chance.value, abs=0.051)


def test_fewer_seeds_or_rows_have_no_rank(rows: list[Result], tmp_path: Path) -> None:
    params, folder = invented.params(["a", "b"], seeds=(0, 1)), invented.splits(tmp_path)
    assert ranking.order("test", [invented.result(params, row, folder) for row in ("a", "b")]) is None
    assert ranking.order("test", rows[:1]) is None
    assert ranking.across("test", rows) is None


def test_ranks_over_data_sets_are_means(rows: list[Result]) -> None:
    """A system's name is its row's without the data set's."""
    low, middle, high = rows
    one = [renamed(low, "tsn-one", "one"), renamed(high, "tsm-one", "one"), renamed(middle, "se-one", "one")]
    two = [renamed(middle, "tsn-two", "two"), renamed(low, "tsm-two", "two"), renamed(high, "only-two", "two")]
    table = ranking.across("test", [*one, *two])
    assert table
    assert {record["system"]: record["rank"] for record in table.records()} == {"tsm": "1.50", "tsn": "1.50"}
    assert {record["system"]: record["rank_one"] for record in table.records()} == {"tsm": "1.00", "tsn": "2.00"}


def renamed(row: Result, name: str, dataset: str) -> Result:
    return dataclasses.replace(row, name=name, dataset=dataset)


def test_rows_on_other_videos_cannot_be_ranked(rows: list[Result], tmp_path: Path) -> None:
    other = invented.result(invented.params(["other"], seeds=SEEDS), "other", invented.splits(tmp_path, videos=100))
    assert drawn([rows[0], other]) == "other has other videos than low"
