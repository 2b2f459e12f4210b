"""Split tables: errors, notes, and the real tables of J-HMDB."""

import itertools
import json
from pathlib import Path

import polars as pl
import pytest

from pipeline import splits
from pipeline.config.schema import Dataset, Decode
from pipeline.datasets import Row, Splits, folder
from pipeline.download import sources
from pipeline.download.sources import Entry
from pipeline.errors import UserError
from tests.support.real_data import TEST_DATA

SHARED = TEST_DATA
DECODE = Decode(short_side=64, quality=90, decoder="ffmpeg", videos_per_shard=8, max_failed=0.1)
MINE = Dataset(file="folder", source="unused", lists=None, options={}, decode=DECODE)
ROWS = [Row("a/1", "train", (0,)), Row("b/1", "train", (1,)), Row("a/2", "test", (0,)), Row("b/2", "test", (1,))]
ENTRIES = [Entry(row.video, f"{row.video}.mp4", 1, f"sha of {row.video}") for row in ROWS]


@pytest.fixture
def built(monkeypatch):
    """Return a function that builds the tables of some rows and entries."""

    def build(rows: list[Row], entries: list[Entry] = ENTRIES, **counts: int) -> splits.Tables:
        monkeypatch.setattr(folder, "splits", lambda *_: Splits(("a", "b"), {1: rows}))
        monkeypatch.setattr(folder, "COUNTS", {1: counts} if counts else {})
        return splits.build("mine", MINE, entries, Path())

    return build


def test_tables_hold_the_rows_and_are_the_same_bytes_each_time(built, tmp_path):
    rows = [*ROWS[:3], Row("b/2", "test", (1, 0))]  # one video has two labels
    tables = built(rows)
    assert tables.notes == ()
    assert [Row(video, part, tuple(labels)) for video, part, labels in tables.tables[1].iter_rows()] == rows
    splits.write(tables, tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"split-1.parquet", "classes.json", "mirrored.json", "absent.csv"}
    assert json.loads(first["classes.json"]) == ["a", "b"]
    (tmp_path / "split-2.parquet").write_bytes(b"of an earlier run")
    splits.write(built(rows), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("row", [Row("a/1", "test", (0,)), Row("a/1", "train", (0,))])
def test_a_video_that_stands_twice_is_refused(built, row):
    with pytest.raises(UserError, match=f"mine, split 1: 1 videos stand more than once .* a/1 in train and {row.part}"):
        built([*ROWS, row])


def test_the_same_bytes_in_training_and_test_are_refused(built):
    entries = [entry._replace(sha256="same") if entry.video in ("a/1", "b/2") else entry for entry in ENTRIES]
    message = r"1 pairs of files are the same, byte for byte, e\.g\. a/1 \(train\) and b/2 \(test\)"
    with pytest.raises(UserError, match=message):
        built(ROWS, entries)
    (note,) = built(ROWS, entries, train=2, test=2).notes
    assert "a/1 (train) and b/2 (test); kept, because the split is the official one" in note


def test_empty_files_are_no_leak(built):
    assert built(ROWS, [entry._replace(sha256="same", bytes=0) for entry in ENTRIES]).notes == ()


def test_the_same_bytes_within_training_are_no_leak(built):
    entries = [entry._replace(sha256="same") if entry.video in ("a/1", "b/1") else entry for entry in ENTRIES]
    assert built(ROWS, entries).notes == ()


@pytest.mark.parametrize("labels", [(), (2,), (-1,), (0, 5), (10**40,)])
def test_a_label_that_is_no_class_is_refused(built, labels):
    with pytest.raises(UserError, match=r"a/9 has the labels .*; there are 2 classes"):
        built([*ROWS, Row("a/9", "test", labels)])


def test_other_counts_than_published_are_refused(built):
    with pytest.raises(UserError, match="lists have 2 train, 2 test rows, published are 3 train, 2 test"):
        built(ROWS, train=3, test=2)


def test_a_video_without_a_label_is_for_sets_of_several_labels(built, monkeypatch):
    monkeypatch.setattr(folder, "MULTI_LABEL", True, raising=False)
    tables = built([*ROWS, Row("a/9", "train", ())])
    assert tables.tables[1].filter(video="a/9")["labels"].to_list() == [[]]
    with pytest.raises(UserError, match=r"a/9 has the labels \[2\]; there are 2 classes"):
        built([*ROWS, Row("a/9", "train", (2,))])


def test_absent_videos_stay_in_the_table_and_are_noted(built, tmp_path):
    tables = built(ROWS, ENTRIES[:3])
    assert tables.notes == ("mine, split 1: 1 of 2 test videos are absent: b/2",)
    assert len(tables.tables[1]) == 4
    splits.write(tables, tmp_path)
    assert (tmp_path / "absent.csv").read_text() == "split,part,video\n1,test,b/2\n"


def test_a_part_of_which_nothing_is_there_is_refused(built):
    with pytest.raises(UserError, match=r"all 2 videos of its test list are absent, e\.g\. a/2.*<class>/<videos>"):
        built(ROWS, ENTRIES[:2])


def test_a_class_without_training_videos_is_noted(built):
    """A note reveals a mistyped label if no list of classes exists."""
    rows = [ROWS[0], Row("b/1", "train", (0,)), *ROWS[2:]]
    assert built(rows).notes == ("mine, split 1: 1 of 2 classes have no training video: b",)
    assert built(rows, train=2, test=2).notes == ()  # official lists are as they are


def test_videos_in_no_list_are_noted(built):
    entries = [*ENTRIES, *(Entry(f"c/{n}", f"c/{n}.mp4", 1, f"c{n}") for n in range(5))]
    assert built(ROWS, entries).notes == ("mine: 5 of 9 videos are in no list: c/0, c/1, c/2 ...",)


@pytest.mark.skipif(not (SHARED / "data/jhmdb").is_dir(), reason="needs ACTIONBENCH_TEST_DATA/data/jhmdb")
def test_jhmdb_as_published():
    lists = SHARED / "data/annotations/jhmdb/splits"
    dataset = Dataset(file="jhmdb", source=str(SHARED / "data/jhmdb"), lists=str(lists), options={}, decode=DECODE)
    entries = sources.manifest("jhmdb", dataset, SHARED / "data/jhmdb")
    built = splits.build("jhmdb", dataset, entries, lists)
    assert built.notes == ()
    assert len(built.classes) == 21 and len(built.tables[1].filter(part="test")) == 268
    for split, part in itertools.product((1, 2, 3), ("train", "test")):  # the same lists, as another tool wrote them
        lines = (SHARED / f"data/annotations/jhmdb/lists/{part}{split}.tsv").read_text(encoding="utf-8").splitlines()
        theirs = {(name.removesuffix(".avi"), int(label)) for name, label, _ in (line.split("\t") for line in lines)}
        ours = built.tables[split].filter(part=part).select("video", pl.col("labels").list.first())
        assert set(ours.iter_rows()) == theirs
