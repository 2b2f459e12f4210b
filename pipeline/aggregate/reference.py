"""Reference results: the maintainers' predictions in git, and all that is recomputed from them without training."""

import json
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML

from pipeline.aggregate.suite import Folders, aggregate
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.digest import code, files
from pipeline.errors import UserError, unknown
from pipeline.papers import published
from pipeline.papers.published import PAPERS
from pipeline.report import page, table
from pipeline.storage.atomic import write, writing
from pipeline.tracking import run_log

GROUPS = ("Measured on real videos", "Measured on drawn videos", "The papers' tables")
KINDS = tuple(Folders.__dataclass_fields__)


def folder(reports: Path, suite: str) -> Path:
    """The folder of a suite's reference results; UserError names the suites that have some."""
    known = suites(reports)
    if suite not in known:
        raise unknown("reference results of suite", suite, known)
    return reports / "reference" / suite


def suites(reports: Path) -> list[str]:
    """Suites that have reference results."""
    parts = ("tables", "params.yaml")
    return sorted({path.parent.name for part in parts for path in (reports / "reference").glob(f"*/{part}")})


def has_predictions(reports: Path, suite: str) -> bool:
    """Tell if a suite's reference results can be recomputed; some have tables alone."""
    return (folder(reports, suite) / "params.yaml").is_file()


def save(project: Path) -> Path:
    """Make the project's results the reference results of its suite, in place of those there.

    Returns:
        The folder, which holds params.yaml, provenance.json, all that the tables follow from, and the tables.
    """
    given, data, reports = load.load(project / "params.yaml"), project / "data", project / "reports"
    target = reports / "reference" / given.suite
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as temporary:
        made = Path(temporary) / given.suite
        for row in (*given.experiments, *given.trajectories):
            _copy_row(data, row, made)
        for name in {row.dataset for row in given.experiments.values()} | {
            row.dataset for row in given.trajectories.values()
        }:
            _copy(data / "splits" / name, ("classes.json", "split-*.parquet"), made / "splits" / name)
        _save_params(given, project, made, target.relative_to(project))
        write(made / "provenance.json", json.dumps(provenance(), indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        made.replace(target)
    recompute(reports, given.suite)
    show(reports)
    return target


def recompute(reports: Path, suite: str) -> list[str]:
    """Write a suite's reference tables, figures, metrics and plots again, from its predictions.

    Returns:
        The files that now have other bytes than before, or are new or gone.

    Raises:
        UserError: The suite has no reference predictions.
    """
    target = folder(reports, suite)
    if not has_predictions(reports, suite):
        raise UserError(f"{target} holds no predictions to recompute its tables from")
    before = _contents(target)
    with TemporaryDirectory(dir=target) as temporary:
        made = Folders.within(Path(temporary))
        aggregate(load.load(target / "params.yaml"), target, made, reports)
        for name, path in ((name, getattr(made, name)) for name in KINDS):
            shutil.rmtree(target / name, ignore_errors=True)
            path.replace(target / name)
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
        shown[suite] = page.Suite(folder / "tables", folder / "figures", kept, title, group)
    ordered = sorted(shown, key=lambda suite: GROUPS.index(shown[suite].group))
    target = root / "index.html"
    return page.build(target, {suite: shown[suite] for suite in ordered}, reports, [root / "scoreboard.json"])


def _headings(suite: str, tables: Path, reports: Path) -> tuple[str, str]:
    """A suite's title on the page, and the heading that it stands under."""
    if suite in PAPERS:
        return published.load(suite, reports / "papers").title, GROUPS[2]
    path = tables / "comparison.json"
    rows = table.load(path).records() if path.is_file() else []
    drawn = all(row["data_set"].startswith("shapes") for row in rows)
    return f"Suite {suite}", GROUPS[1 if drawn else 0]


def size(reports: Path, suite: str) -> int:
    """Bytes of a suite's reference predictions."""
    return sum(path.stat().st_size for path in folder(reports, suite).glob("predictions/*/*.parquet"))


def provenance() -> dict[str, Any]:
    """Return what digits may depend on: the machine, versions of numeric packages, digests of code."""
    names = sorted({name for packages in code.NUMERIC.values() for name in packages})
    return {
        "cpu": cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in names if (found := _version(name))},
        "code": {
            **{f"stages/{name}": code.stage(name) for name in code.ROOTS},
            **{
                f"{package.rpartition('.')[2]}/{path.stem}": code.plugin(kind, path.stem)
                for kind, package in code.PLUGINS.items()
                for path in sorted(code.ROOT.joinpath(*package.split(".")).glob("*.py"))
                if path.stem != "__init__"
            },
        },
    }


def cpu() -> str:
    """The CPU's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:  # decord has no wheel on some systems
        return None


def _copy_row(data: Path, row: str, target: Path) -> None:
    """Predictions and costs, the epochs of each run's curve, and the measured speed."""
    made = target / "predictions" / row
    _copy(data / "predictions" / row, ("*.parquet", "costs.json"), made)
    if made.is_dir():
        files.write_sums(made)
    _copy(data / "tracking" / row, ("speeds.json",), target / "tracking" / row)
    for run, (curve, _) in run_log.places(data, row).items():
        lines = "".join(json.dumps(line) + "\n" for line in run_log.epochs(curve))
        write(target / "runs" / row / f"{run}.jsonl", lines)


def _copy(source: Path, patterns: Iterable[str], target: Path) -> None:
    for path in (path for pattern in patterns for path in source.glob(pattern)):
        write(target / path.name, path.read_bytes())


def _save_params(given: Params, project: Path, made: Path, target: Path) -> None:
    """params.yaml as it ran, but for the machine: no cluster, no folders; scores from outside are copied here."""
    raw = json.loads(json.dumps(asdict(given)))
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
                write(made / inner, source.read_bytes())
            weights[(target / inner).as_posix()] = weight
        fusion["outside"] = weights
    with writing(made / "params.yaml") as temporary:
        YAML().dump(raw, temporary)  # keeps the order of rows, which is that of tables


def _contents(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for kind in KINDS
        for path in (target / kind).rglob("*")
        if path.is_file()
    }
