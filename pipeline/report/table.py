"""A table: one value, and its writers for Markdown, CSV, TeX and JSON, from which the page and the terminal show it.

The same table gives the same bytes. Nothing reads Markdown, CSV or TeX back: the JSON file is for machines.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage.atomic import write

BLANK = "–"
MOST = 8  # columns that Markdown, TeX and a terminal have room for
GUIDE = "/docs/statistics.md"  # from the repository's root, as forges resolve it
ALWAYS, ROOM, DATA = 0, 1, 2  # a column's place: in every form; where there is room, the first first; in the CSV alone
NUMBER = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?%?", re.IGNORECASE)
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
    """What a column shows of a row: text to read, and its values in the CSV by their own headings."""

    heading: str
    read: str
    data: Mapping[str, str] = field(default_factory=dict)
    place: int = ROOM


@dataclass(frozen=True)
class Table:
    """Rows of cells; every row has the same columns."""

    name: str  # of its files
    title: str
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()  # a line or two each, below

    def records(self) -> list[dict[str, str]]:
        """The values of each row, by heading, as the CSV has them."""
        return [{key: value for cell in row for key, value in cell.data.items()} for row in self.rows]


@dataclass(frozen=True)
class View:
    """A table as it is read: at most MOST columns, and what is the same in every row said once."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shared: tuple[tuple[str, str], ...]  # heading, what it says in every row
    at: tuple[int, ...]  # the columns' numbers


def view(table: Table) -> View:
    """Choose the columns to read. One that says the same in every row stands above; one that says nothing, nowhere."""
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
    """The line above a table; empty where rows have nothing in common."""
    return "In every row: " + "; ".join(f"{name} {text}" for name, text in shown.shared) + "." if shown.shared else ""


def save(folder: Path, table: Table) -> None:
    """Write <name>.md, .csv, .tex and .json."""
    path = folder / table.name
    write(path.with_suffix(".md"), markdown(table))
    write(path.with_suffix(".csv"), csv_of(table))
    write(path.with_suffix(".tex"), tex(table))
    write(path.with_suffix(".json"), dumps(table))


def markdown(table: Table, level: int = 1) -> str:
    """The title as a heading of this level, the table, its notes and a link to what its columns mean."""
    shown = view(table)
    above = [in_every_row(shown)] if shown.shared else []
    guide = f"[How to read this table]({GUIDE})"
    grid = [aligned(shown.headings, shown.rows)] if shown.rows else []
    parts = [f"{'#' * level} {table.title}", *above, *grid, *table.notes, guide]
    return "\n\n".join(parts) + "\n"


def aligned(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of these texts, its columns aligned."""
    grid = [[" ".join(text.split()).replace("|", "\\|") for text in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in grid)


def csv_of(table: Table) -> str:
    records = table.records()
    return csv_text(list(records[0]) if records else ["row"], [list(record.values()) for record in records])


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


def tex(table: Table) -> str:
    """A tabular for booktabs."""
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
    """The text with TeX's own characters made harmless."""
    return text.translate(SPECIAL)


def dumps(table: Table) -> str:
    """JSON: each column's heading, place and keys once, then the rows."""
    first = table.rows[0] if table.rows else ()
    columns = [[cell.heading, cell.place, list(cell.data)] for cell in first]
    rows = ",\n".join(
        json.dumps([[cell.read, *cell.data.values()] for cell in row], ensure_ascii=False) for row in table.rows
    )
    about = {"name": table.name, "title": table.title, "notes": table.notes, "columns": columns}
    return json.dumps(about, ensure_ascii=False)[:-1] + f', "rows": [\n{rows}\n]}}\n'


def load(path: Path) -> Table:
    """A table from its JSON; UserError where the file is damaged."""
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
    # Adding 0.0 turns the -0.0 that rounding leaves into 0.0.
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"
