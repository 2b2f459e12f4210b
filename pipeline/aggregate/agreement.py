"""Compare this workspace's results with the reference results: cells, verdicts, and why digits differ."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.aggregate import reference
from pipeline.aggregate.changes import Move, Side, moves
from pipeline.aggregate.suite import Folders
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
    """Reference results held against this workspace's."""

    suite: str
    cells: tuple[Move, ...]  # `before` is the reference's
    verdicts: tuple[Verdict, ...]
    same_bytes: bool  # of all metrics
    made: dict[str, str]  # what differs of the machine and the versions: name -> "reference's -> this one's"
    code: tuple[str, ...]  # stages and plug-ins whose code is not the reference's; empty where that is unknown
    known: bool  # whether the reference results say what they were made under


def compare(reports: Path, suite: str) -> Agreement:
    """Compare a suite's results here with its reference results.

    Raises:
        UserError: The suite has no reference results, or none here.
    """
    base, own = reference.folder(reports, suite), Folders.of(reports, suite)
    if not any(own.metrics.glob("*.json")):
        raise UserError(f"no results of suite {suite!r} here yet; `actionbench repro` makes them")
    before, now = (_metrics(folder) for folder in (base / "metrics", own.metrics))
    old, new = (dict(_verdicts(folder)) for folder in (base / "tables", own.tables))
    verdicts = [Verdict(key[0], key[1], old.get(key, ""), new.get(key, "")) for key in dict.fromkeys((*old, *new))]
    path = base / "provenance.json"
    was: dict[str, Any] = {}
    if path.is_file():
        with reading(path, f"`git checkout {path}` brings it back"):
            was = dict(json.loads(path.read_text(encoding="utf-8")))
    here = reference.provenance() if was else {}
    machine, ours = _flat(was), _flat(here)
    return Agreement(
        suite,
        tuple(moves(Side(before, {}), Side(now, {}))),
        tuple(verdicts),
        before == now,
        {name: f"{text} -> {ours.get(name, 'absent')}" for name, text in machine.items() if ours.get(name) != text},
        tuple(sorted(name for name, digest in was.get("code", {}).items() if here["code"].get(name) != digest)),
        bool(was),
    )


def words(found: Agreement) -> Iterator[str]:
    """The comparison in lines to print."""
    apart = [cell for cell in found.cells if cell.beyond]
    yield (
        f"suite {found.suite}: {len(found.cells) - len(apart)} of {len(found.cells)} cells agree with the reference "
        "within their intervals"
    )
    for cell in apart:
        values = ("absent" if value is None else f"{value:.1f}" for value in (cell.before, cell.after))
        yield f"  {cell.row}, {cell.metric}: {' -> '.join(values)}"
    others = [verdict for verdict in found.verdicts if verdict.reference != verdict.here]
    yield f"{len(found.verdicts) - len(others)} of {len(found.verdicts)} verdicts are the same"
    for verdict in others:
        yield f"  {verdict.table}, {verdict.row}: {verdict.reference or 'absent'} -> {verdict.here or 'absent'}"
    if not found.known:
        yield "the reference results don't say which machine and code they were made by"
    if found.code:
        yield f"code that is not the reference's: {', '.join(found.code)}"
    for name, change in found.made.items():
        yield f"{name}: {change}"
    if found.same_bytes:
        yield "every digit of the metrics is the same"
    elif "cpu" in found.made:
        yield "digits differ between CPU types, because floating-point rounding differs and training amplifies it"


def _metrics(folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        with reading(path, REMEDY):
            numbers = json.loads(path.read_text(encoding="utf-8")).items()
            found[path.stem] = {name: float(value) for name, value in numbers}
    return found


def _verdicts(folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """(table, row, column, data set, which verdict) -> the verdict, of all tables of a folder."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file, reading(path, REMEDY):
            for line in csv.DictReader(file):
                for key in (key for key in line if key.endswith("verdict") and line[key]):
                    yield (path.stem, line["row"], line.get("column", ""), line.get("data_set", ""), key), line[key]


def _flat(made: dict[str, Any]) -> dict[str, str]:
    """The machine and the versions, without digests of code."""
    plain = {name: value for name, value in made.items() if isinstance(value, str)}
    return plain | made.get("versions", {})
