"""Stage 4, for one row: train its splits x seeds, mirrored to MLflow."""

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
    params = load.load()
    todo = rows.runs(params, row, DATA.absolute())
    rows.verify(todo)
    first = todo[0]
    experiment, recipe = first.experiment, first.recipe
    weights = fetch(experiment.weights, Path.cwd()) if experiment.weights else None
    checksum = sha256(weights) if weights else None
    first.net(weights)  # reports an error in the row before any worker starts
    places = [f"{params.suite}/{name}" for name, table in params.tables.items() if row in (*table.rows, table.base)]
    tags = run_record.tags(
        Path.cwd(),
        stage=keys.training(first, checksum),
        data=keys.data(first),
        protocol=protocol_signature(first.protocol, recipe),
        place=" ".join(places),
    )
    settings = {"row": asdict(experiment), "recipe": asdict(recipe) if experiment.recipe else None}
    record = run_record.record(params.suite, row, settings, tags)
    if experiment.recipe is None and weights:  # the file is tested without training
        for run in todo:
            run.convert(weights)
        write_sums(first.weights.parent)
    else:
        logs = {run.name: (running_log(run, checksum, params.cluster),) for run in todo}
        with session(params.cluster):
            fit(todo, weights, params.cluster, watch=lambda: mlflow_mirror.mirror(Path.cwd(), record, logs))
    run_record.save(record, DATA / "tracking" / row)


if __name__ == "__main__":
    run(train)
