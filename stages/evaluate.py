"""Stage 5, for one row: its checkpoints under its protocol; a prediction a video and view, and the counted costs."""

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
from pipeline.measure import results
from pipeline.report import exports
from pipeline.storage import notes
from pipeline.storage.atomic import write
from pipeline.tracking import mlflow_mirror, run_log, run_record
from pipeline.train import rows
from pipeline.train.run import Run
from stages import DATA, run


def evaluate(row: str) -> None:
    given = load.load()
    todo = rows.runs(given, row, DATA.absolute())
    rows.verify(todo)
    folder = DATA / "predictions" / row
    with session(given.cluster):
        orders = todo[0].protocol.probes
        todo, *probes = (_in_order(todo, order) for order in (None, *orders))
        speed = inference.gather(todo, score(todo, given.cluster), folder / file_of())
        for order, probe in zip(orders, probes, strict=True):
            inference.gather(probe, score(probe, given.cluster), folder / file_of(order))
    write(folder / "costs.json", json.dumps(inference.costs(todo[0]), indent=2) + "\n")
    write_sums(folder)
    notes.write(DATA / "tracking" / row / "speeds.json", {"clips_per_second": round(speed, 1)})
    mirror(given, row)
    weights = todo[0].experiment.weights
    every = [run for runs in (todo, *probes) for run in runs]
    forget(every, checksum(weights, Path.cwd()) if weights else None, given.cluster)


def _in_order(runs: list[Run], order: Order | None) -> list[Run]:
    return [replace(run, protocol=in_order(run.protocol, order)) for run in runs]


def mirror(given: Params, row: str) -> None:
    """Sends the row's test numbers to MLflow, and keeps them for a store that doesn't answer now."""
    found, folder = results.read(given, row, DATA), DATA / "tracking" / row
    runs = {f"split{split}-seed{seed}": (split, seed) for split in found.splits for seed in found.seeds}
    by_run = {name: exports.points(results.only(found, *run)) for name, run in runs.items()}
    record = run_record.load(folder) or run_record.record(given.suite, row, {}, {})
    numbers = run_record.Numbers(record.training, by_run, exports.points(found))
    run_record.save(numbers, folder)
    mlflow_mirror.finish(Path.cwd(), record, run_log.places(DATA, row), numbers)


if __name__ == "__main__":
    run(evaluate)
