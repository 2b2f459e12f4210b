"""A run's logs, in JSON lines: its reproducible curve and varying timings."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.storage.remote import Place

RUNNING = "log.jsonl"  # in a run's state: both, while it trains


def places(data: Path, row: str) -> dict[str, tuple[Path, Path]]:
    """Return run -> (curve, timings) of the row's runs with a curve.

    Curves are in the data folder.
    """
    curves = sorted((data / "runs" / row).glob("*.jsonl"))
    return {curve.stem: (curve, data / "tracking" / row / f"{curve.stem}.timings.jsonl") for curve in curves}


def epochs(*files: "Place") -> list[dict[str, Any]]:
    """Merge the files' lines by epoch, in order; a half-written line is skipped."""
    found: dict[int, dict[str, Any]] = {}
    for file in files:
        for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.get("kind", "epoch") == "epoch" and line.get("epoch", -1) >= 0:
                found[line["epoch"]] = {**line, **found.get(line["epoch"], {})}
    return [found[epoch] for epoch in sorted(found)]
