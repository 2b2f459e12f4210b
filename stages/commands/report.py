"""The tables of a suite on the terminal, and where they lie."""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, alternatives, reading
from stages.terminal import screen

if TYPE_CHECKING:
    from rich.table import Table

REPORTS = Path("reports")
REMEDY = "`actionbench tables` makes it again"


def tables(suite: str) -> list[Path]:
    """The suite's tables in Markdown, comparisons first and speed last; UserError names the suites that have tables."""
    found = sorted((REPORTS / "tables" / suite).glob("*.md"), key=lambda path: (_rank(path.stem), path.stem))
    if not found:
        known = [folder.name for folder in (REPORTS / "tables").glob("*") if any(folder.glob("*.md"))]
        raise UserError(
            f"no tables of suite {suite!r} yet, `actionbench repro` makes them; {alternatives(suite, known)}"
        )
    return found


def rows(suite: str) -> dict[str, list[dict[str, str]]]:
    """Table -> its rows, as the CSV has them."""
    found = {}
    for path in tables(suite):
        data = path.with_suffix(".csv")
        if data.is_file():
            with data.open(encoding="utf-8", newline="") as lines, reading(data, REMEDY):
                found[path.stem] = list(csv.DictReader(lines))
    return found


def paths(suite: str) -> dict[str, Any]:
    """Where the suite's tables and pictures are, and how its runs are seen."""
    return {
        "tables": [str(path) for path in tables(suite)],
        "figures": [str(path) for path in sorted((REPORTS / "figures" / suite).glob("*.svg"))],
        "runs": "actionbench mlflow",
    }


def show(suite: str) -> None:
    """Prints every table and, once each, the notes below them; then where all that lies."""
    console = screen()
    notes: dict[str, None] = {}
    for path in tables(suite):
        with reading(path, REMEDY):
            text = path.read_text(encoding="utf-8").strip()
        for block in re.split(r"\n\s*\n", text):
            if block.startswith("#"):
                console.print(block.lstrip("# "), style="bold", markup=False)
            elif block.startswith("|"):
                with reading(path, REMEDY):
                    shown = table(block)
                console.print(*shown, "", sep="\n")
            else:
                notes[block] = None
    for note in notes:
        console.print(note, "", sep="\n", markup=False)
    where = paths(suite)
    console.print(f"tables    {REPORTS / 'tables' / suite}/  ({len(where['tables'])}, as .md and .csv)")
    console.print(f"pictures  {REPORTS / 'figures' / suite}/  ({len(where['figures'])})")
    console.print(f"runs      {where['runs']}")


def table(markdown: str) -> "list[Table | str]":
    """A Markdown table for the terminal; columns that say the same in every row become one line below it."""
    from rich.markup import escape
    from rich.table import Table

    heads, _, *body = ([escape(cell) for cell in _cells(line)] for line in markdown.splitlines())
    found = Table(box=None, pad_edge=False, header_style="bold", show_header=len(body) > 1)
    if len(body) == 1:  # stands upright, as it has no other rows to be compared with
        for pair in zip(heads, body[0], strict=True):
            found.add_row(*pair)
        return [found]
    columns = dict(zip(heads, zip(*body, strict=True), strict=True))
    same = {head: column[0] for head, column in list(columns.items())[1:] if len(set(column)) == 1}
    varying = {head: column for head, column in columns.items() if head not in same}
    for head, column in varying.items():
        found.add_column(head, overflow="fold", no_wrap=any("[" in cell for cell in column))  # an interval
    for line in zip(*varying.values(), strict=True):
        found.add_row(*line)
    return (
        [found, "In every row: " + "; ".join(f"{head}: {value}" for head, value in same.items())] if same else [found]
    )


def _rank(name: str) -> int:
    return 2 if name == "speed" else "ablation" in name


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
