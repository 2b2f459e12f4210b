"""Stage 5, for one row: its checkpoints under its protocol; a prediction a video and view, and the counted costs."""

import json
from pathlib import Path

from cluster.fit import forget
from cluster.score import score
from cluster.session import session
from pipeline import downloads, exports, logs, params, predict, records, results, rows, tracking
from pipeline.atomic import write
from pipeline.digest.files import write_sums
from pipeline.schema import Params
from stages import DATA, run


def evaluate(row: str) -> None:
    given = params.load()
    todo = rows.cells(given, row, DATA.absolute())
    rows.verify(todo)
    folder = DATA / "predictions" / row
    with session(given.cluster):
        speed = predict.gather(todo, score(todo, given.cluster), folder / "predictions.parquet")
    write(folder / "costs.json", json.dumps(predict.costs(todo[0]), indent=2) + "\n")
    write_sums(folder)
    speeds = {"clips_per_second": round(speed, 1)}
    write(DATA / "tracking" / row / "speeds.json", json.dumps(speeds, indent=2) + "\n")
    mirror(given, row)
    weights = todo[0].experiment.weights
    forget(todo, downloads.checksum(weights) if weights else None, given.cluster)


def mirror(given: Params, row: str) -> None:
    """Sends the row's test numbers to MLflow, and keeps them for a store that doesn't answer now."""
    found, folder = results.read(given, row, DATA), DATA / "tracking" / row
    runs = {f"split{split}-seed{seed}": (split, seed) for split in found.splits for seed in found.seeds}
    by_run = {name: exports.points(results.only(found, *run)) for name, run in runs.items()}
    record = records.load(folder) or records.record(given.suite, row, {}, {})
    numbers = records.Numbers(record.training, by_run, exports.points(found))
    records.save(numbers, folder)
    tracking.finish(Path.cwd(), record, logs.places(DATA, row), numbers)


if __name__ == "__main__":
    run(evaluate)
