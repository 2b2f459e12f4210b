"""Files of a suite other than its tables, and the results of single runs."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.config.schema import Table
from pipeline.evaluate.predictions import read
from pipeline.measure import results
from pipeline.report import exports, suite_tables, table
from tests.support import invented
from tests.support.printed import lines


def test_undecoded_videos_are_shown_and_count_as_wrong(tmp_path: Path) -> None:
    params, folder = invented.params(["a"], seeds=(0,)), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder, right=1.0)
    gone = pl.col("video").is_in(["test_1_000", "test_1_001", "test_1_006"])
    frame = frame.with_columns(logits=pl.when(gone).then(None).otherwise("logits"))
    row = invented.measured(params, "a", read(invented.write(frame, tmp_path / "p", params, "a"), "a", params, folder))
    table.save(tmp_path, suite_tables.of("t", Table("t", ("a",)), {"a": row}))
    (line,) = lines(tmp_path / "t.csv")
    assert (line["top1"], line["n"], line["decoded"]) == ("95.0000", "60", "57")
    assert "57 of 60" in (tmp_path / "t.md").read_text()
    exports.save_classes(tmp_path / "classes.csv", [row])
    first = lines(tmp_path / "classes.csv")[0]
    assert first == {"row": "a", "class": "clap", "n": "10", "accuracy": "80.0000"}
    exports.save_confusion(tmp_path / "confusion.csv", row)
    pairs = lines(tmp_path / "confusion.csv")
    assert sum(int(pair["n"]) for pair in pairs) == 60
    assert {"actual": "clap", "predicted": "(not decoded)", "n": "2"} in pairs
    assert len({(pair["actual"], pair["predicted"]) for pair in pairs}) == len(pairs)


def test_five_guesses_among_five_classes_are_no_result() -> None:
    params = invented.params(["a"], seeds=(0,))
    predictions = invented.from_logits([[list(row)] for row in np.eye(5)], [0, 1, 2, 3, 4])
    row = invented.measured(params, "a", predictions)
    assert row.accuracy.top5 is None and row.accuracy.top1.value == 1.0


def test_the_curve_is_the_mean_over_runs_without_their_times(tmp_path: Path) -> None:
    for run, losses in enumerate(([2.0, 1.0], [4.0, 2.0])):
        epochs = [{"kind": "epoch", "epoch": n, "loss": loss, "lr": 0.1, "seconds": n} for n, loss in enumerate(losses)]
        steps = {"kind": "steps", "epoch": 0, "step": 1, "loss": 99.0}
        text = "\n".join(map(json.dumps, [steps, *epochs]))
        (tmp_path / f"{run}.jsonl").write_text(text + "\n")
    exports.save_curve(tmp_path / "curve.csv", [tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    assert (tmp_path / "curve.csv").read_text() == "epoch,loss,lr\n0,3.000000,0.1\n1,1.500000,0.1\n"


def test_a_plot_of_all_rows_has_a_line_a_row_and_epoch(tmp_path: Path) -> None:
    for row, losses in {"a": (2.0, 1.0), "b": (4.0,)}.items():
        epochs = [{"kind": "epoch", "epoch": n, "loss": loss, "lr": 0.1} for n, loss in enumerate(losses)]
        (tmp_path / f"{row}.jsonl").write_text("\n".join(map(json.dumps, epochs)) + "\n")
    logs = {row: [tmp_path / f"{row}.jsonl"] for row in "ab"} | {"untrained": []}
    exports.save_losses(tmp_path / "losses.csv", logs)
    assert (tmp_path / "losses.csv").read_text() == "row,epoch,loss\na,0,2.000000\na,1,1.000000\nb,0,4.000000\n"


def test_dvc_shows_one_number_a_row(tmp_path: Path) -> None:
    params, folder = invented.params(["a", "b"], seeds=(0,)), invented.splits(tmp_path)
    frame = invented.predictions(params, "a", folder, right=1.0)
    row = invented.measured(params, "a", read(invented.write(frame, tmp_path / "p", params, "a"), "a", params, folder))
    missing = results.measure(results.read(params, "b", tmp_path))
    exports.save_accuracies(tmp_path / "accuracy.json", {"a": row, "b": missing})
    assert json.loads((tmp_path / "accuracy.json").read_text()) == {"a": {"top1": 100.0}}


def test_a_run_alone_is_that_part_of_its_row(tmp_path: Path) -> None:
    params, data = invented.params(["a"]), tmp_path
    invented.splits(data / "splits" / "shapes")
    folder = data / "predictions" / "a"
    folder.mkdir(parents=True)
    frame = invented.predictions(params, "a", data / "splits" / "shapes", 0.5)
    invented.write(frame, folder / "predictions.parquet", params, "a")
    row = results.read(params, "a", data)
    whole = results.measure(row).accuracy
    runs = [results.measure(results.only(row, 1, seed)).accuracy for seed in (0, 1)]
    assert np.mean([run.top1.value for run in runs]) == pytest.approx(whole.top1.value)
    assert runs[0].top1.value != runs[1].top1.value
    assert results.measure(results.only(results.read(params, "a", data / "nowhere"), 1, 0)).accuracy == "not run"
