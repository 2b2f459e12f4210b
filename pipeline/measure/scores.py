"""Accuracies of a row with intervals: top-1 and top-5, or mAP and wAP.

Legend: R runs (split x seed), M videos of a split, S seeds, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np
import polars as pl

from pipeline.evaluate.predictions import Predictions
from pipeline.measure import accuracy, average_precision, crossed
from pipeline.measure.average_precision import Ranking
from pipeline.measure.crossed import Estimate
from pipeline.measure.units import units


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of single-label predictions, over all test videos."""

    heading: ClassVar = "top-1"
    top1: Estimate
    top5: Estimate | None  # None with five classes or fewer
    mean_class: float
    videos: int  # of the test parts, summed over splits
    decoded: int  # of these
    classes: tuple[str, ...]
    by_split: Mapping[int, float]  # top-1, the mean over seeds
    confusion: np.ndarray  # R,K,K+1, as accuracy.confusion() returns
    right: pl.DataFrame  # split, video, and for each seed a column of 0 and 1, named as the seed
    right5: np.ndarray  # S,M of 0 and 1, in the order of `right`: whether the label is among the five best
    labels: np.ndarray  # M
    file: str  # the data set's module, for its test units
    units: np.ndarray | None  # M: the test unit of each video, as units() returns

    @property
    def main(self) -> Estimate:
        return self.top1

    @cached_property
    def chance(self) -> float:
        """The accuracy of the best constant answer."""
        return crossed.constant(self.labels, weights(self.right["split"]))

    def by_class(self, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return each class's test videos and accuracy over these runs: K each."""
        confusion = self.confusion[runs]
        return confusion.sum(axis=(0, 2)), accuracy.class_accuracy(confusion)


@dataclass(frozen=True)
class Precision:
    """Average precisions of multi-label predictions, over the labeled test videos."""

    heading: ClassVar = "mAP"
    map: Estimate
    wap: Estimate
    videos: int  # with a label, summed over splits
    decoded: int  # of these
    classes: tuple[str, ...]
    by_split: Mapping[int, float]  # mAP, the mean over seeds
    precisions: np.ndarray  # R,K: average precision; NaN where a class has no positive
    positives: np.ndarray  # R,K
    rankings: Mapping[int, Ranking]  # by split
    file: str  # the data set's module, for its test units

    @property
    def main(self) -> Estimate:
        return self.map

    def by_class(self, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return each class's positives and mean precision over these runs: K each."""
        positives = self.positives[runs]
        having = (positives > 0).sum(axis=0)
        means = np.nansum(self.precisions[runs], axis=0) / np.maximum(having, 1)
        return positives.sum(axis=0), np.where(having > 0, means, np.nan)


def weights(splits: pl.Series) -> np.ndarray | None:
    """Return M weights under which splits count the same; None for one split."""
    return crossed.even(splits.to_numpy()) if splits[0] != splits[-1] else None


def of_accuracy(file: str, outcomes: pl.DataFrame, names: tuple[str, ...]) -> Accuracy:
    """Measure single-label predictions.

    Args:
        file: The data set's module.
        outcomes: As accuracy.outcomes() returns them.
        names: The names of classes.
    """
    classes = len(names)
    confusion = accuracy.confusion(outcomes, classes)
    splits = outcomes["split"].to_numpy()
    begins = [0, *(np.flatnonzero(np.diff(splits)) + 1), len(splits)]
    parts = [outcomes[slice(*bounds)] for bounds in pairwise(begins)]  # a split each
    seeds = [part["seed"].n_unique() for part in parts]
    top1, top5, decoded = (
        [_by_seed(part.select(column).to_series(), count) for part, count in zip(parts, seeds, strict=True)]
        for column in ("top1", "top5", pl.col("predicted").is_not_null())
    )
    right = pl.concat([_named(part, values) for part, values in zip(parts, top1, strict=True)])
    each = weights(right["split"])
    unit = units(file, right["video"], each is not None)
    among_five = np.concatenate(top5).T
    return Accuracy(
        crossed.row(np.concatenate(top1).T, unit, each),
        crossed.row(among_five, unit, each) if classes > accuracy.BEST else None,
        accuracy.mean_class_accuracy(confusion),
        len(right),
        int(sum(split.all(axis=1).sum() for split in decoded)),
        names,
        {int(part["split"][0]): float(values.mean()) for part, values in zip(parts, top1, strict=True)},
        confusion,
        right,
        among_five,
        np.concatenate([part["label"].to_numpy()[: len(values)] for part, values in zip(parts, top1, strict=True)]),
        file,
        unit,
    )


def of_precision(file: str, predictions: Predictions) -> Precision | str:
    """Measure multi-label predictions, or return the reason why that fails."""
    try:
        rankings, decoded = _ranked(predictions)
    except ValueError as error:
        return f"failed: {error}"
    ranks = list(rankings.values())
    measured = [ranking.precisions() for ranking in ranks]
    tests = average_precision.rows(rankings)
    each = weights(tests["split"])
    unit = units(file, tests["video"], each is not None)
    return Precision(
        crossed.row(average_precision.pseudo_values(ranks), unit, each),
        crossed.row(average_precision.pseudo_values(ranks, weighted=True), unit, each),
        len(tests),
        decoded,
        predictions.classes,
        {split: float(np.nanmean(values, 1).mean()) for split, (values, _) in zip(rankings, measured, strict=True)},
        np.concatenate([values for values, _ in measured]),
        np.concatenate([np.tile(positives, (len(values), 1)) for values, positives in measured]),
        rankings,
        file,
    )


def _ranked(predictions: Predictions) -> tuple[dict[int, Ranking], int]:
    """Return the ranking of each split, and how many labeled videos were decoded."""
    tests, scores = accuracy.scores(predictions)
    rankings: dict[int, Ranking] = {}
    classes, decoded = len(predictions.classes), 0
    for (split,), part in tests.with_row_index("at").group_by("split", maintain_order=True):
        by_seed = scores[part["at"].to_numpy()].reshape(part["seed"].n_unique(), -1, classes)  # S,M,K
        first = part.head(by_seed.shape[1])
        positive = np.zeros(by_seed.shape[1:], bool)  # M,K
        listed = first["labels"].list.len().to_numpy()
        positive[np.repeat(np.arange(len(positive)), listed), first["labels"].explode().drop_nulls().to_numpy()] = True
        decoded += int((~np.isnan(by_seed).any(axis=(0, 2)) & (listed > 0)).sum())
        rankings[int(split)] = average_precision.ranking(first["video"].to_list(), positive, by_seed)
    return rankings, decoded


def _by_seed(holds: pl.Series, seeds: int) -> np.ndarray:
    """Return a condition for each video and seed of one split, sorted by seed: M,S of 0 and 1."""
    return np.ascontiguousarray(holds.to_numpy().reshape(seeds, -1).T.astype(np.int8))


def _named(part: pl.DataFrame, values: np.ndarray) -> pl.DataFrame:
    """Return M,S values of one split as split, video and a column for each seed."""
    videos = len(values)
    seeds = [pl.Series(str(seed), column) for seed, column in zip(part["seed"][::videos], values.T, strict=True)]
    return pl.DataFrame([part["split"][:videos], part["video"][:videos], *seeds])
