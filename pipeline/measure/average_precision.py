"""Average precision, for videos of several labels: mAP and wAP as Charades measures them.

Legend: M videos of a split that have a label, S seeds, K classes, P the positives of a class, B weightings of videos.

Source: the evaluation that comes with Charades (Sigurdsson et al. 2016), Charades_v1_classify.m. A class's average
precision is the mean, over its positives, of the share of positives among the videos that score as high or higher. mAP
is the mean over classes; wAP weighs each by its positives. There, a video without a label ranks below all others,
whatever its scores, so it is left out here. Two things are ours to say. Ties: the source ranks videos of equal score
by their place in the file; here they all rank at the end of their group, as in scikit-learn, so that no order helps.
Classes without a positive: the source would divide by 0; here they are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from pipeline.measure import jackknife

MAP, WAP = 0, 1  # the last axis of values()


@dataclass(frozen=True)
class Ranking:
    """How a row ranks the videos of one split: all that average precision knows of its scores."""

    videos: tuple[str, ...]  # sorted
    wanted: np.ndarray  # M,K bool: whether the video has the class
    places: np.ndarray  # S,M,K int: how many videos score as high or higher in the class; 1 is best and alone


def ranking(videos: Sequence[str], wanted: np.ndarray, scores: np.ndarray) -> Ranking:
    """From scores S,M,K of videos in sorted order, of which those not decoded are NaN and rank last, as one group.

    Videos without a label are left out. Raises ValueError where none has one.
    """
    kept = wanted.any(axis=1)
    if not kept.any():
        raise ValueError("no test video has a label")
    known = np.where(np.isnan(scores[:, kept]), -np.inf, scores[:, kept])
    places = rankdata(-known, method="max", axis=1).astype(np.int32)
    return Ranking(tuple(np.array(videos, object)[kept]), wanted[kept], places)


def precisions(places: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """M,K places and wanted of one run, and how often each video counts (M,B) -> average precision K,B, and positives.

    A video that counts twice is two videos of equal score. Where no positive counts, the precision is NaN. B = 1 and
    weights of 1 are the plain average precision. Weights are float32, whose whole numbers are exact up to 2^24.
    """
    found = np.full((wanted.shape[1], weights.shape[1]), np.nan)
    positives = np.zeros_like(found)
    for k in np.flatnonzero(wanted.any(axis=0)):
        own = np.flatnonzero(wanted[:, k])
        own = own[np.argsort(places[own, k])]
        ends, begins = np.unique(places[own, k], return_index=True)  # U groups of positives that tie
        order = np.argsort(places[:, k])[: ends[-1]]
        # How many videos, and how many positives, score as high as each group: U,B.
        videos = np.add.reduceat(weights[order], np.append(0, ends[:-1]), axis=0).cumsum(axis=0)
        group = np.add.reduceat(weights[own], begins, axis=0)
        hits = group.cumsum(axis=0)
        positives[k] = hits[-1]
        summed = (group * hits / np.maximum(videos, 1)).sum(axis=0)
        np.divide(summed, hits[-1], out=found[k], where=hits[-1] > 0)
    return found, positives


def means(found: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """K,B precisions and positives -> B,2: mAP and wAP."""
    there = positives > 0
    zeroed = np.where(there, found, 0.0)
    counted = np.maximum(there.sum(axis=0), 1), np.maximum(positives.sum(axis=0), 1)
    return np.stack([zeroed.sum(axis=0) / counted[0], (zeroed * positives).sum(axis=0) / counted[1]], axis=-1)


def values(rankings: Sequence[Ranking]) -> np.ndarray:
    """S,2 for each split, stacked: mAP and wAP of every run."""
    return np.stack([_runs(one, np.ones((len(one.videos), 1), np.float32))[..., 0, :] for one in rankings])


def pseudo_values(rankings: Sequence[Ranking], weighted: bool = False) -> np.ndarray:
    """S,R: the jackknife's pseudo-values of mAP, or of wAP where classes are weighted; splits one after the other."""
    return np.concatenate(
        [
            np.stack(
                [
                    jackknife.pseudo_values(*jackknife.mean_average_precision(places, one.wanted, weighted))
                    for places in one.places
                ]
            )
            for one in rankings
        ],
        axis=1,
    )


def _runs(one: Ranking, weights: np.ndarray) -> np.ndarray:
    """S,B,2: mAP and wAP of each seed, with the videos counted by weights M,B."""
    return np.stack([means(*precisions(places, one.wanted, weights)) for places in one.places])
