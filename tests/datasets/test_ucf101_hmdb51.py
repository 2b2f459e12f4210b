"""UCF101 and HMDB51: the official lists as published, and stand-ins in the layout of the real archives."""

import shutil
import zipfile
from pathlib import Path

import pytest

from pipeline.datasets import Row, hmdb51, ucf101
from pipeline.errors import UserError
from tests.support.videos.lists import dataset, official, through
from tests.support.videos.packed import zipped


def lists_of_ucf101(root: Path, **lines: str) -> Path:
    """Write lists of one training and one test clip for each split; arguments replace some."""
    root.mkdir(parents=True, exist_ok=True)
    for split in (1, 2, 3):
        (root / f"trainlist0{split}.txt").write_text("Archery/v_Archery_g08_c01.avi 3\r\n")
        (root / f"testlist0{split}.txt").write_text("Archery/v_Archery_g01_c01.avi\r\n")
    for name, text in lines.items():
        (root / f"{name}.txt").write_text(text)
    return root


def lists_of_hmdb51(root: Path) -> Path:
    root.mkdir(parents=True)
    for name in hmdb51.CLASSES:
        for split in (1, 2, 3):
            (root / f"{name}_test_split{split}.txt").write_text(f"{name}_a.avi 1 \n{name}_b.avi 2 \n{name}_c.avi 0 \n")
    return root


def test_ucf101_lists_are_as_published():
    lists = official("ucf101")
    classes, rows = ucf101.splits(lists, {})
    numbered = [line.split() for line in (lists / "classInd.txt").read_text().splitlines()]
    assert [(str(number), name) for number, name in enumerate(classes, 1)] == [(a, b) for a, b in numbered]
    for split, counts in {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}.items():
        parts = [{row.video for row in rows[split] if row.part == part} for part in ("train", "test")]
        assert tuple(map(len, parts)) == counts and not parts[0] & parts[1]
        assert len(parts[0] | parts[1]) == 13320
        # A group's clips are cut from one video: none of a test group is for training.
        groups = [{video.rpartition("_c")[0] for video in part} for part in parts]
        assert not groups[0] & groups[1]
    assert Row("YoYo/v_YoYo_g25_c05", "train", (100,)) in rows[1]


def test_hmdb51_lists_are_as_published():
    classes, rows = hmdb51.splits(official("hmdb51/testTrainMulti_7030_splits"), {})
    assert classes == tuple(sorted(classes)) and len(classes) == 51
    for split in (1, 2, 3):
        for label in range(51):
            parts = [row.part for row in rows[split] if row.labels == (label,)]
            assert (parts.count("train"), parts.count("test")) == (70, 30)


def test_ucf101_stand_in_as_it_is_distributed(tmp_path):
    lists = official("ucf101")
    named = {line.split()[0] for path in lists.glob("*list0?.txt") for line in path.read_text().splitlines()}
    there = sorted(named)[::20]
    zipped(tmp_path / "UCF101.zip", {f"UCF-101/{name}": name.encode() for name in there})
    built = through("ucf101", dataset("ucf101", tmp_path / "UCF101.zip", lists), tmp_path)
    assert [len(table) for table in built.tables.values()] == [13320] * 3  # the denominator is the lists'
    absent = [int(note.split(": ")[1].split()[0]) for note in built.notes]
    assert len(there) == 666 and [sum(absent[at : at + 2]) for at in (0, 2, 4)] == [13320 - 666] * 3
    assert built.notes[0].startswith("ucf101, split 1: ") and " of 9537 train videos are absent: " in built.notes[0]


def test_hmdb51_stand_in_is_archives_in_an_archive(tmp_path):
    lists = official("hmdb51/testTrainMulti_7030_splits")
    inner, there, used = {}, set(), set()
    for name in hmdb51.CLASSES:
        lines = [(lists / f"{name}_test_split{split}.txt").read_text().splitlines() for split in (1, 2, 3)]
        files = [line.split()[0] for line in lines[0]][::20]
        zipped(tmp_path / "class.zip", {f"{name}/{file}": f"{name}/{file}".encode() for file in files})
        inner[f"{name}.zip"] = (tmp_path / "class.zip").read_bytes()
        there |= {(name, file) for file in files}
        used |= {(name, line.split()[0]) for split in lines for line in split if line.split()[1] != "0"}
    zipped(tmp_path / "hmdb51_org.zip", inner)
    built = through("hmdb51", dataset("hmdb51", tmp_path / "hmdb51_org.zip", lists), tmp_path)
    assert {split: len(table) for split, table in built.tables.items()} == {1: 5100, 2: 5100, 3: 5100}
    *absent, unlisted = built.notes
    assert len(absent) == 6 and all(" videos are absent: " in note for note in absent)
    assert unlisted.startswith(f"hmdb51: {len(there - used)} of {len(there)} videos are in no list: ")


def test_lists_next_to_the_clips_are_found_in_their_folder(tmp_path, monkeypatch):
    root = tmp_path / "ucf"
    lists_of_ucf101(root / "ucfTrainTestlist")
    for group in ("g01", "g08"):
        path = root / f"UCF-101/Archery/v_Archery_{group}_c01.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(group.encode())
    (root / "UCF-101/Other").mkdir()
    (root / "UCF-101/Other/notes.avi").write_bytes(b"of no class")
    monkeypatch.setattr(ucf101, "COUNTS", {split: {"train": 1, "test": 1} for split in (1, 2, 3)})
    built = through("ucf101", dataset("ucf101", root), tmp_path)
    assert built.notes == () and built.tables[3]["video"].to_list() == [
        "Archery/v_Archery_g08_c01",
        "Archery/v_Archery_g01_c01",
    ]
    root = tmp_path / "hmdb"
    lists_of_hmdb51(root / "testTrainMulti_7030_splits")
    for name in hmdb51.CLASSES:
        (root / name).mkdir()
        for clip in "abc":
            (root / name / f"{name}_{clip}.avi").write_bytes(f"{name} {clip}".encode())
    monkeypatch.setattr(hmdb51, "COUNTS", {split: {"train": 51, "test": 51} for split in (1, 2, 3)})
    (note,) = through("hmdb51", dataset("hmdb51", root), tmp_path).notes
    assert (
        note
        == "hmdb51: 51 of 153 videos are in no list: brush_hair/brush_hair_c, cartwheel/cartwheel_c, catch/catch_c ..."
    )


@pytest.mark.parametrize("plugin", [ucf101, hmdb51])
def test_a_clip_in_two_places_is_refused(tmp_path, plugin):
    for top in ("one", "two"):
        path = tmp_path / top / plugin.CLASSES[0] / "x.avi"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"the same clip; keep one of them"):
        plugin.videos(tmp_path, {})
    shutil.rmtree(tmp_path / "two")
    assert [video.path for video in plugin.videos(tmp_path, {})] == [f"one/{plugin.CLASSES[0]}/x.avi"]


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_a_folder_of_another_layout_says_what_is_expected(tmp_path, name):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/v_Archery_g01_c01.avi").write_bytes(b"x")
    with pytest.raises(UserError, match=rf"{name}: .*flat holds no video of it\. Expected there: the content of "):
        through(name, dataset(name, tmp_path / "flat"), tmp_path)
    with pytest.raises(UserError, match=rf"{name}: there is no .*nowhere\. Put the videos there.*\.rar"):
        through(name, dataset(name, tmp_path / "nowhere"), tmp_path)


def test_an_absent_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"ucf101: the list .*trainlist01\.txt is absent\. Expected: .*RecognitionTask"):
        ucf101.splits(tmp_path, {})
    with pytest.raises(UserError, match=r"hmdb51: the list .*brush_hair_test_split1\.txt is absent\. Expected: "):
        hmdb51.splits(tmp_path, {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Archery/v_Archery_g08_c01.avi 4", "trainlist02.txt, line 2: the label 4 is not that of Archery, which is 3"),
        ("Archery/v_Archery_g08_c01.avi 102", "line 2: the label 102 is not that of Archery"),
        ("Archary/v_Archery_g08_c01.avi 3", "line 2: 'Archary' is no class of UCF101; did you mean 'Archery'"),
        ("Archery/v_Archery_g08_c01 3", "line 2: expected `<class>/<file>.avi`"),
        ("v_Archery_g08_c01.avi 3", "line 2: expected `<class>/<file>.avi`"),
        ("Archery/v_Archery_g08_c01.avi 3 3", "line 2: expected `<class>/<file>.avi`"),
    ],
)
def test_ucf101_names_a_line_it_can_not_read(tmp_path, line, message):
    lists = lists_of_ucf101(tmp_path / "lists", trainlist02=f"Archery/v_Archery_g09_c01.avi 3\n{line}\n")
    with pytest.raises(UserError) as error:
        ucf101.splits(lists, {})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("line", ["x.avi 3", "x.avi", "x 1", ".avi 1", "1"])
def test_hmdb51_names_a_line_it_can_not_read(tmp_path, line):
    lists = lists_of_hmdb51(tmp_path / "lists")
    (lists / "wave_test_split2.txt").write_text(f"a.avi 0\n\n{line}\n")
    with pytest.raises(UserError, match=r"wave_test_split2\.txt, line 3: expected `<file>\.avi` and 0 \(not used\)"):
        hmdb51.splits(lists, {})


def test_hmdb51_reads_names_as_they_are(tmp_path):
    lists = lists_of_hmdb51(tmp_path / "lists")
    (lists / "wave_test_split1.txt").write_text("#4_a;b&c(d)_ x.y.avi 2 \n", encoding="utf-8")
    assert hmdb51.splits(lists, {}).rows[1][-1] == Row("wave/#4_a;b&c(d)_ x.y", "test", (50,))


def test_a_training_clip_in_the_test_list_is_refused(tmp_path, monkeypatch):
    lists = lists_of_ucf101(tmp_path / "lists", testlist03="Archery/v_Archery_g08_c01.avi\n")
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        archive.writestr("UCF-101/Archery/v_Archery_g08_c01.avi", "1")
        archive.writestr("UCF-101/Archery/v_Archery_g01_c01.avi", "2")
    monkeypatch.setattr(ucf101, "COUNTS", {split: {"train": 1, "test": 1} for split in (1, 2, 3)})
    with pytest.raises(UserError, match=r"split 3: 1 videos stand more than once .*g08_c01 in train and test"):
        through("ucf101", dataset("ucf101", tmp_path / "v.zip", lists), tmp_path)


def test_lists_that_lack_lines_are_refused(tmp_path):
    lists = lists_of_ucf101(tmp_path / "lists")
    zipped(tmp_path / "v.zip", {"UCF-101/Archery/v_Archery_g08_c01.avi": b"1"})
    with pytest.raises(UserError, match="lists have 1 train, 1 test rows, published are 9537 train, 3783 test"):
        through("ucf101", dataset("ucf101", tmp_path / "v.zip", lists), tmp_path)
