"""Reports of benchmarks: a Markdown table to read, and every measurement as CSV."""

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pipeline.storage import atomic

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]
Record = TypeVar("Record")


def save(name: str, title: str, text: str, head: Sequence[str], lines: Iterable[Sequence[Any]], rows: list[Row]) -> str:
    """Write results/<name>.md and results/<name>.csv; print and return the Markdown.

    Args:
        name: The bench, perhaps with a suffix behind a dash.
        title: The page's heading.
        text: The machine and what was measured.
        head: The table's headings.
        lines: The table's lines.
        rows: Every measurement. Missing columns stay empty; numbers get six digits.
    """
    table = [f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *lines)]
    method = f"How: the docstring of `bench/{name.partition('-')[0]}.py`; all turns: `{name}.csv`."
    report = "\n".join([f"# {title}", "", f"{text} {method}".lstrip(" "), "", *table, ""])
    atomic.write(RESULTS / f"{name}.md", report)
    cells = io.StringIO()
    writer = csv.DictWriter(cells, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    atomic.write(RESULTS / f"{name}.csv", cells.getvalue())
    print(report)
    return report


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def records(name: str, kind: type[Record]) -> list[Record]:
    """Return an earlier report's measurements as dataclasses; none without a report."""
    path, types = RESULTS / f"{name}.csv", {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    rows = read(path) if path.exists() else []
    return [kind(**{key: as_type(row[key]) for key, as_type in types.items()}) for row in rows]  # type: ignore[operator]


def select(rows: Iterable[Row], /, **cells: Any) -> list[Row]:
    """Return the rows with these cells."""
    return [row for row in rows if all(row.get(key) == value for key, value in cells.items())]


def column(rows: Iterable[Row], key: str, /, **cells: Any) -> list[Any]:
    """Return one column of the rows with these cells."""
    return [row[key] for row in select(rows, **cells)]


def median(rows: Iterable[Row], key: str, form: str = ".2f", /, **cells: Any) -> str:
    """Format the median of a column of the rows with these cells."""
    return f"{statistics.median(column(rows, key, **cells)):{form}}"


def spread(values: Sequence[float], form: str = ".2f", unit: str = "x") -> str:
    """Format a median with the smallest and the largest value."""
    return f"{statistics.median(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"


def ratios(values: Iterable[float], others: Iterable[float]) -> list[float]:
    """Divide the values of each turn."""
    return [value / other for value, other in zip(values, others, strict=True)]


def overhead(values: Iterable[float], others: Iterable[float]) -> str:
    """Format by how many percent the values of a turn exceed the others."""
    return spread([100 * (ratio - 1) for ratio in ratios(values, others)], "+.1f", " %")
