"""Limits of a machine, such as the length of a socket's path, give a one-line error before work starts."""

import ipaddress
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import session
from pipeline.config import load
from pipeline.config.schema import Augment, Cluster, Recipe
from pipeline.errors import UserError
from stages.commands import doctor

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(1, 8, 4, 16, "segments", 224, Augment("center"), 0.1, 0.9, 0.0)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("length", [29, 75, 200])
def test_a_long_folder_for_sockets_is_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, length: int
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    place = tmp_path / ("x" * max(1, length - len(str(tmp_path)) - 1))
    place.mkdir()
    monkeypatch.setenv(variable, str(place))
    with pytest.raises(UserError, match="set RAY_TMPDIR to a short folder") as caught, session.session(Cluster()):
        pass
    assert "\n" not in str(caught.value) and doctor.OLDEST
    with pytest.raises(UserError, match="RAY_TMPDIR"):
        doctor.temporary()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert session.temporary() == Path("/tmp")


def test_a_folder_for_sockets_that_is_absent_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/no/such")
    with pytest.raises(UserError, match="/no/such can't be written"), session.session(Cluster()):
        pass
    assert doctor.temporary().state == "broken"


def test_a_session_of_this_machine_has_a_folder_and_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    with session.session_files("local") as options:
        folder = Path(options["_temp_dir"]).parent  # Ray opens the folder it is given to all
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and os.environ["RAY_AUTH_MODE"] == "token"
        (folder / "file").touch()
    assert not folder.exists()
    with session.session_files("10.0.0.1:6379") as options:
        assert options == {}


def test_a_ray_of_this_machine_listens_on_loopback_alone(tmp_path: Path) -> None:
    """Every port of the session listens on loopback.

    Ray reads its variables once, so this runs in a separate process.
    """
    script = """
import json, time, psutil
from cluster.session import session
from pipeline.config.schema import Cluster
def task():
    return 1
with session(Cluster()):
    import ray
    assert ray.get(ray.remote(task).remote()) == 1
    time.sleep(3)
    mine = {process.pid for process in psutil.Process().children(recursive=True)}
    found = [c.laddr.ip for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.pid in mine]
    print("PORTS", json.dumps(found))
"""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    home = tmp_path / "home"
    home.mkdir()
    variables |= {"RAY_TMPDIR": "/tmp", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("PORTS")] or [done.stderr]
    ports = json.loads(line.removeprefix("PORTS"))
    assert len(ports) > 3
    assert all(ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in ports), ports
    assert not (home / ".ray" / "auth_token").exists()


def test_doctor_finds_what_a_machine_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nohome"))
    assert doctor.home().state == "warning" and "RAY_AUTH_TOKEN" in doctor.home().mend
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor.home().state == "ok"
    params = load.load(ROOT / "params.yaml")
    assert doctor.sources(params).state == doctor.weights(params).state == "ok"
    assert doctor.sources(None).state == doctor.weights(None).state == "ok"
    object.__setattr__(params.datasets["shapes"], "source", "no/such/folder")
    object.__setattr__(params.datasets["shapes"], "lists", "no/such/lists")
    object.__setattr__(next(iter(params.experiments.values())), "weights", "no/such.pt")
    assert "data set shapes: no videos at no/such/folder" in doctor.sources(params).found
    assert "data set shapes: no lists at no/such/lists" in doctor.sources(params).found
    assert "no/such.pt" in doctor.weights(params).found
