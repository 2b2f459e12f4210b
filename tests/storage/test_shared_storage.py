"""Two workspaces with equal row names share a storage: each gets its results, and damage is detected."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.fit import fit, forget
from cluster.score import blocks, score
from pipeline.config.schema import Cluster
from pipeline.decode.frame_store import FrameStore
from pipeline.digest.files import verify, write_sums
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.train import keys, rows
from pipeline.train import loop as loop
from pipeline.train.run import Run
from tests.support.machines.local import local
from tests.support.trainings import tiny_run
from tests.support.videos.flips import flip

SETTINGS: list[dict[str, Any]] = [{"lr": 0.05}, {"lr": 0.01}, {"lr": 0.05}]  # the last is the first's twin
STEPS = ("killed", "train", "evaluate", "killed", "train", "forget")


@dataclass
class Workspace:
    """A project's data folder and settings; frames and splits are shared with the other workspaces."""

    one: Run
    cluster: Cluster

    def killed(self, patch: pytest.MonkeyPatch) -> None:
        """Train until the second epoch begins."""
        epochs = loop.epochs

        def some(*arguments: Any) -> Iterator[loop.Epoch]:
            yield next(epochs(*arguments))
            raise InterruptedError

        with patch.context() as inner:
            inner.setattr(loop, "epochs", some)
            with contextlib.suppress(InterruptedError):
                fit([self.one], None, self.cluster, lambda: None)

    def train(self, patch: pytest.MonkeyPatch) -> None:
        fit([self.one], None, self.cluster, lambda: None)

    def evaluate(self, patch: pytest.MonkeyPatch) -> None:
        inference.gather([self.one], score([self.one], self.cluster), self.predictions)
        write_sums(self.predictions.parent)

    def forget(self, patch: pytest.MonkeyPatch) -> None:
        forget([self.one], None, self.cluster)

    @property
    def predictions(self) -> Path:
        return self.one.data / "predictions" / "row" / "predictions.parquet"

    def content(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in (self.one.weights, self.one.curve, self.predictions))


def workspace(folder: Path, data: Path, storage: Path, **settings: Any) -> Workspace:
    folder.mkdir()
    for part in ("frames", "splits"):
        (folder / part).symlink_to(data / part)
    return Workspace(tiny_run(folder, **settings), Cluster(storage=str(storage)))


def test_each_workspace_gets_its_bytes_in_every_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local(monkeypatch)
    expected = []
    for at, settings in enumerate(SETTINGS):
        alone = workspace(tmp_path / f"alone-{at}", data, tmp_path / f"storage-{at}", **settings)
        alone.train(monkeypatch)
        alone.evaluate(monkeypatch)
        expected.append(alone.content())
    assert expected[0] == expected[2] != expected[1]
    for seed in range(6):
        order = random.Random(seed)
        shared = [
            workspace(tmp_path / f"{seed}-{at}", data, tmp_path / f"shared-{seed}", **settings)
            for at, settings in enumerate(SETTINGS)
        ]
        left = [list(STEPS) for _ in shared]
        while any(left):
            at = order.choice([at for at, steps in enumerate(left) if steps])
            getattr(shared[at], left[at].pop(0))(monkeypatch)
        assert [one.content() for one in shared] == expected, seed
        assert not any(path.is_file() for path in (tmp_path / f"shared-{seed}").rglob("*")), seed


@pytest.fixture
def done(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a workspace that trained and evaluated, with its state."""
    local(monkeypatch)
    actual = workspace(tmp_path / "workspace", data, tmp_path / "storage")
    actual.train(monkeypatch)
    actual.evaluate(monkeypatch)
    return actual


@pytest.mark.parametrize("at", [0, 40, 100, 200, -1])
def test_damaged_state_is_made_again(
    done: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    expected, key = done.content(), keys.training(done.one, None)
    folder = keys.state(done.one, done.cluster, key)
    assert isinstance(folder, Path)
    flip(folder / "weights.pt", at)
    flip(folder / "state.pt", at)
    done.train(monkeypatch)
    (block,) = blocks([done.one], done.cluster)
    assert isinstance(block[3], Path)
    flip(block[3], at)
    done.evaluate(monkeypatch)
    assert done.content() == expected
    message = capsys.readouterr().err
    assert all(f"{name} is damaged" in message for name in (folder / "weights.pt", folder / "state.pt", block[3]))


def test_a_storage_that_keeps_nothing_is_named(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.digest.state.put", lambda *_: None)
    done.cluster = Cluster(storage=f"{done.cluster.storage}-2")
    with pytest.raises(UserError, match="loses training's files"):
        done.train(monkeypatch)
    with pytest.raises(UserError, match="loses the evaluation's files"):
        done.evaluate(monkeypatch)


def test_flipped_bytes_of_what_stages_leave_are_found(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    one = done.one
    flip(one.weights)
    with pytest.raises(UserError, match=r"split1-seed3\.pt is damaged: its sha256 is not the one in SHA256SUMS"):
        done.evaluate(monkeypatch)
    flip(done.predictions)
    with pytest.raises(UserError, match=r"predictions\.parquet is damaged"):
        verify(done.predictions)
    for path in (one.split_table, one.class_list, one.mirror_list):
        flip(path)
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            rows.verify([one])
        flip(path)
    for name in ("shard-00000.arrow", "index.arrow"):
        flip(one.frames / name, 300)
        with pytest.raises(UserError, match=f"{name} does not have the sha256"):
            FrameStore(one.frames).jpegs("video-00", [0])
        flip(one.frames / name, 300)
    assert FrameStore(one.frames).jpegs("video-00", [0])
