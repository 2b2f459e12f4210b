"""`actionbench mlflow sync` to a real server sends each step once, whatever is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pipeline.tracking import mlflow_mirror, run_log, run_record
from stages.commands import ui
from stages.commands.doctor import free_port

BIN = Path(sys.executable).parent
ROWS, CELLS, EPOCHS = 3, 4, 25
NAMES = ("epoch", "loss", "lr", "seconds")


def trained(project: Path) -> Path:
    """Write files of trained and evaluated rows, one trained again and one of an earlier version."""
    for number in range(ROWS):
        row = f"row{number}"
        record = run_record.record(
            "suite", row, {"lr": number, "token": "leak"}, {"data": "f00", run_record.COMMIT: "c"}
        )
        runs, cells = project / "data/runs" / row, [f"split1-seed{seed}" for seed in range(CELLS)]
        run_record.save(record, project / "data/tracking" / row)
        for cell in cells:
            curve = [{"kind": "epoch", "epoch": epoch, "loss": 1 / (epoch + 1), "lr": 0.1} for epoch in range(EPOCHS)]
            timings = [{"kind": "epoch", "epoch": epoch, "seconds": 2.5} for epoch in range(EPOCHS)]
            folder = project / "data/tracking" / row
            for path, lines in ((runs / f"{cell}.jsonl", curve), (folder / f"{cell}.timings.jsonl", timings)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        training = record.training if number else "of an earlier training"
        numbers = run_record.Numbers(training, {cell: {"top1": 50.0 + number} for cell in cells}, {"top1": 50.0})
        run_record.save(numbers, project / "data/tracking" / row)
    (project / "data/tracking/old").mkdir()
    return project


def variables(**more: str) -> dict[str, str]:
    return {**{name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}, **more}


def sync(project: Path, **more: str) -> subprocess.Popen:
    command = [BIN / "actionbench", "mlflow", "sync"]
    return subprocess.Popen(
        command, cwd=project, env=variables(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def synced(project: Path, **more: str) -> str:
    process = sync(project, **more)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def query(database: Path, asked: str) -> list[tuple]:
    """Return the rows of a query; none before the database and its tables exist."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(asked).fetchall()
    except sqlite3.OperationalError:
        return []


def steps(database: Path) -> int:
    return sum(count for (count,) in query(database, "select count(*) from metrics where key = 'loss'"))


def is_whole(database: Path) -> None:
    """Check that each run is there once, with settings and tags, and each number once."""
    runs = query(database, "select name, count(*) from runs group by name order by name")
    rows = [f"row{number}" for number in range(ROWS)]
    cells = [(f"{row} split1-seed{n}", 1) for row in rows for n in range(CELLS)]
    assert runs == sorted([*((row, 1) for row in rows), *cells, ("suite", 1)])
    once = query(database, "select key, count(*), count(distinct run_uuid || ' ' || step) from metrics group by key")
    assert {key: (count, distinct) for key, count, distinct in once} == {
        **dict.fromkeys(NAMES, (ROWS * CELLS * EPOCHS,) * 2),
        "test/top1": ((ROWS - 1) * (CELLS + 1),) * 2,
        **{f"top1/row{number}": (1, 1) for number in range(1, ROWS)},
    }
    assert query(database, "select key, count(*) from params group by key") == [("lr", ROWS * (CELLS + 1))]
    assert query(database, "select count(*) from tags where key = 'data'") == [(ROWS * (CELLS + 1),)]
    done = query(database, "select count(*) from runs where status = 'FINISHED'")
    assert done == [(1 + (ROWS - 1) * (CELLS + 1),)]
    assert b"leak" not in database.read_bytes()


def killed_midway(process: subprocess.Popen, victim: int, database: Path, beyond: int, group: bool = False) -> None:
    """Kill the victim by SIGKILL once the store has more than some number of steps."""
    while steps(database) <= beyond:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    (os.killpg if group else os.kill)(victim, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_sync_resumes_and_logs_nothing_twice(tmp_path: Path) -> None:
    project = trained(tmp_path)
    for row in (0, 1):
        process = sync(project)
        killed_midway(process, process.pid, project / "mlflow.db", beyond=EPOCHS * CELLS * row)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    message = synced(project)
    assert "data/tracking/old has no run.json" in message and "3 rows with 12 runs" in message
    is_whole(project / "mlflow.db")
    assert "lacked 0 epochs and evaluations" in synced(project)
    is_whole(project / "mlflow.db")


def test_a_number_sent_twice_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a stored number was lost, and the next sync reads the store's earlier state."""
    from mlflow import MlflowClient

    project = trained(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = run_log.places(project / "data", "row1")
    record = run_record.load(project / "data/tracking/row1")
    assert record
    took = MlflowClient.log_batch

    def takes_twice(client: MlflowClient, *arguments: object, **named: object) -> None:
        took(client, *arguments, **named)
        took(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", takes_twice)
    assert mlflow_mirror.sync(project, record, runs, None) == EPOCHS * CELLS
    actual = query(project / "mlflow.db", "select count(*) from metrics")
    assert actual == [(EPOCHS * CELLS * len(NAMES),)]
    times = query(project / "mlflow.db", "select max(timestamp) - min(timestamp) from metrics group by run_uuid")
    assert times == [(2500 * (EPOCHS - 1),)] * CELLS  # a run's numbers lie as far apart as its training took


@contextmanager
def serving(project: Path, port: int, **more: str) -> Iterator[int]:
    """Start `actionbench mlflow`; yield the server and its process group, killed at the end."""
    with (project / "server.log").open("a") as log:
        command = [BIN / "actionbench", "mlflow", "--port", str(port)]
        server = subprocess.Popen(
            command, cwd=project, env=variables(**more), stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not _answers(port):
            assert server.poll() is None, (project / "server.log").read_text()
            time.sleep(0.2)
        yield server.pid
    finally:
        _kill(server.pid)
        server.wait()


def _answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.mark.slow
def test_a_server_killed_midway_is_caught_up_with(tmp_path: Path) -> None:
    project, port = trained(tmp_path), free_port()
    database = project / "team.db"
    to = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    message = {ui.BACKEND: f"sqlite:///{database}"}
    for row in range(2):
        with serving(project, port, **message) as server:
            process = sync(project, **to)
            killed_midway(process, server, database, beyond=EPOCHS * CELLS * row, group=True)
            out, err = process.communicate()
            assert (process.returncode, err.count("\n")) == (2, 1), out + err
            assert err.startswith(f"error: MLflow at http://127.0.0.1:{port} did not take row row{row} (")
    with serving(project, port, **message):
        lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert f"--port {port}" in lines and "team.db" not in lines  # a store's URI may hold a password
        assert "3 rows with 12 runs" in synced(project, **to)
        assert "lacked 0 epochs and evaluations" in synced(project, **to)
        is_whole(database)


def test_a_missing_driver_and_a_wrong_host_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.errors import UserError

    started: list[Mapping[str, str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given[2]))
    monkeypatch.setenv(ui.BACKEND, "postgresql://me:leak@host/runs")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"\*\*\*@host/runs needs psycopg; pip install .*actionbench\[postgres\]"):
        ui.serve(free_port(), "127.0.0.1")
    monkeypatch.setenv(ui.BACKEND, "sqlite:///new.db")
    ui.serve(free_port(), "0.0.0.0")
    assert started[0][ui.BACKEND] == "sqlite:///new.db"
    assert "MLflow has no password" in capsys.readouterr().err
