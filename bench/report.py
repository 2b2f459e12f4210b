"""Reports of benchmarks: a Markdown table to read, and every measurement as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.storage import atomic

RESULTS = Path(__file__).parent / "results"


def save(
    name: str,
    title: str,
    text: str,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Write results/<name>.md, printed too, and results/<name>.csv."""
    table = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]
    said = f"{text} " if text else ""
    parts = [
        f"# {title}",
        "",
        f"{said}How: the docstring of `bench/{name.partition('-')[0]}.py`; all turns: `{name}.csv`.",
        "",
        *table,
        "",
    ]
    report = "\n".join(parts)
    atomic.write(RESULTS / f"{name}.md", report)
    cells = io.StringIO()
    writer = csv.DictWriter(cells, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write(RESULTS / f"{name}.csv", cells.getvalue())
    print(report)
