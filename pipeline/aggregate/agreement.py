"""Comparison of this workspace's results with the reference results."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.aggregate import reference
from pipeline.aggregate.changes import Move, Side, moves
from pipeline.aggregate.suite import Folders
from pipeline.digest.environment import provenance
from pipeline.errors import UserError, reading

REMEDY = "`actionbench tables` makes it again, `actionbench tables --reference` a reference result's"


@dataclass(frozen=True)
class Verdict:
    """A verdict of a table in both results; an empty one is absent."""

    table: str
    row: str
    reference: str
    here: str


@dataclass(frozen=True)
class Agreement:
    """Reference results compared with this workspace's."""

    suite: str
    cells: tuple[Move, ...]  # `before` is the reference's
    verdicts: tuple[Verdict, ...]
    same_bytes: bool  # of all metrics
    machine: dict[str, str]  # differences of machine and versions: name -> "reference's -> this one's"
    code: tuple[str, ...]  # stages and plug-ins whose code is not the reference's; empty if unknown
    known: bool  # whether the reference results have a record of their machine and code


def compare(reports: Path, suite: str) -> Agreement:
    """Compare a suite's results here with its reference results.

    Raises:
        UserError: The suite has no reference results, or none here.
    """
    base, here = reference.folder(reports, suite), Folders.of(reports, suite)
    if not any(here.metrics.glob("*.json")):
        raise UserError(f"no results of suite {suite!r} here yet; `actionbench repro` makes them")
    before, now = (_metrics(folder) for folder in (base / "metrics", here.metrics))
    old, new = (dict(_verdicts(folder)) for folder in (base / "tables", here.tables))
    verdicts = [Verdict(key[0], key[1], old.get(key, ""), new.get(key, "")) for key in dict.fromkeys((*old, *new))]
    path = base / "provenance.json"
    was: dict[str, Any] = {}
    if path.is_file():
        with reading(path, f"`git checkout {path}` brings it back"):
            was = dict(json.loads(path.read_text(encoding="utf-8")))
    current = provenance() if was else {}
    theirs, ours = _machine(was), _machine(current)
    return Agreement(
        suite,
        tuple(moves(Side(before, {}), Side(now, {}))),
        tuple(verdicts),
        before == now,
        {name: f"{text} -> {ours.get(name, 'absent')}" for name, text in theirs.items() if ours.get(name) != text},
        tuple(sorted(name for name, digest in was.get("code", {}).items() if current["code"].get(name) != digest)),
        bool(was),
    )


def words(agreement: Agreement) -> Iterator[str]:
    """Yield the comparison in lines to print."""
    cells, verdicts = agreement.cells, agreement.verdicts
    apart = [cell for cell in cells if cell.beyond]
    yield (
        f"suite {agreement.suite}: {len(cells) - len(apart)} of {len(cells)} cells agree with the reference within "
        "their intervals"
    )
    for cell in apart:
        values = ("absent" if value is None else f"{value:.1f}" for value in (cell.before, cell.after))
        yield f"  {cell.row}, {cell.metric}: {' -> '.join(values)}"
    others = [verdict for verdict in verdicts if verdict.reference != verdict.here]
    yield f"{len(verdicts) - len(others)} of {len(verdicts)} verdicts are the same"
    for verdict in others:
        yield f"  {verdict.table}, {verdict.row}: {verdict.reference or 'absent'} -> {verdict.here or 'absent'}"
    if not agreement.known:
        yield "the reference results don't say which machine and code they were made by"
    if agreement.code:
        yield f"code that is not the reference's: {', '.join(agreement.code)}"
    for name, change in agreement.machine.items():
        yield f"{name}: {change}"
    if agreement.same_bytes:
        yield "every digit of the metrics is the same"
    elif "cpu" in agreement.machine:
        yield "digits differ between CPU types, because floating-point rounding differs and training amplifies it"


def _metrics(folder: Path) -> dict[str, dict[str, float]]:
    metrics = {}
    for path in sorted(folder.glob("*.json")):
        with reading(path, REMEDY):
            numbers = json.loads(path.read_text(encoding="utf-8")).items()
            metrics[path.stem] = {name: float(value) for name, value in numbers}
    return metrics


def _verdicts(folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (table, row, column, data set, heading) and verdict, of all tables."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file, reading(path, REMEDY):
            for line in csv.DictReader(file):
                for key in (key for key in line if key.endswith("verdict") and line[key]):
                    yield (path.stem, line["row"], line.get("column", ""), line.get("data_set", ""), key), line[key]


def _machine(provenance: dict[str, Any]) -> dict[str, str]:
    """Return the machine and the versions, without digests of code."""
    plain = {name: value for name, value in provenance.items() if isinstance(value, str)}
    return plain | provenance.get("versions", {})
