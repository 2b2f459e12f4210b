"""Data set files: what each promises, and that order is all that tells shapes' pairs apart."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.datasets import Row, Video, folder, jhmdb, shapes
from pipeline.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"
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


def touched(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


@pytest.mark.parametrize("name", ["shapes", "jhmdb", "folder"])
def test_a_data_set_file_keeps_the_contract(name):
    module = datasets.loaded(name)
    for constant in ("LICENCE", "CITATION", "HOMEPAGE", "LAYOUT"):
        assert isinstance(getattr(module, constant), str)
    assert module.LAYOUT and module.LICENCE
    assert isinstance(module.COUNTS, dict) and callable(module.videos) and callable(module.splits)


def test_an_unknown_data_set_names_the_known():
    with pytest.raises(UserError, match=r"did you mean 'shapes'\? known: folder, jhmdb, shapes"):
        datasets.loaded("shape")


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


def test_making_goes_on_where_it_was_interrupted(tmp_path):
    touched(tmp_path, "left/000001.mp4")
    item = pickle.loads(pickle.dumps(shapes.plan(SMALL)[0]))  # noqa: S301, our own bytes: as another process gets it
    assert not shapes.made(item, tmp_path)
    shapes.make(item, tmp_path)
    assert shapes.made(item, tmp_path)
    assert sorted(path.name for path in (tmp_path / "left").iterdir()) == [f"00000{n}.mp4" for n in range(3)]
    assert (tmp_path / "left/000001.mp4").read_bytes() == b"left/000001.mp4"
    assert shapes.videos(tmp_path, SMALL) == [Video(f"left/00000{n}", f"left/00000{n}.mp4") for n in range(3)]


def test_a_failing_encoder_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "ffmpeg_exe", lambda: ("false", "0"))
    with pytest.raises(UserError, match="ffmpeg could not write"):
        shapes.make(shapes.plan(SMALL)[0], tmp_path)
    assert not list((tmp_path / "left").iterdir())


def test_the_plan_covers_every_clip_once():
    items = shapes.plan({"train": 100000, "test": 400})
    clips = [name for item in items for name in shapes._names(item)]
    assert len(clips) == len(set(clips)) == 100400
    assert max(item.stop - item.start for item in items) <= shapes.CLIPS_PER_ITEM


def test_shapes_splits_are_balanced_and_test_on_different_clips():
    classes, rows = shapes.splits([], Path(), SMALL | {"splits": 4})
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
    planned = {name for item in shapes.plan(SMALL | {"splits": 4}) for name in shapes._names(item)}
    assert planned == {row.video for split in rows.values() for row in split}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trian": 8}, "unknown option 'trian'; did you mean 'train'"),
        ({"train": 10}, "option train: 10 is no multiple of the 8 classes"),
        ({"frames": [6, 4]}, "from 6 to 4 is no range"),
        ({"side": 33}, "side: 33 is odd"),
        ({"splits": 0}, "splits: 0 is less than 1"),
        ({"seed": "0"}, "option seed: .*integer"),
    ],
)
def test_a_wrong_option_is_named(given, said):
    with pytest.raises(UserError, match=said):
        shapes.plan(SMALL | given)


def test_a_set_without_options_refuses_any():
    with pytest.raises(UserError, match="jhmdb: unknown option 'seed'"):
        jhmdb.videos(Path(), {"seed": 1})


def lists_of_jhmdb(root: Path) -> Path:
    touched(root, *(f"{name}_test_split{split}.txt" for name in jhmdb.CLASSES for split in (1, 2, 3)))
    for path in root.iterdir():
        path.write_text("")
    return root


def test_jhmdb_reads_names_as_they_are(tmp_path):
    lists = lists_of_jhmdb(tmp_path)
    names = ["a_(b)[c]!_+d'é@20 x..y", "plain"]
    (lists / "clap_test_split1.txt").write_text(f"{names[0]}.avi 2\n{names[1]}.avi 1 \n\n", encoding="utf-8")
    classes, rows = jhmdb.splits([], lists, {})
    assert rows[1] == [Row(f"clap/{names[0]}", "test", (2,)), Row("clap/plain", "train", (2,))]
    assert classes[2] == "clap" and classes == tuple(sorted(classes)) and len(classes) == 21


@pytest.mark.parametrize("line", ["foo.avi 3", "foo.avi", "1"])
def test_jhmdb_names_a_line_it_can_not_read(tmp_path, line):
    lists = lists_of_jhmdb(tmp_path)
    (lists / "wave_test_split2.txt").write_text(f"a.avi 1\n{line}\n")
    with pytest.raises(UserError, match=r"wave_test_split2\.txt, line 2"):
        jhmdb.splits([], lists, {})


def test_jhmdb_names_a_list_that_is_absent(tmp_path):
    (lists_of_jhmdb(tmp_path) / "sit_test_split3.txt").unlink()
    with pytest.raises(UserError, match=f"{tmp_path}/sit_test_split3.txt is absent. Expected: .*splits.zip"):
        jhmdb.splits([], tmp_path, {})


def test_jhmdb_ids_are_the_same_with_the_top_folder_of_the_archive(tmp_path):
    plain = touched(tmp_path / "plain", "clap/x.avi", "wave/y.avi")
    packed = touched(
        tmp_path / "packed", "ReCompress_Videos/clap/x.avi", "ReCompress_Videos/wave/y.avi", "__MACOSX/clap/x.avi"
    )
    ids = [[video.id for video in jhmdb.videos(root, {})] for root in (plain, packed)]
    assert ids[0] == ids[1] == ["clap/x", "wave/y"]
    assert all((packed / video.path).is_file() for video in jhmdb.videos(packed, {}))


@pytest.mark.skipif(not (SHARED / "data/jhmdb").is_dir(), reason="needs ../shared/data/jhmdb")
def test_jhmdb_whole():
    videos = jhmdb.videos(SHARED / "data/jhmdb", {})
    _, rows = jhmdb.splits(videos, SHARED / "data/annotations/jhmdb/splits", {})
    assert len(videos) == 928
    assert all({row.video for row in rows[split]} == {video.id for video in videos} for split in (1, 2, 3))


def test_a_folder_of_videos_is_listed_whatever_it_is_called(tmp_path):
    root = touched(
        tmp_path, "b/2.MP4", "a b/ü.x.webm", "a b/notes.txt", "a b/._ü.x.webm", ".trash/z.mp4", "b/deep/1.avi"
    )
    assert folder.videos(root, {}) == [
        Video("a b/ü.x", "a b/ü.x.webm"),
        Video("b/2", "b/2.MP4"),
        Video("b/deep/1", "b/deep/1.avi"),
    ]
    touched(root, "b/2.avi")
    with pytest.raises(UserError, match=r"b/2\.(MP4|avi) and b/2\.(avi|MP4) differ in suffix alone"):
        folder.videos(root, {})


def test_lists_of_ones_own(tmp_path):
    (tmp_path / "train.txt").write_text("ride bike/a b.mp4\nrun/x.1.avi\trun fast\n./run/y.MOV, ride bike\n")
    (tmp_path / "test.txt").write_text("run/gone.mp4 run fast\n")
    classes, rows = folder.splits([], tmp_path, {})
    assert classes == ("ride bike", "run fast")
    assert rows == {
        1: [
            Row("ride bike/a b", "train", (0,)),
            Row("run/x.1", "train", (1,)),
            Row("run/y", "train", (0,)),
            Row("run/gone", "test", (1,)),
        ]
    }


def test_lists_of_several_splits_with_classes_in_an_order_of_their_own(tmp_path):
    (tmp_path / "classes.txt").write_text("run\nclap\n")
    for split in ("split-1", "split-10", "split-2"):
        (tmp_path / split).mkdir()
        for part in ("train", "val", "test"):
            (tmp_path / split / f"{part}.txt").write_text(f"any/{part}.mp4 1\n")
    classes, rows = folder.splits([], tmp_path, {})
    assert classes == ("run", "clap") and list(rows) == [1, 2, 10]
    assert rows[10] == [Row(f"any/{part}", part, (1,)) for part in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train.txt": "a/x.mp4"}, "test.txt is absent. Expected: <class>/<videos>"),
        ({"train.txt": "a/x.mp4\na/x", "test.txt": ""}, "train.txt, line 2: 'a/x' names no video"),
        ({"train.txt": "x.mp4", "test.txt": ""}, "line 1: 'x.mp4' has neither a class folder nor a label"),
        ({"train.txt": "a/x.mp4 clp", "test.txt": "", "classes.txt": "clap\nrun"}, "'clp' .*did you mean 'clap'"),
        ({"train.txt": "a/x.mp4 2", "test.txt": "", "classes.txt": "clap\nrun"}, "'2' is not in classes.txt"),
        ({"train.txt": "a/x.mp4", "test.txt": "", "classes.txt": "a\na"}, "a class stands there twice"),
    ],
)
def test_wrong_lists_are_named(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        folder.splits([], tmp_path, {})
