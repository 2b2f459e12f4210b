"""The gains that a paper's table prints, and ours on the same videos and seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.config.schema import Params
from pipeline.measure import claims, power
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.papers.conditions import differences
from pipeline.papers.published import Column, Conditions, Paper, PaperTable, Row, conditions, meant

SHARES = {"%": 100, "fraction": 1}  # unit -> the factor from a share
PRINTED = ("gain", "class_gain", "class_loss")  # columns that print a gain; others print numbers to subtract
NOT_RUN, FAILED, DIFFERS, NONE_PRINTED = "not run", "failed", "protocol differs", "none printed"


@dataclass(frozen=True)
class Gain:
    """A printed gain and ours."""

    row: Row
    over: str  # the label of the base's row, or one of our systems
    column: str
    of: Column
    dataset: str
    printed: Decimal  # in the printed unit
    systems: tuple[str, str] | None  # ours, and its base
    verdict: str
    why: str = ""
    ours: Difference | None = None
    p: float | None = None  # Holm-adjusted for the table's gains
    ratio: float | None = None  # ours / printed
    seeds_needed: int | None = None  # to see the printed gain on these videos; None if unknown or too many

    @property
    def claimed(self) -> float:
        """The printed gain as a share."""
        return float(self.printed) / SHARES[self.of.unit]

    @property
    def less(self) -> Estimate | None:
        return self.ours.less if self.ours else None

    @property
    def read(self) -> str:
        """The verdict, with the seeds that it lacks."""
        if self.less and self.verdict == claims.CANT_TELL:
            return claims.with_lacking(self.verdict, self.less.seeds)
        return self.verdict


def gains(paper: Paper, name: str, params: Params, results: Mapping[str, Result]) -> list[Gain]:
    """Return all gains of a table in the paper's order, even if rows have not run.

    A gain that was measured under other conditions than the paper's, or over a row of other initial weights, has no
    verdict.
    """
    listed = list(_printed(paper, paper.tables[name], params, results))
    # A table may print a gain twice, as two accuracies and as their difference: it is a single test.
    tested: dict[object, Estimate] = {}
    for gain in listed:
        if gain.less and not gain.verdict:
            tested.setdefault(_test(gain), gain.less)
    adjusted = dict(zip(tested, claims.adjusted(list(tested.values())), strict=True))
    tests = max(len(tested), 1)
    return [_judged(gain, adjusted.get(_test(gain)), tests) if gain.ours else gain for gain in listed]


def against(table: PaperTable, row: Row, column: str) -> tuple[Row | None, str | None]:
    """Return the printed row that a row's gain is over, and our experiment for it."""
    base = next((other for other in table.rows if other.label == row.base), None)
    return base, meant(row.against, table, column) or (meant(base.ours, table, column) if base else None)


def absent(name: str, params: Params, results: Mapping[str, Result]) -> tuple[str, str] | None:
    """Return the verdict and the reason for a row without result; None with one."""
    if name not in results:
        return NOT_RUN, f"suite {params.suite} has no row {name}"
    if isinstance(accuracy := results[name].accuracy, str):
        word, _, reason = accuracy.partition(": ")
        return (FAILED, reason) if word == FAILED else (NOT_RUN, "ours has not run")
    return None


def _test(gain: Gain) -> tuple[tuple[str, str] | None, str, str | None]:
    """Return the systems, the measure and the class that a gain's test compares."""
    label = gain.row.label if gain.of.measure.startswith("class") else None
    return gain.systems, "top5" if gain.of.of == "top5" else "main", label


def _printed(paper: Paper, table: PaperTable, params: Params, results: Mapping[str, Result]) -> Iterator[Gain]:
    """Yield a table's gains, and ours; a gain that is still to judge has no verdict."""
    for row in table.rows:
        for column, of in table.columns.items():
            base, other = against(table, row, column)
            if column not in row.printed:
                continue
            printed = Decimal(row.printed[column])
            if of.measure in ("top1", "map") and base and column in base.printed:
                printed -= Decimal(base.printed[column])
                other = meant(base.ours, table, column)
            elif of.measure not in PRINTED:
                continue
            under = conditions(table, row, column)
            ours = meant(row.ours, table, column)
            systems = (ours, other) if ours and other else None
            over = base.label if base else other or ""
            gain = Gain(row, over, column, of, under.dataset or "", printed, systems, "")
            if systems is None:
                reason = meant(row.without, table, column) or (meant(base.without, table, column) if base else None)
                why = paper.reasons.get(reason or "", "no system of ours to compare")
                yield replace(gain, verdict=NOT_RUN, why=why)
                continue
            # The base was measured under its own row's conditions, and may start from other weights.
            theirs = conditions(table, base, column) if base else replace(under, pretrained=None)
            yield _measured(gain, systems, paper, params, results, (under, theirs))


def _measured(
    gain: Gain,
    systems: tuple[str, str],
    paper: Paper,
    params: Params,
    results: Mapping[str, Result],
    under: tuple[Conditions, Conditions],
) -> Gain:
    for name in systems:
        if lack := absent(name, params, results):
            return replace(gain, verdict=lack[0], why=lack[1])
    pairs = zip(systems, under, strict=True)
    differs = list(dict.fromkeys(text for name, on in pairs for text in differences(paper, on, params, name)))
    row, base = (results[name] for name in (reversed(systems) if gain.of.measure == "class_loss" else systems))
    _, which, label = _test(gain)
    less = difference(row, base, which, label)
    if isinstance(less, str):  # a tier may have too few classes for such a number
        return replace(gain, verdict=DIFFERS if differs else FAILED, why="; ".join([less, *differs]))
    verdict = DIFFERS if differs else less.unlike if less.unlike else "" if gain.printed else NONE_PRINTED
    return replace(gain, ours=less, verdict=verdict, why="; ".join(differs))


def _judged(gain: Gain, p: float | None, tests: int) -> Gain:
    """Return the gain with a verdict, if it has none yet, and the seeds to see it."""
    less = gain.less
    assert less is not None
    if not gain.printed:
        return gain
    seeds = power.seeds_for_gain(less.spread, gain.claimed, tests) if less.seeds > 1 and less.units > 1 else None
    judged = replace(gain, ratio=less.value / gain.claimed, seeds_needed=seeds)
    return judged if gain.verdict else replace(judged, verdict=claims.claim(less, p, gain.claimed), p=p)
