"""Ours for each number that a paper's table prints, and the verdict on the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pipeline.config.schema import Params
from pipeline.measure import claims
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import Interval
from pipeline.papers.conditions import differences
from pipeline.papers.gains import DIFFERS, FAILED, NOT_RUN, PRINTED, SHARES, Gain, against
from pipeline.papers.printed_costs import UNITS, Line, as_printed
from pipeline.papers.published import Column, Paper, PaperTable, Row, conditions, meant
from pipeline.report.table import BLANK, number

# (table, row, quantity) of a figure of parity.yaml -> what is printed, and our count
Costs = Mapping[tuple[str, str, str], Line]


@dataclass(frozen=True)
class Number:
    """A printed number and ours, in the printed unit."""

    row: Row
    column: str
    of: Column
    dataset: str
    printed: str | None  # as printed; None where a row of ours stands beside a figure without numbers
    verdict: str  # "" where nothing is printed
    reason: str = ""  # for "not run" and "failed"; what differs, for "protocol differs"
    system: str | None = None  # the experiment or fusion
    ours: Interval | None = None
    videos: int | None = None  # None: a count, whose interval has no width
    estimate: Estimate | None = None  # ours as a share; None of counts and efficiencies
    read: str = ""  # the verdict to read, where it is more than the word

    @property
    def shown(self) -> list[str]:
        """Ours, low and high to as many decimals as are printed, one at least; four of a fraction; [] where not run."""
        digits = 4 if self.of.unit == "fraction" else max(1, len((self.printed or "").partition(".")[2]))
        found = (self.ours.value, self.ours.low, self.ours.high) if self.ours else ()
        return [f"{round(bound, digits) + 0.0:.{digits}f}" for bound in found]


def numbers(
    paper: Paper, name: str, given: Params, found: Mapping[str, Result], costs: Costs, gains: Sequence[Gain]
) -> list[Number]:
    """Every printed cell of a table, and all of rows of ours beside which nothing is printed; in the paper's order.

    `gains` are the table's, as gains() finds them.
    """
    table = paper.tables[name]
    by_place = {(gain.row.label, gain.column): gain for gain in gains}
    cells = []
    for row in table.rows:
        for column, of in table.columns.items():
            gain = by_place.get((row.label, column))
            if of.measure in ("cost", "more"):
                cells.append(_cost(name, table, row, column, costs))
            elif of.measure in PRINTED and gain:
                cells.append(_of_gain(gain))
            else:
                more = _more(name, table, row, column, costs)
                cells.append(_number(paper, table, row, column, given, found, more, gain))
    return [cell for cell in cells if cell.printed is not None or (cell.system and not cell.row.printed)]


def scaled(of: Column, share: Estimate | None) -> Interval | None:
    """A share in the printed unit."""
    scale = SHARES.get(of.unit, 1)
    return Interval(scale * share.value, scale * share.low, scale * share.high) if share else None


def in_unit(of: Column, found: Interval | None, sign: str = "") -> str:
    """A value with its interval in the printed unit, to read."""
    if found is None:
        return BLANK
    digits = 4 if of.unit == "fraction" else 1
    value, low, high = (number(bound, digits, sign) for bound in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _of_gain(gain: Gain) -> Number:
    """A printed gain as a cell of its own."""
    less = gain.less
    return Number(
        gain.row, gain.column, gain.of, gain.dataset, gain.row.printed[gain.column], gain.verdict, gain.why,
        gain.systems[0] if gain.systems else None, scaled(gain.of, less), gain.ours.videos if gain.ours else None,
        less, gain.read,
    )  # fmt: skip


def _number(
    paper: Paper,
    table: PaperTable,
    row: Row,
    column: str,
    given: Params,
    found: Mapping[str, Result],
    more: Decimal | None,
    gain: Gain | None,
) -> Number:
    of, under, printed = table.columns[column], conditions(table, row, column), row.printed.get(column)
    system = meant(row.ours, table, column)

    def cell(word: str, reason: str = "", share: Estimate | Interval | None = None, read: str = "") -> Number:
        estimate = share if isinstance(share, Estimate) else None
        ours = scaled(of, estimate) if estimate else share
        assert ours is None or isinstance(ours, Interval)
        videos = estimate.videos if estimate else None
        said = word if printed else ""
        return Number(row, column, of, under.dataset or "", printed, said, reason, system, ours, videos, estimate, read)

    if system is None:
        return cell(NOT_RUN, paper.reasons[meant(row.without, table, column) or ""] if printed else "")
    other = against(table, row, column)[1] or "to compare with"
    results: list[Result] = []
    for name in (system, other) if of.measure in (*PRINTED, "efficiency") else (system,):
        if name not in found:
            return cell(NOT_RUN, f"suite {given.suite} has no row {name}")
        results.append(found[name])
        if isinstance(accuracy := results[-1].accuracy, str):
            word, _, reason = accuracy.partition(": ")
            return cell(*((FAILED, reason) if word == FAILED else (NOT_RUN, "ours has not run")))
    differs = differences(paper, under, given, system)
    if of.measure == "efficiency":
        ratio = _efficiency(results[0], results[1], more)
        if isinstance(ratio, str):
            return cell(DIFFERS if differs else FAILED, "; ".join([ratio, *differs]))
        interval, seeds = ratio
        verdict = DIFFERS if differs else _outside(interval, printed, seeds)
        lacking = claims.lacking(seeds) if verdict == claims.CANT_TELL else ""
        return cell(verdict, "; ".join(differs), interval, f"{verdict} ({lacking})" if lacking else "")
    ours = _accuracy(results[0], of.measure)
    if isinstance(ours, str):  # of so few classes as a tier may have, there may be no such number
        return cell(DIFFERS if differs else FAILED, "; ".join([ours, *differs]))
    if differs or not printed:
        return cell(DIFFERS, "; ".join(differs), ours)
    scale = SHARES.get(of.unit, 1)
    rounding = 0.5 * 10.0 ** -len(printed.partition(".")[2]) / scale
    judged = claims.number(ours, float(printed) / scale, gain.claimed if gain else None, rounding)
    lacking = claims.lacking(ours.seeds)
    return cell(judged.verdict, "", ours, f"{judged.verdict} ({lacking})" if lacking else str(judged))


def _accuracy(result: Result, measure: str) -> Estimate | str:
    found = result.accuracy
    if isinstance(found, Precision) and measure in ("map", "wap"):
        return found.map if measure == "map" else found.wap
    if isinstance(found, Accuracy) and measure == "top1":
        return found.top1
    if isinstance(found, Accuracy) and measure == "top5":
        return found.top5 or "five guesses name every class"
    return f"row {result.name} has no {measure}"


def _efficiency(one: Result, base: Result, more: Decimal | None) -> tuple[Interval, int] | str:
    """More FLOPs, in %, a point of top-1 gained, and the seeds of the gain."""
    gain = difference(one, base)
    if not isinstance(gain, Difference):
        return gain
    if more is None:
        return "the nets' FLOPs are not counted"
    if gain.less.low <= 0:
        return "the gain is not surely one, so there is nothing to divide by"
    bounds = (gain.less.value, gain.less.high, gain.less.low)
    return Interval(*(float(more) / (100 * share) for share in bounds)), gain.less.seeds


def _outside(ours: Interval, printed: str | None, seeds: int) -> str:
    """A ratio has no margin within which it would be the same: it is below, above, or can't be told."""
    value = float(printed or 0)
    if claims.lacking(seeds) or ours.low <= value <= ours.high:
        return claims.CANT_TELL
    return claims.BELOW if ours.high < value else claims.ABOVE


def _cost(name: str, table: PaperTable, row: Row, column: str, costs: Costs) -> Number:
    """Parameters or FLOPs: a count has no interval, so it is the printed one to its last digit, or it is not."""
    of, key = table.columns[column], _keys(name, table, row, column)[0]
    if of.measure == "cost":
        line = costs.get(key)
        if line is None:
            return Number(row, column, of, "", None, "")
        figure, same = line.figure, line.shown == line.figure.printed
        cut = "the paper cuts digits off, where ours are rounded" if figure.digits == "truncated" else ""
        reason = cut if same else figure.reason
        return _counted(row, column, of, figure.printed, line.scaled, same, reason)
    more, printed = _more(name, table, row, column, costs), row.printed.get(column)
    if printed is None or more is None:
        return Number(row, column, of, "", printed, NOT_RUN, "the nets' FLOPs are not counted")
    if of.unit != "%":
        one, base = (costs[key].ours for key in _keys(name, table, row, column))
        more = (one - base) / UNITS[of.unit]
    return _counted(row, column, of, printed, more, as_printed(more, printed, "rounded") == printed, "")


def _counted(row: Row, column: str, of: Column, printed: str, ours: Decimal, same: bool, reason: str) -> Number:
    word = claims.REPRODUCED if same else claims.BELOW if ours < Decimal(printed) else claims.ABOVE
    return Number(row, column, of, "", printed, word, reason, None, Interval(*[float(ours)] * 3))


def _more(name: str, table: PaperTable, row: Row, column: str, costs: Costs) -> Decimal | None:
    """How much more the row's net costs than the other, in %; None where a column asks for no such thing."""
    lines = [costs.get(key) for key in _keys(name, table, row, column)]
    one, base = lines[0], lines[-1]
    return 100 * (one.ours / base.ours - 1) if table.columns[column].over and one and base else None


def _keys(name: str, table: PaperTable, row: Row, column: str) -> list[tuple[str, str, str]]:
    """Where in parity.yaml the column's figure stands, and that of the net it is set beside."""
    of = table.columns[column]
    places = [place.format(label=row.label, **row.settings) for place in (of.row, of.over) if place]
    split = [place.split("/", 1) if "/" in place.split(" ")[0] else [name, place] for place in places]
    return [(table, row, of.of or "") for table, row in split]
