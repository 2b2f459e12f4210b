"""The tables of a suite on the terminal, and where they lie."""

from pathlib import Path
from typing import Any

from pipeline.errors import UserError, alternatives
from stages.terminal import screen, show_view, typed

REPORTS = Path("reports")


def tables(suite: str) -> list[Path]:
    """The suite's tables, as JSON, comparisons first and speed last; UserError names the suites that have tables."""
    found = sorted((REPORTS / "tables" / suite).glob("*.json"), key=lambda path: (_rank(path.stem), path.stem))
    if not found:
        known = [folder.name for folder in (REPORTS / "tables").glob("*") if any(folder.glob("*.json"))]
        raise UserError(
            f"no tables of suite {suite!r} yet, `actionbench repro` makes them; {alternatives(suite, known)}"
        )
    return found


def rows(suite: str) -> dict[str, list[dict[str, Any]]]:
    """Return table -> its rows, as the CSV has them, with numbers as numbers."""
    from pipeline.report.table import load

    return {path.stem: typed(load(path).records()) for path in tables(suite)}


def paths(suite: str) -> dict[str, Any]:
    """Where the suite's tables and pictures are, and how its runs are seen."""
    return {
        "tables": [str(path.with_suffix(".md")) for path in tables(suite)],
        "figures": [str(path) for path in sorted((REPORTS / "figures" / suite).glob("*.svg"))],
        "runs": "actionbench mlflow",
    }


def show(suite: str) -> None:
    """Print every table and, once each, the notes below them; then where all that lies."""
    from pipeline.report.table import load

    console = screen()
    notes: dict[str, None] = {}
    for path in tables(suite):
        table = load(path)
        show_view(table)
        notes |= dict.fromkeys(table.notes if table.rows else ())
    for note in notes:
        console.print(note, "", sep="\n", markup=False)
    where = paths(suite)
    console.print(f"tables    {REPORTS / 'tables' / suite}/  ({len(where['tables'])}, as .md, .csv, .tex and .json)")
    console.print(f"pictures  {REPORTS / 'figures' / suite}/  ({len(where['figures'])})")
    console.print(f"runs      {where['runs']}")
    console.print("what the columns mean: docs/statistics.md")


def _rank(name: str) -> int:
    return {"speed": 3, "comparison": 0}.get(name, 1)
