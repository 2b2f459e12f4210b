"""Each check of `actionbench doctor` detects a fault and prints a fix."""

import http.server
import json
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.shared import resources as RESOURCES
from pipeline.config import load
from pipeline.config.schema import Cluster, Params
from stages import cli
from stages.commands import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the check's Ray, which starts slowly, by fixed resources."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.shared.resources", lambda cluster: {"CPU": 2.0})


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["actionbench", "doctor", *arguments])
        cli.main()
    return int(left.value.code or 0), capsys.readouterr().out


@pytest.mark.usefixtures("without_ray")
def test_this_project_can_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, out = run(capsys, "--json")
    by_name = {check["name"]: check for check in json.loads(out)}
    assert code == 0, by_name
    assert {"params.yaml", "torch", "dvc", "ffmpeg", "decoder ffmpeg", "decoder decord", "ray", "tracking"} <= set(
        by_name
    )
    assert "decodes a clip" in by_name["decoder decord"]["found"]
    assert all(check["mend"] for check in by_name.values() if check["state"] != "ok")


@pytest.mark.usefixtures("without_ray")
def test_an_empty_folder_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, out = run(capsys)
    assert code == 1
    broken = [line.split()[1] for line in out.splitlines() if line.startswith("broken")]
    assert broken == ["params.yaml", "git", "dvc"]
    assert out.count("fix: ") >= 3


def test_a_cluster_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.shared.resources", lambda cluster: {"CPU": 2.0, "GPU": 1.0})
    assert doctor.ray(Cluster(workers=2)).state == "ok"
    check = doctor.ray(Cluster(workers=2, cpus_per_worker=2))
    assert (check.state, check.found.split("; ")[1]) == ("broken", "one training needs 4 CPUs and 0 GPUs")
    assert doctor.ray(Cluster(workers=2, gpus_per_worker=1.0)).state == "broken"


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails at once, although Ray itself would retry."""
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{doctor.free_port()}")
    check = doctor.ray(Cluster())
    assert check.state == "broken"
    assert check.found.startswith("no Ray cluster answers at '127.0.0.1:")


def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, state in ((doctor.LITTLE, "ok"), (doctor.LITTLE - 1, "warning"), (doctor.TOO_LITTLE - 1, "broken")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: type("Usage", (), {"free": free}))
        assert doctor.disk(tmp_path).state == state


def test_a_decoder_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such codec")

    monkeypatch.setattr("pipeline.decode.video.decode", broken)
    assert doctor.decoder("decord", used=True).state == "broken"
    check = doctor.decoder("decord", used=False)
    assert (check.state, check.found) == ("warning", "can't decode a clip: no such codec")


def test_an_unexpected_failure_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Check:
        raise ImportError("libcuda.so.1")

    for name in ("torch_build", "git", "dvc_project", "ffmpeg", "ray", "decoder"):
        monkeypatch.setattr(doctor, name, lambda *_, name=name, **__: doctor.Check(name, "ok", ""))
    monkeypatch.setattr(doctor, "torch_build", broken)
    monkeypatch.chdir(ROOT)
    by_name = {check.name: check for check in doctor.checks()}
    assert (by_name["torch"].state, by_name["torch"].found) == ("broken", "ImportError: libcuda.so.1")
    assert by_name["mlflow"].state in ("ok", "warning")


@pytest.fixture
def server() -> Iterator[str]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_tracking(server: str, tmp_path: Path) -> None:
    assert doctor.tracking(server).state == "ok"
    assert doctor.tracking(f"{server}/absent").state == "warning"
    assert doctor.tracking("http://user:secret@127.0.0.1:1").state == "warning"
    assert "secret" not in doctor.tracking("http://user:secret@127.0.0.1:1").found
    assert doctor.tracking(f"sqlite:///{tmp_path / 'mlflow.db'}").state == "ok"
    assert doctor.tracking(f"sqlite:///{tmp_path / 'absent' / 'mlflow.db'}").state == "warning"


def test_ports() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        check = doctor.mlflow_port(other.getsockname()[1])
    assert check.state == "warning"
    assert doctor.port_is_free(int(check.mend.split("--port ")[1].rstrip("`")))


def test_a_damaged_store_and_a_database_that_is_away(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    for content in (b"no database at all", b"SQLite format 3\0" + bytes(4096)):
        database.write_bytes(content)
        check = doctor.tracking(f"sqlite:///{database}")
        assert (check.state, "is damaged" in check.found) == ("warning", True), check
    with sqlite3.connect(tmp_path / "whole.db") as store:
        store.execute("create table runs (name text)")
    assert doctor.tracking(f"sqlite:///{tmp_path / 'whole.db'}").state == "ok"
    away = doctor.tracking(f"postgresql://me:secret@127.0.0.1:{doctor.free_port()}/runs")
    assert away.state == "warning" and "does not answer" in away.found and "secret" not in away.found
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed.listen()
        assert doctor.tracking(f"postgresql+psycopg://me@127.0.0.1:{closed.getsockname()[1]}/runs").state == "ok"


def lacking(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, params: Params) -> tuple[str, str, str]:
    """Break this machine; return the check that fails, its state and a word of its message."""
    if what == "TMPDIR":
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 60)))
        return "temporary", "broken", "set RAY_TMPDIR"
    if what == "HOME":
        monkeypatch.setenv("HOME", "/proc/nohome")
        return "home", "warning", "/proc/nohome"
    if what == "clone":  # where not even root can write
        monkeypatch.setattr(doctor, "clone", lambda _, clone=doctor.clone: clone(Path("/proc")))
        return "clone", "broken", "/proc can't be written"
    if what == "data":
        object.__setattr__(params.datasets["shapes"], "source", "my/videos")
        return "sources", "broken", "my/videos"
    if what == "weights":
        object.__setattr__(params.experiments["tsn"], "weights", "my/resnet.pt")
        return "weights", "broken", "my/resnet.pt"
    if what == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
        return "disk", "broken", "0.5 GiB free"
    if what == "Python":
        monkeypatch.setattr(sys, "version_info", (3, 14, 1))
        return "python", "broken", "3.14.1"
    if what == "tracking":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{doctor.free_port()}")
        return "tracking", "warning", "does not answer"
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{doctor.free_port()}")
    monkeypatch.setattr("cluster.shared.resources", RESOURCES)
    return "ray", "broken", "no Ray cluster answers"


LACKING = ("TMPDIR", "HOME", "clone", "data", "weights", "disk", "Python", "tracking", "cluster")


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("what", LACKING)
def test_what_a_machine_lacks_is_found(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run of all checks, without slow unrelated ones, detects each fault."""
    monkeypatch.chdir(ROOT)
    params = load.load()
    monkeypatch.setattr(doctor.load, "load", lambda: params)
    for name in ("torch_build", "git", "dvc_project", "ffmpeg", "decoder", "mlflow_port"):
        monkeypatch.setattr(doctor, name, lambda *_, name=name, **__: doctor.Check(name, "ok", ""))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = {check.name: check.state for check in doctor.checks()}
    name, state, words = lacking(what, monkeypatch, tmp_path, params)
    check = next(check for check in doctor.checks() if check.name == name)
    assert before[name] in ("ok", "warning") and before[name] != state
    assert (check.state, words in check.found, "\n" in check.found) == (state, True, False), check
    assert check.mend


@pytest.mark.usefixtures("without_ray")
def test_a_suite_is_checked_before_it_is_in_params(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    _, out = run(capsys, "--suite", "jhmdb", "--json")
    by_name = {check["name"]: check for check in json.loads(out)}
    assert by_name["conf/suite"]["found"].startswith("suite jhmdb, ")
    code, out = run(capsys, "--suite", "jhmbd")
    assert code == 1 and "did you mean 'jhmdb'" in out
