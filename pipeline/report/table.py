"""Results as tables: Markdown to read, CSV to compute with; the same results give the same bytes."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

from pipeline.config.schema import Table
from pipeline.measure import uncertainty
from pipeline.measure.results import Difference, Result, difference
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import Interval
from pipeline.report import footnotes
from pipeline.storage.atomic import write

BLANK = "–"


@dataclass(frozen=True)
class Cell:
    """What a column shows of a row: text to read, and its values in the CSV by their own headings."""

    heading: str
    read: str
    data: Mapping[str, str]


def save(folder: Path, name: str, table: Table, results: Mapping[str, Result]) -> None:
    """Writes <name>.md and <name>.csv; every row has its line, one without a result says why.

    Rows stand in the table's order; with a base, it comes first.
    """
    rows = [results[row] for row in dict.fromkeys((*([table.base] if table.base else []), *table.rows))]
    lines = ablation(rows[0], rows[1:]) if table.base else comparison(rows)
    write(folder / f"{name}.md", f"# {table.title}\n\n{markdown(lines)}\n{footnotes.below(rows, bool(table.base))}\n")
    write(folder / f"{name}.csv", csv_text(*_data(lines)))


def comparison(rows: Sequence[Result]) -> list[list[Cell]]:
    """A line a row: the system, its accuracies with n, its costs, its protocol."""
    return [
        [
            _cell("row", row.name),
            _cell("data set", row.dataset),
            _cell("backbone", row.backbone),
            _cell("attention", row.attention or BLANK),
            _cell("frames", str(row.frames or BLANK)),
            *_measures(row, rows, all_of_them=True),
            *_counts(row),
            _count("params M", "parameters", row.costs.get("parameters"), 1e6),
            _count("MACs G", "macs", row.costs.get("macs"), 1e9),
            _cell("protocol", row.protocol),
        ]
        for row in rows
    ]


def ablation(base: Result, rows: Sequence[Result]) -> list[list[Cell]]:
    """The base, then a line a row: its top-1 or mAP, and how it differs from the base's."""
    differences = [difference(row, base) for row in rows]
    tested = [found.p for found in differences if isinstance(found, Difference)]
    adjusted = iter(uncertainty.holm(tested))
    return [
        [
            _cell("row", row.name),
            _cell("attention", row.attention or BLANK),
            *_measures(row, (base, *rows)),
            *_difference(found, next(adjusted) if isinstance(found, Difference) else None, base),
            *_counts(row),
            _count("Δ params M", "delta_parameters", _less(row, base, "parameters"), 1e6, "+"),
            _count("Δ MACs G", "delta_macs", _less(row, base, "macs"), 1e9, "+"),
            _cell("protocol", row.protocol),
        ]
        for row, found in zip((base, *rows), ("base", *differences), strict=True)
    ]


def _measures(row: Result, rows: Sequence[Result], all_of_them: bool = False) -> list[Cell]:
    """The row's accuracies, in the columns that the rows of its table need; its main one says what is wrong."""
    kinds, found = {other.several for other in rows}, row.accuracy
    status = {"status": found if isinstance(found, str) else "ok"}
    cells = []
    if False in kinds:
        one = found if isinstance(found, Accuracy) else None
        cells.append(_main("top-1", "top1", one.top1 if one else None, found if not row.several else BLANK, status))
        if all_of_them:
            cells += [
                _chance(one),
                _percent("top-5 %", "top5", one.top5.value if one and one.top5 else None),
                _percent("mean class %", "mean_class", one.mean_class if one else None),
            ]
    if True in kinds:
        several = found if isinstance(found, Precision) else None
        cells.append(_main("mAP", "map", several.map if several else None, found if row.several else BLANK, status))
        cells.append(_main("wAP", "wap", several.wap if several else None, BLANK))
    if splits := footnotes.splits(rows):
        own = {} if isinstance(found, str) else found.by_split
        spread = _number(100 * stdev(own.values()), 1) if len(own) > 1 else BLANK
        shares = {f"split_{split}": _number(100 * own[split], 4) if split in own else "" for split in splits}
        exact = _number(100 * stdev(own.values()), 4) if len(own) > 1 else ""
        cells.append(Cell("sd of splits", spread, {"sd_of_splits": exact, **shares}))
    return cells


def _cell(heading: str, value: str) -> Cell:
    return Cell(heading, value, {heading.replace(" ", "_"): value})


def _main(
    name: str, key: str, interval: Interval | None, otherwise: object, status: Mapping[str, str] | None = None
) -> Cell:
    """An interval, or what stands in its place."""
    return Cell(
        f"{name} %", _read(interval) if interval else str(otherwise), {**(status or {}), **_interval(key, interval)}
    )


def _chance(accuracy: Accuracy | None) -> Cell:
    if accuracy is None:
        return Cell("chance %", BLANK, {"chance": "", "above_chance": ""})
    percent, above = (
        100 * uncertainty.chance(len(accuracy.classes)),
        uncertainty.above_chance(accuracy.top1, len(accuracy.classes)),
    )
    read = _number(percent, 1) + ("" if above else ", not beaten")
    return Cell("chance %", read, {"chance": _number(percent, 4), "above_chance": "yes" if above else "no"})


def _percent(heading: str, key: str, share: float | None) -> Cell:
    if share is None:
        return Cell(heading, BLANK, {key: ""})
    return Cell(heading, _number(100 * share, 1), {key: _number(100 * share, 4)})


def _count(heading: str, key: str, value: float | None, unit: float, sign: str = "") -> Cell:
    """Parameters or MACs: in millions or billions to read, whole in the CSV."""
    if value is None:
        return Cell(heading, BLANK, {key: ""})
    # What attention adds is often a few thousandths of the whole: a difference has a digit more.
    return Cell(heading, _number(value / unit, 3 if sign else 2, sign), {key: str(round(value))})


def _counts(row: Result) -> list[Cell]:
    """n, seeds, splits and decoded."""
    seeds, splits = (_cell(name, str(len(getattr(row, name)))) for name in ("seeds", "splits"))
    if isinstance(row.accuracy, str):
        return [Cell("n", BLANK, {"n": ""}), seeds, splits, Cell("decoded", BLANK, {"decoded": ""})]
    found = row.accuracy
    decoded = Cell("decoded", f"{found.decoded} of {found.videos}", {"decoded": str(found.decoded)})
    return [_cell("n", str(found.videos)), seeds, splits, decoded]


def _difference(found: Difference | str, p: float | None, base: Result) -> list[Cell]:
    """The difference, p and verdict; for the base, or where there is no difference, the word for that."""
    heading = "Δ mAP" if base.several else "Δ top-1"
    if isinstance(found, str) or p is None:
        word = str(found)
        return [
            Cell(heading, word, _interval("delta", None)),
            Cell("p (Holm)", BLANK, {"p": "", "p_holm": ""}),
            Cell("verdict", BLANK, {"verdict": word, "pairs": ""}),
        ]
    verdict = uncertainty.verdict(found.less, p, found.videos)
    read = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [
        Cell(heading, _read(found.less, "+"), _interval("delta", found.less)),
        Cell("p (Holm)", read, {"p": _number(found.p, 6), "p_holm": _number(p, 6)}),
        Cell("verdict", verdict, {"verdict": verdict.partition(" (")[0], "pairs": str(found.videos)}),
    ]


def _less(row: Result, base: Result, cost: str) -> float | None:
    return row.costs[cost] - base.costs[cost] if cost in row.costs and cost in base.costs else None


def _read(interval: Interval, sign: str = "") -> str:
    value, low, high = (_number(100 * share, 1, sign) for share in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _interval(key: str, interval: Interval | None) -> dict[str, str]:
    shares = (interval.value, interval.low, interval.high) if interval else (None, None, None)
    names = (key, f"{key}_low", f"{key}_high")
    return {name: "" if share is None else _number(100 * share, 4) for name, share in zip(names, shares, strict=True)}


def _number(value: float, digits: int, sign: str = "") -> str:
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def markdown(lines: Sequence[Sequence[Cell]]) -> str:
    """The cells as an aligned Markdown table."""
    grid = [[cell.heading for cell in lines[0]], *([cell.read for cell in line] for line in lines)]
    grid = [[" ".join(text.split()).replace("|", "\\|") for text in line] for line in grid]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in grid)


def _data(lines: Sequence[Sequence[Cell]]) -> tuple[list[str], list[list[str]]]:
    """Headings and values of the cells' CSV."""
    values = [{key: value for cell in line for key, value in cell.data.items()} for line in lines]
    return list(values[0]), [list(line.values()) for line in values]


NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?%?", re.IGNORECASE)


def csv_text(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """CSV; a name that a spreadsheet would take for a formula has an apostrophe before it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(plain, headings))
    writer.writerows(map(plain, line) for line in lines)
    return buffer.getvalue()


def plain(text: str) -> str:
    """The text of a CSV's cell, with an apostrophe before a formula; numbers are none."""
    if not str(text).startswith(("=", "+", "-", "@", "\t", "\r")) or NUMBER.fullmatch(text):
        return text
    return f"'{text}"
