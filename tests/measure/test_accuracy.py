"""Incomplete predictions are refused; accuracies equal those counted by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from pipeline.config.schema import Protocol
from pipeline.config.signature import CROPS, protocol_signature, views_per_video
from pipeline.errors import UserError
from pipeline.evaluate import predictions
from pipeline.measure import accuracy
from tests.support import invented


def test_the_two_averages_are_the_protocols_and_differ() -> None:
    # One sure view of class 0, two mild ones of class 1: the mean logit is 0's, the mean probability is 1's.
    views = [[[9.0, 0.0], [0.0, 3.0], [0.0, 3.0]]]
    assert accuracy.outcomes(invented.from_logits(views, [0], "logits"))["predicted"].to_list() == [0]
    assert accuracy.outcomes(invented.from_logits(views, [0], "softmax"))["predicted"].to_list() == [1]


def test_ties_go_to_the_lowest_class_and_top5_counts_them_in_that_order() -> None:
    flat = [[0.0] * 7]
    out = accuracy.outcomes(invented.from_logits([flat, flat, flat], [0, 4, 5]))
    assert out["predicted"].to_list() == [0, 0, 0]
    assert out["top1"].to_list() == [True, False, False]
    assert out["top5"].to_list() == [True, True, False]


def test_a_video_that_was_not_decoded_is_wrong_and_stays_in_the_denominator() -> None:
    out = accuracy.outcomes(invented.from_logits([[[5.0, 0.0]], None, [[5.0, 0.0]], None], [0, 0, 0, 1]))
    assert out["top1"].mean() == 0.5
    assert out["predicted"].to_list() == [0, None, 0, None]
    table = accuracy.confusion(out, 2)
    assert table.tolist() == [[[2, 0, 1], [0, 0, 1]]]
    assert accuracy.class_accuracy(table).tolist() == [2 / 3, 0.0]
    assert accuracy.mean_class_accuracy(table) == pytest.approx(1 / 3)


def test_nothing_decoded_is_all_wrong(tmp_path: Path) -> None:
    params, folder = invented.params(["a"]), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder).with_columns(logits=pl.lit(None, pl.List(pl.Float32)))
    out = accuracy.outcomes(predictions.read(invented.write(frame, tmp_path / "p", params, "a"), "a", params, folder))
    assert out["top1"].mean() == out["top5"].mean() == 0.0


def test_a_class_without_test_videos_does_not_enter_the_mean() -> None:
    out = accuracy.outcomes(invented.from_logits([[[5.0, 0.0, 0.0]], [[0.0, 5.0, 0.0]]], [0, 0]))
    assert accuracy.mean_class_accuracy(accuracy.confusion(out, 3)) == 0.5


@pytest.mark.parametrize("views", [1, 3])
def test_against_scikit_learn(tmp_path: Path, views: int) -> None:
    params, folder = invented.params(["a"], clips=views), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder, views=views)
    read = predictions.read(invented.write(frame, tmp_path / "p", params, "a"), "a", params, folder)
    out = accuracy.outcomes(read)
    k = len(invented.CLASSES)
    logits = read.frame["logits"].explode().to_numpy().reshape(-1, views, k).astype(float)
    scores = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).mean(1)
    labels = out["label"].to_numpy()
    # Both runs hold the same videos, so pooling them is the mean over them.
    assert out["top1"].mean() == pytest.approx(top_k_accuracy_score(labels, scores, k=1))
    assert out["top5"].mean() == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    table = accuracy.confusion(out, k)
    assert (table.sum(0)[:, :k] == confusion_matrix(labels, scores.argmax(1), labels=range(k))).all()
    assert accuracy.mean_class_accuracy(table) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    params, folder = invented.params(["a"], clips=3), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder, views=3)
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    first, second = (
        accuracy.outcomes(predictions.read(invented.write(ordered, tmp_path / name, params, "a"), "a", params, folder))
        for name, ordered in (("one", frame), ("two", shuffled))
    )
    assert first.equals(second)


def test_videos_of_different_length_have_their_own_number_of_windows(tmp_path: Path) -> None:
    params, folder = invented.params(["a"]), invented.splits(tmp_path)
    object.__setattr__(params.protocols["center"], "sampling", "windows")
    frame = invented.predictions(params, "a", folder, views=4)
    short = frame.filter((pl.col("video") != "test_1_007") | (pl.col("view") < 2))
    out = accuracy.outcomes(predictions.read(invented.write(short, tmp_path / "p", params, "a"), "a", params, folder))
    assert len(out) == 120
    holed = frame.filter((pl.col("video") != "test_1_007") | (pl.col("view") != 2))
    with pytest.raises(UserError, match="test_1_007"):
        predictions.read(invented.write(holed, tmp_path / "p", params, "a"), "a", params, folder)
    cut = invented.write(short, tmp_path / "p", params, "a", rows=str(len(frame)))  # nothing else misses last windows
    with pytest.raises(UserError, match=f"it holds {len(short)} rows of the {len(frame)} that were written"):
        predictions.read(cut, "a", params, folder)
    whole = invented.write(short, tmp_path / "p", params, "a", rows=str(len(short)))
    assert len(predictions.read(whole, "a", params, folder).frame) == len(short)


# Each damages a whole frame of 2 seeds x 60 videos x 3 views.
SEVENTH = pl.col("video") == "test_1_007"
LOGITS = pl.col("logits")
LAST = (pl.col("seed") == 1) & SEVENTH


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: f.drop("labels"), "column 'labels' must be List"),
        (lambda f: f.with_columns(pl.col("view").cast(pl.Int64)), "column 'view' must be Int32, not Int64"),
        (lambda f: f.filter(~SEVENTH), "video 'test_1_007' of split 1, seed 0 is missing"),
        (lambda f: f.filter(pl.col("seed") == 0), "of split 1, seed 1 is missing"),
        (lambda f: f.filter(~(LAST & (pl.col("view") == 2))), "'test_1_007' of split 1, seed 1 has not its 3 view"),
        (lambda f: pl.concat([f, f.filter(LAST & (pl.col("view") == 2))]), "seed 1 has not its 3 view"),
        (lambda f: f.with_columns(pl.when(SEVENTH).then(pl.lit("other")).otherwise("video").alias("video")), "missing"),
        (lambda f: pl.concat([f, f.head(1).with_columns(video=pl.lit("train_001"))]), "'train_001'.*no test video"),
        (lambda f: f.with_columns(labels=pl.lit([0], pl.List(pl.Int32))), "other labels than its split"),
        (lambda f: f.with_columns(LOGITS.list.head(4)), "has not one logit for each of 6 classes"),
        (lambda f: f.with_columns(experiment=pl.lit("b")), "holds predictions of 'b'"),
        (
            lambda f: f.with_columns(pl.when(SEVENTH).then(np.inf * LOGITS).otherwise(LOGITS).alias("logits")),
            "'test_1_007' of split 1, seed 0 has a logit that is not finite",
        ),
    ],
)  # fmt: skip
def test_damaged_predictions_are_refused_by_name_and_reason(tmp_path: Path, damage, reason: str) -> None:
    params, folder = invented.params(["a"], clips=3), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder, views=3)
    predictions.read(invented.write(frame, tmp_path / "whole.parquet", params, "a"), "a", params, folder)
    path = invented.write(damage(frame), tmp_path / "damaged.parquet", params, "a")
    with pytest.raises(UserError, match=f"damaged.parquet: .*{reason}"):
        predictions.read(path, "a", params, folder)


def test_other_protocol_other_classes_no_file_and_no_parquet_are_refused(tmp_path: Path) -> None:
    params, folder = invented.params(["a"]), invented.splits(tmp_path)
    path = invented.write(invented.predictions(params, "a", folder), tmp_path / "p.parquet", params, "a")
    with pytest.raises(
        UserError, match=r"its protocol is '1 clip x center, .*', but params say '1 clip x center, .*logits'"
    ):
        predictions.read(path, "a", invented.params(["a"], average="logits"), folder)
    (folder / "classes.json").write_text(json.dumps(["x"] * 6))
    with pytest.raises(UserError, match=r"its classes are not the 6 of"):
        predictions.read(path, "a", params, folder)
    with pytest.raises(UserError, match=r"absent\.parquet is not there"):
        predictions.read(tmp_path / "absent.parquet", "a", params, folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"p\.parquet is damaged"):
        predictions.read(path, "a", params, folder)


def test_a_changed_byte_never_changes_a_number(tmp_path: Path) -> None:
    """A changed byte is refused, has no effect, or is in a column's name, which is checked later."""
    folder = invented.splits(tmp_path)
    rng, path = np.random.default_rng(0), tmp_path / "p.parquet"
    rows = [
        (1, video, [label], rng.normal(size=6).tolist())
        for video, (label,) in predictions.parts(folder, 1)["test"]
    ]  # fmt: skip
    predictions.write_outside(path, "a", rows, invented.CLASSES)
    whole, (expected, _) = path.read_bytes(), predictions.read_parquet(path)
    refused = 0
    for position in rng.integers(len(whole), size=400):
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ int(rng.integers(1, 256))]) + whole[position + 1 :]
        )
        try:
            read_back, _ = predictions.read_parquet(path)
        except UserError:
            refused += 1
        else:
            assert read_back.equals(expected) or read_back.columns != expected.columns
    assert refused > 100


def test_a_video_with_two_labels_is_refused(tmp_path: Path) -> None:
    params, folder = invented.params(["a"]), invented.splits(tmp_path)
    path = invented.write(invented.predictions(params, "a", folder), tmp_path / "p.parquet", params, "a")
    table = pl.read_parquet(folder / "split-1.parquet")
    table.with_columns(labels=pl.lit([0, 1], pl.List(pl.Int32))).write_parquet(folder / "split-1.parquet")
    with pytest.raises(UserError, match=r"split-1.parquet: video .* has labels \[0, 1\], not one of"):
        predictions.read(path, "a", params, folder)


def test_signatures_read_as_written_and_tell_protocols_apart() -> None:
    center = Protocol(clips=1, crops="center", sampling="segments", size=64, average="softmax", batch=8)
    recipe = invented.params(["a"]).recipes["quick"]
    assert protocol_signature(center, recipe) == "1 clip x center, 8f segments, 64 px, softmax"
    dense = Protocol(10, "three", "dense", 112, "logits", batch=8, stride=2, frames=16)
    assert protocol_signature(dense, recipe) == "10 clips x three, 16f dense stride 2, 112 px, logits"
    seen = {protocol_signature(center, replace(recipe, input=kind)) for kind in ("rgb", "flow", "warped", "rgb+flow")}
    endings = {"", ", 5 flows", ", 5 warped flows", ", RGB + 5 flows"}
    assert seen == {"1 clip x center, 8f segments, 64 px, softmax" + words for words in endings}
    assert views_per_video(dense) == 30


def test_crops_are_counted_as_they_are_cut() -> None:
    views = pytest.importorskip("pipeline.clips.views")
    assert {name: len(cut(340, 256, 224)) for name, cut in views.CROPS.items()} == CROPS
