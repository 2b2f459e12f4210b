"""Output of commands: tables, JSON, times and sizes."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.report.table import Table as Written


NARROW = 24  # characters of a column that is not wrapped
NOTHING = {"", "–"}  # cells that hold no number
NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")


def screen() -> "Console":
    """Return standard output; 100 columns wide if it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


def show_table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    screen().print(table)


def show_view(table: "Written") -> None:
    """Print a table of results: its title, cells equal in all rows, then the others.

    A single row is printed as a column.
    """
    from rich.markup import escape
    from rich.table import Table

    from pipeline.report.table import in_every_row, view

    console, shown = screen(), view(table)
    console.print(table.title, style="bold", markup=False)
    if not shown.rows:
        console.print(*table.notes, "", sep="\n", markup=False)
        return
    if shown.shared:
        console.print(in_every_row(shown), markup=False)
    grid = Table(box=None, pad_edge=False, header_style="bold", show_header=len(shown.rows) > 1)
    if len(shown.rows) == 1:
        for pair in zip(shown.headings, shown.rows[0], strict=True):
            grid.add_row(*map(escape, pair))
    else:
        columns = list(zip(shown.headings, *shown.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        words = [max(len(word) for text in column for word in [*text.split(), ""]) for column in columns]
        least = sum(width if width <= NARROW else word for width, word in zip(widths, words, strict=True))
        fits = least + 2 * len(columns) <= console.width  # else every column but the first wraps, so that none is cut
        for at, (head, width) in enumerate(zip(shown.headings, widths, strict=True)):
            grid.add_column(escape(head), overflow="fold", no_wrap=width <= NARROW and (fits or at == 0))
        for row in shown.rows:
            grid.add_row(*map(escape, row))
    console.print(grid, "", sep="\n")


def show_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def typed(records: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return a table's records for JSON: columns of numbers as numbers, null for what they leave out."""
    columns = {key: {record[key] for record in records} - NOTHING for record in records[:1] for key in record}
    numeric = {key for key, texts in columns.items() if key != "row" and texts and all(map(NUMBER.fullmatch, texts))}

    def value(key: str, text: str) -> Any:
        if key not in numeric:
            return text
        return None if text in NOTHING else json.loads(text.removeprefix("+"))

    return [{key: value(key, text) for key, text in record.items()} for record in records]


def duration(seconds: float) -> str:
    """Format seconds, e.g. "48 s", "12 min", "5.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def amount(count: float) -> str:
    """Format bytes, e.g. "12.3 MB"."""
    from rich.filesize import decimal

    return decimal(int(count))


def brief(reasons: tuple[str, ...]) -> str:
    """Return the first reason of each kind, and the number of others of that kind."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(" ".join(reason.split()[:2]), []).append(reason)
    return "; ".join(same[0] + (f" and {len(same) - 1} more" if len(same) > 1 else "") for same in kinds.values())


def clips(splits: dict[int, dict[str, int]]) -> str:
    """Format the clips of each split's parts, e.g. "660 + 268; 658 + 270"."""
    return "; ".join(
        " + ".join(str(parts[part]) for part in ("train", "val", "test") if part in parts) for parts in splits.values()
    )
