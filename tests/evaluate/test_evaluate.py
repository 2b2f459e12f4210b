"""MLflow gets a row's test numbers when the row is evaluated, without an out of DVC's."""

import json
from pathlib import Path
from typing import Any

import pytest

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
    ((root, about, logs, numbers),) = sent
    assert (root, about, list(logs)) == (tmp_path, record, ["split1-seed0"])
    assert numbers.row == {key: value for key, value in expected.items() if not key.endswith(("_low", "_high"))}
    assert set(numbers.runs) == {"split1-seed0", "split1-seed1"} and numbers.training == record.training
    assert json.loads((data / "tracking" / "tsm" / "numbers.json").read_text())["row"] == numbers.row
    assert {path.name: path.read_bytes() for path in path.parent.iterdir()} == before
