"""A row's result: what tables and figures print of it, and how it differs from another row on the same videos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.config.load import named
from pipeline.config.schema import Params
from pipeline.config.signature import protocol_signature, subset_in_words
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.evaluate import predictions
from pipeline.evaluate.predictions import Predictions
from pipeline.measure import average_precision, scores, uncertainty
from pipeline.measure.average_precision import MAP
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import Interval
from pipeline.train import divergence

UNTRAINED = "not trained here"  # beside the protocol of a row that tests a file of weights as it is


@dataclass(frozen=True)
class System:
    """What a row is: whose numbers these are, and how they came about."""

    name: str
    dataset: str  # with its part, where that is not all of it
    backbone: str  # with its variant
    attention: str | None
    frames: int | None  # of one clip
    protocol: str  # signature, with UNTRAINED and the data set's part, where that is so
    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    several: bool  # whether videos have several labels: then mAP is measured, else top-1
    costs: Mapping[str, float]  # parameters, macs (of one view); what is absent stays blank


@dataclass(frozen=True)
class Row(System):
    """A row of a table as the stages left it."""

    predictions: Predictions | str  # or why there are none: "not run", "failed: ...", "failed: diverged at ..."


@dataclass(frozen=True)
class Result(System):
    """A row with what its predictions say, or with the reason why there are none."""

    accuracy: Accuracy | Precision | str

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(split, seed) of each run, in the order of confusions and class precisions."""
        return sorted(product(self.splits, self.seeds))


@dataclass(frozen=True)
class Difference:
    """A row less its base, on the same videos, splits and seeds."""

    heading: str  # of what: top-1 or mAP
    less: Interval
    p: float  # of the paired test, not adjusted
    videos: int


def read(params: Params, name: str, data: Path) -> Row:
    """A row from what its evaluation left in the data folder; predictions that are refused are the reason instead.

    Trajectories are a row too, of one view a video and seed 0.
    """
    if name in params.trajectories:
        return _trajectories(params, name, data)
    experiment = named(params, name)
    protocol = params.protocols[experiment.protocol]
    path = data / "predictions" / name / "predictions.parquet"
    costs, counted = path.with_name("costs.json"), dict[str, float]()
    runs = [f"split{split}-seed{seed}" for split, seed in product(experiment.splits, experiment.seeds)]
    diverged = divergence.reason(data, name, runs)
    found: Predictions | str = f"failed: {diverged}" if diverged else "not run"
    if path.exists() and not diverged:  # else they are of an earlier training
        try:
            if costs.exists():
                files.verify(costs)
                counted = json.loads(costs.read_text(encoding="utf-8"))
            files.verify(path)
            found = predictions.read(path, name, params, data / "splits" / experiment.dataset)
        except UserError as error:
            found = f"failed: {error}"
    recipe = params.recipe(experiment)
    how = [] if experiment.recipe else [UNTRAINED]
    return Row(
        name,
        ", ".join([experiment.dataset, *(part := subset_in_words(params.tier))]),
        f"{experiment.backbone}-{experiment.variant}",
        experiment.attention,
        protocol.frames or recipe.frames,
        ", ".join([protocol_signature(protocol, recipe), *how, *part]),
        experiment.splits,
        experiment.seeds,
        protocol.average == "sigmoid",
        counted,
        found,
    )


def _trajectories(params: Params, name: str, data: Path) -> Row:
    """The row of params.trajectories of that name."""
    settings, part = params.trajectories[name], subset_in_words(params.tier)
    splits, path = data / "splits" / settings.dataset, data / "predictions" / name / "predictions.parquet"
    words = f"up to {settings.scales} scales, {settings.flow}, {settings.gaussians} Gaussians"
    found: Predictions | str = "not run"
    several = False
    if path.exists():
        try:
            tests = [predictions.parts(splits, split).get("test", []) for split in settings.splits]
            several = any(len(labels) != 1 for test in tests for _, labels in test)
            files.verify(path)
            found = predictions.read_outside(path, splits, settings.splits, (0,), several)
        except UserError as error:
            found = f"failed: {error}"
    return Row(
        name,
        ", ".join([settings.dataset, *part]),
        "trajectories",
        None,
        None,
        ", ".join([words, *part]),
        settings.splits,
        (0,),
        several,
        {},
        found,
    )


def only(row: Row, split: int, seed: int) -> Row:
    """The part of a row that is one run."""
    if isinstance(row.predictions, str):
        return row
    frame = row.predictions.frame.filter(split=split, seed=seed)
    return replace(row, splits=(split,), seeds=(seed,), predictions=replace(row.predictions, frame=frame))


def measure(row: Row) -> Result:
    """The row's result; it holds a few bytes a video, so that a thousand rows fit into memory.

    With several labels a video it holds a few a video and class.
    """
    system = {field.name: getattr(row, field.name) for field in fields(System)}
    if isinstance(row.predictions, str):
        return Result(**system, accuracy=row.predictions)
    return Result(
        **system, accuracy=(scores.of_precision if row.several else scores.of_accuracy)(row.name, row.predictions)
    )


def common(row: Result, base: Result) -> list[tuple[int, int]] | str:
    """The runs that a row and its base both have, sorted, or why they can't be compared."""
    if isinstance(row.accuracy, str):
        return row.accuracy
    if isinstance(base.accuracy, str):
        return f"base {base.accuracy}"
    if row.dataset != base.dataset:
        return f"base is on {base.dataset}"
    if type(row.accuracy) is not type(base.accuracy):
        return f"base has {base.accuracy.heading}"
    return sorted(set(row.runs) & set(base.runs)) or "base has other splits or seeds"


def by_class(row: Result, runs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """K: each class's test videos, and its accuracy or average precision over these runs; NaN where it has none."""
    assert not isinstance(row.accuracy, str)
    at = [row.runs.index(run) for run in runs]
    counts, shares = row.accuracy.by_class(at)
    return counts // len({seed for _, seed in runs}), shares  # every seed tests the same videos


def confused(row: Result, runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """K,K+1: which share of a class's test videos was taken for which class, over these runs; the last: not decoded."""
    assert isinstance(row.accuracy, Accuracy)
    counts = row.accuracy.confusion[[row.runs.index(run) for run in runs]].sum(axis=0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def difference(row: Result, base: Result) -> Difference | str:
    """How the row differs from its base, or why that can't be told."""
    if isinstance(runs := common(row, base), str):
        return runs
    seeds, name = sorted({seed for _, seed in runs}), f"{row.name} less {base.name}"
    if isinstance(row.accuracy, Precision) and isinstance(base.accuracy, Precision):
        return _less_precision(row, base, row.accuracy, base.accuracy, name, seeds)
    if isinstance(less := pairs(row, base), str):
        return less
    columns = list(map(str, seeds))
    whole = np.stack([less[column].to_numpy() for column in columns], axis=1)
    splits = np.split(whole, np.flatnonzero(np.diff(less["split"].to_numpy())) + 1)
    sums = whole.sum(axis=1, dtype=np.int64)
    if len(splits) > 1:  # a video that several splits test is one unit of the test
        by_video = less.select("video", total=pl.Series(sums)).group_by("video")
        sums = by_video.agg(pl.col("total").sum())["total"].to_numpy()
    top1 = uncertainty.bootstrap(splits, name, least=-1)
    return Difference("top-1", top1, uncertainty.sign_flip(sums), len(less))


def pairs(row: Result, base: Result) -> pl.DataFrame | str:
    """split, video, and for each seed that both have a column, named as it: whether the row is right less the base.

    Or why they can't be compared.
    """
    if isinstance(runs := common(row, base), str):
        return runs
    assert isinstance(row.accuracy, Accuracy) and isinstance(base.accuracy, Accuracy)
    splits, seeds = ({run[at] for run in runs} for at in (0, 1))
    one, other = (
        found.right if splits == set(of.splits) else found.right.filter(pl.col("split").is_in(splits))
        for of, found in ((row, row.accuracy), (base, base.accuracy))
    )
    if not one["video"].equals(other["video"]):
        return "base has other videos"
    return pl.DataFrame([one["split"], one["video"], *(one[seed] - other[seed] for seed in map(str, sorted(seeds)))])


def _less_precision(
    row: Result, base: Result, own: Precision, other: Precision, name: str, seeds: list[int]
) -> Difference | str:
    splits = sorted(set(own.rankings) & set(other.rankings))
    rows = [
        [replace(ranked, places=ranked.places[[sorted(of.seeds).index(seed) for seed in seeds]]) for ranked in ranks]
        for of, ranks in ((row, [own.rankings[s] for s in splits]), (base, [other.rankings[s] for s in splits]))
    ]
    if any(one.videos != two.videos for one, two in zip(*rows, strict=True)):
        return "base has other videos"
    value = float(np.subtract(*(average_precision.values(ranks)[..., MAP].mean() for ranks in rows)))
    drawn = average_precision.bootstrap(rows, name)[..., MAP]
    less = drawn[:, 0] - drawn[:, 1]
    videos = sum(len(one.videos) for one in rows[0])
    return Difference("mAP", average_precision.interval(value, less), average_precision.paired(value, less), videos)
