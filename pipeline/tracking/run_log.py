"""A run's logs, in JSON lines: its reproducible curve and varying timings."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.storage.remote import Place

VALIDATION = ("validation_accuracy", "validation_loss")  # of an epoch, if its recipe validates
NUMBERS = ("step", "loss", "lr", "seconds", "clips_per_second", "world", *VALIDATION)  # if a line has them
RUNNING = "log.jsonl"  # in a run's state: both, while it trains


def places(data: Path, row: str) -> dict[str, tuple[Path, Path]]:
    """Return run -> (curve, timings) of the row's runs that have a curve."""
    curves = sorted((data / "runs" / row).glob("*.jsonl"))
    return {curve.stem: (curve, data / "tracking" / row / f"{curve.stem}.timings.jsonl") for curve in curves}


def epochs(*files: "Place") -> list[dict[str, Any]]:
    """Return the epochs in order, each once, with all that the files hold of it."""
    merged: dict[int, dict[str, Any]] = {}
    for line in lines(*files):
        if line["kind"] == "epoch":
            merged[line["epoch"]] = {**line, **merged.get(line["epoch"], {})}
    return [merged[epoch] for epoch in sorted(merged)]


def lines(*files: "Place") -> list[dict[str, Any]]:
    """Return every line of some logs; a damaged line counts as absent."""
    whole: list[dict[str, Any]] = []
    for file in files:
        texts = file.read_bytes().splitlines() if file.exists() else []
        read = [line for text in texts if (line := _line(text))]
        if damaged := len(texts) - len(read):
            print(f"{file}: {damaged} of {len(texts)} lines are damaged and count as absent", file=sys.stderr)
        whole += read
    return whole


def _line(text: bytes) -> dict[str, Any] | None:
    """Return a line of a log, with its kind, or None if it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    line = {"kind": "epoch", **line}
    epoch = line.get("epoch")
    whole = all(isinstance(line.get(name, 0), int | float) for name in NUMBERS)
    return line if whole and isinstance(epoch, int) and epoch >= 0 and line["kind"] in ("epoch", "steps") else None
