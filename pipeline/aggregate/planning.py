"""The plan of a suite: the verdicts within reach of its test videos and seeds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import datasets
from pipeline.config.schema import Params
from pipeline.measure import claims, power
from pipeline.measure.crossed import Spread
from pipeline.measure.results import Result, difference
from pipeline.papers import claims as papers_claims
from pipeline.papers import tables as replication
from pipeline.papers.published import of_suite
from pipeline.report.table import ALWAYS, BLANK, Cell, Table, number

NOTE = (
    "Could tell: the smallest true difference, in points, that is called better or worse with 80 % chance, Holm's "
    "correction included. Seeds needed: to see the printed gain, or one of a point. Variances: measured, or assumed: "
    "sd of {sd:g} points between seeds, and two networks of one seed disagree on {disagree:g} % of the videos."
)


@dataclass(frozen=True)
class Assumed:
    """Variances of a comparison of which nothing has been measured, as shares."""

    seed_sd: float = 0.01  # of each row's accuracy, between seeds
    discordant: float = 0.2  # videos on which two networks of one seed disagree


@dataclass(frozen=True)
class Comparison:
    """A row against its base, and the gain that a paper prints for it."""

    where: str
    row: str
    base: str
    tests: int  # comparisons of its table
    printed: float | None = None


def table(params: Params, results: Mapping[str, Result], reports: Path, assumed: Assumed) -> Table:
    """Return a line a comparison of the suite's tables, and a claim of its paper.

    Args:
        params: The suite's params.
        results: Results by row; those that have run give variances.
        reports: The folder of the papers' printed numbers.
        assumed: The variances of the others.
    """
    rows = []
    for pair in comparisons(params, results, reports):
        seeds = len(_seeds(params, pair.row) & _seeds(params, pair.base))
        spread, videos, source = _spread(params, results, pair, seeds, assumed)
        smallest = power.detectable(spread, pair.tests) if spread and seeds >= claims.SEEDS else math.nan
        reach = power.gain_verdicts(spread, pair.printed, pair.tests) if spread else ()
        needed = _needed(params, results, pair, assumed)
        printed = "" if pair.printed is None else number(100 * pair.printed, 2, "+")
        tell = number(100 * smallest, 2)
        rows.append(
            (
                Cell("table", pair.where, {"table": pair.where}, ALWAYS),
                Cell("row", pair.row, {"row": pair.row}, ALWAYS),
                Cell("printed gain", printed or BLANK, {"printed": printed}),
                Cell("n", str(videos or BLANK), {"n": str(videos or "")}),
                Cell("seeds", str(seeds), {"seeds": str(seeds)}),
                Cell("could tell", tell or BLANK, {"smallest": tell}, ALWAYS),
                Cell("can reach", " | ".join(reach) or BLANK, {"verdicts": "; ".join(reach)}, ALWAYS),
                Cell("seeds needed", needed, {"seeds_needed": needed}, ALWAYS),
                Cell("variances", source, {"variances": source}),
                Cell("over", pair.base, {"over": pair.base}),
            )
        )
    note = NOTE.format(sd=100 * assumed.seed_sd, disagree=100 * assumed.discordant)
    return Table("power", f"Suite {params.suite}: verdicts within reach of its seeds and videos", tuple(rows), (note,))


def comparisons(params: Params, results: Mapping[str, Result], reports: Path) -> Iterator[Comparison]:
    """Yield the comparisons of a suite's tables, then the claims of its papers."""
    for name, spec in params.tables.items():
        if spec.base and not spec.check:
            rows = [row for row in spec.rows if row != spec.base]
            for row in rows:
                yield Comparison(name, row, spec.base, len(rows))
    for paper in of_suite(params.suite):
        replica = replication.replica(paper, params, results, reports / "papers", reports / "parity.csv")
        for name, gain, _ in papers_claims.listed(replica):
            if gain.systems:
                tests = len({other.systems for other in replica.gains[name]})
                yield Comparison(f"{replica.paper.short} {name}", *gain.systems, tests, gain.claimed)


def videos_of(params: Params, row: str) -> int | None:
    """Return the test videos of a row over its splits, as published; None if unknown."""
    member = next(iter(params.fusions[row].rows)) if row in params.fusions else row
    settings = params.experiments.get(member) or params.trajectories.get(member)
    if settings is None:
        return None
    dataset, splits = params.datasets[settings.dataset], settings.splits
    if subset := params.tier.subset:
        return subset.classes * subset.test * len(splits)
    if isinstance(test := dataset.options.get("test"), int):  # drawn
        return test * len(splits)
    counts = datasets.loaded(dataset.file).COUNTS
    parts = [counts.get(split, {}) for split in splits]
    return sum(part.get("test", part.get("val")) or 0 for part in parts) or None


def _seeds(params: Params, row: str) -> set[int]:
    if row in params.experiments:
        return set(params.experiments[row].seeds)
    if row in params.fusions:
        return set.intersection(*(_seeds(params, member) for member in params.fusions[row].rows))
    return {0} if row in params.trajectories else set()


def _spread(
    params: Params, results: Mapping[str, Result], pair: Comparison, seeds: int, assumed: Assumed
) -> tuple[Spread | None, int | None, str]:
    """Return the variances to expect, the test videos, and the variances' source."""
    less = difference(results[pair.row], results[pair.base]) if {pair.row, pair.base} <= results.keys() else "not run"
    if not isinstance(less, str) and less.less.seeds > 1 and less.less.units > 1 and seeds:
        return power.planned(less.less.spread, seeds), less.videos, "measured"
    videos = videos_of(params, pair.row)
    if not videos or not seeds:
        return None, videos, "assumed"
    return power.assumed(assumed.seed_sd, assumed.discordant, videos, seeds), videos, "assumed"


def _needed(params: Params, results: Mapping[str, Result], pair: Comparison, assumed: Assumed) -> str:
    """Return the seeds that would see the printed gain, or a point."""
    spread = _spread(params, results, pair, claims.SEEDS, assumed)[0]
    if spread is None:
        return BLANK
    return str(power.seeds_for_gain(spread, pair.printed or claims.MARGIN, pair.tests) or "more videos")
