"""A run killed by SIGKILL at any moment resumes and gives the same tables."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.fit import train_run
from pipeline.errors import UserError
from pipeline.tracking import run_log
from pipeline.train import loop as loop
from stages.repro.driver import mend
from tests.support.project import copy, load
from tests.support.trainings import tiny_run, trained, training

ROOT = Path(__file__).parents[2]
ROW = {"dataset": "shapes", "backbone": "resnet", "variant": "tiny", "knobs": {}, "weights": None}


def command(folder: Path, *targets: str) -> subprocess.Popen:
    """Run `dvc repro` quietly, with the project's packages."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    with (folder / "log").open("a") as log:
        dvc = [Path(sys.executable).parent / "dvc", "repro", *targets]
        return subprocess.Popen(dvc, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def repro(folder: Path) -> None:
    assert command(folder).wait() == 0, (folder / "log").read_text()[-3000:]


def tables(folder: Path) -> dict[str, bytes]:
    tables = {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "reports").rglob("*.csv")}
    assert any(name.endswith("comparison.csv") for name in tables)
    return tables


def new_project(folder: Path) -> Path:
    """Return a small project: two rows of 3 epochs on 64 drawn clips."""
    params = load()
    params["datasets"]["shapes"]["options"].update(train=64, test=16, splits=1)
    params["datasets"]["shapes"]["decode"].update(videos_per_shard=8)
    params["recipes"]["quick"].update(epochs=3, batch=8, micro_batch=4, steps=[])
    row = {**ROW, "recipe": "quick", "protocol": "center", "splits": [1], "seeds": [0, 1]}
    params["experiments"] = {"tsn": {**row, "attention": "none"}, "tsm": {**row, "attention": "tsm"}}
    params["tables"] = {"comparison": {"title": "t", "rows": ["tsn", "tsm"]}}
    return copy(folder, params)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = new_project(tmp_path_factory.mktemp("undisturbed"))
    repro(folder)
    return tables(folder)


def kill(dvc: subprocess.Popen, words: tuple[str, ...], seconds: float) -> bool:
    """Kill a process below `dvc` whose command has one of the words, after some seconds."""
    while dvc.poll() is None:
        for process in _below(dvc):
            if any(word in _line(process) for word in words):
                time.sleep(seconds)
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    break  # it was done already: another of the kind will come
                return True
        time.sleep(0.05)
    return False


def _below(dvc: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(dvc.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


VICTIMS = {
    "training worker": ("ray::train_run",),
    "driver of training": ("stages.train",),
    "driver of evaluation": ("stages.evaluate",),
    "decoding task": ("ray::_call",),
    "driver of decoding": ("stages.decode",),
    "dvc itself": ("stages.train",),
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_changes_no_table(victim: str, seed: int, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    folder = new_project(tmp_path)
    if victim == "decoding task":  # the drawing runs as the same kind of task
        assert command(folder, "download@shapes").wait() == 0
    dvc = command(folder)
    seconds = random.Random(f"{victim} {seed}").uniform(0, 6)
    if victim == "dvc itself":
        while not any("stages.train" in _line(process) for process in _below(dvc)) and dvc.poll() is None:
            time.sleep(0.05)
        time.sleep(seconds)
        dvc.kill()
    else:
        assert kill(dvc, VICTIMS[victim], seconds)
    dvc.wait()
    time.sleep(1)
    repro(folder)
    assert tables(folder) == undisturbed


LOCK = f"schema: '2.0'\nstages:\n  a:\n    cmd: 'true'\n    outs:\n    - path: a\n      md5: {32 * 'b'}\n"
OURS = f"      md5: {32 * 'b'}\n"
CONFLICT = LOCK.replace(OURS, f"<<<<<<< HEAD\n{OURS}=======\n      md5: c\n>>>>>>> theirs\n")


def test_dvcs_half_written_lock_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-written lock, with which `dvc repro` fails, is removed; an intact one stays."""
    monkeypatch.chdir(tmp_path)
    text, path = '{"write": {}, "read": {"data": [{"pid": 7, "cmd": "dvc repro"}]}}', Path(".dvc/tmp/rwlock")
    path.parent.mkdir(parents=True)
    for end in (0, 5, text.index(":") + 1, len(text) - 1):
        path.write_text(text[:end])
        mend()
        assert not path.exists(), text[:end]
    path.write_text(text)
    mend()
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["dvc.lock", "stages/dvc.lock"])
def test_a_half_written_lock_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    halves = [b"", LOCK[:5].encode(), LOCK[: LOCK.index("outs:") + 5].encode(), b"\xff" + LOCK.encode(), b"[1, 2]\n"]
    for number, half in enumerate(halves, 1):
        path.write_bytes(half)
        mend()
        aside = path.with_name(f"{path.name}.damaged-{number}")
        assert (path.exists(), aside.read_bytes()) == (False, half)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"{path} is damaged or half-written; it is now {aside}"


@pytest.mark.parametrize("text", [LOCK, LOCK.rstrip("\n"), LOCK.replace("\n", "\r\n")])
def test_a_lock_that_dvc_reads_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_bytes(text.encode())
    mend()
    assert [(path.name, path.read_bytes()) for path in Path().iterdir()] == [("dvc.lock", text.encode())]


@pytest.mark.parametrize("text", [CONFLICT, CONFLICT.rstrip("\n"), CONFLICT[: CONFLICT.index("=====")]])
def test_a_merge_conflict_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(text)
    with pytest.raises(UserError, match=r"^dvc\.lock, line 7: a merge conflict") as caught:
        mend()
    assert "\n" not in str(caught.value)
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [("dvc.lock", text)]


def test_two_processes_can_train_the_same_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes can train the same run, as after a node is wrongly taken for lost."""
    run = tiny_run(data, epochs=3)
    alone, shared = training(run, tmp_path / "alone"), training(run, tmp_path / "shared")
    train_run(alone)
    epochs = loop.epochs

    def overtaken(*arguments: Any) -> Iterator[Any]:
        for number, epoch in enumerate(epochs(*arguments)):
            if number == 1:
                with monkeypatch.context() as patch:
                    patch.setattr(loop, "epochs", epochs)
                    train_run(shared)
            yield epoch  # older than the state that the other has left by now

    with monkeypatch.context() as patch:
        patch.setattr(loop, "epochs", overtaken)
        train_run(shared)
    assert trained(shared) == trained(alone)
    assert [line["epoch"] for line in run_log.epochs(shared.folder / "log.jsonl")] == [0, 1, 2]


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from cluster.fit import train_run
from tests.support.trainings import tiny_run, training
train_run(training(tiny_run(Path({data!r}), epochs=4), Path({folder!r})))
"""


def test_a_killed_training_resumes_after_its_last_epoch(data: Path, tmp_path: Path) -> None:
    def start(folder: Path) -> subprocess.Popen:
        code = TRAIN.format(root=str(ROOT), data=str(data), folder=str(folder))
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)

    assert start(tmp_path / "whole").wait() == 0
    for _ in range(20):  # until a kill falls between the first epoch and the last
        killed = start(tmp_path / "killed")
        log = tmp_path / "killed" / "log.jsonl"
        while not log.exists() and killed.poll() is None:
            time.sleep(0.005)
        killed.kill()
        if killed.wait() and not (tmp_path / "killed" / "weights.pt").exists():
            break
        shutil.rmtree(tmp_path / "killed")
    else:
        pytest.fail("training ends too fast to be killed")
    done = log.read_text().count('"epoch", "epoch"')
    state = (tmp_path / "killed" / "state.pt").stat().st_mtime_ns
    assert start(tmp_path / "killed").wait() == 0
    assert 1 <= done < 4 and (tmp_path / "killed" / "state.pt").stat().st_mtime_ns > state
    whole, again = (trained(training(tiny_run(data, epochs=4), tmp_path / name)) for name in ("whole", "killed"))
    assert whole == again
