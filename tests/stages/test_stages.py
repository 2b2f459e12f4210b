"""Message and exit code of a stage that fails."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stages
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]


def leave(error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    def stage() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as left:
        stages.run(stage)
    return left.value.code, capsys.readouterr().err


def test_a_users_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(UserError("no such row"), monkeypatch, capsys) == (2, "error: no such row\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = leave(OSError(number, os.strerror(number)), monkeypatch, capsys)
    assert code == 2 and message.startswith("error: the disk is full") and message.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_cant_be_written_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = leave(OSError(number, os.strerror(number), "data/x"), monkeypatch, capsys)
    assert (code, message.count("\n")) == (2, 1) and message.startswith("error: data/x can't be read or written (")


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(MemoryError(), monkeypatch, capsys)[0] == 2


def test_any_other_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage() -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(OSError, match="broken disk"):
        stages.run(stage)


@pytest.mark.parametrize(
    ("stage", "name", "words"),
    [
        ("download", "shape", "no data set 'shape'; did you mean 'shapes'?"),
        ("decode", "ucf", "no data set 'ucf'; known: "),
        ("train", "acton", "did you mean 'action'?"),
        ("evaluate", "nothing", "no experiment 'nothing'"),
    ],
)
def test_a_name_that_is_not_there(stage: str, name: str, words: str) -> None:
    command = [sys.executable, "-m", f"stages.{stage}", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_really_is_full(tmp_path: Path) -> None:
    """Decoding on a file system of 4 MiB, too small for the clips, fails in one line."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("this system allows no mount")
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace; import stages\n"
        "from pipeline.decode import packing\n"
        "def fill():\n"
        "    videos = ({'jpeg': [bytes(10**5)] * 9} for _ in range(9))\n"
        "    packing.write_shard(Path(sys.argv[-1]) / 'shard-00000.arrow', videos)\n"
        "stages.run(lambda *_: fill())\n"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code, str(disk)], cwd=ROOT, capture_output=True, text=True)
        left = list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2 and done.stderr.startswith("error: the disk is full"), done.stderr
    assert not left
