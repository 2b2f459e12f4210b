"""Stage 4, for one row: train its splits x seeds in parallel, and mirror their logs into MLflow meanwhile."""

from dataclasses import asdict
from pathlib import Path

from cluster.fit import fit, running_log
from cluster.session import session
from pipeline import cells, downloads, keys, params, records, rows, tracking
from pipeline.digest.files import sha256
from pipeline.protocol import protocol_signature
from stages import DATA, run


def train(row: str) -> None:
    given = params.load()
    todo = rows.cells(given, row, DATA.absolute())
    rows.verify(todo)
    one = todo[0]
    weights = downloads.weights(one.experiment.weights, DATA / "weights") if one.experiment.weights else None
    checksum = sha256(weights) if weights else None
    cells.net(one, weights)  # a mistake in the row is said before any worker starts
    places = [f"{given.suite}/{name}" for name, table in given.tables.items() if row in (*table.rows, table.base)]
    tags = records.tags(
        Path.cwd(),
        stage=keys.training(one, checksum),
        data=keys.data(one),
        protocol=protocol_signature(one.protocol, one.recipe),
        place=" ".join(places),
    )
    settings = {"row": asdict(one.experiment), "recipe": asdict(one.recipe)}
    record = records.record(given.suite, row, settings, tags)
    logs = {cell.name: (running_log(cell, checksum, given.cluster),) for cell in todo}
    with session(given.cluster):
        fit(
            todo,
            weights,
            given.cluster,
            watch=lambda: tracking.mirror(Path.cwd(), record, logs),
        )
    records.save(record, DATA / "tracking" / row)


if __name__ == "__main__":
    run(train)
