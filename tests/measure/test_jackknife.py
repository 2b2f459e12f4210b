"""Jackknife pseudo-values equal leaving out each video, and give the sampling error of mAP."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from pipeline.measure import jackknife
from pipeline.measure.crossed import row


def places(scores: np.ndarray) -> np.ndarray:
    return rankdata(-scores, method="max", axis=0).astype(int)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_leaving_out_each_video_is_what_scikit_learn_says_without_it(
    videos: int, classes: int, levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (videos, classes)).astype(float)  # ties
    wanted = rng.random((videos, classes)) < 0.4
    wanted[0, 0] = wanted[1, 0] = True

    def measure(kept: np.ndarray) -> float:
        there = np.flatnonzero(wanted[kept].any(axis=0))
        return float(np.mean([average_precision_score(wanted[kept, k], scores[kept, k]) for k in there]))

    everyone = np.arange(videos)
    value, without = jackknife.mean_average_precision(places(scores), wanted)
    assert value == pytest.approx(measure(everyone))
    assert without == pytest.approx([measure(np.delete(everyone, video)) for video in everyone])
    assert jackknife.pseudo_values(value, without).mean() == pytest.approx(value)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 30), st.integers(1, 5), st.integers(0, 10_000))
def test_mean_class_accuracy_without_each_video(videos: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    right = rng.random(videos) < 0.5

    def measure(kept: np.ndarray) -> float:
        answers = np.where(right[kept], labels[kept], -1)
        present = np.unique(labels[kept])
        return float(np.mean([(answers == labels[kept])[labels[kept] == k].mean() for k in present]))

    value, without = jackknife.mean_class_accuracy(right, labels)
    everyone = np.arange(videos)
    assert value == pytest.approx(measure(everyone))
    assert without == pytest.approx([measure(np.delete(everyone, video)) for video in everyone])
    guesses = np.where(right, labels, (labels + 1) % max(classes, 2))
    if set(guesses) <= set(labels):
        assert value == pytest.approx(balanced_accuracy_score(labels, guesses))


def test_pseudo_values_of_a_mean_are_the_scores() -> None:
    scores = np.random.default_rng(0).random(20)
    without = (scores.sum() - scores) / 19
    assert jackknife.pseudo_values(scores.mean(), without) == pytest.approx(scores)


def test_the_interval_of_map_is_as_long_as_map_scatters() -> None:
    rng = np.random.default_rng(1)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        wanted = rng.random((300, 8)) < 0.15
        wanted[:, 0] |= ~wanted.any(axis=1)
        level = rng.normal(size=(300, 1)) * 0.5  # what three nets share
        return wanted, wanted + level + rng.normal(size=(3, 300, 8))

    values, lengths = [], []
    for _ in range(150):
        wanted, scores = drawn()
        parts = [jackknife.mean_average_precision(places(net), wanted) for net in scores]
        estimate = row(np.stack([jackknife.pseudo_values(*part) for part in parts]))
        assert estimate.by_seed == pytest.approx([part[0] for part in parts])
        values.append(estimate.value)
        lengths.append(estimate.spread.variance)
    assert np.mean(lengths) == pytest.approx(np.var(values, ddof=1), rel=0.35)


def test_no_label_at_all_is_a_clear_line() -> None:
    with pytest.raises(ValueError, match="no test video has a label"):
        jackknife.mean_average_precision(np.ones((3, 2), int), np.zeros((3, 2), bool))
