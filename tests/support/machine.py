"""A machine without GPUs beside a reference run's speeds."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from stages.repro import estimate

ROOT = Path(__file__).parents[2]


def without_gpus(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """Make this a machine of so many cores that starts its own Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(estimate, "gpus", lambda: 0)
    monkeypatch.setattr(estimate, "cores", lambda: cores)


def reference(reports: Path, speeds: Mapping[str, float]) -> Path:
    """Write suite quick's params and training speeds (clips/s) as its reference run's; return the file of speeds."""
    (folder := reports / "reference" / "quick").mkdir(parents=True)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    lines = {row: {"clips_per_second": speed, "workers": 1} for row, speed in speeds.items()}
    (folder / "speeds.json").write_text(json.dumps(lines))
    return folder / "speeds.json"
