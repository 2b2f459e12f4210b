"""A suite's results from its predictions: metrics, plots, tables, figures, page."""

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
from pipeline.report import exports, figures, page, ranking, suite_tables
from pipeline.report.table import save
from pipeline.storage import notes
from pipeline.storage.atomic import write

AT_ONCE = 2  # rows that are read and measured at once: bounds memory, since a row of many views may hold a GiB


@dataclass(frozen=True)
class Folders:
    """Folders of a suite's results."""

    tables: Path
    figures: Path
    metrics: Path
    plots: Path

    @classmethod
    def of(cls, reports: Path, suite: str) -> "Folders":
        """Return the folders of this workspace's results below `reports`."""
        return cls(*(reports / name / suite for name in cls.__dataclass_fields__))

    @classmethod
    def within(cls, folder: Path) -> "Folders":
        """Return the folders of results that share one folder, as reference results do."""
        return cls(*(folder / name for name in cls.__dataclass_fields__))


def measured(params: Params, data: Path) -> dict[str, Result]:
    """Return the result of every row of a suite, or the reason why it has none."""

    def measure(row: str) -> Result:
        return results.measured(params, row, data)

    rows = (*params.experiments, *params.trajectories)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # polars and NumPy release the interpreter's lock
        single = dict(zip(rows, pool.map(measure, rows), strict=True))
    return single | {row: results.measure(late_fusion.read(params, row, data)) for row in params.fusions}


def aggregate(params: Params, data: Path, target: Folders, reports: Path) -> None:
    """Write a suite's metrics, plots, tables and figures.

    The same predictions give the same bytes.

    Args:
        params: The suite's params.
        data: The folder of predictions/, runs/ (curves), splits/ and tracking/ (measured speeds).
        target: The folders to write to.
        reports: The folder of the papers' printed numbers, papers/, and of the counted costs, parity.csv.
    """
    rows = measured(params, data)
    curves = {row: sorted((data / "runs" / row).glob("*.jsonl")) for row in rows}
    for path in (path for paths in curves.values() for path in paths if (path.parent / files.SUMS).is_file()):
        files.verify(path)
    _tables(params, rows, target.tables)
    exports.save_speed(target.tables, _speeds(data, rows), published.speeds(params.suite, reports / "papers"))
    if probes := _probes(params, data):
        save(target.tables, suite_tables.without_time(params.suite, rows, probes))
    for table in (ranking.order(params.suite, rows.values()), ranking.across(params.suite, rows.values())):
        if table:
            save(target.tables, table)
    write(target.tables / "pairs.csv", ranking.pairs(rows.values()))
    _figures(params, rows, curves, target.figures)
    replication.save(target.tables, target.figures, params, rows, reports / "papers", reports / "parity.csv")
    _metrics(rows, curves, target)


def show(target: Folders, suite: str, reports: Path) -> Path:
    """Write the page of this workspace's suite."""
    shown = page.Suite(target.tables, target.figures, "data/predictions")
    return page.build(reports / "index.html", {suite: shown}, reports, [target.tables / "scoreboard.json"])


def _probes(params: Params, data: Path) -> dict[Order, dict[str, Result]]:
    """Return each order of frames that protocols probe, and its rows."""
    probes: dict[Order, dict[str, Result]] = {}
    for row, experiment in params.experiments.items():
        for order in params.protocols[experiment.protocol].probes:
            probes.setdefault(order, {})[row] = results.measured(params, row, data, order)
    return probes


def _tables(params: Params, rows: Mapping[str, Result], folder: Path) -> None:
    for name, table in params.tables.items():
        save(folder, suite_tables.of(name, table, rows))
        if table.base:
            exports.save_gains(folder / f"{name}-classes.csv", rows[table.base], [rows[row] for row in table.rows])
    exports.save_classes(folder / "classes.csv", rows.values())


def _figures(params: Params, rows: Mapping[str, Result], curves: Mapping[str, list[Path]], folder: Path) -> None:
    figures.accuracies(list(rows.values()), folder / "accuracy.svg")
    figures.against_macs(list(rows.values()), folder / "macs.svg")
    figures.learning_curves(curves, folder / "curves.svg")
    for row, result in rows.items():
        figures.confusion(result, folder / f"confusion-{row}.svg")
    pairs = {(row, table.base) for table in params.tables.values() if table.base for row in table.rows}
    for row, base in sorted(pairs):
        runs = results.common(rows[row], rows[base])
        if row != base and not isinstance(runs, str) and not rows[row].several:
            path = folder / f"confusion-{row}-less-{base}.svg"
            figures.confusion_change(rows[row], rows[base], runs, path)
            exports.save_confusion_change(path.with_suffix(".csv"), rows[row], rows[base], runs)


def _metrics(rows: Mapping[str, Result], curves: Mapping[str, list[Path]], target: Folders) -> None:
    """Write each row's metrics, and the files of `dvc metrics` and `dvc plots`."""
    for folder in (target.metrics, target.plots / "curves", target.plots / "confusions"):
        folder.mkdir(parents=True, exist_ok=True)  # outs of the stage, even if nothing has run
    for row, result in rows.items():
        if summary := exports.summary(result):
            write(target.metrics / f"{row}.json", json.dumps(summary, indent=2) + "\n")
            exports.save_confusion(target.plots / "confusions" / f"{row}.csv", result)
        if curves[row]:
            exports.save_curve(target.plots / "curves" / f"{row}.csv", curves[row])
    exports.save_losses(target.plots / "losses.csv", curves)
    exports.save_accuracies(target.plots / "accuracy.json", rows)


def _speeds(data: Path, rows: Mapping[str, Result]) -> dict[str, float]:
    """Return the clips a second of the rows whose evaluation was timed."""
    read = {row: notes.read(data / "tracking" / row / "speeds.json") for row in rows}
    speeds = {row: (line or {}).get("clips_per_second") for row, line in read.items()}
    return {row: float(speed) for row, speed in speeds.items() if isinstance(speed, int | float)}
