"""The gains that a paper's table prints, and ours: a row against the row it changes, on the same videos and seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.config.schema import Params
from pipeline.measure import claims, power
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.papers.conditions import differences
from pipeline.papers.published import Column, Conditions, Paper, PaperTable, Row, conditions, meant

SHARES = {"%": 100, "fraction": 1}  # what a share is multiplied by to be in the unit
PRINTED = ("gain", "class_gain", "class_loss")  # columns that print a gain; others are less the base's number
NOT_RUN, FAILED, DIFFERS, NONE_PRINTED = "not run", "failed", "protocol differs", "none printed"


@dataclass(frozen=True)
class Gain:
    """A printed gain and ours."""

    row: Row
    over: str  # the label of the row that it is over, or of a system of ours
    column: str
    of: Column
    dataset: str
    printed: Decimal  # in the printed unit
    systems: tuple[str, str] | None  # ours, and what it is over
    verdict: str
    why: str = ""
    ours: Difference | None = None
    p: float | None = None  # Holm-adjusted for the table's gains
    ratio: float | None = None  # ours / printed
    seeds_needed: int | None = None  # to see the printed gain on these videos; None where no number would, or unknown

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
        lacking = claims.lacking(self.less.seeds) if self.less and self.verdict == claims.CANT_TELL else ""
        return f"{self.verdict} ({lacking})" if lacking else self.verdict


def gains(paper: Paper, name: str, given: Params, found: Mapping[str, Result]) -> list[Gain]:
    """Return every gain of a table in the paper's order, whatever has run.

    A gain not measured as the paper's was has no verdict, nor has one over a row of other initial weights.
    """
    listed = list(_printed(paper, paper.tables[name], given, found))
    # A table may print a gain twice, as two accuracies and as their difference: it is one test.
    tested: dict[object, Estimate] = {}
    for gain in listed:
        if gain.less and not gain.verdict:
            tested.setdefault(_test(gain), gain.less)
    adjusted = dict(zip(tested, claims.adjusted(list(tested.values())), strict=True))
    tests = max(len(tested), 1)
    return [_judged(gain, adjusted.get(_test(gain)), tests) if gain.ours else gain for gain in listed]


def against(table: PaperTable, row: Row, column: str) -> tuple[Row | None, str | None]:
    """Return the printed row that a row's gain is over, and the experiment of ours in its place."""
    base = next((one for one in table.rows if one.label == row.base), None)
    return base, meant(row.against, table, column) or (meant(base.ours, table, column) if base else None)


def _test(gain: Gain) -> object:
    measure = gain.of.measure
    label = gain.row.label if measure.startswith("class") else None
    return gain.systems, "top5" if gain.of.of == "top5" else "main", label


def _printed(paper: Paper, table: PaperTable, given: Params, found: Mapping[str, Result]) -> Iterator[Gain]:
    """The gains of a table, with ours where both rows have run; those that can have a verdict have none yet."""
    for row in table.rows:
        for column, of in table.columns.items():
            base, other = against(table, row, column)
            if column not in row.printed:
                continue
            if of.measure in PRINTED:
                printed = Decimal(row.printed[column])
            elif of.measure in ("top1", "map") and base and column in base.printed:
                printed = Decimal(row.printed[column]) - Decimal(base.printed[column])
                other = meant(base.ours, table, column)
            else:
                continue
            under = conditions(table, row, column)
            own = meant(row.ours, table, column)
            over = base.label if base else other or ""
            gain = Gain(
                row, over, column, of, under.dataset or "", printed, (own, other) if own and other else None, ""
            )
            if gain.systems is None:
                reason = meant(row.without, table, column) or (meant(base.without, table, column) if base else None)
                yield replace(
                    gain, verdict=NOT_RUN, why=paper.reasons.get(reason or "", "no system of ours to compare")
                )
                continue
            # The base was measured under its own row's conditions, and may start from other weights.
            theirs = conditions(table, base, column) if base else replace(under, pretrained=None)
            yield _run(gain, paper, given, found, (under, theirs))


def _run(
    gain: Gain, paper: Paper, given: Params, found: Mapping[str, Result], under: tuple[Conditions, Conditions]
) -> Gain:
    results = []
    for name in gain.systems or ():
        if name not in found:
            return replace(gain, verdict=NOT_RUN, why=f"suite {given.suite} has no row {name}")
        if isinstance(accuracy := found[name].accuracy, str):
            word, _, reason = accuracy.partition(": ")
            failed = word == FAILED
            return replace(gain, verdict=FAILED if failed else NOT_RUN, why=reason if failed else "ours has not run")
        results.append(found[name])
    differs = list(
        dict.fromkeys(
            text for one, on in zip(results, under, strict=True) for text in differences(paper, on, given, one.name)
        )
    )
    one, base = reversed(results) if gain.of.measure == "class_loss" else results
    label = gain.row.label if gain.of.measure.startswith("class") else None
    less = difference(one, base, "top5" if gain.of.of == "top5" else "main", label)
    if isinstance(less, str):  # of so few classes as a tier may have, there may be no such number
        return replace(gain, verdict=DIFFERS if differs else FAILED, why="; ".join([less, *differs]))
    verdict = DIFFERS if differs else less.unlike if less.unlike else "" if gain.printed else NONE_PRINTED
    return replace(gain, ours=less, verdict=verdict, why="; ".join(differs))


def _judged(gain: Gain, p: float | None, tests: int) -> Gain:
    """The gain with its verdict, where it has none yet, and the seeds that would tell."""
    less = gain.less
    assert less is not None
    if not gain.printed:
        return gain
    claim = claims.claim(less, p, gain.claimed)
    seeds = power.seeds_for_gain(less.spread, gain.claimed, tests) if less.seeds > 1 and less.units > 1 else None
    judged = replace(gain, ratio=claim.ratio, seeds_needed=seeds)
    return judged if gain.verdict else replace(judged, verdict=claim.verdict, p=p)
