"""The keys of what can be resumed: training, evaluated blocks, trajectories, and where their state lies."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.config.schema import Cluster, Trajectories
from pipeline.digest import code
from pipeline.digest.files import sha256
from pipeline.digest.key import key
from pipeline.storage.remote import Place, place
from pipeline.train.run import Cell


def training(cell: Cell, weights: str | None) -> str:
    """Return the key of a cell's training, from weights of that sha256 or from scratch."""
    flips = cell.recipe.augment.flip  # without it no clip has the label of its mirror image
    return key(
        [code.stage("train"), *_plugins(cell)],
        {**_net(cell), "seed": cell.seed},
        _data(cell)
        | ({"mirrored": sha256(cell.mirror_list)} if flips else {})
        | ({"weights": weights} if weights else {}),
    )


def evaluation(cell: Cell) -> str:
    """Return the key of a cell's evaluated blocks, which follow from its trained weights."""
    settings = {"row": cell.row, "split": cell.split, "seed": cell.seed, "protocol": asdict(cell.protocol)}
    return key(
        [code.stage("evaluate"), *_plugins(cell)],
        {**_net(cell), **settings},
        _data(cell) | {"mirrored": sha256(cell.mirror_list), "weights": sha256(cell.weights)},
    )


def data(cell: Cell) -> str:
    """Return the key of a cell's frames and split."""
    return key([], {}, _data(cell))


def trajectories(settings: Trajectories, frames: Path, splits: Path) -> str:
    """Return the key of a row of trajectories; `frames` and `splits` are the data set's folders."""
    tables = [*splits.glob("split-*.parquet"), splits / "classes.json"]
    inputs = {"frames": sha256(frames / "index.arrow"), **{path.name: sha256(path) for path in tables}}
    return key([code.stage("trajectories")], asdict(settings), inputs)


def state(cell: Cell, cluster: Cluster, made_under: str) -> Place:
    """Return the folder of a cell's state under a key: whose key differs, never meets it."""
    return place(cluster.storage) / cell.row / f"{cell.name}-{made_under[:16]}"


def _plugins(cell: Cell) -> list[str]:
    experiment = cell.experiment
    return [code.plugin("backbone", experiment.backbone), code.plugin("attention", experiment.attention)]


def _net(cell: Cell) -> Mapping[str, Any]:
    """The settings of the net and its training; names of data sets, recipes and files aren't among them."""
    experiment = cell.experiment
    named = {"backbone": experiment.backbone, "variant": experiment.variant, "attention": experiment.attention}
    return {**named, "knobs": experiment.knobs, "recipe": asdict(cell.recipe)}


def _data(cell: Cell) -> dict[str, str]:
    files = {"frames": cell.frames / "index.arrow", "split": cell.split_table, "classes": cell.class_list}
    return {name: sha256(path) for name, path in files.items()}
