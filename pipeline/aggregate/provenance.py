"""The provenance of a row's number: settings, runs, data, code, wrong videos."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.aggregate import reference as saved
from pipeline.config.schema import Params
from pipeline.errors import UserError, alternatives, reading
from pipeline.measure import accuracy, late_fusion, results
from pipeline.measure.results import Row
from pipeline.measure.scores import Accuracy, Precision
from pipeline.papers.published import PAPERS, load, of_suite
from pipeline.report.suite_tables import rows_of
from pipeline.report.table import load as load_table
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.train import keys
from pipeline.train.run import Run


@dataclass(frozen=True)
class Origin:
    """Folders of the results to explain."""

    root: Path  # of the project
    data: Path  # of predictions/, runs/, splits/ and tracking/
    tables: Path  # of the suite
    stages: Mapping[str, Any]  # of dvc.lock
    mirrored: bool = True  # are the runs those of this project's MLflow?

    @property
    def measured(self) -> bool:
        """Return whether results come from predictions, and not from tables alone."""
        return self.mirrored or (self.data / "predictions").is_dir()


def here(root: Path, suite: str, stages: Mapping[str, Any]) -> Origin:
    """Return the origin of this workspace's results."""
    return Origin(root, root / "data", root / "reports" / "tables" / suite, stages)


def reference(root: Path, suite: str) -> Origin:
    """Return the origin of a suite's reference results."""
    kept = root / "reports" / "reference" / suite
    return Origin(root, kept, kept / "tables", {}, mirrored=False)


def explain(params: Params, table: str, row: str, origin: Origin) -> dict[str, Any]:
    """Describe a row of a table of params.yaml, or of the suite's paper.

    Args:
        params: The suite's params.
        table: The table, with or without the suite.
        row: The row.
        origin: Of the results.

    Raises:
        UserError: The table or the row is unknown; the message names the known ones.
    """
    name = table.removeprefix(f"{params.suite}/")
    path = origin.tables / f"{name}.json"
    if not origin.measured and params.suite not in PAPERS and path.is_file():
        return _from_table(params, path, row, origin)
    of_all = path.is_file() and row in _rows(params)  # such as order.json, which is no table of params.yaml
    if name not in params.tables and not of_all:
        return _printed(params, name, row, origin)
    spec = params.tables.get(name)
    if spec and row not in (rows := rows_of(spec)):
        raise UserError(f"table {name} has no row {row!r}; {alternatives(row, rows)}")
    title = spec.title if spec else load_table(path).title
    return {"table": f"{params.suite}/{name}: {title}", **_experiment(params, row, origin)}


def _from_table(params: Params, path: Path, row: str, origin: Origin) -> dict[str, Any]:
    """Describe a row whose predictions git does not hold; the suite may have changed since."""
    table = load_table(path)
    records = {record["row"]: record for record in table.records()}
    if row not in records:
        raise UserError(f"table {table.name} has no row {row!r}; {alternatives(row, list(records))}")
    settings = _experiment(params, row, origin) if row in _rows(params) else {"experiment": "no longer in conf/suite"}
    return {
        "table": f"{params.suite}/{table.name}: {table.title}",
        "row": row,
        **settings,
        "predictions": "not in git",
        "result": {key: value for key, value in records[row].items() if value},
    }


def _rows(params: Params) -> set[str]:
    return {*params.experiments, *params.fusions, *params.trajectories}


def _printed(params: Params, name: str, row: str, origin: Origin) -> dict[str, Any]:
    """Describe a row of a paper's table: its cells as written, and our rows."""
    tables = {
        f"{prefix}{table}": spec
        for paper, prefix in of_suite(params.suite).items()
        for table, spec in load(paper, origin.root / "reports" / "papers").tables.items()
    }
    if name not in tables:
        raise UserError(f"suite {params.suite} has no table {name!r}; {alternatives(name, [*params.tables, *tables])}")
    labels = [printed.label for printed in tables[name].rows]
    if row not in labels:
        raise UserError(f"table {name} has no row {row!r}; {alternatives(row, labels)}")
    path = origin.tables / f"{name}.csv"
    if not path.exists():
        raise UserError(f"{path} is not there yet; `actionbench tables` writes it, whatever has run")
    with path.open(newline="", encoding="utf-8") as file, reading(path, "`actionbench tables` makes it again"):
        cells = [cell for cell in csv.DictReader(file) if cell["row"] == row]
    about: dict[str, Any] = {"table": f"{params.suite}/{name}: {tables[name].caption}", "row": row}
    for cell in cells:
        place = " on ".join(filter(None, (cell["column"], cell["data_set"])))
        about[place] = {key: value for key, value in cell.items() if value and key not in ("row", "column")}
    ours = [system for system in dict.fromkeys(cell["experiment"] for cell in cells) if system in _rows(params)]
    if len(ours) == 1:
        return about | {"ours": ours[0]} | _experiment(params, ours[0], origin) | {"row": row}
    for system in ours:  # a summary of each of several
        whole = _experiment(params, system, origin)
        shown = ("result", "protocol", "predictions", "MLflow", "remake")
        about[system] = {key: whole[key] for key in shown if key in whole}
    return about


def _experiment(params: Params, row: str, origin: Origin) -> dict[str, Any]:
    """Describe a row of params.yaml."""
    data, stages = origin.data, origin.stages
    if not origin.mirrored and (kept := data / "predictions" / row).is_dir():
        saved.verify(kept)  # the remedy is git's, not another training
    if row in params.fusions:
        fused = results.measure(late_fusion.read(params, row, data))
        return {"row": row, "fusion of": asdict(params.fusions[row]), "result": _result(fused.accuracy)}
    if row in params.trajectories:
        described = results.measured(params, row, data)
        settings = asdict(params.trajectories[row])
        return {"row": row, "trajectories": settings, "result": _result(described.accuracy)}
    measured = results.read(params, row, data)
    result = results.measure(measured)
    experiment = params.experiments[row]
    record = run_record.numbers(data / "tracking" / row)
    about: dict[str, Any] = {
        "row": row,
        "protocol": result.protocol,
        "experiment": asdict(experiment),
        "recipe": asdict(params.recipe(experiment)) if experiment.recipe else results.UNTRAINED,
        "predictions": str(data / "predictions" / row / "predictions.parquet"),
        "remake": [f"dvc repro -f -s train@{row} evaluate@{row}", "actionbench repro"]
        if origin.mirrored
        else [f"dvc exp run -S suite={params.suite}"],
    }
    if origin.mirrored:
        training = record.training if record else None
        about["MLflow"] = {
            "filter": mlflow_mirror.asked(params.suite, row),
            **mlflow_mirror.ids(origin.root, params.suite, row, training),
        }
    about["made by"] = {
        stage: {dep["path"]: dep.get("md5", "") for dep in stages[stage].get("deps", [])}
        for stage in (f"train@{row}", f"evaluate@{row}")
        if stage in stages
    }
    if isinstance(result.accuracy, str):
        return about | {"result": result.accuracy}
    about["result"] = _result(result.accuracy)
    about["data"] = _data(params, row, data)
    about |= {"each run": {}, "workers": {}}
    logs = run_log.places(data, row)
    for split, seed in product(experiment.splits, experiment.seeds):
        run = f"split {split}, seed {seed}"
        about["each run"][run] = _result(results.measure(results.only(measured, split, seed)).accuracy)
        about["workers"][run] = workers(logs.get(f"split{split}-seed{seed}", ()))
    about["wrong"] = wrong(measured)
    return about


def workers(files: Sequence[Path]) -> str:
    """Return a run's workers: "1", or "2 in epochs 1 to 3, 1 in epochs 4 to 8"."""
    stretches: list[list[int]] = []  # workers, first and last epoch, from 0 on
    for line in run_log.epochs(*files):
        if "world" not in line:  # its timings are elsewhere
            return "unknown"
        if not stretches or stretches[-1][0] != line["world"]:
            stretches.append([line["world"], line["epoch"], line["epoch"]])
        stretches[-1][2] = line["epoch"]
    if len(stretches) == 1:
        return str(stretches[0][0])
    return ", ".join(f"{count} in epochs {first + 1} to {last + 1}" for count, first, last in stretches) or "unknown"


def wrong(row: Row) -> list[dict[str, Any]]:
    """Return the test videos that a run got wrong, the most often wrong first."""
    if isinstance(row.predictions, str) or row.several:  # a ranking has no single wrong video
        return []
    classes = row.predictions.classes
    outcomes = accuracy.outcomes(row.predictions)
    missed = (
        outcomes.group_by("split", "video", maintain_order=True)
        .agg(
            pl.col("label").first(),
            runs=pl.len(),
            wrong=(~pl.col("top1")).sum(),
            taken=pl.col("predicted").filter(~pl.col("top1")),
        )
        .filter(pl.col("wrong") > 0)
        .sort("wrong", "split", "video", descending=[True, False, False])
    )
    return [
        {
            "split": line["split"],
            "video": line["video"],
            "class": classes[line["label"]],
            "wrong": f"{line['wrong']} of {line['runs']} runs",
            "taken for": sorted({"not decoded" if label is None else classes[label] for label in line["taken"]}),
        }
        for line in missed.iter_rows(named=True)
    ]


def _result(accuracy: Accuracy | Precision | str) -> str:
    if isinstance(accuracy, str):
        return accuracy
    value, low, high = (100 * share for share in (accuracy.main.value, accuracy.main.low, accuracy.main.high))
    decoded = "" if accuracy.decoded == accuracy.videos else f", {accuracy.decoded} of {accuracy.videos} decoded"
    return f"{accuracy.heading} {value:.1f} % [{low:.1f}, {high:.1f}], n = {accuracy.videos}{decoded}"


def _data(params: Params, row: str, data: Path) -> dict[str, str]:
    """Return the digests of each split's frames and list, as training recorded them."""
    experiment = params.experiments[row]
    recipe, protocol = params.recipe(experiment), params.protocols[experiment.protocol]
    runs = [Run(row, experiment, recipe, protocol, split, experiment.seeds[0], data) for split in experiment.splits]
    whole = [run for run in runs if run.split_table.exists() and (run.frames / "index.arrow").exists()]
    return {f"split {run.split}": keys.data(run) for run in whole}
