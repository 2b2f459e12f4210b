"""A run's logs, in JSON lines: its curve, which follows from its inputs, and its timings, which never come twice."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.storage.remote import Place

RUNNING = "log.jsonl"  # in a run's state: both, while it trains


def places(data: Path, row: str) -> dict[str, tuple[Path, Path]]:
    """Run -> its curve and its timings, of the row's runs that have a curve in the data folder."""
    curves = sorted((data / "runs" / row).glob("*.jsonl"))
    return {curve.stem: (curve, data / "tracking" / row / f"{curve.stem}.timings.jsonl") for curve in curves}


def epochs(*files: "Place") -> list[dict[str, Any]]:
    """Epochs in order, each once, with all that the files hold of it; a half-written line is left for later."""
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
