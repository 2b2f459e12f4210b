"""Kinetics-400 and Diving48: the official lists if available, and stand-ins in the real layouts."""

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import splits
from pipeline.datasets import Row, Video, diving48, kinetics400
from pipeline.download import sources
from pipeline.errors import UserError
from tests.support.videos.lists import ANNOTATIONS, dataset, official, through
from tests.support.videos.packed import tarred

KINETICS, DIVING = ANNOTATIONS / "kinetics400", ANNOTATIONS / "diving48"
TRAIN = [("air drumming", "---QUuC4vJs", 84, 94), ("passing American football (in game)", "a_cdefghijk", 0, 10)]
VAL = [("air drumming", "0wR5jVB-WPk", 417, 427), ("passing American football (in game)", "b-cdefghijk", 1200, 1210)]


def touched(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def listed(path: Path, rows: list[tuple[str, str, int, int]]) -> Path:
    """Write a list in Kinetics' format, with extra columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
        lines.writerows([*row, path.stem, 0] for row in rows)
    return path


def lists_of_diving48(root: Path, **entries: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    own = {"train": [["-A1gsa6UqhU_00001", 0], ["-A1gsa6UqhU_00002", 47]], "test": [["zzzzzzzzzzz_00003", 5]]}
    for part, clips in own.items():
        text = [{"vid_name": clip, "label": label, "start_frame": 0, "end_frame": 9} for clip, label in clips]
        (root / f"Diving48_V2_{part}.json").write_text(json.dumps(entries.get(part, text)))
    return root


def test_kinetics400_official_validation_list_with_incomplete_training_list(tmp_path):
    """The training list of another source lacks a tenth: it has all classes, and is rejected."""
    validation = official("kinetics400/kinetics-400_val.csv")
    pieces = sorted(KINETICS.glob("guillem96_train_*.csv"))
    whole = [piece.read_text(encoding="utf-8").partition("\n") for piece in pieces]
    (tmp_path / "train.csv").write_text("\n".join([whole[0][0], *(rows.strip("\n") for *_, rows in whole)]) + "\n")
    (tmp_path / "val.csv").write_bytes(validation.read_bytes())
    classes, rows = kinetics400.splits(tmp_path, {})
    assert list(classes) == (KINETICS / "mmaction2_label_map_k400.txt").read_text().splitlines()
    tests = [row for row in rows[1] if row.part == "test"]
    assert len(tests) == kinetics400.COUNTS[1]["test"] == 19906 and len({row.video for row in tests}) == 19906
    assert tests[0] == Row("0wR5jVB-WPk_000417_000427", "test", (0,))
    assert len(rows[1]) - len(tests) == 222307
    entries = [sources.Entry(tests[0].video, "x.mp4", 1, "0")]
    with pytest.raises(UserError, match="have 222307 train, 19906 test rows, published are 246534 train, 19906 test"):
        splits.build("kinetics400", dataset("kinetics400", tmp_path), entries, tmp_path)


def test_kinetics400_official_train_list_is_as_published():
    if not any((KINETICS / name).is_file() for name in kinetics400.LISTS["train"]):
        pytest.skip(f"no official train list in {KINETICS}, so its 246,534 rows can't be counted")
    _, rows = kinetics400.splits(KINETICS, {})
    assert sum(row.part == "train" for row in rows[1]) == kinetics400.COUNTS[1]["train"]


def test_kinetics400_stand_in_as_it_is_distributed(tmp_path, monkeypatch):
    root = touched(
        tmp_path / "k400",
        "train/---QUuC4vJs_000084_000094.mp4",
        "train/a_cdefghijk_000000_000010.mp4",
        "replacement/replacement_for_corrupted_k400/a_cdefghijk_000000_000010.mp4",
        "val/0wR5jVB-WPk_000417_000427.mp4",
        "val/b-cdefghijk_001200_001210.mp4",
        "test/ccccccccccc_000001_000011.mp4",
        "test/no clip.mp4",
    )
    listed(root / "annotations/train.csv", TRAIN)
    listed(root / "annotations/val.csv", VAL)
    monkeypatch.setattr(kinetics400, "COUNTS", {1: {"train": 2, "test": 2}})
    monkeypatch.setattr(kinetics400, "CLASSES_LISTED", 2)
    built = through("kinetics400", dataset("kinetics400", root), tmp_path)
    assert built.notes == ("kinetics400: 1 of 5 videos are in no list: ccccccccccc_000001_000011",)
    assert built.classes == ("air drumming", "passing American football (in game)")
    assert list(built.tables[1].iter_rows()) == [
        ("---QUuC4vJs_000084_000094", "train", [0]),
        ("a_cdefghijk_000000_000010", "train", [1]),
        ("0wR5jVB-WPk_000417_000427", "test", [0]),
        ("b-cdefghijk_001200_001210", "test", [1]),
    ]
    replaced = "replacement/replacement_for_corrupted_k400/a_cdefghijk_000000_000010.mp4"
    assert Video("a_cdefghijk_000000_000010", replaced) in kinetics400.videos(root, {})


def test_kinetics400_clips_that_are_gone_stay_rows(tmp_path, monkeypatch):
    root = touched(
        tmp_path / "a folder a class",
        "air_drumming/---QUuC4vJs_000084_000094.mp4",
        "air_drumming/0wR5jVB-WPk_000417_000427.mkv",
    )
    listed(tmp_path / "lists/kinetics-400_train.csv", TRAIN)
    listed(tmp_path / "lists/kinetics-400_val.csv", VAL)
    monkeypatch.setattr(kinetics400, "COUNTS", {1: {"train": 2, "test": 2}})
    monkeypatch.setattr(kinetics400, "CLASSES_LISTED", 2)
    built = through("kinetics400", dataset("kinetics400", root, tmp_path / "lists"), tmp_path)
    assert built.notes == (
        "kinetics400, split 1: 1 of 2 train videos are absent: a_cdefghijk_000000_000010",
        "kinetics400, split 1: 1 of 2 test videos are absent: b-cdefghijk_001200_001210",
    )
    assert len(built.tables[1]) == 4


def test_kinetics400_clips_of_another_layout_say_what_is_expected(tmp_path):
    touched(tmp_path / "v", "abseiling/0wR5jVB-WPk.mp4")
    with pytest.raises(UserError, match=r"holds no video of it\. Expected there: clips named <YouTube id>_<start>_"):
        through("kinetics400", dataset("kinetics400", tmp_path / "v"), tmp_path)
    touched(tmp_path / "v", *(f"{part}/0wR5jVB-WPk_000417_000427.mp4" for part in ("train", "val")))
    with pytest.raises(UserError, match="the same clip; keep one of them"):
        kinetics400.videos(tmp_path / "v", {})


def test_kinetics400_lists_of_another_number_of_classes_are_refused(tmp_path):
    listed(tmp_path / "train.csv", TRAIN)
    listed(tmp_path / "val.csv", VAL)
    with pytest.raises(UserError, match=r"kinetics400: the lists in .* have 2 classes, not 400"):
        kinetics400.splits(tmp_path, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abseiling,0wR5jVB-WPk,417", "train.csv, line 3: expected a label, an id of 11 signs and whole seconds"),
        ("air drumming,0wR5jVB-WPk,,427", "line 3: expected a label, an id of 11 signs and whole seconds"),
        ("abseiling,0wR5jVB,417,427", "line 3: expected a label, an id of 11 signs"),
        (",0wR5jVB-WPk,417,427", "line 3: expected a label"),
        ("air drumming,0wR5jVB-WPk,427,417", "line 3: expected a label, an id of 11 signs and whole seconds"),
        ("air drumming,0wR5jVB-WPk,4.5,14.5", "line 3: expected a label, an id of 11 signs and whole seconds"),
        ("air drumning,0wR5jVB-WPk,417,427", "line 3: the class 'air drumning' is in the list of the train part alone"),
    ],
)
def test_kinetics400_names_a_line_it_can_not_read(tmp_path, line, message):
    listed(tmp_path / "val.csv", VAL[:1])
    (tmp_path / "train.csv").write_text(
        f"label,youtube_id,time_start,time_end\nair drumming,---QUuC4vJs,84,94\n{line}\n"
    )
    with pytest.raises(UserError) as error:
        kinetics400.splits(tmp_path, {})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_kinetics400_names_a_list_that_is_absent_or_of_another_kind(tmp_path):
    with pytest.raises(UserError, match=r"holds no train\.csv or kinetics-400_train\.csv\. Expected: clips named"):
        kinetics400.splits(tmp_path, {})
    listed(tmp_path / "train.csv", TRAIN)
    with pytest.raises(UserError, match=r"holds no val\.csv or validate\.csv or kinetics-400_val\.csv"):
        kinetics400.splits(tmp_path, {})
    (tmp_path / "validate.csv").write_text("youtube_id,time_start,time_end,split\n0wR5jVB-WPk,417,427,val\n")
    with pytest.raises(UserError, match=r"validate\.csv: no column label; expected are label, youtube_id, time_start"):
        kinetics400.splits(tmp_path, {})
    (tmp_path / "validate.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"validate\.csv is no CSV in UTF-8"):
        kinetics400.splits(tmp_path, {})


def test_kinetics400_a_training_clip_in_the_test_list_is_refused(tmp_path, monkeypatch):
    root = touched(tmp_path / "v", *(f"{name}_{a:06}_{b:06}.mp4" for _, name, a, b in TRAIN + VAL))
    listed(root / "train.csv", TRAIN)
    listed(root / "val.csv", [*VAL, TRAIN[0]])
    monkeypatch.setattr(kinetics400, "COUNTS", {1: {"train": 2, "test": 3}})
    monkeypatch.setattr(kinetics400, "CLASSES_LISTED", 2)
    with pytest.raises(UserError, match=r"stand more than once .*---QUuC4vJs_000084_000094 in train and test"):
        through("kinetics400", dataset("kinetics400", root), tmp_path)


def test_diving48_classes_are_the_official_ones():
    assert list(diving48.CLASSES) == official("diving48/mmaction2_label_map.txt").read_text().split()
    assert len(set(diving48.CLASSES)) == 48


def test_diving48_official_lists_are_as_published():
    if not (DIVING / "Diving48_V2_train.json").is_file():
        pytest.skip(f"no official lists in {DIVING}, so their 15,027 and 1,970 rows can't be counted")
    _, rows = diving48.splits(DIVING, {})
    parts = [row.part for row in rows[1]]
    assert (parts.count("train"), parts.count("test")) == (15027, 1970)


def test_diving48_stand_in_as_it_is_distributed(tmp_path, monkeypatch):
    clips = ("-A1gsa6UqhU_00001", "-A1gsa6UqhU_00002", "zzzzzzzzzzz_00003", "zzzzzzzzzzz_00004")
    members = [(tarfile.TarInfo(f"rgb/{clip}.mp4"), clip.encode()) for clip in clips]
    archive = tarred(tmp_path / "Diving48_rgb.tar.gz", *members, mode="w:gz")
    given = dataset("diving48", archive, lists_of_diving48(tmp_path / "lists"))
    monkeypatch.setattr(diving48, "COUNTS", {1: {"train": 2, "test": 1}})
    built = through("diving48", given, tmp_path)
    assert built.notes == ("diving48: 1 of 4 videos are in no list: zzzzzzzzzzz_00004",)
    assert list(built.tables[1].iter_rows()) == [
        ("-A1gsa6UqhU_00001", "train", [0]),
        ("-A1gsa6UqhU_00002", "train", [47]),
        ("zzzzzzzzzzz_00003", "test", [5]),
    ]
    beside = lists_of_diving48(touched(tmp_path / "own", *(f"rgb/{clip}.mp4" for clip in clips[1:])))
    assert through("diving48", dataset("diving48", beside), tmp_path).notes[0] == (
        "diving48, split 1: 1 of 2 train videos are absent: -A1gsa6UqhU_00001"
    )


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([{"vid_name": "x", "label": "3"}], 'Diving48_V2_train.json, entry 1: expected a text vid_name and .*"label"'),
        ([{"label": 3}], "entry 1: expected a text vid_name"),
        ([{"vid_name": "x", "label": 3}, ["x", 3]], r'entry 2: expected .* not \["x", 3\]'),
        ({"x": 3}, r"Diving48_V2_train\.json is no list of clips"),
    ],
)
def test_diving48_names_an_entry_it_can_not_read(tmp_path, train, message):
    with pytest.raises(UserError, match=message):
        diving48.splits(lists_of_diving48(tmp_path, train=train), {})


def test_diving48_names_a_list_that_is_absent_or_damaged(tmp_path):
    (tmp_path / "Diving48_train.json").write_text("[]")  # version 1
    with pytest.raises(UserError, match=r"Diving48_V2_train\.json is absent\. Expected: .*Diving48_rgb\.tar\.gz"):
        diving48.splits(tmp_path, {})
    lists_of_diving48(tmp_path)
    (tmp_path / "Diving48_V2_test.json").write_text("[{")
    with pytest.raises(UserError, match=r"Diving48_V2_test\.json is no JSON"):
        diving48.splits(tmp_path, {})


@pytest.mark.parametrize("label", [48, -1])
def test_diving48_a_label_that_is_no_class_is_refused(tmp_path, monkeypatch, label):
    root = touched(tmp_path / "own", "rgb/-A1gsa6UqhU_00001.mp4", "rgb/zzzzzzzzzzz_00003.mp4")
    lists_of_diving48(root, train=[{"vid_name": "-A1gsa6UqhU_00001", "label": label}])
    monkeypatch.setattr(diving48, "COUNTS", {1: {"train": 1, "test": 1}})
    with pytest.raises(UserError, match=rf"-A1gsa6UqhU_00001 has the labels \[{label}\]; there are 48 classes"):
        through("diving48", dataset("diving48", root), tmp_path)


def test_diving48_a_training_clip_in_the_test_list_is_refused(tmp_path):
    root = touched(tmp_path / "own", "rgb/-A1gsa6UqhU_00001.mp4")
    lists_of_diving48(root, test=[{"vid_name": "-A1gsa6UqhU_00001", "label": 0}])
    with pytest.raises(UserError, match=r"stand more than once .*-A1gsa6UqhU_00001 in train and test"):
        through("diving48", dataset("diving48", root), tmp_path)
