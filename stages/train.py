"""Stage 4, for one row: trains its splits x seeds side by side, and mirrors their logs into MLflow meanwhile."""

from dataclasses import asdict
from pathlib import Path

from cluster.fit import fit
from cluster.session import session
from pipeline import cells, downloads, params, records, tracking
from pipeline.protocol import protocol_signature
from stages import DATA, run


def train(row: str) -> None:
    given = params.load()
    todo = cells.cells(given, row, DATA.absolute())
    one = todo[0]
    weights = downloads.weights(one.experiment.weights, DATA / "weights") if one.experiment.weights else None
    cells.net(one, weights)  # a mistake in the row is said before any worker starts
    places = [f"{given.suite}/{name}" for name, table in given.tables.items() if row in (*table.rows, table.base)]
    tags = records.tags(
        Path.cwd(),
        stage=cells.training_fingerprint(one),
        data=cells.data_fingerprint(one),
        protocol=protocol_signature(one.protocol, one.recipe),
        place=" ".join(places),
    )
    settings = {"row": asdict(one.experiment), "recipe": asdict(one.recipe)}
    record = records.record(given.suite, row, settings, tags)
    logs = {cell.name: (cell.running_log(given.cluster),) for cell in todo}
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
