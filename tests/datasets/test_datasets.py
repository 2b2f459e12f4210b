"""Data set files: their declared contents, and how they read lists and folders."""

import os
import unicodedata
from pathlib import Path

import pytest

from pipeline import datasets
from pipeline.datasets import Row, Video, folder, jester, jhmdb, ucf101
from pipeline.errors import UserError
from tests.support.real_data import TEST_DATA

SHARED = TEST_DATA


def touched(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


@pytest.mark.parametrize(
    "name",
    [
        *("shapes", "jhmdb", "folder", "ucf101", "hmdb51", "kinetics400", "diving48"),
        *("sthv1", "sthv2", "jester", "egogesture", "charades", "cifar100"),
    ],
)
def test_a_data_set_file_keeps_the_contract(name):
    module = datasets.loaded(name)
    for constant in ("LICENCE", "CITATION", "HOMEPAGE", "LAYOUT"):
        assert isinstance(getattr(module, constant), str)
    assert module.LAYOUT and module.LICENCE
    assert isinstance(module.COUNTS, dict) and callable(module.videos) and callable(module.splits)


def test_an_unknown_data_set_names_the_known():
    with pytest.raises(UserError, match=r"did you mean 'shapes'\? known: shapes, .* and \d+ more"):
        datasets.loaded("shape")


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
    classes, rows = jhmdb.splits(lists, {})
    assert rows[1] == [Row(f"clap/{names[0]}", "test", (2,)), Row("clap/plain", "train", (2,))]
    assert classes[2] == "clap" and classes == tuple(sorted(classes)) and len(classes) == 21


@pytest.mark.parametrize("line", ["foo.avi 3", "foo.avi", "1"])
def test_jhmdb_names_a_line_it_can_not_read(tmp_path, line):
    lists = lists_of_jhmdb(tmp_path)
    (lists / "wave_test_split2.txt").write_text(f"a.avi 1\n{line}\n")
    with pytest.raises(UserError, match=r"wave_test_split2\.txt, line 2"):
        jhmdb.splits(lists, {})


ANNOTATIONS = SHARED / "data/annotations"
LISTS = {
    "ucf101": "ucf101/t*list0?.txt",
    "hmdb51": "hmdb51/testTrainMulti_7030_splits/*.txt",
    "jhmdb": "jhmdb/splits/*.txt",
    "egogesture": "egogesture/*_but_None.txt",
    "jester": "jester/jester-v1-*.csv",
}


@pytest.mark.parametrize("name", LISTS)
def test_an_official_list_saved_by_an_editor_reads_the_same(name, tmp_path):
    """A byte order mark, Windows line ends, trailing blanks, empty lines and a missing last line end change nothing."""
    official = sorted(ANNOTATIONS.glob(LISTS[name]))
    if not official:
        pytest.skip(f"needs {ANNOTATIONS / LISTS[name]}")
    for path in official:
        lines = path.read_text(encoding="utf-8").splitlines()
        (tmp_path / path.name).write_bytes(("\ufeff" + " \r\n\r\n".join(lines)).encode())
    plugin = datasets.loaded(name)
    assert plugin.splits(tmp_path, {}) == plugin.splits(official[0].parent, {})


@pytest.mark.parametrize("name", ["sthv2", "diving48"])
def test_json_with_a_byte_order_mark(name, tmp_path):
    plugin = datasets.loaded(name)
    first = {"sthv2": "something-something-v2-labels.json", "diving48": "Diving48_V2_train.json"}[name]
    (tmp_path / first).write_bytes("\ufeff{}".encode())
    with pytest.raises(UserError, match=r"no list of clips|expected 174 classes"):  # read, and found wanting
        plugin.splits(tmp_path, {})


@pytest.mark.parametrize("name", ["jhmdb", "hmdb51"])
def test_tabs_part_file_and_number_too(name, tmp_path):
    plugin = datasets.loaded(name)
    for each in plugin.CLASSES:
        for split in (1, 2, 3):
            (tmp_path / f"{each}_test_split{split}.txt").write_text("a b.avi\t1\n")
    assert plugin.splits(tmp_path, {}).rows[1][0] == Row("brush_hair/a b", "train", (0,))


def test_jhmdb_names_a_list_that_is_absent(tmp_path):
    (lists_of_jhmdb(tmp_path) / "sit_test_split3.txt").unlink()
    with pytest.raises(UserError, match=f"{tmp_path}/sit_test_split3.txt is absent. Expected: .*splits.zip"):
        jhmdb.splits(tmp_path, {})


def test_jhmdb_ids_are_the_same_with_the_top_folder_of_the_archive(tmp_path):
    plain = touched(tmp_path / "plain", "clap/x.avi", "wave/y.avi")
    packed = touched(
        tmp_path / "packed", "ReCompress_Videos/clap/x.avi", "ReCompress_Videos/wave/y.avi", "__MACOSX/clap/x.avi"
    )
    ids = [[video.id for video in jhmdb.videos(root, {})] for root in (plain, packed)]
    assert ids[0] == ids[1] == ["clap/x", "wave/y"]
    assert all((packed / video.path).is_file() for video in jhmdb.videos(packed, {}))


@pytest.mark.skipif(not (SHARED / "data/jhmdb").is_dir(), reason="needs ACTIONBENCH_TEST_DATA/data/jhmdb")
def test_jhmdb_whole():
    videos = jhmdb.videos(SHARED / "data/jhmdb", {})
    _, rows = jhmdb.splits(SHARED / "data/annotations/jhmdb/splits", {})
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
    with pytest.raises(UserError, match=r"b/2\.(MP4|avi) and b/2\.(avi|MP4) differ in suffix, or in .*; keep one"):
        folder.videos(root, {})


def test_accents_are_the_same_however_they_are_encoded(tmp_path):
    composed, apart = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    root = touched(tmp_path, f"{apart}/1.mp4", f"{composed}/2.mp4")
    there = folder.videos(root, {})
    for text, other in ((composed, apart), (apart, composed)):
        (root / "train.txt").write_text(f"{text}/1.mp4")
        (root / "test.txt").write_text(f"{text}/2.mp4 {other}")
        classes, rows = folder.splits(root, {})
        assert classes == (composed,) and [row.video for row in rows[1]] == [video.id for video in there]
    assert all((root / video.path).is_file() for video in there)
    touched(root, f"{composed}/1.mp4")
    with pytest.raises(UserError, match="how accents are encoded"):
        folder.videos(root, {})


def test_a_set_that_lies_on_other_disks_is_found_through_links(tmp_path):
    disk = touched(tmp_path / "disk", "UCF-101/Archery/v_Archery_g01_c01.avi", "clips/12/00001.jpg")
    root = tmp_path / "data"
    root.mkdir()
    for name in ("UCF-101", "clips"):
        (root / name).symlink_to(disk / name)
    (disk / "UCF-101/Archery/back").symlink_to(disk / "UCF-101")  # would go round and round
    (root / "gone").symlink_to(tmp_path / "unplugged")
    assert [video.path for video in ucf101.videos(root, {})] == ["UCF-101/Archery/v_Archery_g01_c01.avi"]
    assert [video.path for video in jester.videos(root, {})] == ["clips/12"]


def test_a_folder_that_can_not_be_read_is_no_empty_one(tmp_path, monkeypatch):
    root = touched(tmp_path, "a/1.mp4", "locked/2.mp4")
    scandir = os.scandir

    def refused(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # nothing is locked to root
    with pytest.raises(UserError, match="locked can't be read: Permission denied"):
        folder.videos(root, {})


def test_lists_of_ones_own(tmp_path):
    (tmp_path / "train.txt").write_text("ride bike/a b.mp4\nrun/x.1.avi\trun fast\n./run/y.MOV, ride bike\n")
    (tmp_path / "test.txt").write_text("run/gone.mp4 run fast\n")
    classes, rows = folder.splits(tmp_path, {})
    assert classes == ("ride bike", "run fast")
    assert rows == {
        1: [
            Row("ride bike/a b", "train", (0,)),
            Row("run/x.1", "train", (1,)),
            Row("run/y", "train", (0,)),
            Row("run/gone", "test", (1,)),
        ]
    }


def test_a_name_with_a_separator_of_unicode_stays_on_its_line(tmp_path):
    (tmp_path / "train.txt").write_text("run/a\u2028b\x85.mp4\r\nrun/x.mp4", encoding="utf-8")
    (tmp_path / "test.txt").write_text("run/y.mp4")
    assert [row.video for row in folder.splits(tmp_path, {}).rows[1]] == ["run/a\u2028b\x85", "run/x", "run/y"]


def test_lists_of_several_splits_with_classes_in_an_order_of_their_own(tmp_path):
    (tmp_path / "classes.txt").write_text("run\nclap\n")
    for split in ("split-1", "split-10", "split-2"):
        (tmp_path / split).mkdir()
        for part in ("train", "val", "test"):
            (tmp_path / split / f"{part}.txt").write_text(f"any/{part}.mp4 1\n")
    classes, rows = folder.splits(tmp_path, {})
    assert classes == ("run", "clap") and list(rows) == [1, 2, 10]
    assert rows[10] == [Row(f"any/{part}", part, (1,)) for part in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "a/x.mp4"}, "test.txt is absent. Expected: <class>/<videos>"),
        ({"train.txt": "a/x.mp4\na/x", "test.txt": ""}, "train.txt, line 2: 'a/x' names no video"),
        ({"train.txt": "a/x.mp4", "test.txt": "\n"}, "test.txt names no video"),
        ({"train.txt": "a/x.mp4 -1", "test.txt": "a/y.mp4 0"}, "line 1: the label -1 is negative"),
        ({"train.txt": "x.mp4", "test.txt": ""}, "line 1: 'x.mp4' has neither a class folder nor a label"),
        (
            {"train.txt": "a/x.mp4 clp", "test.txt": "a/y.mp4 run", "classes.txt": "clap\nrun"},
            "'clp' .*did you mean 'clap'",
        ),
        ({"train.txt": "a/x.mp4 2", "test.txt": "a/y.mp4 1", "classes.txt": "clap\nrun"}, "'2' is not in classes.txt"),
        (
            {"train.txt": "a/x.mp4", "test.txt": "a/y.mp4", "classes.txt": "a\na"},
            "it lists a class twice; keep one of them",
        ),
    ],
)
def test_wrong_lists_are_named(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        folder.splits(tmp_path, {})
