"""The order of a suite's systems: ranks with intervals, and the chance that one beats another with a new seed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from pipeline.measure import ranks
from pipeline.measure.crossed import SEEDS, Estimate
from pipeline.measure.ranks import Share
from pipeline.measure.results import Result, drawn
from pipeline.report.suite_tables import estimate_cells
from pipeline.report.table import ALWAYS, BLANK, Cell, Table, csv_text, number

MOST = 100  # rows whose pairs are all written
ORDER = (
    "Rank 1 is the most accurate. Its interval draws accuracies as seeds and test videos vary. "
    "`beats the next` is the chance that a new seed of this row is more accurate than one of the row below, on these "
    "videos."
)
ACROSS = "The mean of a system's ranks over the data sets, with the interval that seeds and test videos give it."


def order(suite: str, rows: Iterable[Result]) -> Table | None:
    """Return the rows of a suite in order of accuracy, by data set; None if no data set has two that can be ranked."""
    lines = []
    for dataset, group in _groups(rows).items():
        draws = drawn(group)
        if isinstance(draws, str):
            continue
        means = np.array([_main(row).value for row in group])
        shares = ranks.ranks([draws], [means])
        ordered = sorted(zip(group, shares, strict=True), key=lambda pair: pair[1].value)
        for (row, rank), below in zip(ordered, [*(row for row, _ in ordered[1:]), None], strict=True):
            chance = _beats(row, below) if below else None
            lines.append(
                (
                    Cell("rank", _rank(rank), _data("rank", rank, 1, 2), ALWAYS),
                    Cell("row", row.name, {"row": row.name}, ALWAYS),
                    *estimate_cells("accuracy", "accuracy", _main(row)),
                    Cell("beats the next", _percent(chance), _data("beats", chance, 100, 1), ALWAYS),
                    Cell("next", below.name if below else BLANK, {"next": below.name if below else ""}),
                    Cell("data set", dataset, {"data_set": dataset}),
                    Cell("seeds", str(len(row.seeds)), {"seeds": str(len(row.seeds))}),
                    Cell("n", str(_videos(row)), {"n": str(_videos(row))}),
                )
            )
    return Table("order", f"Suite {suite}: its systems in order", tuple(lines), (ORDER,)) if lines else None


def across(suite: str, rows: Iterable[Result]) -> Table | None:
    """Return the systems' mean ranks over data sets; None if fewer than two systems have run on two data sets.

    A system is a row's name without that of its data set.
    """
    groups = {dataset: {_system(row): row for row in group} for dataset, group in _groups(rows).items()}
    shared = sorted(set.intersection(*map(set, groups.values()))) if len(groups) > 1 else []
    if len(shared) < 2:
        return None
    draws = [drawn([group[system] for system in shared]) for group in groups.values()]
    arrays = [each for each in draws if not isinstance(each, str)]
    if len(arrays) < len(draws):
        return None
    means = [np.array([_main(group[system]).value for system in shared]) for group in groups.values()]
    alone = [ranks.ranks([each], [mean]) for each, mean in zip(arrays, means, strict=True)]
    lines = [
        (
            Cell("system", system, {"system": system}, ALWAYS),
            Cell("mean rank", _rank(rank), _data("rank", rank, 1, 2), ALWAYS),
            *(
                Cell(dataset, _rank(each[at]), _data(f"rank_{dataset}", each[at], 1, 2))
                for dataset, each in zip(groups, alone, strict=True)
            ),
        )
        for at, (system, rank) in enumerate(zip(shared, ranks.ranks(arrays, means), strict=True))
    ]
    lines.sort(key=lambda line: float(line[1].data["rank"]))
    return Table("ranks", f"Suite {suite}: ranks over {len(groups)} data sets", tuple(lines), (ACROSS,))


def pairs(rows: Iterable[Result]) -> str:
    """Return CSV: for each pair of rows of a data set the chance that the first beats the second with a new seed."""
    lines = []
    for dataset, group in _groups(rows).items():
        for first, second in combinations(group, 2) if len(group) <= MOST else ():
            chance = _beats(first, second)
            lines.append([dataset, first.name, second.name, *_data("beats", chance, 100, 1).values()])
    return csv_text(["data_set", "row", "other", "beats", "beats_low", "beats_high"], lines)


def _groups(rows: Iterable[Result]) -> Mapping[str, Sequence[Result]]:
    """Return data set -> its rows that can be ranked: of one measure, splits and enough seeds; two or more of them."""
    groups: dict[str, list[Result]] = {}
    for row in rows:
        if not isinstance(row.accuracy, str) and row.accuracy.main.seeds >= SEEDS:
            splits = f", splits {' '.join(map(str, row.splits))}" if row.splits != (1,) else ""
            groups.setdefault(f"{row.dataset}{splits}{', mAP' if row.several else ''}", []).append(row)
    return {dataset: group for dataset, group in groups.items() if len(group) > 1}


def _beats(row: Result, other: Result) -> ranks.Share | None:
    """Compare two rows by the seeds that both have, or as independent where these are too few."""
    first, second = (dict(zip(sorted(each.seeds), _main(each).by_seed, strict=True)) for each in (row, other))
    common = sorted(first.keys() & second.keys())
    if len(common) >= SEEDS:
        return ranks.beats([first[seed] - second[seed] for seed in common])
    return ranks.beats_apart(list(first.values()), list(second.values()))


def _main(row: Result) -> Estimate:
    assert not isinstance(row.accuracy, str)
    return row.accuracy.main


def _videos(row: Result) -> int:
    assert not isinstance(row.accuracy, str)
    return row.accuracy.videos


def _system(row: Result) -> str:
    words = [word for word in row.name.split("-") if word != row.dataset.partition(",")[0]]
    return "-".join(words)


def _rank(rank: Share) -> str:
    return f"{rank.value:g} [{rank.low:g}, {rank.high:g}]"


def _percent(chance: Share | None) -> str:
    if chance is None:
        return BLANK
    value, low, high = (number(100 * share, 0) for share in (chance.value, chance.low, chance.high))
    return f"{value} % [{low}, {high}]"


def _data(key: str, share: Share | None, scale: float, digits: int) -> dict[str, str]:
    values = (math.nan,) * 3 if share is None else (share.value, share.low, share.high)
    texts = ["" if math.isnan(value) else number(scale * value, digits) for value in values]
    return dict(zip((key, f"{key}_low", f"{key}_high"), texts, strict=True))
