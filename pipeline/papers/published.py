"""Printed numbers (reports/papers/<paper>.yaml), and our row for each.

Parameters and FLOPs are in parity.yaml instead: a column of measure "cost" names its figures there.
"""

from collections.abc import Iterator
from dataclasses import field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from pipeline.errors import UserError, unknown
from pipeline.papers.printed_costs import STRICT, parsed

PAPERS = ("maagn", "istpa", "eam", "action_net", "st_manet")


@dataclass(frozen=True, config=STRICT)
class Views:
    """A paper's test protocol; None is not stated, so any value of ours fits."""

    words: str
    clips: int | None = None
    crops: str | None = None
    sampling: str | None = None
    stride: int | None = None
    size: int | None = None
    average: str | None = None


@dataclass(frozen=True, config=STRICT)
class Conditions:
    """Conditions of a measurement; None as in Views.

    A row's override a column's, which override a table's.
    """

    dataset: str | None = None  # pipeline/datasets/<dataset>.py
    splits: tuple[int, ...] | None = None
    frames: int | None = None  # of a clip, at test
    pretrained: str | None = None  # the data set, or "none"
    protocol: str | None = None  # a name in `protocols`


@dataclass(frozen=True, config=STRICT)
class Column:
    """A column of a printed table, and our measure for it."""

    heading: str
    unit: Literal["%", "fraction", "ratio", "M", "G", "task/s", "count"]
    # gain: of the measure `of`, over the base's. cost: a figure of parity.yaml, `of` its quantity. more: the increase
    # of such a figure over another. efficiency: more FLOPs in % a point of top-1 (ACTION-Net, equation 10). class_gain,
    # class_loss: in the accuracy of the class that is the row's label. other: nothing that we measure
    measure: Literal[
        "top1", "top5", "map", "wap", "gain", "cost", "more", "efficiency", "class_gain", "class_loss", "other"
    ]
    of: str | None = None
    row: str = "{label}"  # its figure's row in parity.yaml, with label and settings; "T5/..." in another table
    over: str = ""  # the row of the figure that it is compared with
    system: str = ""  # its key in a row's `ours`, `against` and `without`; "" for the column's name
    under: Conditions = Conditions()


@dataclass(frozen=True, config=STRICT)
class Row:
    """A printed row.

    `ours`, `against` and `without` are a value for all columns, or by the columns' systems.
    """

    label: str
    run: Literal["authors", "quoted"]
    printed: dict[str, str] = field(default_factory=dict)  # column -> as printed, to the last zero
    settings: dict[str, str] = field(default_factory=dict)  # the row's other entries
    ours: str | dict[str, str] = field(default_factory=dict)  # an experiment or fusion of the paper's suite
    against: str | dict[str, str] = field(default_factory=dict)  # the same for its base, if that is no row
    without: str | dict[str, str] = field(default_factory=dict)  # the reason for none of ours, a name in `reasons`
    timed: str | None = None  # the experiment whose measured speed is compared with the printed one
    base: str | None = None  # the label of the row that this one changes
    notes: dict[str, str] = field(default_factory=dict)  # column, or "row" -> a footnote: corrections above all
    under: Conditions = Conditions()


@dataclass(frozen=True, config=STRICT)
class Classes:
    """A figure, without printed numbers, of the classes that a row gains most on."""

    figure: str
    caption: str
    row: str
    column: str
    most: int


@dataclass(frozen=True, config=STRICT)
class PaperTable:
    """A table, figure or place in the text; figures without numbers print none."""

    caption: str
    split: str  # in the paper's words
    columns: dict[str, Column]
    rows: tuple[Row, ...]
    under: Conditions = Conditions()
    notes: tuple[str, ...] = ()
    classes: Classes | None = None  # a figure of the table's rows


@dataclass(frozen=True, config=STRICT)
class Unstated:
    """A detail that a paper leaves open, and the reading taken."""

    what: str
    reading: str


@dataclass(frozen=True, config=STRICT)
class Paper:
    """All tables of a paper."""

    title: str
    short: str  # the system's name
    headline: tuple[tuple[str, str, str], ...]  # (table, row, column) of the paper's main gains
    protocols: dict[str, Views]
    reasons: dict[str, str]
    unstated: tuple[Unstated, ...]
    tables: dict[str, PaperTable]


def load(name: str, folder: Path = Path("reports/papers")) -> Paper:
    """Read and check a paper's registry.

    Raises:
        UserError: The paper is unknown, or a table contradicts itself.
    """
    if name not in PAPERS:
        raise unknown("paper", name, PAPERS)
    path = folder / f"{name}.yaml"
    paper = parsed(path, Paper)
    for title, table in paper.tables.items():
        for problem in _problems(paper, table):
            raise UserError(f"{path}: tables.{title}: {problem}")
    for title, label, column in paper.headline:
        rows = {row.label: row for row in paper.tables[title].rows} if title in paper.tables else {}
        if label not in rows or column not in rows[label].printed:
            raise UserError(f"{path}: headline: table {title} prints no {column} of row {label!r}")
    return paper


def of_suite(suite: str) -> dict[str, str]:
    """Return the papers whose tables a suite writes, with prefixes of their names.

    A suite has the paper of its name; suite "all" has all papers, with prefixes.
    """
    return {name: f"{name}-" for name in PAPERS} if suite == "all" else {suite: ""} if suite in PAPERS else {}


def meant(value: str | dict[str, str], table: PaperTable, column: str) -> str | None:
    """Return a row's `ours`, `against` or `without` for a column."""
    return value if isinstance(value, str) else value.get(table.columns[column].system or column)


def speeds(suite: str, folder: Path) -> dict[str, str]:
    """Return the printed speeds of a suite's experiments; empty without a paper."""
    printed = {}
    for name in of_suite(suite):
        for title, table in load(name, folder).tables.items():
            for row in (row for row in table.rows if row.timed):
                columns = ((table.columns[at], text) for at, text in row.printed.items())
                words = ", ".join(f"{of.heading} {text} {of.unit}" for of, text in columns)
                printed[row.timed or ""] = f"{name} {title}: {words} ({row.settings['hardware']})"
    return printed


def conditions(table: PaperTable, row: Row, column: str) -> Conditions:
    """Return the conditions of a cell."""
    stated = {
        key: value
        for under in (table.under, table.columns[column].under, row.under)
        for key, value in vars(under).items()
        if value is not None
    }
    return Conditions(**stated)


def _problems(paper: Paper, table: PaperTable) -> Iterator[str]:
    labels = [row.label for row in table.rows]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        yield f"two rows are called {label!r}"
    unders = [table.under, *(column.under for column in table.columns.values()), *(row.under for row in table.rows)]
    for name in (under.protocol for under in unders):
        if name and name not in paper.protocols:
            yield str(unknown("protocol", name, paper.protocols))
    if drawn := table.classes:
        if not any(row.label == drawn.row and row.base for row in table.rows):
            yield f"classes: no row {drawn.row!r} that has a base"
        if drawn.column not in table.columns:
            yield f"classes: {unknown('column', drawn.column, table.columns)}"
    for row in table.rows:
        if row.base and row.base not in labels:
            yield f"{row.label}: base: {unknown('row', row.base, labels)}"
        for column in (*row.printed, *(set(row.notes) - {"row"})):
            if column not in table.columns:
                yield f"{row.label}: {unknown('column', column, table.columns)}"
        for column in set(row.printed) & set(table.columns):
            yield from (f"{row.label}: {column}: {problem}" for problem in _wrong(paper, table, row, column))


def _wrong(paper: Paper, table: PaperTable, row: Row, column: str) -> Iterator[str]:
    measure = table.columns[column].measure
    ours, reason = meant(row.ours, table, column), meant(row.without, table, column)
    if not _number(row.printed[column]):
        yield f"{row.printed[column]!r} is no number"
    if measure == "cost":
        yield "parameters and FLOPs belong in parity.yaml"
    if reason and reason not in paper.reasons:
        yield str(unknown("reason", reason, paper.reasons))
    if measure != "more" and bool(ours) == bool(reason):
        yield "either `ours` or `without`, and not both"


def _number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
