"""Accuracies of predictions, and confusions.

Legend: R runs (split x seed), M videos of all runs, N their views, K classes.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy.special import expit, softmax

from pipeline.evaluate.predictions import TEST, Predictions

BEST = 5
BLOCK = 1 << 24  # scores averaged at once, which bounds the memory


def outcomes(predictions: Predictions) -> pl.DataFrame:
    """Score every test video of single-label predictions.

    A video that was not decoded is wrong, since the denominator is the split's. The lowest class wins a tie.

    Returns:
        split, seed, video (sorted by these), label, predicted (null where not decoded), top1 and top5 (bool).
    """
    decoded = predictions.frame.drop_nulls("logits")
    tests = _first_views(predictions).with_columns(label=pl.col("labels").list.first()).drop("labels")
    known = tests["decoded"].to_numpy()
    label = tests["label"].to_numpy()[known]
    first, place, at = np.empty_like(label), np.zeros_like(label), 0
    single = len(decoded) == len(label)  # with one view a video, logits rank as scores do
    for block in [_logits(decoded, predictions)] if single else _averaged(decoded, predictions):
        actual = label[at : at + len(block)]
        best = first[at : at + len(block)] = block.argmax(axis=1)
        wrong = np.flatnonzero(best != actual)  # no class ranks above a label that is first
        rest, actual = block[wrong], actual[wrong, None]
        score = np.take_along_axis(rest, actual, axis=1)
        above, tied = rest > score, rest == score
        if np.count_nonzero(tied) > len(rest):
            above |= tied & (np.arange(block.shape[1]) < actual)
        place[at + wrong] = above.sum(axis=1)
        at += len(block)
    predicted, top5 = np.full(len(tests), -1, np.int32), np.zeros(len(tests), bool)
    predicted[known], top5[known] = first, place < BEST
    scored = tests.drop("decoded").with_columns(
        predicted=pl.Series(predicted), top1=pl.Series(predicted) == tests["label"], top5=pl.Series(top5)
    )
    return scored if known.all() else scored.with_columns(pl.col("predicted").replace(-1, None))


def scores(predictions: Predictions) -> tuple[pl.DataFrame, np.ndarray]:
    """Average the scores of each video over its views.

    Returns:
        split, seed, video and labels, sorted by the first three, and M,K float64; NaN where not decoded.
    """
    tests = _first_views(predictions)
    averages = np.full((len(tests), len(predictions.classes)), np.nan)
    decoded = predictions.frame.drop_nulls("logits")
    averages[tests["decoded"].to_numpy()] = np.concatenate([averages[:0], *_averaged(decoded, predictions)])
    return tests.drop("decoded"), averages


def confusion(outcomes: pl.DataFrame, classes: int) -> np.ndarray:
    """Count the predicted classes of each class's videos: R,K,K+1 int.

    The second axis is the label, the third the prediction; its last column counts the videos that were not decoded.
    """
    run = outcomes.select(pl.struct("split", "seed").rank("dense") - 1).to_series().to_numpy().astype(np.int64)
    label = outcomes["label"].to_numpy().astype(np.int64)
    predicted = outcomes["predicted"].fill_null(classes).to_numpy()
    shape = (int(run.max()) + 1, classes, classes + 1)
    flat = np.ravel_multi_index((run, label, predicted), shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return each class's accuracy (K) from R,K,K+1 counts; NaN without videos."""
    counts = confusion.sum(axis=0)  # K,K+1
    videos = counts.sum(axis=1)
    return np.where(videos > 0, counts.diagonal() / np.maximum(videos, 1), np.nan)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean over runs of the mean class accuracy, from R,K,K+1 counts."""
    return float(np.mean([np.nanmean(class_accuracy(run[None])) for run in confusion]))


def _first_views(predictions: Predictions) -> pl.DataFrame:
    """Return split, seed, video, labels and decoded of every video, sorted."""
    decoded = pl.col("logits").is_not_null()
    return predictions.frame.select(*TEST, "labels", "view", decoded=decoded).filter(view=0).drop("view")


def _averaged(decoded: pl.DataFrame, predictions: Predictions) -> Iterator[np.ndarray]:
    """Yield blocks of scores averaged over views, in the frame's order: m,K."""
    begins = np.flatnonzero(decoded["view"].to_numpy() == 0)
    average = predictions.average
    logits = _logits(decoded, predictions)
    ends = np.append(begins[1:], len(logits))
    step = max(1, BLOCK // (len(predictions.classes) * int((ends - begins).max(initial=1))))
    for videos in (slice(begin, begin + step) for begin in range(0, len(begins), step)):
        starts = begins[videos]
        block = logits[starts[0] : ends[videos][-1]].astype(np.float64)
        if average == "softmax":
            block = softmax(block, axis=-1)
        elif average == "sigmoid":
            block = expit(block)
        if len(block) > len(starts):
            block = np.add.reduceat(block, starts - starts[0]) / (ends - begins)[videos, None]  # m,K
        yield softmax(block, axis=-1) if average == "logits" else block


def _logits(decoded: pl.DataFrame, predictions: Predictions) -> np.ndarray:
    """Return the logits of all decoded views: N,K."""
    return decoded["logits"].explode().to_numpy().reshape(len(decoded), len(predictions.classes))
