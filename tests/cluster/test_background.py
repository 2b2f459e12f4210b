"""The Ray that the stages of one `dvc` command share."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import background
from pipeline.errors import UserError

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
STAGE = """\
import sys, pathlib
import ray  # as a stage does, before the session
from cluster.session import session
from pipeline.config.schema import Cluster
with session(Cluster()):
    name = sys.argv[1]
    pathlib.Path(name).write_text(ray.get_runtime_context().gcs_address)
    if name == "c":
        (about,) = pathlib.Path(".dvc/tmp").glob("ray-*")
        pathlib.Path("mode").write_text(f"{about.stat().st_mode:o} {about.name}")
"""
GRAPH = {
    "stages": {
        name: {"cmd": f"PYTHONPATH={ROOT} python stage.py {name}", "deps": deps, "outs": [name]}
        for name, deps in {"a": [], "b": ["a"], "c": ["b"]}.items()
    }
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a stage of DVC in a project, without a Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train@a")
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path / ".dvc" / "tmp" / "ray"


def test_without_dvc_nothing_is_shared(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    with background.joined() as about:
        assert about == {}
    assert not any(file.parent.iterdir())


def test_a_ray_that_is_gone_is_forgotten(file: Path) -> None:
    file.write_text(json.dumps({"address": "127.0.0.1:1"}))
    with background.opened(file) as handle:
        assert background.read(handle) == {}
    assert file.read_text() == ""


def test_only_this_user_can_read_the_token(file: Path) -> None:
    background.opened(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_why_ray_can_not_start_is_a_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_TMPDIR", "/no/such")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"^/no/such can't be written .*; set RAY_TMPDIR"), background.joined():
        pass
    assert not any(file.parent.glob("ray-*"))


def test_dvc_is_found_past_wrappers(tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\n{sys.executable} "$@"\nexit $?\n')
    wrapper.chmod(0o755)
    script = "from cluster import background; print(background._dvc().pid)"
    variables = {**os.environ, "DVC_STAGE": "train@a", "PYTHONPATH": str(ROOT)}
    command = ["/bin/sh", "-c", '"$0" -c "$1"; exit $?', wrapper, script]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.getpid()


@pytest.mark.slow
def test_the_stages_of_a_dvc_command_share_a_ray_that_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(json.dumps(GRAPH))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables |= {"RAY_TMPDIR": "/tmp", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([BIN / "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    done = subprocess.run([BIN / "dvc", "repro"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    addresses = {(tmp_path / name).read_text() for name in "abc"}
    assert len(addresses) == 1 and addresses.pop().startswith("127.0.0.1:")
    mode, name = (tmp_path / "mode").read_text().split()
    assert mode == "100600"
    while any(str(tmp_path) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])):
        time.sleep(0.1)
    assert not (tmp_path / ".dvc" / "tmp" / name).exists()
