"""Average precision of multi-label predictions (mAP, wAP), and its jackknife.

Legend: M videos of a split that have a label, S seeds, K classes, R rows (a video in a split).

Source: the evaluation that comes with Charades (Sigurdsson et al. 2016), Charades_v1_classify.m. Precision at a
positive is the share of positives among the videos that score as high or higher. A class's average precision is its
mean over the class's positives. mAP is the mean over classes; wAP weighs each class by its positives. The source ranks
videos without a label last, so they are left out here.

Two differences from the source:
- Ties: the source ranks videos of equal score by their place in the file. Here all rank at the end of their group, as
  in scikit-learn, so the result doesn't depend on the order.
- Classes without a positive, for which the source divides by 0, are left out.

Jackknife pseudo-values let a measure that is no mean over videos enter the crossed analysis (Dorfman, Berbaum, Metz
1992). With m the measure of all M videos and m(-v) that without video v, v's pseudo-value is M m - (M - 1) m(-v).
Here they are shifted so that their mean is m. All m(-v) come from cumulated sums, at the cost of sorting once. A
group's pseudo-value is the mean of its videos', which approximates leaving out the whole group if no group is large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import rankdata


@dataclass(frozen=True)
class Ranking:
    """The order in which a row ranks the videos of one split."""

    videos: tuple[str, ...]  # sorted
    positive: np.ndarray  # M,K bool: whether the video has the class
    places: np.ndarray  # S,M,K int: how many videos score as high or higher in the class; 1 is best and alone

    def precisions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return average precisions (S,K; NaN without a positive), and positives (K)."""
        values = np.full((len(self.places), self.positive.shape[1]), np.nan)
        for s, places in enumerate(self.places):
            for k in np.flatnonzero(self.positive.any(axis=0)):
                values[s, k] = average_precision(places[:, k], self.positive[:, k])[0]
        return values, self.positive.sum(axis=0)


def ranking(videos: Sequence[str], positive: np.ndarray, scores: np.ndarray) -> Ranking:
    """Rank videos by their scores in each class, without the unlabeled ones.

    Args:
        videos: The videos, sorted.
        positive: Whether a video has a class: videos,K bool.
        scores: S,videos,K; NaN where a video was not decoded, which ranks last, tied with all such.

    Raises:
        ValueError: No video has a label.
    """
    kept = positive.any(axis=1)
    if not kept.any():
        raise ValueError("no test video has a label")
    known = np.where(np.isnan(scores[:, kept]), -np.inf, scores[:, kept])
    places = rankdata(-known, method="max", axis=1).astype(np.int32)
    return Ranking(tuple(np.array(videos, object)[kept]), positive[kept], places)


def rows(rankings: Mapping[int, Ranking]) -> pl.DataFrame:
    """Return split and video of each of the R rows of pseudo_values()."""
    frames = [
        pl.DataFrame({"split": split, "video": ranking.videos}, {"split": pl.Int32, "video": pl.String})
        for split, ranking in rankings.items()
    ]
    return pl.concat(frames)


def pseudo_values(rankings: Sequence[Ranking], weighted: bool = False) -> np.ndarray:
    """Return the jackknife's pseudo-values of mAP, or of wAP if `weighted`: S,R."""
    parts: list[list[np.ndarray]] = []
    for ranking in rankings:
        parts.append([])
        for places in ranking.places:
            measure, without = mean_average_precision(places, ranking.positive, weighted)
            values = -(len(without) - 1) * without
            parts[-1].append(values + (measure - values.mean()))
    return np.concatenate(parts, axis=1)


def mean_average_precision(
    places: np.ndarray, positive: np.ndarray, weighted: bool = False
) -> tuple[float, np.ndarray]:
    """Return one seed's mAP, and mAP without each video: M.

    Args:
        places: M,K int, as in Ranking.
        positive: M,K bool; one class at least has a positive.
        weighted: Whether a class weighs by its positives (wAP).
    """
    total, whole, weights = np.zeros(len(places)), 0.0, 0
    counted = np.zeros(len(places))  # the weights without each video
    for k in np.flatnonzero(positive.any(axis=0)):
        precision, without = average_precision(places[:, k], positive[:, k])
        weight = int(positive[:, k].sum()) if weighted else 1
        left = weight - positive[:, k] if weighted else weight * ~np.isnan(without)
        whole += weight * precision
        weights += weight
        counted += left
        total += left * np.nan_to_num(without)
    measure = whole / weights
    return measure, np.where(counted > 0, total / np.maximum(counted, 1), measure)


def average_precision(places: np.ndarray, positive: np.ndarray) -> tuple[float, np.ndarray]:
    """Return one class's average precision, and that without each video: M.

    It is NaN without the only positive.

    Positive i has h(i) positives among the n(i) videos that score as high or higher, so its precision is h / n.
    Without one of these videos it is (h - 1) / (n - 1) if that video is positive, else h / (n - 1). Other videos don't
    change it.
    """
    at = np.sort(places[positive])  # n(i), ascending
    hits = np.searchsorted(at, at, side="right")  # h(i)
    positives = len(at)
    kept = hits / at
    rest = np.maximum(at - 1, 1)
    fewer = np.concatenate([np.cumsum((hits / rest)[::-1])[::-1], [0.0]])  # sums from i on
    fewest = np.concatenate([np.cumsum(((hits - 1) / rest)[::-1])[::-1], [0.0]])
    above = np.concatenate([[0.0], np.cumsum(kept)])  # sums before i
    first = np.searchsorted(at, places, side="left")  # the first positive that the video scores as high as, or higher
    without = (above[first] + fewer[first]) / positives
    if positives == 1:
        without[positive] = np.nan
    else:
        # A positive removes its term (h - 1) / (n - 1), too, from the sum that begins at `first`.
        index = np.searchsorted(at, places[positive], side="left")
        gone = ((hits - 1) / rest)[index]
        without[positive] = (above[index] + fewest[index] - gone) / (positives - 1)
    return float(kept.sum() / positives), without
