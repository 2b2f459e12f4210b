"""Reference results: predictions in git, and results recomputed from them."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from ruamel.yaml import YAML

from pipeline.aggregate import speeds
from pipeline.aggregate.suite import Folders, aggregate
from pipeline.config import load
from pipeline.config.schema import Order, Params
from pipeline.digest import files
from pipeline.digest.environment import provenance
from pipeline.errors import UserError, reading, unknown
from pipeline.evaluate import predictions
from pipeline.papers import published
from pipeline.papers.published import PAPERS
from pipeline.report import page, table
from pipeline.storage.atomic import write, writing
from pipeline.tracking import run_log

GROUPS = ("Measured on real videos", "Measured on drawn videos", "The papers' tables")
KINDS = tuple(Folders.__dataclass_fields__)

Origins = Mapping[str, Mapping[str, str]]  # row -> what its results depend on: name -> digest


def folder(reports: Path, suite: str) -> Path:
    """Return the folder of a suite's reference results.

    Raises:
        UserError: The suite has none; the message names those that have.
    """
    known = suites(reports)
    if suite not in known:
        raise unknown("reference results of suite", suite, known)
    return reports / "reference" / suite


def suites(reports: Path) -> list[str]:
    """Return the suites with reference results."""
    parts = ("tables", "params.yaml")
    return sorted({path.parent.name for part in parts for path in (reports / "reference").glob(f"*/{part}")})


def has_predictions(reports: Path, suite: str) -> bool:
    """Return whether a suite has reference predictions, not tables alone."""
    return (folder(reports, suite) / "params.yaml").is_file()


def save(project: Path, origins: Origins | None = None, absent: Collection[str] = ()) -> Path:
    """Replace the reference results of the project's suite by the project's results.

    Args:
        project: The project's folder.
        origins: What each row's results depend on.
        absent: Rows without results here. Those saved earlier stay, so that several machines can share a suite.

    Returns:
        The folder of params.yaml, provenance.json, speeds.json, the inputs of the tables, and the tables.

    Raises:
        UserError: The earlier results of an absent row depend on something else than `origins`.
    """
    params, data, reports = load.load(project / "params.yaml"), project / "data", project / "reports"
    target = reports / "reference" / params.suite
    target.parent.mkdir(parents=True, exist_ok=True)
    rows, facts = params.experiments | params.trajectories, provenance()
    records = {row: {"cpu": facts["cpu"], **origin} for row, origin in (origins or {}).items() if row not in absent}
    records |= _earlier(target, origins or {}, absent)
    machines = dict.fromkeys([facts["cpu"], *(record["cpu"] for record in records.values())])
    with TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / params.suite
        for row in rows:
            _copy_row(target if row in absent and row in records else data, row, new)
        for name in {settings.dataset for settings in rows.values()}:
            here = data if (data / "splits" / name).is_dir() else target
            _copy(here / "splits" / name, ("classes.json", "split-*.parquet"), new / "splits" / name)
        _save_params(params, project, new, target.relative_to(project))
        speeds.save(new / speeds.FILE, data, params.experiments, target / speeds.FILE)
        facts |= {"cpu": "; ".join(machines), "rows": {row: records[row] for row in rows if row in records}}
        write(new / "provenance.json", json.dumps(facts, indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        new.replace(target)
    recompute(reports, params.suite)
    show(reports)
    return target


def recompute(reports: Path, suite: str) -> list[str]:
    """Write a suite's reference results from its reference predictions.

    Returns:
        The files whose bytes changed, or that are new or gone.

    Raises:
        UserError: The suite has no reference predictions, or damaged ones; then no file changes.
    """
    target = folder(reports, suite)
    if not has_predictions(reports, suite):
        raise UserError(f"{target} holds no predictions to recompute its tables from")
    for row in sorted((target / "predictions").glob("*")):
        verify(row)
    before = _contents(target)
    with TemporaryDirectory(dir=target) as temporary:
        new = Folders.within(Path(temporary))
        aggregate(load.load(target / "params.yaml"), target, new, reports)
        for name in KINDS:
            shutil.rmtree(target / name, ignore_errors=True)
            getattr(new, name).replace(target / name)
    after = _contents(target)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def show(reports: Path) -> Path:
    """Write the page of all reference suites."""
    root, names = reports / "reference", suites(reports)
    shown = {}
    for suite in (*(name for name in names if name not in PAPERS), *(name for name in PAPERS if name in names)):
        folder = root / suite
        kept = f"reports/reference/{suite}/predictions" if has_predictions(reports, suite) else ""
        title, group = _headings(suite, folder / "tables", reports)
        shown[suite] = page.Suite(folder / "tables", folder / "figures", kept, title, group, reference=True)
    ordered = sorted(shown, key=lambda suite: GROUPS.index(shown[suite].group))
    target = root / "index.html"
    return page.build(target, {suite: shown[suite] for suite in ordered}, reports, [root / "scoreboard.json"])


def _headings(suite: str, tables: Path, reports: Path) -> tuple[str, str]:
    """Return a suite's title on the page, and the heading above it."""
    if suite in PAPERS:
        return published.load(suite, reports / "papers").title, GROUPS[2]
    path = tables / "comparison.json"
    rows = table.load(path).records() if path.is_file() else []
    drawn = all(row["data_set"].startswith("shapes") for row in rows)
    return f"Suite {suite}", GROUPS[1 if drawn else 0]


def size(reports: Path, suite: str) -> int:
    """Return the bytes of a suite's reference predictions."""
    return sum(path.stat().st_size for path in folder(reports, suite).glob("predictions/*/*.parquet"))


def verify(folder: Path) -> None:
    """Raise UserError if a row's reference predictions are damaged."""
    try:
        for name in files.sums(folder):
            files.verify(folder / name)
    except UserError as error:
        why = str(error).partition(";")[0]
        raise UserError(f"{why}; `git checkout {folder}` brings it back") from None


def _earlier(target: Path, origins: Origins, absent: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the records of the absent rows that were saved earlier."""
    path, saved = target / "provenance.json", {}
    kept = [row for row in absent if (target / "predictions" / row).is_dir()]
    for row in kept:
        with reading(path, f"`git checkout {path}` brings it back"):
            record = dict(json.loads(path.read_text(encoding="utf-8")).get("rows", {}).get(row, {}))
        if other := [name for name, digest in origins[row].items() if record.get(name) != digest]:
            what = f"come from another {other[0]}" if record else "don't say what they depend on"
            raise UserError(
                f"{row}: the results saved earlier {what}; run the row here, or delete {target / 'predictions' / row}"
            )
        saved[row] = record
    return saved


def _copy_row(data: Path, row: str, target: Path) -> None:
    """Copy predictions, costs, the epochs of each run's curve, and the speed."""
    folder = target / "predictions" / row
    # Without the outcomes: recomputed tables come from the predictions alone.
    orders = (None, *get_args(Order))
    _copy(data / "predictions" / row, (*map(predictions.file_of, orders), "costs.json"), folder)
    if folder.is_dir():
        files.write_sums(folder)
    _copy(data / "tracking" / row, ("speeds.json",), target / "tracking" / row)
    for run, (curve, _) in run_log.places(data, row).items():
        lines = "".join(json.dumps(line) + "\n" for line in run_log.epochs(curve))
        write(target / "runs" / row / f"{run}.jsonl", lines)


def _copy(source: Path, patterns: Iterable[str], target: Path) -> None:
    for path in (path for pattern in patterns for path in source.glob(pattern)):
        write(target / path.name, path.read_bytes())


def _save_params(params: Params, project: Path, new: Path, target: Path) -> None:
    """Write params.yaml without cluster and folders; copy scores from outside.

    Args:
        params: The params that ran.
        project: The project's folder.
        new: The folder to write to.
        target: The place of that folder below the project when it is complete.
    """
    raw = json.loads(json.dumps(asdict(params)))
    del raw["cluster"]
    for dataset in raw["datasets"].values():
        for key in ("source", "lists"):
            if dataset[key] and Path(dataset[key]).is_absolute():
                dataset[key] = Path(dataset[key]).name
    for fusion in raw["fusions"].values():
        weights = {}
        for number, (name, weight) in enumerate(fusion["outside"].items()):
            source = project / name
            inner = Path("outside") / str(number) / source.parent.name / source.name
            if source.is_file():
                write(new / inner, source.read_bytes())
            weights[(target / inner).as_posix()] = weight
        fusion["outside"] = weights
    with writing(new / "params.yaml") as temporary:
        YAML().dump(raw, temporary)  # keeps the order of rows, which is that of tables


def _contents(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for kind in KINDS
        for path in (target / kind).rglob("*")
        if path.is_file()
    }
