"""Stage 4, for one row: train its splits x seeds in parallel, and mirror their logs into MLflow meanwhile."""

from dataclasses import asdict
from pathlib import Path

from cluster.fit import fit, running_log
from cluster.session import session
from pipeline.config import load
from pipeline.config.signature import protocol_signature
from pipeline.digest.files import sha256, write_sums
from pipeline.download.weights import fetch
from pipeline.tracking import mlflow_mirror, run_record
from pipeline.train import keys, rows
from stages import DATA, run


def train(row: str) -> None:
    given = load.load()
    todo = rows.runs(given, row, DATA.absolute())
    rows.verify(todo)
    one = todo[0]
    weights = fetch(one.experiment.weights, Path.cwd()) if one.experiment.weights else None
    checksum = sha256(weights) if weights else None
    one.net(weights)  # a mistake in the row is said before any worker starts
    places = [f"{given.suite}/{name}" for name, table in given.tables.items() if row in (*table.rows, table.base)]
    tags = run_record.tags(
        Path.cwd(),
        stage=keys.training(one, checksum),
        data=keys.data(one),
        protocol=protocol_signature(one.protocol, one.recipe),
        place=" ".join(places),
    )
    settings = {"row": asdict(one.experiment), "recipe": asdict(one.recipe) if one.experiment.recipe else None}
    record = run_record.record(given.suite, row, settings, tags)
    logs = {run.name: (running_log(run, checksum, given.cluster),) for run in todo}
    if one.experiment.recipe is None and weights:  # the file is tested as it is
        for run in todo:
            run.convert(weights)
        write_sums(one.weights.parent)
        run_record.save(record, DATA / "tracking" / row)
        return
    with session(given.cluster):
        fit(
            todo,
            weights,
            given.cluster,
            watch=lambda: mlflow_mirror.mirror(Path.cwd(), record, logs),
        )
    run_record.save(record, DATA / "tracking" / row)


if __name__ == "__main__":
    run(train)
