"""What predictions come to: the scores of a video over its views, right and wrong, every accuracy and confusion.

Legend: R runs (split x seed), M videos of all runs, N their views, K classes.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.special import expit

from pipeline.evaluate.predictions import TEST, Predictions

BEST = 5
BLOCK = 1 << 24  # scores averaged at once: bounds the memory used beside the predictions themselves


def outcomes(predictions: Predictions) -> pl.DataFrame:
    """A row a (split, seed, video), sorted: label, predicted (null where not decoded), top1 and top5 (bool).

    A video that was not decoded is wrong: the denominator is the split's. Where scores tie, the lowest class wins.
    """
    decoded = predictions.frame.drop_nulls("logits")
    tests = _first_views(predictions).with_columns(label=pl.col("labels").list.first()).drop("labels")
    known = tests["decoded"].to_numpy()
    label = tests["label"].to_numpy()[known]
    first, place, at = np.empty_like(label), np.zeros_like(label), 0
    # One view's scores rank as its logits do.
    alone = len(decoded) == len(label)
    for block in [_logits(decoded, predictions)] if alone else _averaged(decoded, predictions):
        own = label[at : at + len(block)]
        first[at : at + len(block)] = block.argmax(axis=1)
        wrong = np.flatnonzero(first[at : at + len(block)] != own)  # nothing stands before a label that is first
        rest, own = block[wrong], own[wrong, None]
        score = np.take_along_axis(rest, own, axis=1)
        before, tied = rest > score, rest == score
        if np.count_nonzero(tied) > len(rest):
            before |= tied & (np.arange(block.shape[1]) < own)
        place[at + wrong] = before.sum(axis=1)
        at += len(block)
    predicted, top5 = np.full(len(tests), -1, np.int32), np.zeros(len(tests), bool)
    predicted[known], top5[known] = first, place < BEST
    found = tests.drop("decoded").with_columns(
        predicted=pl.Series(predicted), top1=pl.Series(predicted) == tests["label"], top5=pl.Series(top5)
    )
    return found if known.all() else found.with_columns(pl.col("predicted").replace(-1, None))


def scores(predictions: Predictions) -> tuple[pl.DataFrame, np.ndarray]:
    """(split, seed, video, labels) of every video, sorted, and M,K float64: its scores, NaN where not decoded."""
    tests = _first_views(predictions)
    found = np.full((len(tests), len(predictions.classes)), np.nan)
    decoded = predictions.frame.drop_nulls("logits")
    found[tests["decoded"].to_numpy()] = np.concatenate([found[:0], *_averaged(decoded, predictions)])
    return tests.drop("decoded"), found


def accuracy(outcomes: pl.DataFrame, which: str = "top1") -> float:
    """The mean over runs (split x seed) of the share of a run's videos that are right; `which` is top1 or top5."""
    return float(outcomes.group_by("split", "seed").agg(pl.col(which).mean()).sort("split", "seed")[which].mean())  # type: ignore[arg-type]


def confusion(outcomes: pl.DataFrame, classes: int) -> np.ndarray:
    """How many videos of a class (second axis) were taken for which (third): R,K,K+1 int; the last is "not decoded"."""
    run = outcomes.select(pl.struct("split", "seed").rank("dense") - 1).to_series().to_numpy().astype(np.int64)
    label = outcomes["label"].to_numpy().astype(np.int64)
    taken = outcomes["predicted"].fill_null(classes).to_numpy()
    shape = (int(run.max()) + 1, classes, classes + 1)
    return np.bincount(np.ravel_multi_index((run, label, taken), shape), minlength=int(np.prod(shape))).reshape(shape)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """R,K,K+1 counts -> K: the share of a class's videos, over all runs, that are right; NaN where it has none."""
    counts = confusion.sum(axis=0)  # K,K+1
    videos = counts.sum(axis=1)
    return np.where(videos > 0, counts.diagonal() / np.maximum(videos, 1), np.nan)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """R,K,K+1 counts -> the mean over runs of the mean over the classes that the run's videos have."""
    return float(np.mean([np.nanmean(class_accuracy(run[None])) for run in confusion]))


def _first_views(predictions: Predictions) -> pl.DataFrame:
    """(split, seed, video, labels, decoded) of every video, sorted."""
    decoded = pl.col("logits").is_not_null()
    return predictions.frame.select(*TEST, "labels", "view", decoded=decoded).filter(view=0).drop("view")


def _averaged(decoded: pl.DataFrame, predictions: Predictions) -> Iterator[np.ndarray]:
    """m,K float64 at a time: scores of decoded videos, in the frame's order, as the protocol averages their views."""
    begins = np.flatnonzero(decoded["view"].to_numpy() == 0)
    classes, average = len(predictions.classes), predictions.average
    logits = _logits(decoded, predictions)
    ends = np.append(begins[1:], len(logits))
    step = max(1, BLOCK // (classes * int((ends - begins).max(initial=1))))
    for videos in (slice(begin, begin + step) for begin in range(0, len(begins), step)):
        own = begins[videos]
        block = logits[own[0] : ends[videos][-1]].astype(np.float64)
        if average == "softmax":
            block = _softmax(block)
        elif average == "sigmoid":
            block = expit(block)
        if len(block) > len(own):
            block = np.add.reduceat(block, own - own[0]) / (ends - begins)[videos, None]  # m,K
        yield _softmax(block) if average == "logits" else block


def _logits(decoded: pl.DataFrame, predictions: Predictions) -> np.ndarray:
    """N,K: the views of decoded videos."""
    return decoded["logits"].explode().to_numpy().reshape(len(decoded), len(predictions.classes))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
