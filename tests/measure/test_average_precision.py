"""mAP and wAP are the official ones and scikit-learn's, and so are their jackknife's; rows are compared by video."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pipeline.errors import UserError
from pipeline.evaluate.predictions import SCHEMA, Predictions, read
from pipeline.measure import average_precision, jackknife
from pipeline.measure.average_precision import Ranking
from pipeline.measure.results import Difference, Result, difference
from tests.support import invented


def ranked(wanted: np.ndarray, *seeds: np.ndarray) -> Ranking:
    return average_precision.ranking([f"v{m:04d}" for m in range(len(wanted))], wanted, np.stack(seeds))


def measured(wanted: np.ndarray, scores: np.ndarray) -> list[float]:
    return average_precision.values([ranked(wanted, scores)])[0, 0].tolist()


def official(wanted: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The definition as a loop: down the list, precision at each positive; a video without a label is at the bottom."""
    scores = np.where(wanted.any(axis=1, keepdims=True), scores, -np.inf)
    found = []
    for own, score in zip(wanted.T, scores.T, strict=True):
        hits, at_hits = 0, []
        for place, video in enumerate(sorted(range(len(own)), key=lambda video: -score[video]), start=1):
            if own[video]:
                hits += 1
                at_hits.append(hits / place)
        found.append(np.mean(at_hits))
    return float(np.mean(found)), float(np.average(found, weights=wanted.sum(axis=0)))


def drawn(rng: np.random.Generator, videos: int, classes: int, share: float, *noise: float) -> list[np.ndarray]:
    """Wanted M,K, every class and most videos with a positive, and scores of so many rows, each with its own noise."""
    wanted = rng.random((videos, classes)) < share
    wanted[np.arange(classes), np.arange(classes)] = True
    base = wanted + 0.7 * rng.normal(size=wanted.shape)
    return [wanted, *(base + one * rng.normal(size=wanted.shape) for one in noise)]


def test_mAP_and_wAP_are_the_official_ones_with_videos_without_a_label() -> None:
    wanted, scores = drawn(np.random.default_rng(0), 120, 9, 0.08, 0.5)
    assert (~wanted.any(axis=1)).sum() > 20
    assert measured(wanted, scores) == pytest.approx(official(wanted, scores))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 5), st.integers(1, 6))
def test_each_class_is_scikit_learns_with_ties(seed: int, videos: int, classes: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.random((videos, classes)) < 0.4
    wanted[0] = True  # scikit-learn has no answer for a class without a positive
    scores = rng.integers(0, levels, wanted.shape).astype(float)
    kept = wanted.any(axis=1)
    expected = [average_precision_score(wanted[kept, k], scores[kept, k]) for k in range(classes)]
    assert measured(wanted, scores)[0] == pytest.approx(np.mean(expected))
    assert measured(wanted, scores)[1] == pytest.approx(np.average(expected, weights=wanted.sum(axis=0)))


def test_a_class_without_a_positive_is_left_out() -> None:
    wanted, scores = np.array([[1, 0], [0, 0], [1, 0]], bool), np.array([[3.0, 1.0], [2.0, 9.0], [1.0, 1.0]])
    assert measured(wanted, scores) == [1.0, 1.0]  # the second video has no label and so stands in nobody's way


def test_videos_that_were_not_decoded_rank_last_as_one_group() -> None:
    wanted = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    scores = np.array([[-5.0, 0.0], [-9.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    # Class 0: its first positive is first; the second is one of two that end at place 4. Class 1 likewise.
    assert measured(wanted, scores)[0] == pytest.approx((1 + 2 / 4) / 2)


def test_a_video_that_counts_twice_is_two_videos_of_equal_score() -> None:
    wanted, scores = drawn(np.random.default_rng(1), 40, 3, 0.3, 1.0)
    keep = wanted.any(axis=1)
    wanted, scores = wanted[keep], scores[keep]
    times = np.random.default_rng(2).integers(0, 4, len(wanted))
    found, positives = average_precision.precisions(
        ranked(wanted, scores).places[0], wanted, times[:, None].astype(np.float32)
    )
    expected = [
        average_precision_score(np.repeat(wanted[:, k], times), np.repeat(scores[:, k], times)) for k in (0, 1, 2)
    ]
    assert found[:, 0] == pytest.approx(expected)
    assert positives[:, 0].tolist() == (wanted * times[:, None]).sum(axis=0).tolist()


def test_wap_without_each_video_is_the_official_measure_without_it() -> None:
    wanted, scores = drawn(np.random.default_rng(6), 25, 4, 0.3, 1.0)
    keep = wanted.any(axis=1)
    wanted, scores = wanted[keep], scores[keep]
    places = ranked(wanted, scores).places[0]
    value, without = jackknife.mean_average_precision(places, wanted, weighted=True)
    assert value == pytest.approx(official(wanted, scores)[1])
    everyone = np.arange(len(wanted))
    rest = [np.delete(everyone, video) for video in everyone]
    assert without == pytest.approx([official(wanted[kept], scores[kept])[1] for kept in rest])


# From here: whole rows of videos with several labels, through their files.


def several(folder: Path, row: str, noise: float, seed: int = 0, none: tuple[int, ...] = (3,)) -> Result:
    """A row of 60 test videos, two seeds; those of `none` have no label. The same labels for every row and seed."""
    rng = np.random.default_rng(seed)
    params, splits = invented.params([row], average="sigmoid"), invented.splits(folder / "splits")
    wanted = drawn(np.random.default_rng(9), 60, 6, 0.2)[0]
    wanted[list(none)] = False
    table = pl.read_parquet(splits / "split-1.parquet").sort("part", descending=True, maintain_order=True)
    labels = [[0]] * 6 + [np.flatnonzero(own).tolist() for own in wanted]
    table.with_columns(labels=pl.Series(labels, dtype=SCHEMA["labels"])).write_parquet(splits / "split-1.parquet")
    frame = invented.predictions(params, row, splits)
    logits = np.tile(4.0 * wanted - 2, (2, 1)) + noise * rng.normal(size=(120, 6))
    frame = frame.with_columns(logits=pl.Series(logits.astype(np.float32), dtype=SCHEMA["logits"]))
    path = invented.write(frame, folder / f"{row}.parquet", params, row)
    return invented.measured(params, row, read(path, row, params, splits))


def test_a_row_of_several_labels_is_measured_from_its_file(tmp_path: Path) -> None:
    row = several(tmp_path, "a", 3.0)
    frame = pl.read_parquet(tmp_path / "a.parquet")
    runs = []
    for part in frame.partition_by("seed"):
        wanted = np.zeros((60, 6), bool)
        for video, labels in enumerate(part["labels"].to_list()):
            wanted[video, labels] = True
        runs.append(official(wanted, part["logits"].explode().to_numpy().reshape(60, 6)))
    assert (row.accuracy.map.value, row.accuracy.wap.value) == pytest.approx(tuple(np.mean(runs, axis=0)))
    assert row.accuracy.map.low < row.accuracy.map.value < row.accuracy.map.high
    unlabelled = (frame["labels"].list.len() == 0).sum() // 2
    assert unlabelled >= 1 and row.accuracy.videos == row.accuracy.decoded == 60 - unlabelled


def test_differences_of_mAP_are_paired_by_video(tmp_path: Path) -> None:
    base, same, better = (several(tmp_path, row, noise, seed) for row, noise, seed in
                          (("base", 4.0, 0), ("same", 4.0, 1), ("better", 0.5, 2)))  # fmt: skip
    found = difference(better, base)
    assert isinstance(found, Difference) and found.heading == "mAP" and found.videos == base.accuracy.videos
    assert found.less.value == pytest.approx(better.accuracy.map.value - base.accuracy.map.value)
    assert found.nets < 0.01
    equal = difference(same, base)
    assert isinstance(equal, Difference) and equal.less.low < 0 < equal.less.high and equal.less.p > 0.05
    assert equal.nets > 0.05
    alike = difference(base, base)
    assert isinstance(alike, Difference) and alike.less.value == 0 and alike.less.p == 1


def test_rows_of_another_kind_cant_be_compared(tmp_path: Path) -> None:
    one = invented.result(invented.params(["one"]), "one", invented.splits(tmp_path / "splits"))
    assert difference(several(tmp_path, "a", 1.0), one) == "base has top-1"


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

    found = scores(Predictions(frame, tuple(classes[:2]), "sigmoid", True))[1]
    expected = 1 / (1 + np.exp(-np.array([9.0, -1.0]))), 1 / (1 + np.exp(-2.0))
    assert found[:, 0] == pytest.approx([expected[0].mean(), expected[1]])  # by their logits, a would come first
    assert found[1, 0] > found[0, 0]
