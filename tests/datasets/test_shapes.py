"""Shapes: only order separates a pair of classes, and drawing is repeatable and resumes."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.datasets import Video, shapes
from pipeline.errors import UserError

SMALL = {"train": 16, "test": 8, "frames": [4, 6], "side": 32}


def options(**given: object) -> shapes.Options:
    return datasets.chosen(shapes.Options, SMALL | given, "shapes")


def drawn(label: int, seed: int, **given: object) -> np.ndarray:
    return shapes.clip(label, np.random.default_rng(seed), options(**given))


def decoded(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1])
    return np.stack(frames)


@pytest.mark.parametrize("pair", range(4))
def test_a_pair_is_one_clip_and_its_reversal(pair):
    forward, backward = drawn(2 * pair, seed=pair), drawn(2 * pair + 1, seed=pair)
    np.testing.assert_array_equal(forward, backward[::-1])
    assert (forward != backward).any()


@pytest.mark.parametrize("label", range(0, 8, 2))
def test_no_frame_gives_its_place_away(label):
    # How much of the first frame is bright, and where, against the last: the mean change in standard errors.
    bright = np.stack([drawn(label, seed, frames=[8, 8])[[0, -1]].mean(-1) > 150 for seed in range(300)])  # (N,2,S,S)
    place = np.arange(32) - 15.5
    for measure in (bright.mean((2, 3)), bright.mean(2) @ place, bright.mean(3) @ place):  # (N,2)
        change = measure[:, 1] - measure[:, 0]
        assert abs(change.mean()) < 3.5 * change.std() / np.sqrt(len(change))


def test_shapes_move_and_lengths_vary():
    clips = [drawn(label, 3, frames=[4, 12]) for label in range(0, 8, 2)]
    assert all((clip[0] != clip[-1]).any() for clip in clips)
    assert len({len(drawn(0, seed, frames=[4, 12])) for seed in range(20)}) > 4


def test_coding_does_not_know_the_order_of_frames(tmp_path):
    frames = drawn(0, 5, frames=[12, 12], side=64)
    shapes.encode(frames, tmp_path / "forward.mp4", 12)
    shapes.encode(frames[::-1], tmp_path / "backward.mp4", 12)
    forward = decoded(tmp_path / "forward.mp4")
    np.testing.assert_array_equal(forward, decoded(tmp_path / "backward.mp4")[::-1])
    assert forward.shape == frames.shape
    assert np.abs(forward[..., ::-1].astype(int) - frames).mean() < 12  # colour at half size, and the noise smoothed


def test_the_same_seed_gives_the_same_file(tmp_path):
    item = shapes.plan(SMALL)[2]
    for folder_ in ("one", "two"):
        shapes.make(item._replace(stop=1), tmp_path / folder_)
    one, two = ((tmp_path / name / "up/000000.mp4").read_bytes() for name in ("one", "two"))
    assert one == two
    shapes.make(shapes.plan(SMALL | {"seed": 1})[2]._replace(stop=1), tmp_path / "three")
    assert (tmp_path / "three/up/000000.mp4").read_bytes() != one


def test_interrupted_drawing_resumes(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left/000001.mp4").write_bytes(b"there")
    item = pickle.loads(pickle.dumps(shapes.plan(SMALL)[0]))  # noqa: S301, our own bytes: as another process gets it
    assert not shapes.made(item, tmp_path)
    shapes.make(item, tmp_path)
    assert shapes.made(item, tmp_path)
    assert sorted(path.name for path in (tmp_path / "left").iterdir()) == [f"00000{n}.mp4" for n in range(3)]
    assert (tmp_path / "left/000001.mp4").read_bytes() == b"there"
    assert shapes.videos(tmp_path, SMALL) == [Video(f"left/00000{n}", f"left/00000{n}.mp4") for n in range(3)]


def test_a_failing_encoder_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "ffmpeg_exe", lambda: ("false", "0"))
    with pytest.raises(UserError, match="ffmpeg could not write"):
        shapes.make(shapes.plan(SMALL)[0], tmp_path)
    assert not list((tmp_path / "left").iterdir())


def test_the_plan_covers_every_clip_once():
    items = shapes.plan({"train": 100000, "test": 400})
    clips = [name for item in items for name in shapes.names(item)]
    assert len(clips) == len(set(clips)) == 100400
    assert max(item.stop - item.start for item in items) <= shapes.CLIPS_PER_ITEM


def test_shapes_splits_are_balanced_and_test_on_different_clips():
    classes, rows = shapes.splits(Path(), SMALL | {"splits": 4})
    assert len(classes) == 8 and sorted(rows) == [1, 2, 3, 4]
    tests = []
    for split in rows.values():
        for part, count in (("train", 16), ("test", 8)):
            labels = [row.labels[0] for row in split if row.part == part]
            assert np.bincount(labels).tolist() == [count // 8] * 8
        assert len({row.video for row in split}) == len(split)
        assert all(row.video.startswith(f"{classes[row.labels[0]]}/") for row in split)
        tests += [row.video for row in split if row.part == "test"]
    assert len(tests) == len(set(tests))
    planned = {name for item in shapes.plan(SMALL | {"splits": 4}) for name in shapes.names(item)}
    assert planned == {row.video for split in rows.values() for row in split}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trian": 8}, "unknown option 'trian'; did you mean 'train'"),
        ({"train": 10}, "option train: 10 is no multiple of the 8 classes"),
        ({"frames": [6, 4]}, "from 6 to 4 is no range"),
        ({"side": 33}, "side: 33 is odd"),
        ({"splits": 0}, "splits: 0 is not from 1 to 1000"),
        ({"seed": "0"}, 'option seed is "0"; it must be a valid integer'),
    ],
)
def test_a_wrong_option_is_named(given, message):
    with pytest.raises(UserError, match=message):
        shapes.plan(SMALL | given)
