"""Planning: the verdicts within reach of a suite's test videos and seeds."""

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
from pipeline.report.table import ALWAYS, BLANK, Cell, Table, number

NOTE = (
    "Could tell: the smallest true difference, in points, that is called better or worse with 80 % chance, Holm's "
    "correction included. Seeds needed: to see the printed gain, or one of a point. Variances: measured, or assumed: "
    "sd of {sd:g} points between seeds, and two networks of one seed disagree on {disagree:g} % of the videos."
)


@dataclass(frozen=True)
class Assumed:
    """Variances of a comparison that nothing has been measured of, as shares."""

    seed_sd: float = 0.01  # of each row's accuracy, between seeds
    discordant: float = 0.2  # videos on which two networks of one seed disagree


@dataclass(frozen=True)
class Comparison:
    """A row against its base, and the gain that a paper prints of it."""

    where: str
    row: str
    base: str
    tests: int  # comparisons of its table
    printed: float | None = None


def table(given: Params, found: Mapping[str, Result], reports: Path, assumed: Assumed) -> Table:
    """Return a line for each comparison of the suite's tables and, of a paper's suite, for each of its claims.

    Args:
        given: The suite's params.
        found: Results by row; those that have run give variances.
        reports: The folder of the papers' printed numbers.
        assumed: The variances of the others.
    """
    rows = []
    for one in comparisons(given, found, reports):
        seeds = len(_seeds(given, one.row) & _seeds(given, one.base))
        spread, videos, source = _spread(given, found, one, seeds, assumed)
        smallest = power.detectable(spread, one.tests) if spread and seeds >= claims.SEEDS else math.nan
        reach = power.gain_verdicts(spread, one.printed, one.tests) if spread else ()
        needed = _needed(given, found, one, assumed)
        printed = "" if one.printed is None else number(100 * one.printed, 2, "+")
        tell = "" if math.isnan(smallest) else number(100 * smallest, 2)
        rows.append(
            (
                Cell("table", one.where, {"table": one.where}, ALWAYS),
                Cell("row", one.row, {"row": one.row}, ALWAYS),
                Cell("printed gain", printed or BLANK, {"printed": printed}),
                Cell("n", str(videos or BLANK), {"n": str(videos or "")}),
                Cell("seeds", str(seeds), {"seeds": str(seeds)}),
                Cell("could tell", tell or BLANK, {"smallest": tell}, ALWAYS),
                Cell("can reach", " | ".join(reach) or BLANK, {"verdicts": "; ".join(reach)}, ALWAYS),
                Cell("seeds needed", needed, {"seeds_needed": needed}, ALWAYS),
                Cell("variances", source, {"variances": source}),
                Cell("over", one.base, {"over": one.base}),
            )
        )
    note = NOTE.format(sd=100 * assumed.seed_sd, disagree=100 * assumed.discordant)
    return Table("power", f"Suite {given.suite}: what its seeds and videos can tell", tuple(rows), (note,))


def comparisons(given: Params, found: Mapping[str, Result], reports: Path) -> Iterator[Comparison]:
    """Return the comparisons of a suite's tables, then the claims of its papers."""
    for name, spec in given.tables.items():
        if spec.base and not spec.check:
            rows = [row for row in spec.rows if row != spec.base]
            for row in rows:
                yield Comparison(name, row, spec.base, len(rows))
    for paper in replication.of_suite(given.suite):
        replica = replication.replica(paper, given, found, reports / "papers", reports / "parity.csv")
        listed = [(name, gain) for name, gain, _ in papers_claims.listed(replica) if gain.systems]
        for name, gain in listed:
            own, over = gain.systems or ("", "")
            tests = len({other.systems for other in replica.gains[name]})
            yield Comparison(f"{replica.paper.short} {name}", own, over, tests, gain.claimed)


def videos_of(given: Params, row: str) -> int | None:
    """The test videos of a row over its splits, as its data set publishes them; None where that is unknown."""
    member = next(iter(given.fusions[row].rows)) if row in given.fusions else row
    own = given.experiments.get(member) or given.trajectories.get(member)
    if own is None:
        return None
    dataset = given.datasets[own.dataset]
    if given.tier.subset:
        return given.tier.subset.classes * given.tier.subset.test * len(own.splits)
    if isinstance(test := dataset.options.get("test"), int):  # drawn
        return test * len(own.splits)
    counts = datasets.loaded(dataset.file).COUNTS
    parts = [counts.get(split, {}) for split in own.splits]
    found = [part.get("test", part.get("val")) for part in parts]
    return sum(one for one in found if one) or None


def _seeds(given: Params, row: str) -> set[int]:
    if row in given.experiments:
        return set(given.experiments[row].seeds)
    if row in given.fusions:
        return set.intersection(*(_seeds(given, member) for member in given.fusions[row].rows))
    return {0} if row in given.trajectories else set()


def _spread(
    given: Params, found: Mapping[str, Result], one: Comparison, seeds: int, assumed: Assumed
) -> tuple[Spread | None, int | None, str]:
    """The variances to expect with so many seeds, the test videos, and where the variances come from."""
    less = difference(found[one.row], found[one.base]) if {one.row, one.base} <= found.keys() else "not run"
    if not isinstance(less, str) and less.less.seeds > 1 and less.less.units > 1 and seeds:
        return power.planned(less.less.spread, seeds), less.videos, "measured"
    videos = videos_of(given, one.row)
    if not videos or not seeds:
        return None, videos, "assumed"
    return power.assumed(assumed.seed_sd, assumed.discordant, videos, max(seeds, 1)), videos, "assumed"


def _needed(given: Params, found: Mapping[str, Result], one: Comparison, assumed: Assumed) -> str:
    """The seeds that would see the printed gain, or a point."""
    spread = _spread(given, found, one, claims.SEEDS, assumed)[0]
    if spread is None:
        return BLANK
    return str(power.seeds_for_gain(spread, one.printed or claims.MARGIN, one.tests) or "more videos")
