"""Outcomes kept with predictions: the same results as from logits, and never those of other predictions."""

import os
from pathlib import Path

import polars as pl
import pytest

from pipeline.config.schema import Params
from pipeline.digest import files
from pipeline.measure import outcomes, results
from tests.support import invented


@pytest.fixture
def params(tmp_path: Path) -> Params:
    """Write a row's predictions of two views, of which one video has none, and its outcomes."""
    params = invented.params(["a"], splits=(1, 2), seeds=(0, 1, 2), clips=2)
    splits = invented.splits(tmp_path / "splits" / "shapes", numbers=(1, 2))
    frame = invented.predictions(params, "a", splits, views=2)
    gone = pl.col("video") == "test_1_003"
    frame = frame.with_columns(logits=pl.when(gone).then(None).otherwise("logits")).filter(
        ~gone | (pl.col("view") == 0)
    )
    path = invented.write(frame, tmp_path / "predictions" / "a" / "predictions.parquet", params, "a")
    outcomes.keep(path, "softmax")
    files.write_sums(path.parent)
    return params


def from_logits(params: Params, data: Path) -> results.Result:
    return results.measure(results.read(params, "a", data))


def kept(data: Path) -> Path:
    return outcomes.file_of(data / "predictions" / "a" / "predictions.parquet")


def read_kept(params: Params, data: Path) -> pl.DataFrame | None:
    path, protocol = data / "predictions" / "a" / "predictions.parquet", params.protocols["center"]
    return outcomes.read(path, "a", params, data / "splits" / "shapes", protocol)


def test_outcomes_give_the_results_of_the_logits(params: Params, tmp_path: Path) -> None:
    assert read_kept(params, tmp_path) is not None
    ours, expected = results.measured(params, "a", tmp_path).accuracy, from_logits(params, tmp_path).accuracy
    assert isinstance(ours, results.Accuracy) and isinstance(expected, results.Accuracy)
    assert (ours.top1, ours.top5, ours.mean_class, ours.videos, ours.decoded, ours.by_split, ours.classes) == (
        expected.top1, expected.top5, expected.mean_class, 120, 119, expected.by_split, expected.classes
    )  # fmt: skip
    assert ours.right.equals(expected.right) and (ours.confusion == expected.confusion).all()
    assert (ours.right5 == expected.right5).all() and (ours.labels == expected.labels).all()


def test_outcomes_of_other_predictions_are_not_used(params: Params, tmp_path: Path) -> None:
    frame = invented.predictions(params, "a", tmp_path / "splits" / "shapes", right=1.0, views=2)
    path = invented.write(frame, tmp_path / "predictions" / "a" / "predictions.parquet", params, "a")
    files.write_sums(path.parent)
    assert read_kept(params, tmp_path) is None
    measured = results.measured(params, "a", tmp_path).accuracy
    assert isinstance(measured, results.Accuracy) and measured.top1.value == 1.0


def test_results_need_no_outcomes(params: Params, tmp_path: Path) -> None:
    kept(tmp_path).unlink()
    files.write_sums(kept(tmp_path).parent)
    ours, expected = results.measured(params, "a", tmp_path).accuracy, from_logits(params, tmp_path).accuracy
    assert isinstance(ours, results.Accuracy) and isinstance(expected, results.Accuracy)
    assert ours.top1 == expected.top1


@pytest.mark.parametrize("name", ["predictions.parquet", "predictions-outcomes.parquet"])
def test_a_damaged_file_is_no_result(params: Params, tmp_path: Path, name: str) -> None:
    path = kept(tmp_path).with_name(name)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    reason = results.measured(params, "a", tmp_path).accuracy
    assert isinstance(reason, str) and reason.startswith("failed: ") and f"{name} is damaged" in reason


def test_predictions_are_read_only_if_they_are_newer_than_their_outcomes(params: Params, tmp_path: Path) -> None:
    path, expected = kept(tmp_path).with_name("predictions.parquet"), from_logits(params, tmp_path).accuracy
    path.write_bytes(b"")
    os.utime(path, ns=(0, 0))
    ours = results.measured(params, "a", tmp_path).accuracy
    assert isinstance(ours, results.Accuracy) and isinstance(expected, results.Accuracy) and ours.top1 == expected.top1
    os.utime(path)
    assert "predictions.parquet is damaged" in str(results.measured(params, "a", tmp_path).accuracy)


def test_outcomes_of_other_splits_are_refused(params: Params, tmp_path: Path) -> None:
    invented.splits(tmp_path / "splits" / "shapes", videos=59, numbers=(2,))
    reason = results.measured(params, "a", tmp_path).accuracy
    assert isinstance(reason, str) and "its videos are not those of the splits; evaluate 'a' again" in reason


def test_an_absent_row_has_not_run(params: Params, tmp_path: Path) -> None:
    assert results.measured(params, "a", tmp_path / "nowhere").accuracy == "not run"
