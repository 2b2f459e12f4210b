"""Ours beside each number that a paper's table prints, and what the difference means."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from scipy.stats import binomtest

from pipeline.config.schema import Params
from pipeline.measure import accuracy as metrics
from pipeline.measure import verdict
from pipeline.measure.results import Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import LEVEL, Interval
from pipeline.papers.conditions import differences
from pipeline.papers.printed_costs import UNITS, Line, as_printed
from pipeline.papers.published import Column, Paper, PaperTable, Row, conditions, meant

SHARES = {"%": 100, "fraction": 1}  # what a share is multiplied by to be in the unit
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

    @property
    def shown(self) -> list[str]:
        """Ours, low and high to as many decimals as are printed, one at least; four of a fraction; [] where not run."""
        digits = 4 if self.of.unit == "fraction" else max(1, len((self.printed or "").partition(".")[2]))
        found = (self.ours.value, self.ours.low, self.ours.high) if self.ours else ()
        return [f"{round(bound, digits) + 0.0:.{digits}f}" for bound in found]


def numbers(paper: Paper, name: str, given: Params, found: Mapping[str, Result], costs: Costs) -> list[Number]:
    """Every printed cell of a table, and all of rows of ours beside which nothing is printed; in the paper's order."""
    table = paper.tables[name]
    cells = [
        _cost(name, table, row, column, costs)
        if table.columns[column].measure in ("cost", "more")
        else _number(paper, table, row, column, given, found, _more(name, table, row, column, costs))
        for row in table.rows
        for column in table.columns
    ]
    return [cell for cell in cells if cell.printed is not None or (cell.system and not cell.row.printed)]


def _number(
    paper: Paper,
    table: PaperTable,
    row: Row,
    column: str,
    given: Params,
    found: Mapping[str, Result],
    more: Decimal | None,
) -> Number:
    of, under, printed = table.columns[column], conditions(table, row, column), row.printed.get(column)
    system = meant(row.ours, table, column)

    def cell(word: str, reason: str = "", share: Interval | None = None, videos: int | None = None) -> Number:
        scale = SHARES.get(of.unit, 1)
        ours = Interval(scale * share.value, scale * share.low, scale * share.high) if share else None
        said = word if printed else ""
        return Number(row, column, of, under.dataset or "", printed, said, reason, system, ours, videos)

    if system is None:
        return cell("not run", paper.reasons[meant(row.without, table, column) or ""] if printed else "")
    # What a gain is over was measured under its own row's conditions, and may start from other weights.
    base = next((one for one in table.rows if one.label == row.base), None)
    theirs = conditions(table, base, column) if base else replace(under, pretrained=None)
    results: list[Result] = []
    for name in (system, *_against(table, row, base, column)):
        if name not in found:
            return cell("not run", f"suite {given.suite} has no row {name}")
        results.append(found[name])
        if isinstance(accuracy := results[-1].accuracy, str):
            word, _, reason = accuracy.partition(": ")
            return cell(*(("failed", reason) if word == "failed" else ("not run", "ours has not run")))
    ours = _measured(of, row, results[0], results[-1], more)
    both = zip(results, (under, theirs), strict=False)
    differs = list(dict.fromkeys(text for one, on in both for text in differences(paper, on, given, one.name)))
    if isinstance(ours, str):  # of so few classes as a tier may have, there may be no such number
        return cell("protocol differs" if differs else "failed", "; ".join([ours, *differs]))
    videos = 0 if isinstance(results[0].accuracy, str) else results[0].accuracy.videos
    if differs:
        return cell("protocol differs", "; ".join(differs), ours, videos)
    # An efficiency is no share: there is no margin within which it would be the same.
    margin = verdict.MARGIN if of.unit in SHARES else 0.0
    return cell(verdict.of_number(ours, float(printed or 0) / SHARES.get(of.unit, 1), margin), "", ours, videos)


def _against(table: PaperTable, row: Row, base: Row | None, column: str) -> list[str]:
    """The experiment that a gain is over: the row's own `against`, or its base row's; [] of what is no gain."""
    if table.columns[column].measure not in ("gain", "class_gain", "class_loss", "efficiency"):
        return []
    found = meant(row.against, table, column) or (meant(base.ours, table, column) if base else None)
    return [found or "to compare with"]


def _measured(of: Column, row: Row, one: Result, base: Result, more: Decimal | None) -> Interval | str:
    """Ours as shares, or why there is none."""
    match of.measure:
        case "gain":
            return _gain(one, base, of.of or "top1")
        case "class_gain":
            return _less(_of_class(one, row.label), _of_class(base, row.label))
        case "class_loss":
            return _less(_of_class(base, row.label), _of_class(one, row.label))
        case "efficiency":
            gain = _gain(one, base, "top1")
            if isinstance(gain, str):
                return gain
            if more is None:
                return "the nets' FLOPs are not counted"
            if gain.low <= 0:
                return "the gain is not surely one, so there is nothing to divide by"
            return Interval(*(float(more) / (100 * share) for share in (gain.value, gain.high, gain.low)))
    return _accuracy(one, of.measure)


def _accuracy(result: Result, measure: str) -> Interval | str:
    found = result.accuracy
    if isinstance(found, Precision) and measure in ("map", "wap"):
        return found.map if measure == "map" else found.wap
    if isinstance(found, Accuracy) and measure == "top1":
        return found.top1
    if isinstance(found, Accuracy) and measure == "top5":
        return found.top5 or "five guesses name every class"
    return f"row {result.name} has no {measure}"


def _gain(one: Result, base: Result, measure: str) -> Interval | str:
    """The paired difference, of what is paired: the main measure; else the two intervals' outer bounds."""
    if measure in ("top1", "map"):
        found = difference(one, base)
        return found if isinstance(found, str) else found.less
    return _less(_accuracy(one, measure), _accuracy(base, measure))


def _less(one: Interval | str, base: Interval | str) -> Interval | str:
    """A difference whose interval reaches from one end of both to the other: wider than a paired one."""
    if isinstance(one, str) or isinstance(base, str):
        return one if isinstance(one, str) else str(base)
    return Interval(one.value - base.value, one.low - base.high, one.high - base.low)


def _of_class(result: Result, name: str) -> Interval | str:
    """The accuracy of a class, the mean over runs, with the exact binomial interval of one run's videos."""
    found = result.accuracy
    if not isinstance(found, Accuracy) or name not in found.classes:
        return f"row {result.name} has no class {name}"
    share = float(metrics.class_accuracy(found.confusion)[found.classes.index(name)])
    videos = int(found.confusion[:, found.classes.index(name)].sum() / len(found.confusion))
    exact = binomtest(round(share * videos), videos).proportion_ci(LEVEL)
    return Interval(share, min(share, exact.low), max(share, exact.high))


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
        return Number(row, column, of, "", printed, "not run", "the nets' FLOPs are not counted")
    if of.unit != "%":
        one, base = (costs[key].ours for key in _keys(name, table, row, column))
        more = (one - base) / UNITS[of.unit]
    return _counted(row, column, of, printed, more, as_printed(more, printed, "rounded") == printed, "")


def _counted(row: Row, column: str, of: Column, printed: str, ours: Decimal, same: bool, reason: str) -> Number:
    word = "reproduced" if same else "below" if ours < Decimal(printed) else "above"
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
