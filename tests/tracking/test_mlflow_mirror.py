"""MLflow mirrors the runs' files, each step once, despite failures that training never notices."""

import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import mlflow_mirror, run_record
from pipeline.tracking.run_record import Numbers

PARAMS = {"recipe": {"lr": 0.05, "groups": [{"kind": "norm", "decay": 0.0}]}, "splits": [1, 2]}
TAGS = {"dvc.stage": "abc", "data": "f00", run_record.COMMIT: "one"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create one store for the tests of this file, each of which uses another suite."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(autouse=True)
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow_mirror, "resting", {})


def written(path: Path, epochs: int, tail: str = "") -> Path:
    """Write a run's log of some epochs, with lines of another kind between them."""
    lines = []
    for epoch in range(epochs):
        lines.append({"kind": "steps", "epoch": epoch, "step": 5, "loss": 9.0})
        own = {"loss": 1 / (epoch + 1), "lr": 0.1, "grad_norm": 2.0 + epoch, "note": "text"}
        lines.append({"kind": "epoch", "epoch": epoch, **own})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def files(logs: Mapping[str, Path]) -> dict[str, tuple[Path]]:
    """Return each run with its log as the only file."""
    return {name: (log,) for name, log in logs.items()}


def mirror(
    root: Path, suite: str, cells: Mapping[str, Path], params: Mapping[str, Any] = PARAMS, tags: Any = TAGS
) -> None:
    mlflow_mirror.mirror(root, run_record.record(suite, "tsn", params, tags), files(cells))


def rows(root: Path, query: str, *values: str) -> list[tuple]:
    with sqlite3.connect(root / "mlflow.db") as connection:
        return connection.execute(query, values).fetchall()


def run_ids(root: Path, name: str, above: str | None = None) -> list[str]:
    """Return the runs of a name whose parent is `above`."""
    query = "select r.run_uuid from runs r where r.name = ?"
    if above is None:
        return [actual for (actual,) in rows(root, query, name)]
    below = " and exists (select 1 from tags t where t.run_uuid = r.run_uuid and t.key = ? and t.value = ?)"
    return [actual for (actual,) in rows(root, query + below, name, mlflow_mirror.PARENT, above)]


def one(actual: list[str]) -> str:
    assert len(actual) == 1
    return actual[0]


def history(root: Path, run: str, metric: str) -> list[tuple[int, float]]:
    return rows(root, "select step, value from metrics where run_uuid = ? and key = ? order by step", run, metric)


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, os, pipeline.tracking.mlflow_mirror\nassert 'mlflow' not in sys.modules\n"
    code += "assert not any('MLFLOW' in name for name in os.environ)"
    clean = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env=clean)


def test_runs_are_nested_and_each_epoch_is_logged_once(root: Path, tmp_path: Path) -> None:
    cells = {name: tmp_path / f"{name}.jsonl" for name in ("split1-seed0", "split1-seed1", "split1-seed2")}
    for epochs in (2, 2, 5):
        written(cells["split1-seed0"], epochs)
        written(cells["split1-seed1"], 1)
        mirror(root, "nested", cells)
    suite = one(run_ids(root, "nested"))
    row = one(run_ids(root, "tsn", suite))
    message = mlflow_mirror.ids(root, "nested", "tsn", None)
    assert message["tsn"] == row and message.keys() == {"tsn", "split1-seed0", "split1-seed1"}
    assert mlflow_mirror.ids(root, "nested", "tsn", "another") == mlflow_mirror.ids(root, "nested", "tsm", None) == {}
    assert mlflow_mirror.ids(tmp_path / "nothing", "nested", "tsn", None) == {} and not (tmp_path / "nothing").exists()
    first, second = (one(run_ids(root, f"tsn {name}", row)) for name in ("split1-seed0", "split1-seed1"))
    assert run_ids(root, "tsn split1-seed2", row) == []
    assert history(root, first, "loss") == [(epoch, 1 / (epoch + 1)) for epoch in range(5)]
    assert history(root, first, "grad_norm") == [(epoch, 2.0 + epoch) for epoch in range(5)]
    assert len(history(root, second, "epoch")) == 1
    assert history(root, first, "note") == []
    params = dict(rows(root, "select key, value from params where run_uuid = ?", row))
    assert params == {
        "recipe.lr": "0.05", "recipe.groups.0.kind": "norm", "recipe.groups.0.decay": "0.0", "splits": "[1, 2]"
    }  # fmt: skip
    tags = dict(rows(root, "select key, value from tags where run_uuid = ?", first))
    assert TAGS.items() <= tags.items()
    (place,) = rows(root, "select artifact_location from experiments where name = ?", mlflow_mirror.EXPERIMENT)
    assert place[0] == (root / "mlartifacts").as_uri()


def test_a_restart_resumes_at_the_stored_step_and_a_half_written_line_waits(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    half = '{"kind": "epoch", "epoch": 3, "lo'
    code = "import sys, json; from pathlib import Path; from pipeline.tracking import mlflow_mirror, run_record\n"
    code += "a = json.loads(sys.argv[1]); record = run_record.record('restart', 'tsn', a[2], a[3])\n"
    code += "mlflow_mirror.mirror(Path(a[0]), record, {'split1-seed0': (Path(a[1]),)})"
    written(log, 3, half)
    given = json.dumps([str(root), str(log), PARAMS, TAGS])
    subprocess.run([sys.executable, "-c", code, given], check=True, cwd=Path(__file__).parents[2])
    cell = one(run_ids(root, "tsn split1-seed0", one(run_ids(root, "tsn", one(run_ids(root, "restart"))))))
    assert [step for step, _ in history(root, cell, "loss")] == [0, 1, 2]
    written(log, 5)
    mirror(root, "restart", {"split1-seed0": log}, tags={**TAGS, run_record.COMMIT: "two"})
    assert [step for step, _ in history(root, cell, "loss")] == [0, 1, 2, 3, 4]


def test_another_training_of_a_row_is_another_run(root: Path, tmp_path: Path) -> None:
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 1)}
    mirror(root, "again", cells)
    mirror(root, "again", cells, tags={**TAGS, "dvc.stage": "other"})
    assert len(run_ids(root, "tsn", one(run_ids(root, "again")))) == 2


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_the_end_of_training_ends_its_runs_after_the_seconds_it_took(root: Path, tmp_path: Path, status: str) -> None:
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 2)}
    record = run_record.record(f"ended {status}", "tsn", PARAMS, TAGS)
    mlflow_mirror.mirror(root, record, files(cells))
    row = one(run_ids(root, "tsn", one(run_ids(root, f"ended {status}"))))
    cell = one(run_ids(root, "tsn split1-seed0", row))
    asked = "select distinct status, end_time is null from runs where run_uuid in (?, ?)"
    assert rows(root, asked, cell, row) == [("RUNNING", 1)]
    mlflow_mirror.mirror(root, record, files(cells), status)
    assert rows(root, asked, cell, row) == [(status, 0)]
    mlflow_mirror.finish(root, record, files(cells), Numbers(record.training, {"split1-seed0": {"top1": 1.0}}))
    assert rows(root, asked, cell, row) == [("FINISHED", 0)]
    assert history(root, cell, "test/top1") == [(0, 1.0)]


def test_finish_adds_the_evaluation_to_the_same_runs_once_and_closes_them(root: Path, tmp_path: Path) -> None:
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 2)}
    mirror(root, "finish", cells)
    record = run_record.record("finish", "tsn", PARAMS, TAGS)
    numbers = Numbers(record.training, {"split1-seed0": {"top1": 71.5}}, {"top1": 71.5, "n": 400})
    for _ in range(2):
        mlflow_mirror.finish(root, record, files(cells), numbers)
    row = one(run_ids(root, "tsn", one(run_ids(root, "finish"))))
    cell = one(run_ids(root, "tsn split1-seed0", row))
    assert history(root, cell, "test/top1") == [(0, 71.5)] and history(root, row, "test/n") == [(0, 400.0)]
    assert rows(root, "select distinct status from runs where run_uuid in (?, ?)", cell, row) == [("FINISHED",)]
    # Under another protocol: what is shown is the later number, though it is the lower one.
    for _ in range(2):
        mlflow_mirror.finish(root, record, files(cells), Numbers(record.training, {}, {"top1": 60.0}))
    assert sorted(history(root, row, "test/top1")) == [(0, 60.0), (0, 71.5)]
    assert rows(root, "select value from latest_metrics where run_uuid = ? and key = 'test/top1'", row) == [(60.0,)]


def test_an_evaluation_brings_what_the_training_could_not(root: Path, tmp_path: Path) -> None:
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 2)}
    record = run_record.record("cached", "tsn", PARAMS, TAGS)
    mlflow_mirror.finish(root, record, files(cells), Numbers(record.training, {"split1-seed0": {"top1": 1.0}}))
    row = one(run_ids(root, "tsn", one(run_ids(root, "cached"))))
    cell = one(run_ids(root, "tsn split1-seed0", row))
    assert len(history(root, cell, "loss")) == 2 and history(root, cell, "test/top1") == [(0, 1.0)]
    assert rows(root, "select value from params where run_uuid = ? and key = 'recipe.lr'", cell) == [("0.05",)]


def test_more_numbers_than_one_request_takes_all_arrive(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [{"epoch": epoch, **{f"m{number}": number for number in range(30)}} for epoch in range(100)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    params = {f"p{number}": number for number in range(250)}
    mirror(root, "large", {"split1-seed0": log}, params, {})
    row = one(run_ids(root, "tsn", one(run_ids(root, "large"))))
    cell = one(run_ids(root, "tsn split1-seed0", row))
    assert rows(root, "select count(*) from metrics where run_uuid = ?", cell) == [(3100,)]
    assert rows(root, "select count(*) from params where run_uuid = ?", row) == [(250,)]


def test_no_secret_reaches_a_run_or_a_warning(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    params = {
        "hub_token": "leak1",
        "aws": {"Secret_Key": "leak2", "list": [{"password": "leak3"}]},
        "weights": "https://me:leak4@host/w.pt?X-Amz-Signature=leak5&size=3#sha256=00",
        "mirrors": ["s3://leak6:le@k7@bucket/a"],
    }
    tags = {"api_key": "leak8", "source": "http://leak9@host"}
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 1)}
    mirror(root, "secrets", cells, params, tags)
    assert run_ids(root, "tsn", one(run_ids(root, "secrets")))
    stored = b"".join(path.read_bytes() for path in root.glob("mlflow.db*"))
    assert b"***@host/w.pt?X-Amz-Signature=***&size=3" in stored
    run_record.save(run_record.record("secrets", "tsn", params, tags), tmp_path)
    for kept in (stored, (tmp_path / "run.json").read_bytes()):
        assert b"leak" not in kept and b"le@k" not in kept
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:leak@127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        mirror(root, "secrets", cells, params, tags)
    assert "***@127.0.0.1:9" in caplog.text and "leak@" not in caplog.text


@pytest.mark.parametrize("answers", [False, True], ids=["refused", "silent"])
def test_an_outage_is_one_warning_and_a_short_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    cells = {"split1-seed0": written(tmp_path / "log.jsonl", 1)}
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # bound and not listening: refused
        if answers:
            server.listen()  # connects, and never says a word
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        begun = time.monotonic()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                mirror(tmp_path / "root", "s", cells)
            record = run_record.record("s", "tsn", PARAMS, TAGS)
            mlflow_mirror.finish(tmp_path / "root", record, files(cells), Numbers(record.training, {}, {"top1": 1.0}))
        # With MLflow's own timeouts and retries this would be more than a quarter of an hour.
        assert time.monotonic() - begun < 60
    assert len([record for record in caplog.records if record.name == "pipeline.tracking.mlflow_mirror"]) == 1


def test_a_broken_store_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").write_text("no database")
    with caplog.at_level(logging.WARNING):
        mirror(tmp_path, "s", {"c": written(tmp_path / "log.jsonl", 1)}, {}, {})
    assert "MLflow at sqlite:" in caplog.text


def test_four_processes_at_once_on_a_fresh_store(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", 3)
    code = (
        "import sys; from pathlib import Path; from pipeline.tracking import mlflow_mirror, run_record; a = sys.argv\n"
    )
    code += (
        "mlflow_mirror.mirror(Path(a[1]), run_record.record('suite', a[3], {}, {}), {'split1-seed0': (Path(a[2]),)})"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(log), f"row{number}"],
            cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert not any("lacks the latest" in error for error in errors), errors
    suite = one(run_ids(tmp_path, "suite"))
    for number in range(4):
        cell = one(run_ids(tmp_path, f"row{number} split1-seed0", one(run_ids(tmp_path, f"row{number}", suite))))
        assert [step for step, _ in history(tmp_path, cell, "loss")] == [0, 1, 2]


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_mirror.store(root))


def test_a_finished_row_shows_what_a_user_looks_for(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "split1-seed0.jsonl"
    log.write_text("".join(f'{{"epoch": {epoch}, "loss": 1.0, "seconds": 50.0}}\n' for epoch in (0, 1)))
    (shown := tmp_path / "artifacts").mkdir()
    for name in ("params.yaml", "environment.json", "metrics.json", "confusion.svg", "curves.svg"):
        (shown / name).write_text(name)
    tags = {**TAGS, "mlflow.source.name": "dvc repro train@tsn", "mlflow.user": "me"}
    settings = {"row": {"dataset": "shapes"}}
    record = run_record.record("shown", "tsn", settings, tags, {"split1": "a" * 64, "split2": "b" * 64})
    numbers = Numbers(record.training, {"split1-seed0": {"top1": 71.5}}, {"top1": 71.5, "n": 400})
    for _ in range(2):
        mlflow_mirror.finish(root, record, {"split1-seed0": (log,)}, numbers, shown)
    mlflow = client(root)
    above = one(run_ids(root, "shown"))
    parent = one(run_ids(root, "tsn", above))
    suite, row, run = map(mlflow.get_run, (above, parent, one(run_ids(root, "tsn split1-seed0", parent))))
    assert suite.data.metrics == {"top1/tsn": 71.5} and row.data.metrics == {"test/top1": 71.5, "test/n": 400.0}
    assert [each.data.tags["kind"] for each in (suite, row, run)] == ["suite", "row", "run"]
    assert {each.data.tags["row"] for each in (row, run)} == {"tsn"}
    assert row.data.tags["mlflow.user"] == "me" and run.data.tags["mlflow.source.name"] == "dvc repro train@tsn"
    assert [each.info.end_time - each.info.start_time for each in (suite, run)] == [0, 100_000]  # as long as it trained
    assert 100_000 <= row.info.end_time - row.info.start_time < 130_000
    assert [(each.dataset.name, each.dataset.digest) for each in row.inputs.dataset_inputs] == [
        ("shapes split1", "a" * 36), ("shapes split2", "b" * 36)
    ]  # fmt: skip
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "shapes split1" and used.tags[0].value == "training"
    assert {file.path for file in mlflow.list_artifacts(parent)} == {path.name for path in shown.iterdir()}
    assert [file.path for file in mlflow.list_artifacts(run.info.run_id)] == ["split1-seed0.jsonl"]


def test_a_store_that_takes_no_files_still_takes_the_numbers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    def refuse(*_: object) -> None:
        raise OSError("no credentials")

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    record = run_record.record("fileless", "tsn", {}, TAGS)
    numbers = Numbers(record.training, {"split1-seed0": {"top1": 1.0}})
    with caplog.at_level(logging.WARNING):
        assert mlflow_mirror.sync(root, record, files({"split1-seed0": written(tmp_path / "log", 1)}), numbers) == 2
    assert "did not take the files of run tsn split1-seed0 (OSError: no credentials)" in caplog.text


def test_the_address_opens_the_rows_by_accuracy(root: Path, tmp_path: Path) -> None:
    mirror(root, "address", {"split1-seed0": written(tmp_path / "log.jsonl", 1)})
    experiment = client(root).get_experiment_by_name(mlflow_mirror.EXPERIMENT)
    address = mlflow_mirror.address(mlflow_mirror.store(root))
    assert address.startswith(f"/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=actionbench")
    assert json.loads(experiment.tags["mlflow.sharedViewState.actionbench"])["orderByKey"] == "metrics.`test/top1`"
    (tmp_path / "broken.db").write_text("no database")
    assert mlflow_mirror.address(f"sqlite:///{tmp_path / 'broken.db'}") == ""


def test_system_metrics_are_logged_where_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run_record.record("load", "tsn", {}, TAGS)
    with mlflow_mirror.system_metrics(root, record):
        assert run_ids(root, "load") == []
    monkeypatch.setenv(mlflow_mirror.SYSTEM, "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with mlflow_mirror.system_metrics(root, record):
        row, end = one(run_ids(root, "tsn", one(run_ids(root, "load")))), time.monotonic() + 60
        while not history(root, row, "system/cpu_utilization_percentage") and time.monotonic() < end:
            time.sleep(0.1)
    assert history(root, row, "system/cpu_utilization_percentage")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with mlflow_mirror.system_metrics(root, record):  # a dead store stops nothing
        pass


def test_tags_name_the_commit_where_there_is_one(tmp_path: Path) -> None:
    given = {"stage": "abc", "data": "f00", "protocol": "1 clip", "place": "comparison/tsn"}
    assert run_record.COMMIT not in run_record.tags(tmp_path, **given)
    (tmp_path / run_record.SUBMITTED).write_text('{"commit": "c0ffee-dirty", "files": []}')  # a submitted job's folder
    assert run_record.tags(tmp_path, **given)[run_record.COMMIT] == "c0ffee-dirty"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert run_record.tags(tmp_path, **given)[run_record.COMMIT] == head
    for name, dirty in (("dvc.lock", ""), ("reports/new.csv", ""), ("models/attention/new.py", "-dirty")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("new")
        assert run_record.commit(tmp_path) == head + dirty
    made = run_record.tags(tmp_path, **given, source="dvc repro train@tsn")
    assert (made["mlflow.source.name"], made["mlflow.source.type"]) == ("dvc repro train@tsn", "LOCAL")
    plain = run_record.record("s", "tsn", PARAMS, {"data": "f00"})
    assert plain.training == run_record.record("s", "tsn", PARAMS, {"data": "f00", "mlflow.user": "me"}).training
    assert run_record.public({"a": [{"password": "x", "uri": "s3://me:leak@bucket/a"}]}) == {
        "a": [{"uri": "s3://***@bucket/a"}]
    }
