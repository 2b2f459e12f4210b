"""Stage 5, for one row: predictions for each video and view, and costs."""

import json
from dataclasses import replace
from pathlib import Path

from cluster.fit import forget
from cluster.score import score
from cluster.session import session
from pipeline.config import load
from pipeline.config.schema import Order, Params
from pipeline.config.signature import in_order
from pipeline.digest.files import write_sums
from pipeline.download.weights import checksum
from pipeline.evaluate import inference
from pipeline.evaluate.predictions import file_of
from pipeline.measure import outcomes, results
from pipeline.measure.results import Result
from pipeline.report import exports, figures
from pipeline.storage import notes
from pipeline.storage.atomic import write
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.train import rows
from pipeline.train.run import Run
from stages import DATA, run


def evaluate(row: str) -> None:
    params = load.load()
    todo = rows.runs(params, row, DATA.absolute())
    rows.verify(todo)
    folder = DATA / "predictions" / row
    with session(params.cluster):
        orders = todo[0].protocol.probes
        todo, *probes = (_in_order(todo, order) for order in (None, *orders))
        speed = _predict(todo, params, folder / file_of())
        for order, probe in zip(orders, probes, strict=True):
            _predict(probe, params, folder / file_of(order))
    write(folder / "costs.json", json.dumps(inference.costs(todo[0]), indent=2) + "\n")
    write_sums(folder)
    notes.write(DATA / "tracking" / row / "speeds.json", {"clips_per_second": round(speed, 1)})
    mirror(params, row)
    weights = todo[0].experiment.weights
    every = [run for runs in (todo, *probes) for run in runs]
    forget(every, checksum(weights, Path.cwd()) if weights else None, params.cluster)


def _predict(runs: list[Run], params: Params, path: Path) -> float:
    """Write the predictions of a row's runs, and their outcomes; return views forwarded a second."""
    speed = inference.gather(runs, score(runs, params.cluster), path)
    if (average := runs[0].protocol.average) != "sigmoid":
        outcomes.keep(path, average)
    return speed


def _in_order(runs: list[Run], order: Order | None) -> list[Run]:
    return [replace(run, protocol=in_order(run.protocol, order)) for run in runs]


def mirror(params: Params, row: str) -> None:
    """Send the row's test numbers to MLflow; keep a copy in case it does not answer."""
    result, folder = results.read(params, row, DATA), DATA / "tracking" / row
    runs = {f"split{split}-seed{seed}": (split, seed) for split in result.splits for seed in result.seeds}
    by_run = {name: exports.points(results.only(result, *run)) for name, run in runs.items()}
    record = run_record.load(folder) or run_record.record(params.suite, row, {}, {})
    numbers = run_record.Numbers(record.training, by_run, exports.points(result))
    run_record.save(numbers, folder)
    logs, shown = run_log.places(DATA, row), folder / run_record.ARTIFACTS
    _draw(results.measure(result), [curve for curve, _ in logs.values()], shown)
    mlflow_mirror.finish(Path.cwd(), record, logs, numbers, shown)


def _draw(result: Result, curves: list[Path], folder: Path) -> None:
    """Write the row's metrics, curves and confusion matrix, which MLflow shows."""
    write(folder / "metrics.json", json.dumps(exports.summary(result), indent=2) + "\n")
    figures.confusion(result, folder / "confusion.svg")
    if curves:
        figures.learning_curves({result.name: curves}, folder / "curves.svg")


if __name__ == "__main__":
    run(evaluate)
