"""Comparisons of copies that ran elsewhere detect and measure differences."""

import csv
import shutil
import sys
from pathlib import Path

import pytest

from bench import report, same

ROOT = Path(__file__).parents[2]


def copied(folder: Path) -> Path:
    """Return a copy of suite quick's committed results with their params."""
    folder.mkdir()
    shutil.copy(ROOT / "reports" / "reference" / "quick" / "params.yaml", folder)
    for name in ("tables", "metrics", "plots"):
        shutil.copytree(ROOT / "reports" / "reference" / "quick" / name, folder / "reports" / name / "quick")
    return folder


def rewritten(path: Path, change: dict[str, str], line: int) -> None:
    """Change some cells in a line of a CSV."""
    rows = same.read(path)
    rows[line].update(change)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["same", f"there={tmp_path / 'there'}={tmp_path / 'here'}"])
    same.main()
    return [cell.strip() for cell in (tmp_path / "same.md").read_text().splitlines()[-1].strip("|").split("|")]


def test_what_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(tmp_path / "here")
    copy = copied(tmp_path / "there")
    name, _, _, _, files, tables, first, last, top1, verdicts = compared(tmp_path, monkeypatch)
    assert (name, first, last, top1) == ("there", "0 %", "0 %", "0.00")
    assert files.split(" of ")[0] == files.split(" of ")[1] and tables.split(" of ")[0] == tables.split(" of ")[1]
    count, verdict_count = int(tables.split()[0]), int(verdicts.split()[0])
    assert count > 2 and verdict_count > 1
    curve = copy / "reports" / "plots" / "quick" / "curves" / "tsn.csv"
    loss = float(same.read(curve)[-1]["loss"])
    rewritten(curve, {"loss": str(1.02 * loss)}, -1)
    table = copy / "reports" / "tables" / "quick" / "ablation.csv"
    line = next(n for n, row in enumerate(same.read(table)) if row["verdict"] != "base")
    rewritten(table, {"verdict": "another", "top1": str(float(same.read(table)[line]["top1"]) + 0.25)}, line)
    *_, tables, first, last, top1, verdicts = compared(tmp_path, monkeypatch)
    assert tables == f"{count - 2} of {count}"
    assert (first, last, top1) == ("0 %", "2 %", "0.25")
    assert verdicts == f"{verdict_count - 1} of {verdict_count}"
