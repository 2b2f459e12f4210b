"""All tables of one suite or of several, with their verdicts, on one page that needs no server."""

import base64
import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.errors import UserError
from pipeline.storage.atomic import write

HIDDEN = {"status", "pairs", "p", "reason"}  # of a row's details alone: the column beside each says it in short
SHARED = {"data_set", "backbone", "frames", "chance", "above_chance", "seeds", "splits", "protocol"}  # said once
MARKS = {  # a sign for each verdict, so that none is told by its colour alone
    "better": "▲",
    "above": "▲",
    "survives": "▲",
    "worse": "▼",
    "below": "▼",
    "doesn't": "▼",
    "reproduced": "=",
    "match": "=",
    "within noise": "≈",
    "can't tell": "≈",
    "protocol differs": "≠",
    "unreachable": "≠",
    "not run": "○",
    "failed": "✕",
    "base": "·",
}


@dataclass(frozen=True)
class Suite:
    """Files of a suite that the page is built from."""

    tables: Path
    figures: Path
    predictions: str  # the folder that a reader looks for predictions in; empty where they are not kept


@dataclass(frozen=True)
class Cell:
    """What a column shows of a row."""

    text: str
    value: str  # as in the CSV, to sort by
    mark: str | None = None  # of a verdict
    bar: tuple[float, float, float] | None = None  # value, low, high as shares of the axis


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    id: str
    suite: str
    title: str
    path: str  # of its CSV, relative to the page
    keys: tuple[str, ...]  # the columns that show
    shared: tuple[tuple[str, str], ...]  # columns that are the same in all rows, and what they say
    cells: tuple[tuple[Cell, ...], ...]
    rows: tuple[Mapping[str, str], ...]  # the CSV whole, for a row's details
    notes: tuple[str, ...]  # paragraphs below it


@dataclass(frozen=True)
class Picture:
    """A figure, as a data URI."""

    title: str
    source: str


def build(target: Path, suites: Mapping[str, Suite], reports: Path) -> Path:
    """Writes the page `target` from the suites' CSVs, Markdown and pictures; the same files, the same bytes.

    `reports` holds templates/ and the table of costs, parity.csv. Raises UserError for a table whose lines lack
    columns.
    """
    environment = Environment(
        loader=FileSystemLoader(reports / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    tables = [table for suite, files in suites.items() for table in _tables(target.parent, suite, files.tables)]
    tables += _table(target.parent, "parity", reports / "parity.csv")
    verdicts = sorted({row["verdict"] for table in tables for row in table.rows if row.get("verdict")})
    sets = sorted({name for table in tables for row in table.rows if (name := dataset(row))})
    data = json.dumps({table.id: table.rows for table in tables}, ensure_ascii=False)
    page = environment.get_template("index.html").render(
        suites={suite: [table for table in tables if table.suite == suite] for suite in _suites(tables)},
        pictures={suite: list(_pictures(files.figures, suite)) for suite, files in suites.items()} | {"parity": []},
        predictions={suite: files.predictions for suite, files in suites.items()},
        verdicts=verdicts,
        datasets=sets,
        dataset=dataset,
        # Inside of <script>, "<" could end it.
        data=data.replace("<", "\\u003c"),
    )
    write(target, page)
    return target


def dataset(row: Mapping[str, str]) -> str:
    """The data set that a row is on, where its table says so."""
    return row.get("data_set") or row.get("dataset") or ""


def _suites(tables: Sequence[Table]) -> list[str]:
    return list(dict.fromkeys(table.suite for table in tables))


def _tables(root: Path, suite: str, folder: Path) -> Iterator[Table]:
    """A suite's tables but that of speeds, whose numbers no other run repeats."""
    for path in sorted(folder.glob("*.csv")):
        if path.stem != "speed":
            yield from _table(root, suite, path)


def _table(root: Path, suite: str, path: Path) -> Iterator[Table]:
    """The table of a CSV, if it has rows and a Markdown file, which holds title and notes; `root` is the page's."""
    markdown = path.with_suffix(".md")
    if not (path.is_file() and markdown.is_file()):
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = tuple(csv.DictReader(file))
    if not rows:
        return
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path} is damaged: a line has fewer or more fields than the first; aggregate again")
    title, notes = _words(markdown.read_text(encoding="utf-8"))
    shown = [key for key in rows[0] if _shows(key, rows)]
    same = [key for key in shown if key in SHARED and len(rows) > 1 and len({row[key] for row in rows}) == 1]
    keys = tuple(key for key in shown if key not in same)
    shared = tuple((key, _number(rows[0][key])) for key in same)
    cells = tuple(tuple(_cell(key, row, rows) for key in keys) for row in rows)
    place = Path(os.path.relpath(path, root)).as_posix()
    yield Table(f"{suite}-{path.stem}", suite, title, place, keys, shared, cells, rows, notes)


def _shows(key: str, rows: Sequence[Mapping[str, str]]) -> bool:
    bound = key.endswith(("_low", "_high")) and key.rpartition("_")[0] in rows[0]
    return not bound and key not in HIDDEN and any(row[key] for row in rows)


def _cell(key: str, row: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> Cell:
    value = row[key]
    if key.endswith("verdict"):
        mark = next((MARKS[word] for word in MARKS if value.startswith(word)), "·")
        return Cell(value, value, mark if value else None)
    if not value:
        # Where a number is missing, the status says why.
        why = row.get("status", "ok") if f"{key}_low" in row else "ok"
        return Cell("–" if why == "ok" else why, "")
    if key in ("p", "p_holm"):
        return Cell("< 0.001" if float(value) < 0.001 else f"{float(value):.3f}", value)
    if not row.get(f"{key}_low"):
        return Cell(_number(value), value)
    number, low, high = (float(row[name]) for name in (key, f"{key}_low", f"{key}_high"))
    signed = any(float(other[f"{key}_low"] or 0) < 0 for other in rows)
    # A share stands on an axis from 0 to 100, a difference on one as wide as the table's largest, 0 in the middle.
    span = max(abs(float(other[f"{key}{end}"] or 0)) for other in rows for end in ("_low", "_high")) if signed else 100
    begin, width = (-span, 2 * span) if signed else (0, span)
    sign = "+" if signed else ""
    text = f"{number:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
    return Cell(text, value, bar=tuple(round((at - begin) / (width or 1), 4) for at in (number, low, high)))  # type: ignore[arg-type]


def _number(value: str) -> str:
    """A number to read: thousands apart, and of the four decimals that shares have one; other text as it is."""
    if value.isdecimal():
        return f"{int(value):,}"
    return f"{float(value):.1f}" if re.fullmatch(r"-?\d+\.\d{4}", value) else value


def _words(markdown: str) -> tuple[str, tuple[str, ...]]:
    """The title and the paragraphs of a table's Markdown file."""
    blocks = [block.strip() for block in markdown.split("\n\n") if block.strip()]
    title = next((block.lstrip("# ") for block in blocks if block.startswith("#")), "")
    return title, tuple(block for block in blocks if not block.startswith(("#", "|")))


def _pictures(folder: Path, suite: str) -> Iterator[Picture]:
    for path in sorted(folder.glob("*.svg")):
        if not path.stem.startswith("confusion"):  # one a row: they would fill the page
            source = base64.b64encode(path.read_bytes()).decode()
            yield Picture(f"{suite}: {path.stem.replace('-', ' ')}", f"data:image/svg+xml;base64,{source}")
