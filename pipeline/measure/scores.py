"""What a row's predictions come to, with intervals: top-1 and its kin, or mAP and wAP where videos have several labels.

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
from pipeline.measure.average_precision import MAP, Ranking
from pipeline.measure.crossed import Estimate
from pipeline.measure.units import units


@dataclass(frozen=True)
class Accuracy:
    """What predictions of one label a video say; shares are of all test videos, decoded or not."""

    heading: ClassVar = "top-1"
    top1: Estimate
    top5: Estimate | None  # None where five guesses name every class
    mean_class: float
    videos: int  # of the test parts, summed over splits
    decoded: int  # of these
    classes: tuple[str, ...]
    by_split: Mapping[int, float]  # top-1, the mean over seeds
    confusion: np.ndarray  # R,K,K+1, as accuracy.confusion() says
    right: pl.DataFrame  # split, video, and for each seed a column of 0 and 1, named as the seed
    right5: np.ndarray  # S,M of 0 and 1, in the order of `right`: whether the label is among the five best
    labels: np.ndarray  # M
    file: str  # the data set's, for its test units
    units: np.ndarray | None  # M: the test unit of each video, as units() says

    @property
    def main(self) -> Estimate:
        return self.top1

    @cached_property
    def chance(self) -> float:
        """The accuracy of the best constant answer."""
        return crossed.constant(self.labels, weights(self.right["split"]))

    def by_class(self, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """K: test videos of each class, summed over these of the R runs, and the share that is right; NaN: none."""
        confusion = self.confusion[runs]
        return confusion.sum(axis=(0, 2)), accuracy.class_accuracy(confusion)


@dataclass(frozen=True)
class Precision:
    """What predictions of several labels a video say, of the test videos that have a label, decoded or not."""

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
    file: str  # the data set's, for its test units

    @property
    def main(self) -> Estimate:
        return self.map

    def by_class(self, runs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """K: positives of each class, summed over these of the R runs, and the mean of its precision; NaN: none."""
        counts = self.positives[runs].sum(axis=0).astype(np.int64)
        summed = np.nansum(self.precisions[runs], axis=0)
        there = (self.positives[runs] > 0).sum(axis=0)
        return counts, np.where(there > 0, summed / np.maximum(there, 1), np.nan)


def weights(splits: pl.Series) -> np.ndarray | None:
    """M weights under which each split counts the same; None where there is one split."""
    return crossed.even(splits.to_numpy()) if splits[0] != splits[-1] else None


def of_accuracy(file: str, found: Predictions) -> Accuracy:
    """Of videos of one label each, of a data set of pipeline/datasets/<file>.py."""
    outcomes, classes = accuracy.outcomes(found), len(found.classes)
    confusion = accuracy.confusion(outcomes, classes)
    splits = outcomes["split"].to_numpy()
    begins = [0, *(np.flatnonzero(np.diff(splits)) + 1), len(splits)]
    parts = [outcomes[slice(*bounds)] for bounds in pairwise(begins)]  # a split each
    right = [_by_seed(part, part["top1"]) for part in parts]
    decoded = [_by_seed(part, part["predicted"].is_not_null()) for part in parts]
    named = pl.concat([_named(part, own) for part, own in zip(parts, right, strict=True)])
    each = weights(named["split"])
    unit = units(file, named["video"], each is not None)
    among_five = np.concatenate([_by_seed(part, part["top5"]) for part in parts]).T
    return Accuracy(
        crossed.row(np.concatenate(right).T, unit, each),
        crossed.row(among_five, unit, each) if classes > accuracy.BEST else None,
        accuracy.mean_class_accuracy(confusion),
        sum(map(len, right)),
        int(sum(split.all(axis=1).sum() for split in decoded)),
        found.classes,
        {int(part["split"][0]): float(own.mean()) for part, own in zip(parts, right, strict=True)},
        confusion,
        named,
        among_five,
        np.concatenate([part["label"].to_numpy()[: len(own)] for part, own in zip(parts, right, strict=True)]),
        file,
        unit,
    )


def of_precision(file: str, found: Predictions) -> Precision | str:
    """Of videos of any number of labels; or why there is none."""
    if isinstance(ranked := _ranked(found), str):
        return ranked
    rankings, decoded = ranked
    ranks = list(rankings.values())
    values = average_precision.values(ranks)
    runs = [
        average_precision.precisions(places, one.wanted, np.ones((len(places), 1)))
        for one in ranks
        for places in one.places
    ]
    precisions, positives = (np.stack([run[part][:, 0] for run in runs]) for part in (0, 1))
    tests = ranked_videos(rankings)
    each = weights(tests["split"])
    unit = units(file, tests["video"], each is not None)
    return Precision(
        crossed.row(average_precision.pseudo_values(ranks), unit, each),
        crossed.row(average_precision.pseudo_values(ranks, weighted=True), unit, each),
        sum(len(one.videos) for one in ranks),
        decoded,
        found.classes,
        {split: float(value) for split, value in zip(rankings, values[..., MAP].mean(axis=1), strict=True)},
        precisions,
        positives,
        rankings,
        file,
    )


def ranked_videos(rankings: Mapping[int, Ranking]) -> pl.DataFrame:
    """split, video of each row of the pseudo-values."""
    return pl.concat(
        [
            pl.DataFrame({"video": one.videos}, {"video": pl.String}).select(
                pl.lit(split, pl.Int32).alias("split"), "video"
            )
            for split, one in rankings.items()
        ]
    )


def _ranked(found: Predictions) -> tuple[dict[int, Ranking], int] | str:
    """The ranking of each split, and how many videos with a label were decoded; or why there is none."""
    tests, scores = accuracy.scores(found)
    rankings: dict[int, Ranking] = {}
    classes, decoded = len(found.classes), 0
    for (split,), part in tests.with_row_index("at").group_by("split", maintain_order=True):
        seeds = part["seed"].n_unique()
        own = scores[part["at"].to_numpy()].reshape(seeds, -1, classes)  # S,M,K
        first = part.head(own.shape[1])
        wanted = np.zeros(own.shape[1:], bool)  # M,K
        listed = first["labels"].list.len().to_numpy()
        wanted[np.repeat(np.arange(len(wanted)), listed), first["labels"].explode().drop_nulls().to_numpy()] = True
        decoded += int((~np.isnan(own).any(axis=(0, 2)) & (listed > 0)).sum())
        try:
            rankings[int(split)] = average_precision.ranking(first["video"].to_list(), wanted, own)
        except ValueError as error:
            return f"failed: {error}"
    return rankings, decoded


def _by_seed(part: pl.DataFrame, holds: pl.Series) -> np.ndarray:
    """M,S of 0 and 1: whether something holds for each video and seed, from outcomes of one split."""
    return np.ascontiguousarray(holds.to_numpy().reshape(part["seed"].n_unique(), -1).T.astype(np.int8))


def _named(part: pl.DataFrame, own: np.ndarray) -> pl.DataFrame:
    """M,S of one split as split, video, and for each seed a column, named as it."""
    videos = len(own)
    names = map(str, part["seed"].to_numpy()[::videos])
    return pl.DataFrame(
        [part["split"][:videos], part["video"][:videos], *(pl.Series(name, own[:, s]) for s, name in enumerate(names))]
    )
