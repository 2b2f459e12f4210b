"""Evaluating a row sends its test numbers to MLflow, without a DVC output."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest.files import write_sums
from pipeline.measure import results
from pipeline.report import exports
from pipeline.tracking import mlflow_mirror, run_record
from stages import evaluate
from tests.support import invented


def test_test_numbers_are_sent_and_kept_apart_from_the_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, data = invented.params(["tsm"]), tmp_path / "data"
    frame = invented.predictions(given, "tsm", invented.splits(data / "splits" / "shapes"))
    path = invented.write(frame, data / "predictions" / "tsm" / "predictions.parquet", given, "tsm")
    log = data / "runs" / "tsm" / "split1-seed0.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"kind": "epoch", "epoch": 0, "loss": 1.0}\n')
    record = run_record.record("quick", "tsm", {"lr": 0.1}, {})
    run_record.save(record, data / "tracking" / "tsm")
    expected = exports.summary(results.measure(results.read(given, "tsm", data)))
    before = {path.name: path.read_bytes() for path in path.parent.iterdir()}
    sent: list[Any] = []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_mirror, "finish", lambda *arguments: sent.append(arguments))
    evaluate.mirror(given, "tsm")
    ((root, about, logs, numbers, shown),) = sent
    assert {path.name for path in shown.iterdir()} == {"metrics.json", "confusion.svg", "curves.svg"}
    assert json.loads((shown / "metrics.json").read_text()) == expected
    assert (root, about, list(logs)) == (tmp_path, record, ["split1-seed0"])
    assert numbers.row == {key: value for key, value in expected.items() if not key.endswith(("_low", "_high"))}
    assert set(numbers.runs) == {"split1-seed0", "split1-seed1"} and numbers.training == record.training
    assert json.loads((data / "tracking" / "tsm" / "numbers.json").read_text())["row"] == numbers.row
    assert {path.name: path.read_bytes() for path in path.parent.iterdir()} == before


def test_a_probe_is_evaluated_by_the_same_networks_and_read_by_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, data = invented.params(["tsm"], probes=["reversed", "static"]), tmp_path / "data"
    splits = invented.splits(data / "splits" / "shapes")
    asked: list[tuple[str, tuple[str, ...]]] = []

    def gather(cells: list[Any], scored: object, target: Path) -> float:
        protocol = cells[0].protocol
        asked.append((protocol.order, protocol.probes))
        right = 0.9 if protocol.order == "forward" else 0.2
        frame = invented.predictions(given, "tsm", splits, right)
        own = replace(given, protocols={"center": protocol})
        invented.write(frame, target, own, "tsm")
        return 1.0

    for name, stand_in in (("score", lambda cells, cluster: []), ("session", lambda cluster: nullcontext()),
                           ("forget", lambda *rest: None), ("mirror", lambda *rest: None)):  # fmt: skip
        monkeypatch.setattr(evaluate, name, stand_in)
    monkeypatch.setattr(evaluate.rows, "verify", lambda cells: None)
    monkeypatch.setattr(evaluate.inference, "gather", gather)
    monkeypatch.setattr(evaluate.inference, "costs", lambda cell: {"parameters": 1, "macs": 1})
    monkeypatch.setattr(evaluate.load, "load", lambda: given)
    monkeypatch.chdir(tmp_path)
    evaluate.evaluate("tsm")
    assert asked == [("forward", ()), ("reversed", ()), ("static", ())]
    files = {path.name for path in (data / "predictions" / "tsm").iterdir()}
    written = {f"{name}{of}.parquet" for name in ("predictions", "reversed", "static") for of in ("", "-outcomes")}
    assert files == written | {"costs.json", "SHA256SUMS"}
    forward, backward = (results.measure(results.read(given, "tsm", data, order)) for order in (None, "reversed"))
    assert forward.accuracy.top1.value > 0.8 > 0.4 > backward.accuracy.top1.value
    assert backward.protocol == f"{forward.protocol}, frames reversed"
    shutil.copy(data / "predictions/tsm/static.parquet", data / "predictions/tsm/reversed.parquet")
    write_sums(data / "predictions" / "tsm")
    refused = results.read(given, "tsm", data, "reversed").predictions
    assert isinstance(refused, str) and "frames static" in refused
