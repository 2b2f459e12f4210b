"""Stage 5, for one row: its checkpoints under its protocol; a prediction a video and view, and what they come to."""

import json
from pathlib import Path

from cluster.fit import forget
from cluster.score import score
from cluster.session import session
from pipeline import downloads, exports, params, predict, records, results, rows, tracking
from pipeline.atomic import write
from pipeline.digest.files import write_sums
from stages import DATA, run

REPORTS = Path("reports")


def evaluate(row: str) -> None:
    given = params.load()
    todo = rows.cells(given, row, DATA.absolute())
    rows.verify(todo)
    with session(given.cluster):
        speed = predict.gather(todo, score(todo, given.cluster), DATA / "predictions" / row / "predictions.parquet")
    costs = {**predict.costs(todo[0]), "clips_per_second": round(speed, 1)}
    write(DATA / "costs" / f"{row}.json", json.dumps(costs, indent=2) + "\n")
    write_sums(DATA / "predictions" / row)
    found = results.read(given, row, DATA)
    result = results.measure(found)
    write(REPORTS / "metrics" / f"{row}.json", json.dumps(exports.summary(result), indent=2) + "\n")
    exports.save_curve(REPORTS / "plots" / row / "curve.csv", [cell.curve for cell in todo])
    exports.save_confusion(REPORTS / "plots" / row / "confusion.csv", result)
    record = records.load(todo[0].timings.parent) or records.record(given.suite, row, {}, {})
    by_cell = {cell.name: exports.summary(results.measure(results.only(found, cell.split, cell.seed))) for cell in todo}
    numbers = records.Numbers(record.training, by_cell, exports.summary(result))
    records.save(numbers, DATA / "predictions" / row)
    tracking.finish(Path.cwd(), record, {cell.name: cell.curve for cell in todo}, numbers)
    weights = todo[0].experiment.weights
    forget(todo, downloads.checksum(weights) if weights else None, given.cluster)


if __name__ == "__main__":
    run(evaluate)
