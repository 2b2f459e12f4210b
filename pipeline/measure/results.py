"""A row's result, and its difference from another row on the same videos."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from pipeline.config.load import named
from pipeline.config.schema import Order, Params, Protocol
from pipeline.config.signature import data_in_words, in_order, pretrained, protocol_signature
from pipeline.digest import files
from pipeline.errors import UserError
from pipeline.evaluate import predictions
from pipeline.evaluate.predictions import Predictions
from pipeline.measure import accuracy, average_precision, claims, crossed, outcomes, ranks, scores
from pipeline.measure.crossed import Estimate
from pipeline.measure.scores import Accuracy, Precision
from pipeline.measure.uncertainty import sign_flip
from pipeline.measure.units import sources, units
from pipeline.train import divergence

T = TypeVar("T")
UNTRAINED = "not trained here"  # follows the protocol of a row that tests a file of weights as it is


@dataclass(frozen=True)
class System:
    """A row's identity: its system, data and protocol."""

    name: str
    file: str  # of the data set in pipeline/datasets
    dataset: str  # with its part, if it is not the whole
    backbone: str  # with its variant
    attention: str | None
    pretrained: str  # what its initial weights were trained on, or "none"
    frames: int | None  # of one clip
    protocol: str  # signature, with UNTRAINED and the data set's part, if they apply
    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    several: bool  # whether videos have several labels: then mAP is measured, else top-1
    costs: Mapping[str, float]  # parameters, macs (of one view); an absent one stays blank


@dataclass(frozen=True)
class Row(System):
    """A row of a table as the stages left it."""

    predictions: Predictions | str  # or the reason for none: "not run", "failed: ...", "failed: diverged at ..."


@dataclass(frozen=True)
class Result(System):
    """A row with its accuracy, or with the reason why it has none."""

    accuracy: Accuracy | Precision | str

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Split and seed of each run, in the order of confusions and class precisions."""
        return sorted(product(self.splits, self.seeds))


@dataclass(frozen=True)
class Difference:
    """A row less its base, on the same videos and splits, paired by seed."""

    heading: str  # of the measure: top-1, top-5 or mAP
    less: Estimate
    nets: float  # p of the test on the same videos that takes the trained networks as fixed
    videos: int
    unlike: str = ""  # the reason for no verdict about the two systems: other initial weights or views


def read(params: Params, name: str, data: Path, order: Order | None = None) -> Row:
    """Read a row from the data folder.

    Trajectories are a row, too, with one view a video and seed 0.

    Args:
        params: The suite's params.
        name: The row.
        data: The folder of predictions, splits and tracking.
        order: The order of frames of a probe of the row's protocol.

    Returns:
        The row, with a reason in place of predictions that are absent or refused.
    """
    if name in params.trajectories:
        return _trajectories(params, name, data)
    system, checked = _read(params, name, data, order, _predicted)
    return Row(**system, predictions=checked)


def measured(params: Params, name: str, data: Path, order: Order | None = None) -> Result:
    """Read and measure a row, by the outcomes that its evaluation kept, if it did; see read()."""
    if name in params.trajectories or params.protocols[named(params, name).protocol].average == "sigmoid":
        return measure(read(params, name, data, order))
    system, known = _read(params, name, data, order, outcomes.read)
    if known is None:
        return measure(read(params, name, data, order))
    if not isinstance(known, str):
        classes = predictions.class_names(data / "splits" / params.experiments[name].dataset)
        return Result(**system, accuracy=scores.of_accuracy(system["file"], known, classes))
    return Result(**system, accuracy=known)


def _predicted(path: Path, row: str, params: Params, splits: Path, protocol: Protocol) -> Predictions:
    files.verify(path)
    return predictions.read(path, row, params, splits, protocol)


def _read(
    params: Params,
    name: str,
    data: Path,
    order: Order | None,
    reader: Callable[[Path, str, Params, Path, Protocol], T],
) -> tuple[dict[str, Any], T | str]:
    """Return the fields of a row's System, and what `reader` returns of its predictions, or the reason for none."""
    experiment = named(params, name)
    protocol = in_order(params.protocols[experiment.protocol], order)
    path = data / "predictions" / name / predictions.file_of(order)
    costs, counted = path.with_name("costs.json"), dict[str, float]()
    runs = [f"split{split}-seed{seed}" for split, seed in product(experiment.splits, experiment.seeds)]
    diverged = divergence.reason(data, name, runs)
    checked: T | str = f"failed: {diverged}" if diverged else "not run"
    if path.exists() and not diverged:  # predictions of a diverged run are from an earlier one
        try:
            if costs.exists():
                files.verify(costs)
                counted = json.loads(costs.read_text(encoding="utf-8"))
            checked = reader(path, name, params, data / "splits" / experiment.dataset, protocol)
        except UserError as error:
            checked = f"failed: {error}"
    recipe, dataset = params.recipe(experiment), params.datasets[experiment.dataset]
    how = [] if experiment.recipe else [UNTRAINED]
    part = data_in_words(dataset, params.tier)
    system = System(
        name,
        dataset.file,
        ", ".join([experiment.dataset, *part]),
        f"{experiment.backbone}-{experiment.variant}",
        experiment.attention,
        pretrained(experiment.weights),
        protocol.frames or recipe.frames,
        ", ".join([protocol_signature(protocol, recipe), *how, *part]),
        experiment.splits,
        experiment.seeds,
        protocol.average == "sigmoid",
        counted,
    )
    return _fields(system), checked


def _trajectories(params: Params, name: str, data: Path) -> Row:
    """Read the row of params.trajectories[name]."""
    settings = params.trajectories[name]
    dataset = params.datasets[settings.dataset]
    part = data_in_words(dataset, params.tier)
    splits, path = data / "splits" / settings.dataset, data / "predictions" / name / "predictions.parquet"
    words = f"up to {settings.scales} scales, {settings.flow}, {settings.gaussians} Gaussians"
    checked: Predictions | str = "not run"
    several = False
    if path.exists():
        try:
            tests = [predictions.parts(splits, split).get("test", []) for split in settings.splits]
            several = any(len(labels) != 1 for test in tests for _, labels in test)
            files.verify(path)
            checked = predictions.read_outside(path, splits, settings.splits, (0,), several)
        except UserError as error:
            checked = f"failed: {error}"
    return Row(
        name,
        dataset.file,
        ", ".join([settings.dataset, *part]),
        "trajectories",
        None,
        "none",
        None,
        ", ".join([words, *part]),
        settings.splits,
        (0,),
        several,
        {},
        checked,
    )


def only(row: Row, split: int, seed: int) -> Row:
    """Return the part of a row that is one run."""
    if isinstance(row.predictions, str):
        return row
    frame = row.predictions.frame.filter(split=split, seed=seed)
    return replace(row, splits=(split,), seeds=(seed,), predictions=replace(row.predictions, frame=frame))


def measure(row: Row) -> Result:
    """Measure a row.

    The result holds a few bytes a video, or a video and class of multi-label data, so a thousand rows fit into memory.
    """
    system, given = _fields(row), row.predictions
    if isinstance(given, str):
        return Result(**system, accuracy=given)
    if row.several:
        return Result(**system, accuracy=scores.of_precision(row.file, given))
    return Result(**system, accuracy=scores.of_accuracy(row.file, accuracy.outcomes(given), given.classes))


def _fields(system: System) -> dict[str, Any]:
    return {field.name: getattr(system, field.name) for field in fields(System)}


def common(row: Result, base: Result) -> list[tuple[int, int]] | str:
    """Return the sorted runs that a row and its base share, or why there are none."""
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
    """Return each class's test videos and accuracy over these runs: K each.

    Multi-label data have average precision instead. A class without test videos has NaN.
    """
    assert not isinstance(row.accuracy, str)
    at = [row.runs.index(run) for run in runs]
    counts, shares = row.accuracy.by_class(at)
    return counts // len({seed for _, seed in runs}), shares  # every seed tests the same videos


def confused(row: Result, runs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the predicted shares of each class's videos over these runs: K,K+1.

    Rows are actual classes, columns predicted ones; the last column is the share that was not decoded.
    """
    assert isinstance(row.accuracy, Accuracy)
    counts = row.accuracy.confusion[[row.runs.index(run) for run in runs]].sum(axis=0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def difference(
    row: Result, base: Result, which: str = "main", label: str | None = None, other_seeds: bool = False
) -> Difference | str:
    """Return the difference between a row and its base, or the reason for none.

    Args:
        row: A row.
        base: The row that it is compared with.
        which: "main" (top-1 or mAP) or "top5".
        label: The class whose videos alone count; None for all.
        other_seeds: Whether to pair seeds by their place, for two rows of one system trained with different seeds. The
            analysis allows pairs of unrelated seeds.
    """
    if other_seeds and not isinstance(row.accuracy, str) and not isinstance(base.accuracy, str):
        row = _renamed(row, base)
    if isinstance(runs := common(row, base), str):
        return runs
    if isinstance(base.accuracy, Accuracy) and which == "top5" and not (row.accuracy.top5 and base.accuracy.top5):  # type: ignore[union-attr]
        return "five guesses name every class"
    if label is not None:
        for side in (row, base):
            if not isinstance(side.accuracy, Accuracy) or label not in side.accuracy.classes:
                return f"row {side.name} has no class {label}"
    splits, seeds = sorted({split for split, _ in runs}), sorted({seed for _, seed in runs})
    values, tests, unit = _values(row, splits, seeds, which, label)
    base_values, base_tests, _ = _values(base, splits, seeds, which, label)
    if not tests["video"].equals(base_tests["video"]):
        return "base has other videos"
    if not len(tests):
        return f"no test video is of class {label}"
    each = scores.weights(tests["split"])
    less = crossed.difference(values, base_values, unit, each)
    if isinstance(row.accuracy, Accuracy):
        sums = (values - base_values).sum(axis=0, dtype=np.int64)
        if unit is not None:  # a video that several splits test, or both directions, is one unit of the test
            by_video = pl.DataFrame({"video": sources(tests["video"]), "total": sums}).group_by(
                "video", maintain_order=True
            )
            sums = by_video.agg(pl.col("total").sum())["total"].to_numpy()
        nets = sign_flip(sums)
    else:
        means, base_means = (side.mean(axis=0, keepdims=True) for side in (values, base_values))
        nets = crossed.difference(means, base_means, unit, each).p
    heading = "top-5" if which == "top5" else row.accuracy.heading  # type: ignore[union-attr]
    return Difference(heading, less, nets, len(tests), _unlike(row, base))


def drawn(rows: Sequence[Result]) -> np.ndarray | str:
    """Draw the true accuracies of rows on one data set, (D, R) as ranks.draws() does, or return the reason for none."""
    values, first = [], rows[0]
    for row in rows:
        if isinstance(row.accuracy, str):
            return row.accuracy
        if row.accuracy.main.seeds < crossed.SEEDS:
            return f"{row.name} has {claims.lacking(row.accuracy.main.seeds)}"
        each, tests, unit = _values(row, sorted(row.splits), sorted(row.seeds), "main", None)
        if row is first:
            videos, weights = tests["video"], scores.weights(tests["split"])
        elif row.splits != first.splits or not tests["video"].equals(videos):
            return f"{row.name} has other videos than {first.name}"
        values.append(each)
    estimates = [row.accuracy.main for row in rows if not isinstance(row.accuracy, str)]
    means = np.array([estimate.value for estimate in estimates])
    of_seeds = np.array([estimate.spread.of_seeds for estimate in estimates])
    of_units = crossed.covariance(values, [estimate.spread for estimate in estimates], unit, weights)
    return ranks.draws(means, of_seeds, of_units, [estimate.seeds for estimate in estimates])


def _values(
    result: Result, splits: list[int], seeds: list[int], which: str, label: str | None
) -> tuple[np.ndarray, pl.DataFrame, np.ndarray | None]:
    """Return a row's values (S,M), and the split, video and unit of each (M)."""
    accuracy = result.accuracy
    several = len(splits) > 1
    if isinstance(accuracy, Precision):
        at = [sorted(result.seeds).index(seed) for seed in seeds]
        rankings = {split: accuracy.rankings[split] for split in splits}
        rankings = {split: replace(ranking, places=ranking.places[at]) for split, ranking in rankings.items()}
        tests = average_precision.rows(rankings)
        values = average_precision.pseudo_values(list(rankings.values()))
        return values, tests, units(accuracy.file, tests["video"], several)
    assert isinstance(accuracy, Accuracy)
    columns = list(map(str, seeds))
    if which == "top5":
        values = accuracy.right5[[accuracy.right.columns[2:].index(name) for name in columns]]
    else:
        values = np.stack([accuracy.right[name].to_numpy() for name in columns])
    if label is None and set(splits) == set(result.splits):
        return values, accuracy.right, accuracy.units
    kept = accuracy.right["split"].is_in(splits).to_numpy()
    if label is not None:
        kept = kept & (accuracy.labels == accuracy.classes.index(label))
    tests = accuracy.right.filter(kept)
    return values[:, kept], tests, units(accuracy.file, tests["video"], several) if len(tests) else None


def _renamed(row: Result, base: Result) -> Result:
    """Return the row with its seeds renamed to the base's, by their place."""
    names = dict(zip(sorted(row.seeds), sorted(base.seeds), strict=False))
    if not isinstance(row.accuracy, Accuracy):
        return replace(row, seeds=tuple(names.values()))
    columns = [pl.col(str(old)).alias(str(new)) for old, new in names.items()]
    right = row.accuracy.right.select("split", "video", *columns)
    return replace(row, seeds=tuple(names.values()), accuracy=replace(row.accuracy, right=right))


def _unlike(row: Result, base: Result) -> str:
    """Return the reason why two rows give no verdict about systems, or nothing."""
    if row.pretrained != base.pretrained:
        return claims.OTHER_WEIGHTS
    views = [side.protocol.rpartition(": ")[2].partition(",")[0] for side in (row, base)]
    return claims.OTHER_VIEWS if row.frames and base.frames and views[0] != views[1] else ""
