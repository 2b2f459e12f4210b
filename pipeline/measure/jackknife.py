"""Jackknife pseudo-values, by which a measure that is no mean over videos enters the crossed analysis.

Legend: M videos, K classes, S seeds.

With m the measure of all M videos and m(-v) that without video v, the pseudo-value of v is M m - (M - 1) m(-v). Those
of a mean are the videos' scores (Dorfman, Berbaum, Metz 1992). Here they are moved so that their mean is m.
Each m(-v) comes from cumulated sums, all of them at the cost of sorting once. A group's pseudo-value is the mean of its
videos', which leaving out the group at once approaches where no group is large.

Average precision is Charades' (Charades_v1_classify.m): the mean, over a class's positives, of the share of positives
among the videos that score as high or higher. Videos of equal score rank at the end of their group. A class without a
positive is left out of the mean, as is a class whose only positive is left out.
"""

import numpy as np

ALONE = 1  # videos of a class, without which it has none


def pseudo_values(measure: float, without: np.ndarray) -> np.ndarray:
    """M values of the measure without each video -> M pseudo-values, whose mean is the measure."""
    values = -(len(without) - 1) * without
    return values + (measure - values.mean())


def mean_average_precision(places: np.ndarray, wanted: np.ndarray, weighted: bool = False) -> tuple[float, np.ndarray]:
    """mAP of one seed, and M: mAP without each video.

    Args:
        places: M,K int: how many videos score as high or higher in the class; 1 is best and alone.
        wanted: M,K bool: whether the video has the class.
        weighted: whether a class weighs by its positives (wAP).

    Raises:
        ValueError: no class has a positive.
    """
    classes = np.flatnonzero(wanted.any(axis=0))
    if not len(classes):
        raise ValueError("no test video has a label, so there is no average precision")
    total, whole, weights = np.zeros(len(places)), 0.0, 0
    counted = np.zeros(len(places))  # the weights without each video
    for k in classes:
        precision, without = _average_precision(places[:, k], wanted[:, k])
        weight = int(wanted[:, k].sum()) if weighted else 1
        left = weight - wanted[:, k] if weighted else weight * ~np.isnan(without)
        whole += weight * precision
        weights += weight
        counted += left
        total += left * np.nan_to_num(without)
    measure = whole / weights
    return measure, np.where(counted > 0, total / np.maximum(counted, 1), measure)


def mean_class_accuracy(right: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over classes of their accuracy, of one seed, and M: the same without each video.

    Args:
        right: M, whether the answer is right.
        labels: M int, each video's class; classes without a video are left out.
    """
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(index, right)
    shares = hits / counts
    classes = len(counts)
    left = counts[index] - 1
    changed = (hits[index] - right) / np.maximum(left, 1)
    without = np.where(
        left >= ALONE,
        (shares.sum() - shares[index] + changed) / classes,
        (shares.sum() - shares[index]) / max(classes - 1, 1),
    )
    return float(shares.mean()), without if classes > 1 or len(labels) > 1 else np.array([shares.mean()])


def _average_precision(places: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision of one class, and M: the same without each video; NaN without its only positive.

    Positive i has h(i) positives among the n(i) videos that score as high or higher: its precision is h / n. Without a
    video that scores as high or higher, it is (h - 1) / (n - 1) if that video is positive and h / (n - 1) if not;
    without another it stays.
    """
    at = np.sort(places[wanted])  # n(i), ascending
    hits = np.searchsorted(at, at, side="right")  # h(i)
    positives = len(at)
    kept = hits / at
    rest = np.maximum(at - 1, 1)
    fewer = np.concatenate([np.cumsum((hits / rest)[::-1])[::-1], [0.0]])  # sums from i on
    fewest = np.concatenate([np.cumsum(((hits - 1) / rest)[::-1])[::-1], [0.0]])
    above = np.concatenate([[0.0], np.cumsum(kept)])  # sums before i
    first = np.searchsorted(at, places, side="left")  # the first positive that the video scores as high as, or higher
    without = (above[first] + fewer[first]) / positives
    if positives == ALONE:
        without[wanted] = np.nan
    else:
        # A positive goes itself, too: its term (h - 1) / (n - 1) among those from `first` on.
        index = np.searchsorted(at, places[wanted], side="left")
        gone = ((hits - 1) / rest)[index]
        without[wanted] = (above[index] + fewest[index] - gone) / (positives - 1)
    return float(kept.sum() / positives), without
