"""Whether the gains that a paper's table prints survive: each row against the row it changes, on the same videos."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from pipeline.config.schema import Params
from pipeline.measure import uncertainty, verdict
from pipeline.measure.results import Difference, Result, difference, pairs
from pipeline.measure.scores import Accuracy
from pipeline.measure.uncertainty import Interval
from pipeline.papers.conditions import differences
from pipeline.papers.match import SHARES
from pipeline.papers.published import Column, Paper, Row, conditions, meant


@dataclass(frozen=True)
class Gain:
    """What a row gains on its base, as printed and with ours, in the printed unit."""

    row: Row
    base: Row
    column: str
    of: Column
    printed: Decimal
    ours: Interval
    p: float  # Holm-adjusted for the table's rows
    verdict: str
    videos: int
    videos_needed: int | None  # to see the printed gain, had the test set more; None where nothing is paired so simply
    seeds_needed: int | None  # the same, on these videos; None with one seed


def gains(paper: Paper, name: str, given: Params, found: Mapping[str, Result]) -> list[Gain]:
    """Every printed gain in the main measure of which both rows have run; in the paper's order.

    A gain that is printed as 0 has no verdict but its interval; one not measured as the paper's was has none at all.
    """
    pairs = list(_pairs(paper, name, given, found))
    adjusted = uncertainty.holm([less.p for *_, less, _, _ in pairs])
    lines = []
    for (row, base, column, printed, less, observed, differs), p in zip(pairs, adjusted, strict=True):
        of = paper.tables[name].columns[column]
        scale = SHARES[of.unit]
        claimed = float(printed) / scale
        said = verdict.of_gain(less.less, p, claimed, less.videos) if claimed else "none printed"
        videos = seeds = None
        if claimed and observed is not None:
            videos = verdict.videos_needed(observed, claimed, len(pairs))
            seeds = verdict.seeds_needed(observed.mean(axis=0), claimed, len(pairs))
        ours = Interval(scale * less.less.value, scale * less.less.low, scale * less.less.high)
        said = "protocol differs" if differs else said
        lines.append(Gain(row, base, column, of, printed, ours, p, said, less.videos, videos, seeds))
    return lines


def _pairs(
    paper: Paper, name: str, given: Params, found: Mapping[str, Result]
) -> Iterator[tuple[Row, Row, str, Decimal, Difference, np.ndarray | None, bool]]:
    table = paper.tables[name]
    bases = {row.label: row for row in table.rows}
    for row in table.rows:
        for column, of in table.columns.items():
            base = bases.get(row.base or "")
            if not base or of.measure not in ("top1", "map") or column not in row.printed or column not in base.printed:
                continue
            one, other = (found.get(meant(each.ours, table, column) or "") for each in (row, base))
            if one and other and isinstance(less := difference(one, other), Difference):
                printed = Decimal(row.printed[column]) - Decimal(base.printed[column])
                differs = any(
                    differences(paper, conditions(table, each, column), given, result.name)
                    for each, result in ((row, one), (base, other))
                )
                yield row, base, column, printed, less, _paired(one, other), differs


def _paired(one: Result, base: Result) -> np.ndarray | None:
    """M,S: for each video of each split, and each seed that both have, whether the one is right less the other."""
    found = pairs(one, base) if isinstance(one.accuracy, Accuracy) else ""
    return None if isinstance(found, str) else found.drop("split", "video").to_numpy()
