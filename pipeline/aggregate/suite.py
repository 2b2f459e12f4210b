"""Results of a suite from its predictions alone: metrics, plots, tables, figures, and the page that shows them."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import Order, Params
from pipeline.digest import files
from pipeline.measure import late_fusion, results
from pipeline.measure.results import Result
from pipeline.papers import published
from pipeline.papers import tables as replication
from pipeline.report import exports, figures, page, suite_tables
from pipeline.report.table import save
from pipeline.storage import notes
from pipeline.storage.atomic import write

AT_ONCE = 2  # rows that are read and measured at once: bounds memory, as one with many views may hold a GiB


@dataclass(frozen=True)
class Folders:
    """Folders that a suite's results are written to."""

    tables: Path
    figures: Path
    metrics: Path
    plots: Path

    @classmethod
    def of(cls, reports: Path, suite: str) -> "Folders":
        """Those of this workspace's results below `reports`."""
        return cls(*(reports / name / suite for name in cls.__dataclass_fields__))

    @classmethod
    def within(cls, folder: Path) -> "Folders":
        """Those of results that share one folder, as reference results do."""
        return cls(*(folder / name for name in cls.__dataclass_fields__))


def aggregate(given: Params, data: Path, target: Folders, reports: Path) -> None:
    """Writes a suite's metrics, plots, tables and figures; the same predictions give the same bytes.

    Args:
        given: the suite's params.
        data: predictions/, runs/ (curves), splits/ and tracking/ (measured speeds) of the suite's rows.
        target: the folders to write to.
        reports: the printed numbers of papers, in papers/, and the counted costs, in parity.csv.
    """
    rows = (*given.experiments, *given.trajectories)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # polars and NumPy let the other thread run
        found = {row.name: row for row in pool.map(lambda name: results.measure(results.read(given, name, data)), rows)}
    found |= {row: results.measure(late_fusion.read(given, row, data)) for row in given.fusions}
    curves = {row: sorted((data / "runs" / row).glob("*.jsonl")) for row in found}
    for path in (path for paths in curves.values() for path in paths if (path.parent / files.SUMS).is_file()):
        files.verify(path)
    _tables(given, found, target.tables)
    exports.save_speed(target.tables, _speeds(data, found), published.speeds(given.suite, reports / "papers"))
    if probes := _probes(given, data):
        save(target.tables, suite_tables.without_time(given.suite, found, probes))
    _figures(given, found, curves, target.figures)
    replication.save(target.tables, target.figures, given, found, reports / "papers", reports / "parity.csv")
    _metrics(found, curves, target)


def show(target: Folders, suite: str, reports: Path) -> Path:
    """Writes the page of this workspace's suite."""
    shown = page.Suite(target.tables, target.figures, "data/predictions")
    return page.build(reports / "index.html", {suite: shown}, reports, [target.tables / "scoreboard.json"])


def _probes(given: Params, data: Path) -> dict[Order, dict[str, Result]]:
    """Order of frames -> the rows whose protocol has a probe of that order."""
    found: dict[Order, dict[str, Result]] = {}
    for row, experiment in given.experiments.items():
        for order in given.protocols[experiment.protocol].probes:
            found.setdefault(order, {})[row] = results.measure(results.read(given, row, data, order))
    return found


def _tables(given: Params, found: Mapping[str, Result], folder: Path) -> None:
    suite_tables.save_all(folder, given.tables, found)
    for name, table in given.tables.items():
        if table.base:
            exports.save_gains(folder / f"{name}-classes.csv", found[table.base], [found[row] for row in table.rows])
    exports.save_classes(folder / "classes.csv", found.values())


def _figures(given: Params, found: Mapping[str, Result], curves: Mapping[str, list[Path]], folder: Path) -> None:
    figures.accuracies(list(found.values()), folder / "accuracy.svg")
    figures.against_macs(list(found.values()), folder / "macs.svg")
    figures.learning_curves(curves, folder / "curves.svg")
    for row, result in found.items():
        figures.confusion(result, folder / f"confusion-{row}.svg")
    for row, base in sorted({(row, table.base) for table in given.tables.values() if table.base for row in table.rows}):
        runs = results.common(found[row], found[base])
        if row != base and not isinstance(runs, str) and not found[row].several:
            path = folder / f"confusion-{row}-less-{base}.svg"
            figures.confusion_change(found[row], found[base], runs, path)
            exports.save_confusion_change(path.with_suffix(".csv"), found[row], found[base], runs)


def _metrics(found: Mapping[str, Result], curves: Mapping[str, list[Path]], target: Folders) -> None:
    """A metrics file and plots of each row with a result, as `dvc metrics` and `dvc plots` read them."""
    for folder in (target.metrics, target.plots / "curves", target.plots / "confusions"):
        folder.mkdir(parents=True, exist_ok=True)  # outs of the stage, whatever has run
    for row, result in found.items():
        if summary := exports.summary(result):
            write(target.metrics / f"{row}.json", json.dumps(summary, indent=2) + "\n")
            exports.save_confusion(target.plots / "confusions" / f"{row}.csv", result)
        if curves[row]:
            exports.save_curve(target.plots / "curves" / f"{row}.csv", curves[row])


def _speeds(data: Path, rows: Mapping[str, Result]) -> dict[str, float]:
    """Clips a second of the rows that were timed where they were evaluated."""
    read = {row: notes.read(data / "tracking" / row / "speeds.json") for row in rows}
    found = {row: (speeds or {}).get("clips_per_second") for row, speeds in read.items()}
    return {row: float(speed) for row, speed in found.items() if isinstance(speed, int | float)}
