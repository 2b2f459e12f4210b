"""A suite's tables on the terminal, and the paths of its results."""

from pathlib import Path
from typing import Any

from pipeline.errors import UserError, alternatives
from stages.terminal import screen, show_view, typed

REPORTS = Path("reports")


def tables(suite: str) -> list[Path]:
    """Return the suite's tables as JSON files, comparisons first and speed last.

    Raises:
        UserError: The suite has no tables; the error names suites that have.
    """
    files = sorted((REPORTS / "tables" / suite).glob("*.json"), key=lambda path: (_rank(path.stem), path.stem))
    if not files:
        known = [folder.name for folder in (REPORTS / "tables").glob("*") if any(folder.glob("*.json"))]
        raise UserError(f"no tables of suite {suite!r} yet, run `actionbench repro`; {alternatives(suite, known)}")
    return files


def rows(suite: str) -> dict[str, list[dict[str, Any]]]:
    """Return table -> rows, as in the CSV, with numbers as numbers."""
    from pipeline.report.table import load

    return {path.stem: typed(load(path).records()) for path in tables(suite)}


def paths(suite: str) -> dict[str, Any]:
    """Return the paths of a suite's tables and figures, and the command for its runs."""
    return {
        "tables": [str(path.with_suffix(".md")) for path in tables(suite)],
        "figures": [str(path) for path in sorted((REPORTS / "figures" / suite).glob("*.svg"))],
        "runs": "actionbench mlflow",
    }


def show(suite: str) -> None:
    """Print every table, their notes once each, and the paths."""
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
    console.print(f"figures   {REPORTS / 'figures' / suite}/  ({len(where['figures'])})")
    console.print(f"runs      {where['runs']}")
    console.print("columns   docs/statistics.md")


def _rank(name: str) -> int:
    return {"speed": 3, "comparison": 0}.get(name, 1)
