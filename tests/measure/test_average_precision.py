"""mAP, wAP and their jackknife against the official code and scikit-learn."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from pipeline.errors import UserError
from pipeline.evaluate.predictions import SCHEMA, Predictions, read
from pipeline.measure import average_precision, crossed
from pipeline.measure.average_precision import Ranking
from pipeline.measure.results import Difference, Result, difference
from tests.support import invented


def ranked(positive: np.ndarray, *seeds: np.ndarray) -> Ranking:
    return average_precision.ranking([f"v{m:04d}" for m in range(len(positive))], positive, np.stack(seeds))


def measured(positive: np.ndarray, scores: np.ndarray) -> list[float]:
    rankings = [ranked(positive, scores)]
    return [average_precision.pseudo_values(rankings, weighted).mean() for weighted in (False, True)]


def official(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return mAP and wAP by the definition, as a loop; unlabeled videos rank last."""
    scores = np.where(positive.any(axis=1, keepdims=True), scores, -np.inf)
    precisions = []
    for has, score in zip(positive.T, scores.T, strict=True):
        hits, at_hits = 0, []
        for place, video in enumerate(sorted(range(len(has)), key=lambda video: -score[video]), start=1):
            if has[video]:
                hits += 1
                at_hits.append(hits / place)
        precisions.append(np.mean(at_hits))
    return float(np.mean(precisions)), float(np.average(precisions, weights=positive.sum(axis=0)))


def drawn(rng: np.random.Generator, videos: int, classes: int, share: float, *noise: float) -> list[np.ndarray]:
    """Return positives M,K, at least one for each class, and scores M,K by noise level."""
    positive = rng.random((videos, classes)) < share
    positive[np.arange(classes), np.arange(classes)] = True
    base = positive + 0.7 * rng.normal(size=positive.shape)
    return [positive, *(base + level * rng.normal(size=positive.shape) for level in noise)]


def test_mAP_and_wAP_are_the_official_ones_with_videos_without_a_label() -> None:
    positive, scores = drawn(np.random.default_rng(0), 120, 9, 0.08, 0.5)
    assert (~positive.any(axis=1)).sum() > 20
    assert measured(positive, scores) == pytest.approx(official(positive, scores))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 5), st.integers(1, 6))
def test_each_class_is_scikit_learns_with_ties(seed: int, videos: int, classes: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random((videos, classes)) < 0.4
    positive[0] = True  # scikit-learn has no answer for a class without a positive
    scores = rng.integers(0, levels, positive.shape).astype(float)
    kept = positive.any(axis=1)
    expected = [average_precision_score(positive[kept, k], scores[kept, k]) for k in range(classes)]
    assert measured(positive, scores)[0] == pytest.approx(np.mean(expected))
    assert measured(positive, scores)[1] == pytest.approx(np.average(expected, weights=positive.sum(axis=0)))


def test_a_class_without_a_positive_is_left_out() -> None:
    positive, scores = np.array([[1, 0], [0, 0], [1, 0]], bool), np.array([[3.0, 1.0], [2.0, 9.0], [1.0, 1.0]])
    assert measured(positive, scores) == [1.0, 1.0]  # the second video has no label and so stands in nobody's way


def test_videos_that_were_not_decoded_rank_last_as_one_group() -> None:
    positive = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    scores = np.array([[-5.0, 0.0], [-9.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    # Class 0: its first positive is first; the second is one of two that end at place 4. Class 1 likewise.
    assert measured(positive, scores)[0] == pytest.approx((1 + 2 / 4) / 2)


def test_wap_without_each_video_is_the_official_measure_without_it() -> None:
    positive, scores = drawn(np.random.default_rng(6), 25, 4, 0.3, 1.0)
    keep = positive.any(axis=1)
    positive, scores = positive[keep], scores[keep]
    places = ranked(positive, scores).places[0]
    value, without = average_precision.mean_average_precision(places, positive, weighted=True)
    assert value == pytest.approx(official(positive, scores)[1])
    everyone = np.arange(len(positive))
    rest = [np.delete(everyone, video) for video in everyone]
    assert without == pytest.approx([official(positive[kept], scores[kept])[1] for kept in rest])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_leaving_out_each_video_is_what_scikit_learn_says_without_it(
    videos: int, classes: int, levels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (videos, classes)).astype(float)  # ties
    positive = rng.random((videos, classes)) < 0.4
    positive[0, 0] = positive[1, 0] = True

    def measure(kept: np.ndarray) -> float:
        having = np.flatnonzero(positive[kept].any(axis=0))
        return float(np.mean([average_precision_score(positive[kept, k], scores[kept, k]) for k in having]))

    everyone = np.arange(videos)
    places = rankdata(-scores, method="max", axis=0).astype(int)
    value, without = average_precision.mean_average_precision(places, positive)
    assert value == pytest.approx(measure(everyone))
    assert without == pytest.approx([measure(np.delete(everyone, video)) for video in everyone])


def test_the_interval_of_map_is_as_long_as_map_scatters() -> None:
    rng = np.random.default_rng(1)
    values, lengths = [], []
    for _ in range(150):
        positive = rng.random((300, 8)) < 0.15
        positive[:, 0] |= ~positive.any(axis=1)
        level = rng.normal(size=(300, 1)) * 0.5  # shared by three nets
        ranking = ranked(positive, *(positive + level + rng.normal(size=(3, 300, 8))))
        estimate = crossed.row(average_precision.pseudo_values([ranking]))
        assert estimate.by_seed == pytest.approx(np.nanmean(ranking.precisions()[0], axis=1))
        values.append(estimate.value)
        lengths.append(estimate.spread.variance)
    assert np.mean(lengths) == pytest.approx(np.var(values, ddof=1), rel=0.35)


# From here: whole rows of videos with several labels, through their files.


def several(folder: Path, row: str, noise: float, seed: int = 0, none: tuple[int, ...] = (3,)) -> Result:
    """Measure a row of 60 test videos and two seeds; videos in `none` have no label."""
    rng = np.random.default_rng(seed)
    params, splits = invented.params([row], average="sigmoid"), invented.splits(folder / "splits")
    positive = drawn(np.random.default_rng(9), 60, 6, 0.2)[0]
    positive[list(none)] = False
    table = pl.read_parquet(splits / "split-1.parquet").sort("part", descending=True, maintain_order=True)
    labels = [[0]] * 6 + [np.flatnonzero(row_labels).tolist() for row_labels in positive]
    table.with_columns(labels=pl.Series(labels, dtype=SCHEMA["labels"])).write_parquet(splits / "split-1.parquet")
    frame = invented.predictions(params, row, splits)
    logits = np.tile(4.0 * positive - 2, (2, 1)) + noise * rng.normal(size=(120, 6))
    frame = frame.with_columns(logits=pl.Series(logits.astype(np.float32), dtype=SCHEMA["logits"]))
    path = invented.write(frame, folder / f"{row}.parquet", params, row)
    return invented.measured(params, row, read(path, row, params, splits))


def test_a_row_of_several_labels_is_measured_from_its_file(tmp_path: Path) -> None:
    row = several(tmp_path, "a", 3.0)
    frame = pl.read_parquet(tmp_path / "a.parquet")
    runs = []
    for part in frame.partition_by("seed"):
        positive = np.zeros((60, 6), bool)
        for video, labels in enumerate(part["labels"].to_list()):
            positive[video, labels] = True
        runs.append(official(positive, part["logits"].explode().to_numpy().reshape(60, 6)))
    assert (row.accuracy.map.value, row.accuracy.wap.value) == pytest.approx(tuple(np.mean(runs, axis=0)))
    assert row.accuracy.map.low < row.accuracy.map.value < row.accuracy.map.high
    unlabelled = (frame["labels"].list.len() == 0).sum() // 2
    assert unlabelled >= 1 and row.accuracy.videos == row.accuracy.decoded == 60 - unlabelled


def test_differences_of_mAP_are_paired_by_video(tmp_path: Path) -> None:
    base, same, better = (several(tmp_path, row, noise, seed) for row, noise, seed in
                          (("base", 4.0, 0), ("same", 4.0, 1), ("better", 0.5, 2)))  # fmt: skip
    gain = difference(better, base)
    assert isinstance(gain, Difference) and gain.heading == "mAP" and gain.videos == base.accuracy.videos
    assert gain.less.value == pytest.approx(better.accuracy.map.value - base.accuracy.map.value)
    assert gain.nets < 0.01
    equal = difference(same, base)
    assert isinstance(equal, Difference) and equal.less.low < 0 < equal.less.high and equal.less.p > 0.05
    assert equal.nets > 0.05
    alike = difference(base, base)
    assert isinstance(alike, Difference) and alike.less.value == 0 and alike.less.p == 1


def test_rows_of_another_kind_cant_be_compared(tmp_path: Path) -> None:
    single = invented.result(invented.params(["one"]), "one", invented.splits(tmp_path / "splits"))
    assert difference(several(tmp_path, "a", 1.0), single) == "base has top-1"


def test_no_label_at_all_is_a_reason(tmp_path: Path) -> None:
    row = several(tmp_path, "a", 1.0, none=tuple(range(60)))
    assert row.accuracy == "failed: no test video has a label"


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    several(tmp_path, "a", 1.0)
    path, params = tmp_path / "splits" / "split-1.parquet", invented.params(["a"], average="sigmoid")
    pl.read_parquet(path).with_columns(labels=pl.lit([0, 6], SCHEMA["labels"])).write_parquet(path)
    with pytest.raises(UserError, match=r"split-1.parquet: video .* has labels \[0, 6\], not indices of the 6 classes"):
        read(tmp_path / "a.parquet", "a", params, tmp_path / "splits")


def test_views_are_averaged_after_the_sigmoid(tmp_path: Path) -> None:
    classes = json.loads((invented.splits(tmp_path) / "classes.json").read_text())
    frame = pl.DataFrame(
        {"split": [1] * 4, "seed": [0] * 4, "video": ["a", "a", "b", "b"], "view": [0, 1, 0, 1],
         "labels": [[0]] * 2 + [[1]] * 2, "logits": [[9.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [2.0, 0.0]]}
    )  # fmt: skip
    from pipeline.measure.accuracy import scores

    averaged = scores(Predictions(frame, tuple(classes[:2]), "sigmoid", True))[1]
    expected = 1 / (1 + np.exp(-np.array([9.0, -1.0]))), 1 / (1 + np.exp(-2.0))
    assert averaged[:, 0] == pytest.approx([expected[0].mean(), expected[1]])  # by their logits, a would come first
    assert averaged[1, 0] > averaged[0, 0]
