"""Trajectories of a small data set, from frames to a table row, find a square's direction."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import simplejpeg

from pipeline.config import load
from pipeline.config.load import parse
from pipeline.config.schema import Params, Trajectories
from pipeline.decode.packing import INDEX, write_index, write_shard
from pipeline.digest import state
from pipeline.digest.files import sha256, write_sums
from pipeline.errors import UserError
from pipeline.evaluate import predictions
from pipeline.measure import results
from pipeline.train import keys
from pipeline.trajectories import dense, encoding, fisher
from stages import trajectories as stage
from tests.support.videos.flips import flip
from tests.support.videos.moving import moving

SETTINGS = Trajectories("squares", (1,), flow="dis", scales=1, gaussians=4, samples=4000)
WAYS = [(3, 0), (0, 3)]  # classes: right, down


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of 10 training and 6 test videos of 18 frames; the last is not decoded."""
    data = tmp_path_factory.mktemp("squares")
    frames, splits = data / "frames" / "squares", data / "splits" / "squares"
    names, shape = [f"video-{n:02d}" for n in range(16)], (120, 160)
    draws, videos = np.random.default_rng(0), []
    for n in range(15):
        pictures = moving(18, WAYS[n % 2], *shape)
        noisy = [(picture + draws.normal(0, 2, shape)).clip(0, 255).astype(np.uint8) for picture in pictures]
        videos.append({"jpeg": [simplejpeg.encode_jpeg(np.dstack([picture] * 3), 95) for picture in noisy]})
    frames.mkdir(parents=True)
    write_shard(frames / "shard-00000.arrow", videos)
    facts = {"shard": 0, "width": 160, "height": 120, "fps": 12.0, "frames": 18, "timestamps": [0.0] * 18}
    facts |= {"sha256": "", "decoder": "", "decoder_version": ""}
    rows = [{"video": name, "batch": at, **facts} for at, name in enumerate(names[:-1])]
    write_index(frames, pa.Table.from_pylist(rows, INDEX), [sha256(frames / "shard-00000.arrow")])
    splits.mkdir(parents=True)
    labels = pa.array([[n % 2] for n in range(16)], pa.list_(pa.int32()))
    table = pa.table({"video": names, "part": ["train"] * 10 + ["test"] * 6, "labels": labels})
    pyarrow.parquet.write_table(table, splits / "split-1.parquet")
    (splits / "classes.json").write_text('["right", "down"]')
    write_sums(splits)
    return data


def started(data: Path, storage: Path, settings: Trajectories = SETTINGS) -> encoding.Work:
    frames, splits = data / "frames" / "squares", data / "splits" / "squares"
    return encoding.work(settings, frames, storage, keys.trajectories(settings, frames, splits))


@pytest.fixture
def given(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Return params of a project with that data; the stage runs without Ray, in another folder."""
    squares_set = {"file": "folder", "source": ".", "lists": None, "options": {}}
    decode = {"short_side": 120, "quality": 95, "decoder": "ffmpeg", "videos_per_shard": 8, "max_failed": 0.1}
    made = parse(
        {
            "suite": "squares",
            "datasets": {"squares": {**squares_set, "decode": decode}},
            **{"recipes": {}, "protocols": {}, "experiments": {}},
            "tables": {"all": {"title": "Squares", "rows": ["idt"]}},
            "trajectories": {"idt": {**vars(SETTINGS), "splits": [1]}},
        }
    )
    (tmp_path / "data").mkdir()
    for part in ("frames", "splits"):
        (tmp_path / "data" / part).symlink_to(squares / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "load", lambda: made)
    monkeypatch.setattr(stage, "session", lambda cluster, data: contextlib.nullcontext())
    monkeypatch.setattr(stage, "fan_out", lambda do, items, what, retries: ((n, do(*i)) for n, i in enumerate(items)))
    return made


def test_from_frames_to_a_row_of_a_table(given, capsys, tmp_path):
    stage.trajectories("idt")
    assert "5 of 6 test videos right" in capsys.readouterr().out
    path = Path("data/predictions/idt/predictions.parquet")
    assert json.loads(pyarrow.parquet.read_metadata(path).metadata[b"classes"]) == ["right", "down"]
    table = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["video"] for row in table] == [f"video-{n}" for n in range(10, 16)]
    assert [row["logits"] is None for row in table] == [False] * 5 + [True]
    result = results.measure(results.read(given, "idt", Path("data")))
    assert (result.splits, result.seeds, result.dataset, result.several) == ((1,), (0,), "squares", False)
    assert result.accuracy.top1.value == pytest.approx(5 / 6)
    assert not (tmp_path / "data" / "work" / "idt").exists()
    # As a file from outside: a softmax of the decision values, for whichever seeds.
    splits = Path("data/splits/squares")
    outside = predictions.read_outside(path, splits, (1,), (3, 4), several=False)
    assert outside.average == "softmax" and sorted(outside.frame["seed"].unique()) == [3, 4]


def test_before_it_ran_and_without_a_row_of_that_name(given):
    assert results.read(given, "idt", Path("data")).predictions == "not run"
    with pytest.raises(UserError, match=r"no trajectories 'itd'; did you mean 'idt'"):
        stage.trajectories("itd")


def test_what_was_made_is_not_made_again(squares, tmp_path, monkeypatch):
    work = started(squares, tmp_path)
    assert work.shards == 2 and len(work.shard(1)) == 7
    train = frozenset(f"video-{n:02d}" for n in range(10))

    def everything() -> list[Path]:
        for number in range(work.shards):
            encoding.describe(work, number)
        for kind in dense.SIZES:
            encoding.learn(work, 1, kind, train)
        for number in range(work.shards):
            encoding.encode(work, 1, number)
        return sorted(work.folder.iterdir())

    def vectors() -> np.ndarray:
        content = state.get(work.vectors(1, 0), work.key)
        assert content is not None
        return np.load(io.BytesIO(content))["vectors"]

    made = everything()
    assert len(made) == 2 + 5 + 2
    first = vectors()
    assert first.shape == (8, 2 * 4 * (15 + 48 + 54 + 48 + 48))
    np.testing.assert_allclose(np.square(first).sum(1), 5, rtol=1e-4)  # each kind's has length 1
    with monkeypatch.context() as patch:
        for module, name in ((dense, "describe"), (fisher, "learn"), (fisher, "vector")):
            patch.setattr(module, name, lambda *given: pytest.fail("made again"))
        everything()
    for harm in (flip, Path.unlink):
        for path in made:
            harm(path)
            everything()
        np.testing.assert_array_equal(vectors(), first)


def test_scores_are_margins_in_the_scale_of_logits(squares, tmp_path):
    """Plain margins are about 1, and a softmax of them is lost in a fusion with a net's."""
    work, draws = started(squares, tmp_path), np.random.default_rng(0)
    videos = {name: np.eye(2, 20)[at % 2] + 0.05 * draws.normal(size=20) for at, name in enumerate(sorted(work.videos))}
    for number in range(work.shards):
        buffer = io.BytesIO()
        np.savez(buffer, vectors=np.stack([videos[name] for name in work.shard(number)]))
        state.put(work.vectors(1, number), buffer.getvalue(), work.key)
    parts = [[(f"video-{n:02d}", [n % 2]) for n in range(*part)] for part in ((0, 10), (10, 16))]
    *scores, absent = encoding.scores(work, 1, *parts, 2)
    assert absent is None  # was not decoded
    train, test = (np.stack([videos[name] for name, _ in part if name in videos]) for part in parts)
    labels = [own for _, own in parts[0]]
    factor = fisher.scale(train, labels, 2)
    np.testing.assert_allclose(scores, factor * fisher.margins(train, labels, test, 2), rtol=1e-5)
    assert factor > 3


def test_other_settings_have_another_folder(squares, tmp_path):
    folder = started(squares, tmp_path).folder
    assert started(squares, tmp_path).folder == folder
    assert started(squares, tmp_path, replace(SETTINGS, scales=2)).folder != folder


def test_a_split_without_training_videos(squares, tmp_path):
    work = started(squares, tmp_path)
    for number in range(work.shards):
        encoding.describe(work, number)
    with pytest.raises(UserError, match="split 1 has no training video"):
        encoding.learn(work, 1, "hog", frozenset())


@pytest.mark.parametrize(
    "change,message",
    [
        ({"dataset": "circles"}, "trajectories.idt.dataset: no 'circles'; known: shapes"),
        ({"splits": []}, r"trajectories\.idt\.splits is \[\]; it must not be empty"),
        ({"gaussians": 0}, r"trajectories\.idt\.gaussians"),
        ({"flow": "tvl1"}, "trajectories.idt.flow is "),
        ({"scale": 3}, "unknown key 'trajectories.idt.scale'; did you mean 'scales'"),
    ],
)
def test_what_params_refuse(change, message):
    shapes = {"file": "shapes", "source": "generated", "lists": None, "options": {}}
    decode = {"short_side": 72, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 8, "max_failed": 0.1}
    raw = {"suite": "s", "datasets": {"shapes": {**shapes, "decode": decode}}}
    raw |= {"recipes": {}, "protocols": {}, "experiments": {}, "tables": {}}
    with pytest.raises(UserError, match=message):
        parse(raw | {"trajectories": {"idt": {"dataset": "shapes", "splits": [1], **change}}})
