"""The numbers that a paper prints, as reports/papers/<paper>.yaml has them, and which row of ours each of them means.

Parameters and FLOPs are not there but in parity.yaml: a column of measure "cost" says which of its figures stand in it.
"""

from collections.abc import Iterator
from dataclasses import field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from pipeline.errors import UserError, alternatives
from pipeline.papers.printed_costs import STRICT, parsed

PAPERS = ("maagn", "istpa", "eam", "action_net", "st_manet")


@dataclass(frozen=True, config=STRICT)
class Views:
    """A paper's test protocol; None where it is not stated, and ours may be anything."""

    words: str
    clips: int | None = None
    crops: str | None = None
    sampling: str | None = None
    stride: int | None = None
    size: int | None = None
    average: str | None = None


@dataclass(frozen=True, config=STRICT)
class Conditions:
    """What a number was measured on; None as in Views. Of table, column and row, the last that says something holds."""

    dataset: str | None = None  # pipeline/datasets/<dataset>.py
    splits: tuple[int, ...] | None = None
    frames: int | None = None  # of a clip, at test
    pretrained: str | None = None  # on what, or "none"
    protocol: str | None = None  # a name in `protocols`


@dataclass(frozen=True, config=STRICT)
class Column:
    """A column of a printed table, and what of ours stands beside it."""

    heading: str
    unit: Literal["%", "fraction", "ratio", "M", "G", "task/s", "count"]
    # gain: of the measure `of`, over the base's. cost: a figure of parity.yaml, `of` its quantity. more: the same over
    # another's. efficiency: more FLOPs in % a point of top-1 (ACTION-Net, equation 10). class_gain, class_loss: in the
    # accuracy of the class that is the row's label. other: nothing of ours can stand there
    measure: Literal[
        "top1", "top5", "map", "wap", "gain", "cost", "more", "efficiency", "class_gain", "class_loss", "other"
    ]
    of: str | None = None
    row: str = "{label}"  # the figure's row in parity.yaml, with a row's label and settings; "T5/..." in another table
    over: str = ""  # the other's
    system: str = ""  # the name that a row's `ours`, `against` and `without` have for it; "" is the column's own
    under: Conditions = Conditions()


@dataclass(frozen=True, config=STRICT)
class Row:
    """A printed row. `ours`, `against` and `without`: one for all columns, or by the columns' systems."""

    label: str
    run: Literal["authors", "quoted"]
    printed: dict[str, str] = field(default_factory=dict)  # column -> as printed, to the last zero
    settings: dict[str, str] = field(default_factory=dict)  # what else the row says
    ours: str | dict[str, str] = field(default_factory=dict)  # an experiment or fusion of the paper's suite
    against: str | dict[str, str] = field(default_factory=dict)  # the same of what it gains on, where that is no row
    without: str | dict[str, str] = field(default_factory=dict)  # why there is none of ours, a name in `reasons`
    timed: str | None = None  # an experiment whose measured speed stands beside the printed one, in speed.md
    base: str | None = None  # the label of the row that this one changes
    notes: dict[str, str] = field(default_factory=dict)  # column, or "row" -> a footnote: corrections above all
    under: Conditions = Conditions()


@dataclass(frozen=True, config=STRICT)
class Classes:
    """A figure, without printed numbers, of the classes that a row gains most on, over its base."""

    figure: str
    caption: str
    row: str
    column: str
    most: int


@dataclass(frozen=True, config=STRICT)
class PaperTable:
    """A table, figure or place in the text; one whose numbers can only be seen, not read, has no printed value."""

    caption: str
    split: str  # in the paper's words
    columns: dict[str, Column]
    rows: tuple[Row, ...]
    under: Conditions = Conditions()
    notes: tuple[str, ...] = ()
    classes: Classes | None = None  # a figure that the table's rows are drawn in too


@dataclass(frozen=True, config=STRICT)
class Unstated:
    """What a paper leaves open, and the reading taken."""

    what: str
    reading: str


@dataclass(frozen=True, config=STRICT)
class Paper:
    """All that one paper prints."""

    title: str
    short: str  # the system's name
    headline: tuple[tuple[str, str, str], ...]  # (table, row, column) of the gains that the paper is about
    protocols: dict[str, Views]
    reasons: dict[str, str]
    unstated: tuple[Unstated, ...]
    tables: dict[str, PaperTable]


def load(paper: str, folder: Path = Path("reports/papers")) -> Paper:
    """A paper's registry; UserError for a paper that is not there, and for a table that contradicts itself."""
    if paper not in PAPERS:
        raise UserError(f"no paper {paper!r}; {alternatives(paper, PAPERS)}")
    path = folder / f"{paper}.yaml"
    found = parsed(path, Paper)
    for name, table in found.tables.items():
        for problem in _problems(found, table):
            raise UserError(f"{path}: tables.{name}: {problem}")
    for name, label, column in found.headline:
        rows = {row.label: row for row in found.tables[name].rows} if name in found.tables else {}
        if label not in rows or column not in rows[label].printed:
            raise UserError(f"{path}: headline: table {name} prints no {column} of row {label!r}")
    return found


def meant(given: str | dict[str, str], table: PaperTable, column: str) -> str | None:
    """A row's `ours`, `against` or `without` for a column."""
    return given if isinstance(given, str) else given.get(table.columns[column].system or column)


def speeds(paper: str, folder: Path) -> dict[str, str]:
    """What the paper prints of an experiment's speed; empty for a suite that is no paper's."""
    found = {}
    for name in PAPERS if paper == "all" else [paper] if paper in PAPERS else []:
        for title, table in load(name, folder).tables.items():
            for row in (row for row in table.rows if row.timed):
                columns = ((table.columns[at], text) for at, text in row.printed.items())
                said = ", ".join(f"{of.heading} {text} {of.unit}" for of, text in columns)
                found[row.timed or ""] = f"{name} {title}: {said} ({row.settings['hardware']})"
    return found


def conditions(table: PaperTable, row: Row, column: str) -> Conditions:
    """What holds for a cell."""
    said = {
        key: value
        for under in (table.under, table.columns[column].under, row.under)
        for key in Conditions.__dataclass_fields__
        if (value := getattr(under, key)) is not None
    }
    return Conditions(**said)


def _problems(paper: Paper, table: PaperTable) -> Iterator[str]:
    labels = [row.label for row in table.rows]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"two rows are called {label!r}"
    unders = [table.under, *(column.under for column in table.columns.values()), *(row.under for row in table.rows)]
    for name in (under.protocol for under in unders):
        if name and name not in paper.protocols:
            yield f"no protocol {name!r}; {alternatives(name, paper.protocols)}"
    if (drawn := table.classes) and not any(row.label == drawn.row and row.base for row in table.rows):
        yield f"classes: no row {drawn.row!r} that has a base"
    if drawn and drawn.column not in table.columns:
        yield f"classes: no column {drawn.column!r}; {alternatives(drawn.column, table.columns)}"
    for row in table.rows:
        if row.base and row.base not in labels:
            yield f"{row.label}: base: no row {row.base!r}; {alternatives(row.base, labels)}"
        for column in (*row.printed, *(set(row.notes) - {"row"})):
            if column not in table.columns:
                yield f"{row.label}: no column {column!r}; {alternatives(column, table.columns)}"
        for column in set(row.printed) & set(table.columns):
            yield from (f"{row.label}: {column}: {problem}" for problem in _wrong(paper, table, row, column))


def _wrong(paper: Paper, table: PaperTable, row: Row, column: str) -> Iterator[str]:
    measure = table.columns[column].measure
    ours, reason = meant(row.ours, table, column), meant(row.without, table, column)
    if not _number(row.printed[column]):
        yield f"{row.printed[column]!r} is no number"
    if measure == "cost":
        yield "parameters and FLOPs stand in parity.yaml"
    if reason and reason not in paper.reasons:
        yield f"no reason {reason!r}; {alternatives(reason, paper.reasons)}"
    if measure != "more" and bool(ours) == bool(reason):
        yield "either `ours` or `without`, and not both"


def _number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
