"""A table as one value, and its writers for Markdown, CSV, TeX and JSON.

The page and the terminal show it from its JSON file. The same table gives the same bytes. Nothing reads Markdown, CSV
or TeX back.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.storage.atomic import write

if TYPE_CHECKING:
    from pipeline.measure.crossed import Estimate
    from pipeline.measure.uncertainty import Interval

BLANK = "–"
MOST = 8  # columns that fit into Markdown, TeX and a terminal
GUIDE = "/docs/statistics.md"  # from the repository's root, as forges resolve it
ALWAYS, ROOM, DATA = 0, 1, 2  # a column's place: in every form; if it fits, from left to right; in the CSV alone
NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?%?", re.IGNORECASE)
FAILED = "failed: "
PATH = re.compile(r"(?<![\w.+-])/?(?:[\w.+-]+/)+[\w.+-]+")
SPECIAL = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "×": r"$\times$",
        BLANK: "--",
        **{greek: f"$\\{name}$" for greek, name in (("Δ", "Delta"), ("λ", "lambda"), ("η", "eta"))},
    }
)


@dataclass(frozen=True)
class Cell:
    """A row's entry in a column: its text to read, and its values in the CSV."""

    heading: str
    read: str
    data: Mapping[str, str] = field(default_factory=dict)  # by the CSV's headings
    place: int = ROOM


@dataclass(frozen=True)
class Table:
    """Rows of cells; every row has the same columns."""

    name: str  # of its files
    title: str
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()  # a line or two each, below

    def records(self) -> list[dict[str, str]]:
        """Return the values of each row, by the CSV's headings."""
        return [{key: value for cell in row for key, value in cell.data.items()} for row in self.rows]


@dataclass(frozen=True)
class View:
    """A table to read: at most MOST columns, none of them equal in every row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shared: tuple[tuple[str, str], ...]  # heading and text of each column that is equal in every row
    at: tuple[int, ...]  # the columns' numbers


def view(table: Table) -> View:
    """Choose the columns to read.

    One that is equal in every row stands above the table, an empty one nowhere.
    """
    kept, shared = [], []
    for at, cell in enumerate(table.rows[0] if table.rows else ()):
        texts = {row[at].read for row in table.rows}
        if cell.place == ALWAYS:
            kept.append(at)
        elif texts <= {BLANK, ""}:
            continue
        elif len(texts) == 1 and len(table.rows) > 1:
            shared.append((cell.heading, cell.read))
        elif cell.place == ROOM:
            kept.append(at)
    while len(kept) > MOST:
        kept.remove(max(at for at in kept if table.rows[0][at].place != ALWAYS))
    return View(
        tuple(table.rows[0][at].heading for at in kept),
        tuple(tuple(row[at].read for at in kept) for row in table.rows),
        tuple(shared),
        tuple(kept),
    )


def in_every_row(shown: View) -> str:
    """Return the line above a table; empty if no column is equal in every row."""
    return "In every row: " + "; ".join(f"{name} {text}" for name, text in shown.shared) + "." if shown.shared else ""


def save(folder: Path, table: Table) -> None:
    """Write <name>.md, .csv, .tex and .json, with reasons for failures in words."""
    path = folder / table.name
    table = replace(table, rows=tuple(tuple(map(_in_words, row)) for row in table.rows))
    for suffix, writer in ((".md", markdown), (".csv", csv_of), (".tex", tex), (".json", dumps)):
        write(path.with_suffix(suffix), writer(table))


def reason(text: str) -> str:
    """Return a text whose failure, if it is one, has one line and no path.

    For data/predictions/tsn/costs.json it has "tsn's costs.json".
    """
    if not text.removeprefix("base ").startswith(FAILED):
        return text
    return PATH.sub(_file_in_words, text.strip().partition("\n")[0])


def _file_in_words(match: re.Match[str]) -> str:
    path = Path(match[0])
    file = path.is_absolute() or path.parts[0] in ("data", "reports") or path.suffix[1:2].isalpha()
    return f"{path.parent.name}'s {path.name}" if file else match[0]  # 3/8 and clips/s are no files


def _in_words(cell: Cell) -> Cell:
    return replace(cell, read=reason(cell.read), data={key: reason(text) for key, text in cell.data.items()})


def markdown(table: Table, level: int = 1) -> str:
    """Return the title as a heading, the table, its notes and a link to the guide."""
    shown = view(table)
    above = [in_every_row(shown)] if shown.shared else []
    grid = [aligned(shown.headings, shown.rows)] if shown.rows else []
    guide = f"[How to read this table]({GUIDE})"
    return "\n\n".join([f"{'#' * level} {table.title}", *above, *grid, *table.notes, guide]) + "\n"


def aligned(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of these texts, its columns aligned."""
    grid = [[" ".join(text.split()).replace("|", "\\|") for text in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in grid)


def csv_of(table: Table) -> str:
    records = table.records()
    return csv_text(list(records[0]) if records else ["row"], [list(record.values()) for record in records])


def csv_text(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return CSV in which no text is a formula to a spreadsheet."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(plain, headings))
    writer.writerows(map(plain, line) for line in lines)
    return buffer.getvalue()


def plain(text: str) -> str:
    """Return a CSV cell's text, with an apostrophe before a formula."""
    if not str(text).startswith(("=", "+", "-", "@", "\t", "\r")) or NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def tex(table: Table) -> str:
    """Return a tabular for booktabs."""
    shown = view(table)
    above = in_every_row(shown)
    lines = [
        f"% {table.title}",
        *([f"% {above}"] if above else []),
        rf"\begin{{tabular}}{{{'l' * len(shown.headings)}}}",
        r"\toprule",
        rf"{' & '.join(map(escaped, shown.headings))} \\",
        r"\midrule",
        *(rf"{' & '.join(map(escaped, row))} \\" for row in shown.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return the text with TeX's special characters escaped."""
    return text.translate(SPECIAL)


def dumps(table: Table) -> str:
    """Return JSON: each column's heading, place and keys once, then the rows."""
    first = table.rows[0] if table.rows else ()
    columns = [[cell.heading, cell.place, list(cell.data)] for cell in first]
    rows = ",\n".join(
        json.dumps([[cell.read, *cell.data.values()] for cell in row], ensure_ascii=False) for row in table.rows
    )
    about = {"name": table.name, "title": table.title, "notes": table.notes, "columns": columns}
    return json.dumps(about, ensure_ascii=False)[:-1] + f', "rows": [\n{rows}\n]}}\n'


def load(path: Path) -> Table:
    """Read a table from its JSON file.

    Raises:
        UserError: The file is damaged.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            tuple(
                Cell(heading, texts[0], dict(zip(keys, texts[1:], strict=True)), place)
                for (heading, place, keys), texts in zip(raw["columns"], row, strict=True)
            )
            for row in raw["rows"]
        )
        return Table(raw["name"], raw["title"], rows, tuple(raw["notes"]))
    except (ValueError, KeyError, TypeError, IndexError):
        raise UserError(f"{path} is damaged; `actionbench tables` writes it again") from None


def number(value: float, digits: int, sign: str = "") -> str:
    """Return a number with so many decimals; empty if it is NaN."""
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    return "" if math.isnan(value) else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def interval_read(interval: "Estimate | Interval", digits: int = 1, sign: str = "", scale: float = 100) -> str:
    """Return a scaled value with its interval, to read."""
    value, low, high = (number(scale * part, digits, sign) for part in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def interval_data(key: str, interval: "Estimate | Interval | None", scale: float = 100) -> dict[str, str]:
    """Return a scaled value and its bounds for the CSV; empty without an interval."""
    parts = (interval.value, interval.low, interval.high) if interval else (math.nan,) * 3
    names = (key, f"{key}_low", f"{key}_high")
    return {name: number(scale * part, 4) for name, part in zip(names, parts, strict=True)}
