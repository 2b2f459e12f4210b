"""Average precision, for videos of several labels: mAP and wAP as Charades measures them, and how sure they are.

Legend: M videos of a split that have a label, S seeds, K classes, P the positives of a class, B resamples, Q rows.

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

from pipeline.measure.uncertainty import LEVEL, Interval, generator

RESAMPLES = 1_000
MAP, WAP = 0, 1  # the last axis of what is resampled


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


def bootstrap(rows: Sequence[Sequence[Ranking]], name: str, resamples: int = RESAMPLES) -> np.ndarray:
    """B,Q,2: mAP and wAP of rows (each a ranking a split, of the same videos and seeds) on the same resamples.

    Crossed, as in statistics.bootstrap(): of each split, videos are drawn with replacement, and seeds where there are
    several; a function of the rankings and `name` alone.
    """
    rng = generator(name)
    drawn = []
    for split in zip(*rows, strict=True):
        seeds, videos, _ = split[0].places.shape
        weights = rng.multinomial(videos, np.full(videos, 1 / videos), size=resamples).T.astype(np.float32)  # M,B
        shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds  # B,S
        drawn.append(np.stack([np.einsum("sbm,bs->bm", _runs(one, weights), shares) for one in split], axis=1))
    return np.mean(drawn, axis=0)


def interval(value: float, drawn: np.ndarray) -> Interval:
    """95 % of what other test videos (and seeds) would have given, from B resampled values, moved to centre on `value`.

    They are moved because a resample holds some videos twice, and a positive that stands beside itself scores higher:
    the mean of the resamples lies above the value, most where positives are few.
    """
    low, high = np.quantile(drawn - drawn.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + value
    return Interval(value, float(low), float(high))


def paired(difference: float, drawn: np.ndarray) -> float:
    """Two-sided p of no difference between two rows, from B differences on the same resamples.

    The share of resamples that lie as far from their mean as the difference from 0 (Davison and Hinkley 1997, section
    4.4: a bootstrap test, centred on the hypothesis), the sample itself counted among them. Approximate, unlike the
    exact test of top-1: mAP is no mean over videos, so there are no signs to flip. With several seeds it knows how they
    scatter.
    """
    return float((1 + (np.abs(drawn - drawn.mean()) >= abs(difference)).sum()) / (1 + len(drawn)))


def _runs(one: Ranking, weights: np.ndarray) -> np.ndarray:
    """S,B,2: mAP and wAP of each seed, with the videos counted by weights M,B."""
    return np.stack([means(*precisions(places, one.wanted, weights)) for places in one.places])
