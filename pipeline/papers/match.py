"""Our number for each printed number of a table, and the verdict on the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.config.schema import Params
from pipeline.measure import claims
from pipeline.measure.crossed import Estimate
from pipeline.measure.results import Difference, Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import Interval
from pipeline.papers.conditions import differences
from pipeline.papers.gains import DIFFERS, FAILED, NOT_RUN, PRINTED, SHARES, Gain, absent, against
from pipeline.papers.printed_costs import UNITS, Line, as_printed
from pipeline.papers.published import Column, Paper, PaperTable, Row, conditions, meant
from pipeline.report.table import BLANK, interval_read, number

# (table, row, quantity) of a figure of parity.yaml -> the figure, and our count
Costs = Mapping[tuple[str, str, str], Line]


@dataclass(frozen=True)
class Match:
    """A printed number and ours, in the printed unit."""

    row: Row
    column: str
    of: Column
    dataset: str
    printed: str | None  # as printed; None for a row of a figure without numbers
    verdict: str  # "" if nothing is printed
    reason: str = ""  # for "not run" and "failed"; the differences, for "protocol differs"
    system: str | None = None  # the experiment or fusion
    ours: Interval | None = None
    estimate: Estimate | None = None  # ours as a share; None for counts and efficiencies
    read: str = ""  # the verdict to read, if it is more than the word

    @property
    def shown(self) -> str:
        """Ours to read, with the printed decimals: at least one, four of a fraction."""
        if self.ours is None:
            return BLANK
        digits = 4 if self.of.unit == "fraction" else max(1, len((self.printed or "").partition(".")[2]))
        return interval_read(self.ours, digits, scale=1) if self.estimate else number(self.ours.value, digits)


def matches(
    paper: Paper, name: str, params: Params, results: Mapping[str, Result], costs: Costs, gains: Sequence[Gain]
) -> list[Match]:
    """Match all printed cells of a table, and our rows of a figure without numbers.

    Args:
        paper: The paper.
        name: The table.
        params: The params of the suite.
        results: Results by row.
        costs: Our counts of printed parameters and FLOPs.
        gains: The table's gains.

    Returns:
        The matches, in the paper's order.
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
                cells.append(_match(paper, table, row, column, params, results, more, gain))
    return [cell for cell in cells if cell.printed is not None or (cell.system and not cell.row.printed)]


def in_unit(of: Column, share: Estimate | None, sign: str = "") -> str:
    """Return a share with its interval in the printed unit, to read."""
    return interval_read(share, 4 if of.unit == "fraction" else 1, sign, SHARES.get(of.unit, 1)) if share else BLANK


def _scaled(of: Column, share: Estimate | None) -> Interval | None:
    scale = SHARES.get(of.unit, 1)
    return Interval(scale * share.value, scale * share.low, scale * share.high) if share else None


def _of_gain(gain: Gain) -> Match:
    """Return the match of a column that prints a gain."""
    return Match(
        gain.row, gain.column, gain.of, gain.dataset, gain.row.printed[gain.column], gain.verdict, gain.why,
        gain.systems[0] if gain.systems else None, _scaled(gain.of, gain.less), gain.less, gain.read,
    )  # fmt: skip


def _match(
    paper: Paper,
    table: PaperTable,
    row: Row,
    column: str,
    params: Params,
    results: Mapping[str, Result],
    more: Decimal | None,
    gained: Gain | None,
) -> Match:
    of, under, printed = table.columns[column], conditions(table, row, column), row.printed.get(column)
    system = meant(row.ours, table, column)

    def cell(word: str, reason: str = "", share: Estimate | Interval | None = None, read: str = "") -> Match:
        estimate = share if isinstance(share, Estimate) else None
        ours = share if isinstance(share, Interval) else _scaled(of, estimate)
        verdict = word if printed else ""
        return Match(row, column, of, under.dataset or "", printed, verdict, reason, system, ours, estimate, read)

    if system is None:
        return cell(NOT_RUN, paper.reasons[meant(row.without, table, column) or ""] if printed else "")
    other = against(table, row, column)[1] or "to compare with"
    for name in (system, other) if of.measure in (*PRINTED, "efficiency") else (system,):
        if lack := absent(name, params, results):
            return cell(*lack)
    differs = differences(paper, under, params, system)
    if of.measure == "efficiency":
        # The base was measured alike, but may start from other weights.
        differs = list(dict.fromkeys([*differs, *differences(paper, replace(under, pretrained=None), params, other)]))
        gain = difference(results[system], results[other])
        ratio = gain if isinstance(gain, str) else _efficiency(gain, more)
        if isinstance(gain, str) or isinstance(ratio, str):
            return cell(DIFFERS if differs else FAILED, "; ".join([str(ratio), *differs]))
        verdict = DIFFERS if differs else gain.unlike or _outside(ratio, printed, gain.less.seeds)
        read = claims.with_lacking(verdict, gain.less.seeds) if verdict == claims.CANT_TELL else ""
        return cell(verdict, "; ".join(differs), ratio, read)
    ours = _accuracy(results[system], of.measure)
    if isinstance(ours, str):  # a tier may have too few classes for such a number
        return cell(DIFFERS if differs else FAILED, "; ".join([ours, *differs]))
    if differs or not printed:
        return cell(DIFFERS, "; ".join(differs), ours)
    scale = SHARES.get(of.unit, 1)
    rounding = 0.5 * 10.0 ** -len(printed.partition(".")[2]) / scale
    judged = claims.number(ours, float(printed) / scale, gained.claimed if gained else None, rounding)
    lacking = claims.lacking(ours.seeds)
    return cell(judged.verdict, "", ours, claims.with_lacking(judged.verdict, ours.seeds) if lacking else str(judged))


def _accuracy(result: Result, measure: str) -> Estimate | str:
    accuracy = result.accuracy
    if isinstance(accuracy, Precision) and measure in ("map", "wap"):
        return accuracy.map if measure == "map" else accuracy.wap
    if isinstance(accuracy, Accuracy) and measure == "top1":
        return accuracy.top1
    if isinstance(accuracy, Accuracy) and measure == "top5":
        return accuracy.top5 or "five guesses name every class"
    return f"row {result.name} has no {measure}"


def _efficiency(gain: Difference, more: Decimal | None) -> Interval | str:
    """Return more FLOPs, in %, a point of top-1 gained."""
    if more is None:
        return "the nets' FLOPs are not counted"
    if gain.less.low <= 0:
        return "the gain may be 0, so there is nothing to divide by"
    return Interval(*(float(more) / (100 * share) for share in (gain.less.value, gain.less.high, gain.less.low)))


def _outside(ours: Interval, printed: str | None, seeds: int) -> str:
    """Return "below", "above" or "can't tell" for a ratio, which has no margin."""
    value = float(printed or 0)
    if claims.lacking(seeds) or ours.low <= value <= ours.high:
        return claims.CANT_TELL
    return claims.BELOW if ours.high < value else claims.ABOVE


def _cost(name: str, table: PaperTable, row: Row, column: str, costs: Costs) -> Match:
    """Match parameters or FLOPs, which must equal the printed ones to the last digit."""
    of, key = table.columns[column], _keys(name, table, row, column)[0]
    if of.measure == "cost":
        line = costs.get(key)
        if line is None:
            return Match(row, column, of, "", None, "")
        figure, same = line.figure, line.shown == line.figure.printed
        cut = "the paper cuts digits off, where ours are rounded" if figure.digits == "truncated" else ""
        return _counted(row, column, of, figure.printed, line.scaled, same, cut if same else figure.reason)
    more, printed = _more(name, table, row, column, costs), row.printed.get(column)
    if printed is None or more is None:
        return Match(row, column, of, "", printed, NOT_RUN, "the nets' FLOPs are not counted")
    if of.unit != "%":
        net, base = (costs[key].ours for key in _keys(name, table, row, column))
        more = (net - base) / UNITS[of.unit]
    return _counted(row, column, of, printed, more, as_printed(more, printed, "rounded") == printed, "")


def _counted(row: Row, column: str, of: Column, printed: str, ours: Decimal, same: bool, reason: str) -> Match:
    word = claims.REPRODUCED if same else claims.BELOW if ours < Decimal(printed) else claims.ABOVE
    return Match(row, column, of, "", printed, word, reason, None, Interval(*[float(ours)] * 3))


def _more(name: str, table: PaperTable, row: Row, column: str, costs: Costs) -> Decimal | None:
    """Return the extra cost of the row's net over another, in %; None without one."""
    lines = [costs.get(key) for key in _keys(name, table, row, column)]
    net, base = lines[0], lines[-1]
    return 100 * (net.ours / base.ours - 1) if table.columns[column].over and net and base else None


def _keys(name: str, table: PaperTable, row: Row, column: str) -> list[tuple[str, str, str]]:
    """Return the keys in parity.yaml of a column's figure, and of its base's."""
    of = table.columns[column]
    places = [place.format(label=row.label, **row.settings) for place in (of.row, of.over) if place]
    split = [place.split("/", 1) if "/" in place.split(" ")[0] else [name, place] for place in places]
    return [(table, row, of.of or "") for table, row in split]
