"""Where a row's number comes from: protocol, settings, runs, data, code, the videos it got wrong, how to remake it."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.config.schema import Params
from pipeline.errors import UserError, alternatives, reading
from pipeline.measure import accuracy, results
from pipeline.measure.results import Row
from pipeline.measure.scores import Accuracy, Precision
from pipeline.papers.published import PAPERS, load
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.train import keys
from pipeline.train.run import Run


def explain(given: Params, table: str, row: str, root: Path, stages: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a row of a table of params.yaml, or of the suite's paper, ready to print.

    `root` is the project's folder, `stages` are dvc.lock's. Raises UserError for a table or a row that is not there,
    naming those that are.
    """
    name = table.removeprefix(f"{given.suite}/")
    if name not in given.tables:
        return _printed(given, name, row, root, stages)
    spec = given.tables[name]
    rows = list(dict.fromkeys((*([spec.base] if spec.base else []), *spec.rows)))
    if row not in rows:
        raise UserError(f"table {name} has no row {row!r}; {alternatives(row, rows)}")
    return {"table": f"{given.suite}/{name}: {spec.title}", **_experiment(given, row, root, stages)}


def _printed(given: Params, name: str, row: str, root: Path, stages: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a paper's table: its cells as the last stage wrote them, and all that is known of ours behind them."""
    papers = PAPERS if given.suite == "all" else [given.suite] if given.suite in PAPERS else []
    prefixes = {paper: f"{paper}-" if given.suite == "all" else "" for paper in papers}
    tables = {
        f"{prefixes[paper]}{table}": spec
        for paper in papers
        for table, spec in load(paper, root / "reports" / "papers").tables.items()
    }
    if name not in tables:
        raise UserError(f"suite {given.suite} has no table {name!r}; {alternatives(name, [*given.tables, *tables])}")
    labels = [one.label for one in tables[name].rows]
    if row not in labels:
        raise UserError(f"table {name} has no row {row!r}; {alternatives(row, labels)}")
    path = root / "reports" / "tables" / given.suite / f"{name}.csv"
    if not path.exists():
        raise UserError(f"{path} is not there yet; `actionbench tables` writes it, whatever has run")
    with path.open(newline="", encoding="utf-8") as file, reading(path, "`actionbench tables` makes it again"):
        cells = [cell for cell in csv.DictReader(file) if cell["row"] == row]
    about: dict[str, Any] = {"table": f"{given.suite}/{name}: {tables[name].caption}", "row": row}
    for cell in cells:
        place = " on ".join(filter(None, (cell["column"], cell["data_set"])))
        about[place] = {key: value for key, value in cell.items() if value and key not in ("row", "column")}
    known = {*given.experiments, *given.fusions, *given.trajectories}
    ours = [one for one in dict.fromkeys(cell["experiment"] for cell in cells) if one in known]
    if len(ours) == 1:
        return about | {"ours": ours[0]} | _experiment(given, ours[0], root, stages) | {"row": row}
    for one in ours:  # of several, in short
        found = _experiment(given, one, root, stages)
        shown = ("result", "protocol", "predictions", "MLflow", "remake")
        about[one] = {key: found[key] for key in shown if key in found}
    return about


def _experiment(given: Params, row: str, root: Path, stages: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a row of params.yaml."""
    if row in given.fusions:
        return {"row": row, "fusion of": asdict(given.fusions[row])}
    if row in given.trajectories:
        return {"row": row, "trajectories": asdict(given.trajectories[row])}
    data = root / "data"
    found = results.read(given, row, data)
    result = results.measure(found)
    experiment = given.experiments[row]
    about: dict[str, Any] = {
        "row": row,
        "protocol": result.protocol,
        "experiment": asdict(experiment),
        "recipe": asdict(given.recipe(experiment)) if experiment.recipe else results.UNTRAINED,
        "predictions": str(data / "predictions" / row / "predictions.parquet"),
        "remake": [f"dvc repro -f -s train@{row} evaluate@{row}", "actionbench repro"],
        "MLflow": _runs(given, row, root),
    }
    about["made by"] = {
        stage: {dep["path"]: dep.get("md5", "") for dep in stages[stage].get("deps", [])}
        for stage in (f"train@{row}", f"evaluate@{row}")
        if stage in stages
    }
    if isinstance(result.accuracy, str):
        return about | {"result": result.accuracy}
    about["result"] = _result(result.accuracy)
    about["data"] = _data(given, row, data)
    about["each run"] = {
        f"split {split}, seed {seed}": _result(results.measure(results.only(found, split, seed)).accuracy)
        for split in experiment.splits
        for seed in experiment.seeds
    }
    runs = run_log.places(data, row)
    about["workers"] = {
        f"split {split}, seed {seed}": workers(runs.get(f"split{split}-seed{seed}", ()))
        for split in experiment.splits
        for seed in experiment.seeds
    }
    about["wrong"] = wrong(found)
    return about


def workers(files: Sequence[Path]) -> str:
    """Return a run's workers by the files of its log: "1", or "2 in epochs 1 to 3, 1 in epochs 4 to 8"."""
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


def _runs(given: Params, row: str, root: Path) -> dict[str, str]:
    """The filter that finds the row's runs in any store, and the ids that this project's store has for them."""
    made = run_record.numbers(root / "data" / "tracking" / row)
    return {
        "filter": mlflow_mirror.asked(given.suite, row),
        **mlflow_mirror.ids(root, given.suite, row, made.training if made else None),
    }


def wrong(row: Row) -> list[dict[str, Any]]:
    """The test videos that a run got wrong, those wrong in most runs first, and what they were taken for."""
    if isinstance(row.predictions, str) or row.several:  # a ranking is right or wrong as a whole
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
            "split": one["split"],
            "video": one["video"],
            "class": classes[one["label"]],
            "wrong": f"{one['wrong']} of {one['runs']} runs",
            "taken for": sorted({"not decoded" if label is None else classes[label] for label in one["taken"]}),
        }
        for one in missed.iter_rows(named=True)
    ]


def _result(accuracy: Accuracy | Precision | str) -> str:
    if isinstance(accuracy, str):
        return accuracy
    value, low, high = (100 * share for share in (accuracy.main.value, accuracy.main.low, accuracy.main.high))
    decoded = "" if accuracy.decoded == accuracy.videos else f", {accuracy.decoded} of {accuracy.videos} decoded"
    return f"{accuracy.heading} {value:.1f} % [{low:.1f}, {high:.1f}], n = {accuracy.videos}{decoded}"


def _data(given: Params, row: str, data: Path) -> dict[str, str]:
    """Fingerprints of the frames and splits, as training recorded them."""
    experiment = given.experiments[row]
    found = {}
    for split in experiment.splits:
        recipe, protocol = given.recipe(experiment), given.protocols[experiment.protocol]
        cell = Run(row, experiment, recipe, protocol, split, experiment.seeds[0], data)
        if cell.split_table.exists() and (cell.frames / "index.arrow").exists():
            found[f"split {split}"] = keys.data(cell)
    return found
