"""The page: all tables of suites, with their verdicts; it needs no server."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report import table as writers
from pipeline.report.table import Cell, Table, View
from pipeline.storage.atomic import write

GROUP_OF_COSTS = "The papers' tables"
WORDS = {  # a sign and its verdicts, so that colour alone never distinguishes them
    "▲": ("better", "above", "survives", "larger"),
    "▼": ("worse", "below", "doesn't", "reversed"),
    "=": ("reproduced", "match"),
    "≈": ("can't tell", "these nets differ"),
    "≠": ("protocol differs", "other", "unreachable", "differs"),
    "○": ("not run",),
    "✕": ("failed",),
}
UNQUOTED = " !$()*+,-./:;=?@[]^_`{|}~"  # what neither a URL nor HTML changes; an SVG is shorter so than in base64
LARGEST = 30_000  # bytes of a figure in the page; larger ones, of many rows, are links
KINDS = {"▲": "good", "=": "good", "▼": "bad", "✕": "bad", "≈": "even", "·": "even", "○": "even", "≠": "odd"}


@dataclass(frozen=True)
class Suite:
    """Files of a suite that the page is built from."""

    tables: Path
    figures: Path
    predictions: str  # the folder of its predictions, for the reader; empty if they are not kept
    title: str = ""
    group: str = "Suites"  # the heading above it
    reference: bool = False  # are the results the maintainers'?


@dataclass(frozen=True)
class Bar:
    """An interval as shares of an axis: value, low, high, and a dot for each seed."""

    value: float
    low: float
    high: float
    dots: tuple[float, ...]


@dataclass(frozen=True)
class Field:
    """A row's entry in a column."""

    text: str
    value: str  # as in the CSV, to sort by
    key: str
    mark: str = ""  # of a verdict
    bar: Bar | None = None

    @property
    def kind(self) -> str:
        return KINDS.get(self.mark, "even")


@dataclass(frozen=True)
class Block:
    """One table of the page."""

    id: str
    table: Table
    path: str  # of its CSV, relative to the page
    view: View
    fields: tuple[tuple[Field, ...], ...]
    explained: tuple[str, ...]  # each row's command

    @property
    def shared(self) -> str:
        return writers.in_every_row(self.view)


@dataclass(frozen=True)
class Picture:
    """A figure, as a data URI; of one larger than LARGEST only the path, relative to the page."""

    title: str
    source: str
    path: str


@dataclass(frozen=True)
class Section:
    """A suite on the page."""

    name: str
    title: str
    group: str
    predictions: str
    blocks: tuple[Block, ...]
    pictures: tuple[Picture, ...]


def build(target: Path, suites: Mapping[str, Suite], reports: Path, above: Sequence[Path] = ()) -> Path:
    """Write the page from tables' JSON files and pictures.

    The same files give the same bytes.

    Args:
        target: The page.
        suites: The suites by name, in the page's order.
        reports: The folder of templates/ and of the table of costs, parity.json.
        above: Tables above all suites.

    Raises:
        UserError: A table is damaged.
    """
    environment = Environment(
        loader=FileSystemLoader(reports / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    root = target.parent
    first = tuple(_block(root, "first", path) for path in above if path.is_file())
    sections = [
        Section(
            name,
            files.title or name,
            files.group,
            files.predictions,
            tables,
            tuple(_pictures(root, files.figures, name)),
        )
        for name, files in suites.items()
        if (tables := tuple(_blocks(root, name, files)))
    ]
    if (reports / "parity.json").is_file():
        costs = _block(root, "costs", reports / "parity.json")
        sections.append(Section("costs", "Parameters and FLOPs", GROUP_OF_COSTS, "", (costs,), ()))
    blocks = [*first, *(block for section in sections for block in section.blocks)]
    records = {block.id: block.table.records() for block in blocks}
    every = [record for lines in records.values() for record in lines]
    # The page shows no empty value; "experiment" alone tells by being there.
    shown = {
        name: [{key: text for key, text in record.items() if text or key == "experiment"} for record in lines]
        for name, lines in records.items()
    }
    groups = dict.fromkeys(section.group for section in sections)
    page = environment.get_template("index.html").render(
        above=first,
        groups={group: [section for section in sections if section.group == group] for group in groups},
        verdicts=sorted({record["verdict"] for record in every if record.get("verdict")}),
        datasets=sorted({name for record in every if (name := record.get("data_set", ""))}),
        # Inside <script>, "<" could end it.
        data=json.dumps(shown, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    write(target, page)
    return target


def _blocks(root: Path, suite: str, files: Suite) -> Iterator[Block]:
    """Yield a suite's tables, claims and comparison first; no run repeats speeds."""
    first = ("claims", "comparison")
    for path in sorted(files.tables.glob("*.json"), key=lambda path: (path.stem not in first, _natural(path.stem))):
        if path.stem not in ("speed", "scoreboard"):
            block = _block(root, suite, path, f"--suite {suite}{' --reference' * files.reference}")
            if block.table.rows:
                yield block


def _block(root: Path, suite: str, path: Path, options: str = "") -> Block:
    table = writers.load(path)
    shown = writers.view(table)

    @cache
    def ends(at: int, key: str) -> tuple[float, float]:
        cells = [row[at].data for row in table.rows]
        all_ends = [float(data.get(f"{key}{end}") or 0) for data in cells for end in ("_low", "_high")]
        return min(all_ends), max(all_ends)

    fields = tuple(tuple(_field(row[at], row, partial(ends, at)) for at in shown.at) for row in table.rows)
    place = Path(os.path.relpath(path.with_suffix(".csv"), root)).as_posix()
    explained = tuple(_explained(table.name, record, options) for record in table.records())
    return Block(f"{suite}-{table.name}", table, place, shown, fields, explained)


def _explained(table: str, record: Mapping[str, str], options: str) -> str:
    """Return the command that explains a row; empty if no suite runs it."""
    if not options or not record.get("experiment", record["row"]):
        return ""
    name = record["table"] if "paper" in record else table  # a claim is on a row of its paper's table
    return f"actionbench explain {options} {name} {shlex.quote(record['row'])}"


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a sort key under which T2 is before T10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _field(cell: Cell, row: Sequence[Cell], ends: Callable[[str], tuple[float, float]]) -> Field:
    """Return a cell as the page shows it; `ends` gives the least and the largest end of its column's intervals."""
    key = next(iter(cell.data), "")
    values = dict(cell.data)
    if "status" in values and len(values) > 1:  # it precedes the number
        del values["status"]
        key = next(iter(values))
    value = values.get(key, "")
    if key.endswith("verdict"):
        mark = next((mark for mark, words in WORDS.items() if value.startswith(words)), "·")
        return Field(cell.read, value, key, mark if value and cell.read != writers.BLANK else "")
    if not values.get(f"{key}_low") or not value:
        return Field(cell.read, value, key)
    least, most = ends(key)
    # A share's axis goes from 0 to 100, a difference's to the table's largest on both sides of 0.
    signed = least < 0 or cell.read.startswith(("+", "-"))
    span = (max(-least, most) if signed else 100) or 1
    scale = lambda text: round((float(text) + span * signed) / (span * (1 + signed)), 4)  # noqa: E731
    seeds = [text for each in row for name, text in each.data.items() if name.startswith("seed_") and text]
    dots = () if signed or key == "wap" else tuple(map(scale, seeds))
    middle, low, high = (scale(values[name]) for name in (key, f"{key}_low", f"{key}_high"))
    return Field(cell.read, value, key, "", Bar(middle, low, high, dots))


def _pictures(root: Path, folder: Path, suite: str) -> Iterator[Picture]:
    for path in sorted(folder.glob("*.svg")):
        if not path.stem.startswith("confusion"):  # one for each row would fill the page
            text, place = path.read_text(encoding="utf-8"), Path(os.path.relpath(path, root)).as_posix()
            source = f"data:image/svg+xml,{quote(' '.join(text.splitlines()), safe=UNQUOTED)}"
            yield Picture(f"{suite}: {path.stem.replace('-', ' ')}", "" if len(text) > LARGEST else source, place)
