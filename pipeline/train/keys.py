"""Keys of training, evaluation and trajectories, and folders of their state."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.schema import Cluster, Trajectories
from pipeline.digest import code
from pipeline.digest.files import sha256
from pipeline.digest.key import key
from pipeline.storage.remote import Place, place
from pipeline.train.run import Run


def training(run: Run, weights: str | None) -> str:
    """Return the key of a run's training, from weights of a sha256 or from scratch."""
    flips = run.recipe.augment.flip  # without it no clip has the label of its mirror image
    return key(
        [code.stage("train"), *_plugins(run)],
        {**_net(run), "seed": run.seed},
        _data(run)
        | ({"mirrored": sha256(run.mirror_list)} if flips else {})
        | ({"weights": weights} if weights else {}),
    )


def evaluation(run: Run) -> str:
    """Return the key of a run's evaluated blocks, given its trained weights."""
    settings = {"row": run.row, "split": run.split, "seed": run.seed, "protocol": asdict(run.protocol)}
    return key(
        [code.stage("evaluate"), *_plugins(run)],
        {**_net(run), **settings},
        _data(run) | {"mirrored": sha256(run.mirror_list), "weights": sha256(run.weights)},
    )


def data(run: Run) -> str:
    """Return the key of a run's frames and split."""
    return key([], {}, _data(run))


def trajectories(settings: Trajectories, frames: Path, splits: Path) -> str:
    """Return the key of a row of trajectories, by its data set's folders."""
    tables = [*splits.glob("split-*.parquet"), splits / "classes.json"]
    inputs = {"frames": sha256(frames / "index.arrow"), **{path.name: sha256(path) for path in tables}}
    return key([code.stage("trajectories")], asdict(settings), inputs)


def state(run: Run, cluster: Cluster, made_under: str) -> Place:
    """Return the folder of a run's state under a key; another key has another folder."""
    return place(cluster.storage) / run.row / f"{run.name}-{made_under[:16]}"


def _plugins(run: Run) -> list[str]:
    experiment = run.experiment
    return [code.plugin("backbone", experiment.backbone), code.plugin("attention", experiment.attention)]


def _net(run: Run) -> Mapping[str, Any]:
    """Return the settings of the net and its training, without names and files."""
    experiment = run.experiment
    named = {"backbone": experiment.backbone, "variant": experiment.variant, "attention": experiment.attention}
    return {**named, "knobs": experiment.knobs, "recipe": asdict(run.recipe)}


def _data(run: Run) -> dict[str, str]:
    files = {"frames": run.frames / "index.arrow", "split": run.split_table, "classes": run.class_list}
    return {name: sha256(path) for name, path in files.items()}
