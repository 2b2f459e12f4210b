"""A second driver in a workspace learns the name of the first, and waits or ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.repro.workspace import held

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from stages.repro.workspace import held
with held(wait={wait}):
    print("has it", flush=True)
    sys.stdin.read()
"""


def driver(folder: Path, wait: bool = False) -> "subprocess.Popen[str]":
    """Start a process that holds the workspace until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD.format(wait=wait), "repro", "-j", "2"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_second_driver_is_refused_and_a_waiting_one_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    with driver(tmp_path) as first:
        assert first.stdout and first.stdout.readline() == "has it\n"
        with pytest.raises(UserError) as error, held(wait=False):
            pass
        message = str(error.value)
        assert f"process {first.pid} on {socket.gethostname()}" in message and "-j 2" in message and "--wait" in message
        assert "\n" not in message
        with driver(tmp_path, wait=True) as second:
            assert second.stderr and second.stdout
            assert f"process {first.pid} " in second.stderr.readline()
            first.communicate()
            assert second.stdout.readline() == "has it\n"
            second.communicate()


def test_a_killed_driver_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    with driver(tmp_path) as first:
        assert first.stdout and first.stdout.readline() == "has it\n"
        first.kill()
        first.wait()
        with held(wait=False):
            assert (tmp_path / ".dvc/tmp/actionbench.json").exists()
    assert not (tmp_path / ".dvc/tmp/actionbench.json").exists()


def test_no_project_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with held(wait=False):
        pass
    assert not list(tmp_path.iterdir())
