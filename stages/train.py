"""Stage 4, for one row: train its splits x seeds, mirrored to MLflow."""

import json
from dataclasses import asdict
from pathlib import Path

from ruamel.yaml import YAML

from cluster.fit import fit, running_log
from cluster.session import session
from pipeline.config import load
from pipeline.config.schema import Params
from pipeline.config.signature import protocol_signature
from pipeline.digest import environment
from pipeline.digest.files import sha256, write_sums
from pipeline.download.weights import fetch
from pipeline.storage.atomic import write, writing
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
        source=f"dvc repro train@{row}",
    )
    settings = {"row": asdict(experiment), "recipe": asdict(recipe) if experiment.recipe else None}
    inputs = {f"split{split}": keys.data(run) for split, run in {run.split: run for run in todo}.items()}
    record = run_record.record(params.suite, row, settings, tags, inputs)
    _describe(params, row, DATA / "tracking" / row / run_record.ARTIFACTS)
    if experiment.recipe is None and weights:  # the file is tested without training
        for run in todo:
            run.convert(weights)
        write_sums(first.weights.parent)
    else:
        logs = {run.name: (running_log(run, checksum, params.cluster),) for run in todo}
        status = "FAILED"
        try:
            with session(params.cluster), mlflow_mirror.system_metrics(Path.cwd(), record):
                fit(todo, weights, params.cluster, watch=lambda: mlflow_mirror.mirror(Path.cwd(), record, logs))
            status = "FINISHED"
        finally:
            mlflow_mirror.mirror(Path.cwd(), record, logs, status)
    run_record.save(record, DATA / "tracking" / row)


def _describe(params: Params, row: str, folder: Path) -> None:
    """Write the row's settings and the environment, which MLflow shows."""
    experiment = params.experiments[row]
    settings = {
        "suite": params.suite,
        "row": row,
        "experiment": asdict(experiment),
        "recipe": asdict(params.recipe(experiment)) if experiment.recipe else None,
        "protocol": asdict(params.protocols[experiment.protocol]),
        "dataset": asdict(params.datasets[experiment.dataset]),
        "tier": asdict(params.tier),
    }
    with writing(folder / "params.yaml") as temporary:
        YAML().dump(json.loads(json.dumps(run_record.public(settings))), temporary)
    write(folder / "environment.json", json.dumps(environment.provenance(), indent=2) + "\n")


if __name__ == "__main__":
    run(train)
