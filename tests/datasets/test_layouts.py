"""A small version of each of the ten data sets passes stages download, decode and splits."""

import csv
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline import datasets
from pipeline.config import load
from pipeline.decode.frame_store import FrameStore, decode_jpeg
from pipeline.errors import UserError
from stages import decode, download
from stages import splits as splitting
from tests.support.videos.stand_ins import STAND_INS, StandIn, written

BARE = {"suite": "quick", "recipes": {}, "protocols": {}, "experiments": {}, "tables": {}}


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the three stages in another folder and in this process; `decode` replaces fields."""
    monkeypatch.chdir(tmp_path)
    for stage in (download, decode):
        monkeypatch.setattr(stage, "session", lambda cluster, data: nullcontext())
        monkeypatch.setattr(
            stage, "fan_out", lambda work, items, *_: ((n, work(*item)) for n, item in enumerate(items))
        )

    def run(name: str, made: StandIn, **more: object) -> None:
        for constant, value in made.patches.items():
            monkeypatch.setattr(datasets.loaded(name), constant, value)
        frame = next(iter(made.pixels.values()))
        own = {"short_side": frame.shape[1], "quality": 95, "decoder": "ffmpeg", "videos_per_shard": 2}
        where = {"source": str(made.source), "lists": str(made.lists) if made.lists else None}
        given = {"file": name, **where, "options": made.options, "decode": {**own, "max_failed": 0.0, **more}}
        monkeypatch.setattr(load, "load", lambda: load.parse({**BARE, "datasets": {name: given}}))
        download.download(name)
        decode.decode(name)
        splitting.make_splits(name)

    return run


def stored(name: str, video: str) -> np.ndarray:
    store = FrameStore(Path("data/frames") / name)
    return np.stack([decode_jpeg(view) for view in store.jpegs(video, range(store.videos[video].frames))])


@pytest.mark.parametrize("name", STAND_INS)
def test_a_set_as_it_is_distributed_comes_through(name, tmp_path, staged, capsys):
    made = STAND_INS[name](tmp_path)
    staged(name, made)
    table = pl.read_parquet(f"data/splits/{name}/split-1.parquet")
    assert {video: (part, labels) for video, part, labels in table.iter_rows()} == made.rows
    assert len(datasets.json.loads(Path(f"data/splits/{name}/classes.json").read_text())) == made.classes
    store = FrameStore(Path("data/frames") / name)
    assert store.videos.keys() == made.pixels.keys()
    for video, pixels in made.pixels.items():
        seen = stored(name, video).astype(int)
        assert seen.shape == pixels.shape and np.abs(seen - pixels).mean() < 5
        # No other video and no other order would pass for it.
        others = [other for key, other in made.pixels.items() if key != video and other.shape == pixels.shape]
        assert all(np.abs(seen - other).mean() > 15 for other in others)
        if len(pixels) > 1:
            assert all(np.abs(seen[::-1] - pixels).mean(axis=(1, 2, 3))[[0, -1]] > 5)
        np.testing.assert_allclose(np.diff(store.timestamps(video)), 1 / made.fps, rtol=0.01)
    listed = csv.DictReader(Path(f"data/splits/{name}/absent.csv").read_text().splitlines())
    gone = [(row["part"], row["video"]) for row in listed]
    expected = [(part, video) for video, (part, _) in made.rows.items() if video not in made.pixels]
    assert sorted({*gone}) == sorted(expected)
    message = capsys.readouterr().err
    for part in {part for part, _ in expected}:
        absent = sum(each == part for each, _ in expected)
        whole = sum(each == part for each, _ in made.rows.values())
        assert f"note: {name}, split 1: {absent} of {whole} {part} videos are absent: " in message
    assert ("are absent" in message) == bool(expected)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def lists_of(made: StandIn, name: str) -> Path:
    """Return the path of a list, wherever it is."""
    return next(Path(made.lists or made.source).rglob(name))


# name: (list, text in it, what stands there instead, what is said): a label that is no class, in each kind of list.
LABELS = {
    "ucf101": ("trainlist01.txt", "g08_c01.avi 3", "g08_c01.avi 102", "line 1: the label 102 is not that of Archery"),
    "hmdb51": ("wave_test_split1.txt", ".avi 2", ".avi 3", "line 1: expected `<file>.avi` and 0 .not used.*, 1 "),
    "kinetics400": ("val.csv", "class 000", "class 400", "'class 000' is in the list of the train part alone"),
    "sthv1": (
        "something-something-v1-train.csv",
        "11;Doing something 0",
        "11;Doing 0",
        "line 1: 'Doing 0' is no class",
    ),
    "sthv2": ("something-something-v2-train.json", "] 173", "] 174", "entry 2: 'Doing something 174' is no class"),
    "jester": ("jester-v1-validation.csv", "Swiping Right", "Swiping", "line 1: 'Swiping' is no class of jester; did"),
    "egogesture": ("trainlistall_but_None.txt", " 83 ", " 84 ", "line 2: the class 84 is none of 1 to 83"),
    "diving48": ("Diving48_V2_train.json", '"label": 47', '"label": 48', "has the labels .48.; there are 48 classes"),
    "charades": ("Charades_v1_train.csv", "c092", "c157", "line 2: c157 is none of c000 to c156"),
}
# name: (training list, what is added to it): a video of the test list.
LEAKS = {
    "ucf101": ("trainlist01.txt", "Archery/v_Archery_g01_c02.avi 3\n"),
    "kinetics400": ("train.csv", "class 001,_0000000001,1200,1210,train\n"),
    "jester": ("jester-v1-train.csv", "7;Swiping Right\n"),
    "egogesture": ("trainlistall_but_None.txt", "Subject02/Scene6/Color/rgb9 2 5 8\n"),
    "charades": ("Charades_v1_train.csv", "0BH84,x,c001 1 2\n"),
}
# name: (list, a line more, part, what is absent): a video that isn't there.
MISSING = {
    "hmdb51": ("clap_test_split1.txt", "gone.avi 2\n", "test", "clap/gone"),
    "sthv1": ("something-something-v1-train.csv", "99;Doing something 5\n", "train", "99"),
    "jester": ("jester-v1-train.csv", "99;Thumb Up\n", "train", "99"),
    "egogesture": ("testlistall_but_None.txt", "Subject02/Scene6/Color/rgb9 3 50 60\n", "test", "Subject02.*/50-60"),
    "charades": ("Charades_v1_test.csv", "ZZZZZ,x,\n", "test", "ZZZZZ"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_out_of_range_is_named(name, tmp_path, staged):
    made = STAND_INS[name](tmp_path)
    file, old, new, message = LABELS[name]
    edited(lists_of(made, file), old, new)
    with pytest.raises(UserError, match=message) as error:
        staged(name, made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LEAKS)
def test_a_training_video_in_the_test_list_is_named(name, tmp_path, staged):
    made = STAND_INS[name](tmp_path)
    file, line = LEAKS[name]
    path = lists_of(made, file)
    path.write_text(path.read_text() + line)
    known = " in train and test|Subject02 is in the train list and in the test list"  # EgoGesture's persons come first
    with pytest.raises(UserError, match=known) as error:
        staged(name, made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", MISSING)
def test_a_listed_video_that_is_not_there_is_counted(name, tmp_path, staged, capsys):
    made = STAND_INS[name](tmp_path)
    file, line, part, video = MISSING[name]
    path = lists_of(made, file)
    path.write_text(path.read_text() + line)
    counts = {split: dict(parts) for split, parts in made.patches["COUNTS"].items()}
    counts[1][part] += 1
    made.patches["COUNTS"] = counts
    staged(name, made)
    assert re.search(
        rf"note: {name}, split 1: 1 of {counts[1][part]} {part} videos are absent: {video}\n", capsys.readouterr().err
    )
    assert len(pl.read_parquet(f"data/splits/{name}/split-1.parquet").filter(part=part)) == counts[1][part]
    assert re.search(f"1,{part},{video}\n", Path(f"data/splits/{name}/absent.csv").read_text())


@pytest.mark.parametrize("name", [name for name in STAND_INS if name != "cifar100"])
def test_a_folder_of_another_layout_says_what_is_expected(name, tmp_path, staged):
    made = STAND_INS[name](tmp_path)
    made.source = written(tmp_path / "other", {"frames/clip/x1.jpg": b"x", "README.md": b"x"})
    with pytest.raises(UserError, match=f"{name}: .*other holds no video of it. Expected there: ") as error:
        staged(name, made)
    assert "\n" not in str(error.value)


def test_images_of_another_layout_say_what_is_expected(tmp_path, staged):
    made = STAND_INS["cifar100"](tmp_path)
    (tmp_path / "cifar-100-binary/test.bin").rename(tmp_path / "cifar-100-binary/test")
    with pytest.raises(UserError, match=r"there is no .*test\.bin\. Expected: the content of cifar-100-binary"):
        staged("cifar100", made)


def test_a_set_of_frames_is_scaled_and_a_broken_range_is_a_counted_failure(tmp_path, staged, capsys):
    made = STAND_INS["egogesture"](tmp_path)
    frame = Path(made.source) / "images/Subject03/Scene1/Color/rgb1/000004.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    (frame.parent / "000009.jpg").unlink()
    staged("egogesture", made, short_side=24, max_failed=0.5)
    failed = Path("data/frames/egogesture/failed.csv").read_text().splitlines()
    assert [line.partition(",")[0].rpartition("/")[2] for line in failed] == ["video", "2-5", "6-12"]
    assert "frame 000004.jpg is damaged: " in failed[1] and failed[2].endswith(",frame 9 is missing")
    assert "2 could not be decoded" in capsys.readouterr().out
    small = stored("egogesture", "Subject02/Scene6/Color/rgb9/5-8").astype(int)
    wanted = made.pixels["Subject02/Scene6/Color/rgb9/5-8"].reshape(4, 24, 2, 32, 2, 3).mean(axis=(2, 4))
    assert small.shape == wanted.shape and np.abs(small - wanted).mean() < 4
