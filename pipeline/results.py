"""A row's result: what tables and figures print of it, and how it differs from another row on the same videos.

Legend: R runs (split x seed), K classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import metrics, statistics
from pipeline.errors import UserError
from pipeline.metrics import Predictions
from pipeline.params import named
from pipeline.protocol import protocol_signature
from pipeline.schema import Experiment, Params, Protocol
from pipeline.statistics import Interval


@dataclass(frozen=True)
class Row:
    """A row of a table as the stages left it."""

    name: str
    experiment: Experiment
    frames: int  # of one clip
    protocol: Protocol
    predictions: Predictions | str  # or why there are none: "not run", "failed: ..."
    costs: Mapping[str, float]  # parameters, macs (of one view), clips_per_second; what is absent stays blank


@dataclass(frozen=True)
class Accuracy:
    """What a row's predictions say; shares are of all test videos, decoded or not."""

    top1: Interval
    top5: float | None  # None where five guesses name every class
    mean_class: float
    videos: int  # of the test parts, summed over splits
    decoded: int  # of these
    classes: tuple[str, ...]
    confusion: np.ndarray  # R,K,K+1, as metrics.confusion() says
    right: pl.DataFrame  # split, video, and for each seed a column of 0 and 1, named as the seed


@dataclass(frozen=True)
class Result:
    """A row with its accuracy, or with the reason why it has none."""

    name: str
    experiment: Experiment
    frames: int
    protocol: str  # signature
    costs: Mapping[str, float]
    accuracy: Accuracy | str


@dataclass(frozen=True)
class Difference:
    """A row less its base, on the same videos, splits and seeds."""

    top1: Interval
    p: float  # of the exact paired test, not adjusted
    videos: int


def read(params: Params, name: str, data: Path) -> Row:
    """A row from what its evaluation left in the data folder; predictions that are refused are the reason instead."""
    experiment = named(params, name)
    path = data / "predictions" / name / "predictions.parquet"
    predictions: Predictions | str = "not run"
    if path.exists():
        try:
            predictions = metrics.read(path, name, params, data / "splits" / experiment.dataset)
        except UserError as error:
            predictions = f"failed: {error}"
    costs = data / "costs" / f"{name}.json"
    found = json.loads(costs.read_text(encoding="utf-8")) if costs.exists() else {}
    frames = params.protocols[experiment.protocol].frames or params.recipes[experiment.recipe].frames
    return Row(name, experiment, frames, params.protocols[experiment.protocol], predictions, found)


def only(row: Row, split: int, seed: int) -> Row:
    """The part of a row that is one run."""
    if isinstance(row.predictions, str):
        return row
    frame = row.predictions.frame.filter(split=split, seed=seed)
    experiment = replace(row.experiment, splits=(split,), seeds=(seed,))
    return replace(row, experiment=experiment, predictions=replace(row.predictions, frame=frame))


def measure(row: Row) -> Result:
    """The row's result; it holds a few bytes a video, so that a thousand rows fit into memory."""
    signature = protocol_signature(row.protocol, row.frames)
    accuracy = row.predictions if isinstance(row.predictions, str) else _accuracy(row.name, row.predictions)
    return Result(row.name, row.experiment, row.frames, signature, row.costs, accuracy)


def difference(row: Result, base: Result) -> Difference | str:
    """How the row differs from its base, or why that can't be told."""
    if isinstance(row.accuracy, str):
        return row.accuracy
    if isinstance(base.accuracy, str):
        return f"base {base.accuracy}"
    if row.experiment.dataset != base.experiment.dataset:
        return f"base is on {base.experiment.dataset}"
    seeds = [str(seed) for seed in row.experiment.seeds if seed in base.experiment.seeds]
    pairs = row.accuracy.right.join(base.accuracy.right, on=["split", "video"], suffix=" base").sort("split", "video")
    if not seeds or not len(pairs):
        return "base has other splits or seeds"
    pairs = pairs.select("split", "video", *(pl.col(seed) - pl.col(f"{seed} base") for seed in seeds))
    top1 = statistics.bootstrap(_matrices(pairs), f"{row.name} less {base.name}", least=-1)
    # A video that several splits test is one unit of the test.
    sums = pairs.group_by("video").agg(total=pl.sum_horizontal(pl.col(seeds).cast(pl.Int64).sum()))["total"]
    return Difference(top1, statistics.sign_flip(sums.to_numpy()), len(pairs))


def _accuracy(name: str, predictions: Predictions) -> Accuracy:
    outcomes, classes = metrics.outcomes(predictions), len(predictions.classes)
    confusion = metrics.confusion(outcomes, classes)
    right = outcomes.pivot(on="seed", index=["split", "video"], values="top1").sort("split", "video")
    right = right.with_columns(pl.exclude("split", "video").cast(pl.Int8))
    decoded = outcomes.group_by("split", "video").agg(pl.col("predicted").is_not_null().all())["predicted"]
    return Accuracy(
        statistics.bootstrap(_matrices(right), name),
        metrics.accuracy(outcomes, "top5") if classes > metrics.BEST else None,
        metrics.mean_class_accuracy(confusion),
        len(right),
        int(decoded.sum()),
        predictions.classes,
        confusion,
        right,
    )


def _matrices(values: pl.DataFrame) -> list[np.ndarray]:
    """One matrix a split, videos x seeds."""
    return [split.drop("split", "video").to_numpy() for split in values.partition_by("split")]
