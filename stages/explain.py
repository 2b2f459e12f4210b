"""Where a row's number comes from: protocol, settings, runs, data, code, the videos it got wrong, how to remake it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from pipeline import metrics, params, results
from pipeline.cells import Cell, data_fingerprint
from pipeline.errors import UserError
from pipeline.measures import Accuracy, Precision
from pipeline.params import alternatives
from pipeline.results import Row
from pipeline.schema import Params
from stages import DATA
from stages.plan import locked


def explain(table: str, row: str) -> dict[str, Any]:
    """All that is known of a row of a table of params.yaml, ready to print.

    Raises UserError for a table or a row that is not there, naming those that are.
    """
    given = params.load()
    name = table.removeprefix(f"{given.suite}/")
    if name not in given.tables:
        raise UserError(f"suite {given.suite} has no table {table!r}; {alternatives(name, given.tables)}")
    spec = given.tables[name]
    rows = list(dict.fromkeys((*([spec.base] if spec.base else []), *spec.rows)))
    if row not in rows:
        raise UserError(f"table {name} has no row {row!r}; {alternatives(row, rows)}")
    if row in given.fusions:
        return {"table": f"{given.suite}/{name}", "row": row, "fusion of": asdict(given.fusions[row])}
    if row in given.trajectories:
        return {"table": f"{given.suite}/{name}", "row": row, "trajectories": asdict(given.trajectories[row])}
    found = results.read(given, row, DATA)
    result = results.measure(found)
    experiment = given.experiments[row]
    about: dict[str, Any] = {
        "table": f"{given.suite}/{name}: {spec.title}",
        "row": row,
        "protocol": result.protocol,
        "experiment": asdict(experiment),
        "recipe": asdict(given.recipes[experiment.recipe]),
        "predictions": str(DATA / "predictions" / row / "predictions.parquet"),
        "remake": [f"dvc repro -f train@{row}", f"dvc repro evaluate@{row} aggregate"],
        "runs": "actionbench mlflow",
    }
    stages = locked()
    about["made by"] = {
        stage: {dep["path"]: dep.get("md5", "") for dep in stages[stage].get("deps", [])}
        for stage in (f"train@{row}", f"evaluate@{row}")
        if stage in stages
    }
    if isinstance(result.accuracy, str):
        return about | {"result": result.accuracy}
    about["result"] = _result(result.accuracy)
    about["data"] = _data(given, row)
    about["each run"] = {
        f"split {split}, seed {seed}": _result(results.measure(results.only(found, split, seed)).accuracy)
        for split in experiment.splits
        for seed in experiment.seeds
    }
    about["wrong"] = wrong(found)
    return about


def wrong(row: Row) -> list[dict[str, Any]]:
    """The test videos that a run got wrong, those wrong in most runs first, and what they were taken for."""
    if isinstance(row.predictions, str) or row.several:  # a ranking is right or wrong as a whole
        return []
    classes = row.predictions.classes
    outcomes = metrics.outcomes(row.predictions)
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


def _data(given: Params, row: str) -> dict[str, str]:
    """Fingerprints of the frames and splits, as training recorded them."""
    experiment = given.experiments[row]
    found = {}
    for split in experiment.splits:
        recipe, protocol = given.recipes[experiment.recipe], given.protocols[experiment.protocol]
        cell = Cell(row, experiment, recipe, protocol, split, experiment.seeds[0], Path(DATA))
        if cell.split_table.exists() and (cell.frames / "index.arrow").exists():
            found[f"split {split}"] = data_fingerprint(cell)
    return found
