"""Subsets of a data set are small and the same everywhere, and keep each video's labels."""

import random
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import datasets, splits, subset
from pipeline.config.schema import Dataset, Decode, Subset
from pipeline.datasets import Row, Splits
from pipeline.download import sources
from pipeline.errors import UserError

FEW = Subset(classes=3, train=4, test=2)
CLASSES = tuple(f"class {number}" for number in range(10))


def whole(videos: int = 20, labels: int = 1, seed: int = 0) -> Splits:
    """Return two splits of ten classes, with a number of labels for each video."""
    draws = random.Random(seed)
    ids = [f"v{number:03d}" for number in range(videos * 10)]
    named = {video: tuple(sorted(draws.sample(range(10), labels))) for video in ids}
    parts = ("train", "train", "val", "test")
    rows = {split: [Row(video, draws.choice(parts), named[video]) for video in ids] for split in (1, 2)}
    return Splits(CLASSES, rows)


def test_classes_are_evenly_spaced_and_renumbered() -> None:
    few = subset.reduced(whole(), FEW)
    assert few.classes == ("class 1", "class 5", "class 8")
    assert {row.labels for row in few.rows[1]} == {(0,), (1,), (2,)}
    before = {row.video: row.labels[0] for row in whole().rows[1]}
    assert all(few.classes[row.labels[0]] == CLASSES[before[row.video]] for row in few.rows[1])


def test_so_many_videos_of_each_class_and_part() -> None:
    rows = subset.reduced(whole(), FEW).rows[2]
    for label in range(3):
        counts = {part: sum(row.part == part for row in rows if row.labels == (label,)) for part in ("train", "val")}
        assert counts == {"train": 4, "val": 2}
    assert len(rows) == 3 * (4 + 2 + 2)
    listed = [row.video for row in whole().rows[2]]
    assert [row.video for row in rows] == [video for video in listed if video in {row.video for row in rows}]


def test_a_subset_is_its_own_subset() -> None:
    few = subset.reduced(whole(), FEW)
    assert subset.reduced(few, FEW) == few


@given(st.integers(0, 2**32 - 1))
def test_the_lists_order_changes_no_choice(seed: int) -> None:
    lists = whole()
    mixed = Splits(
        lists.classes, {split: random.Random(seed).sample(rows, len(rows)) for split, rows in lists.rows.items()}
    )
    assert subset.videos(mixed, FEW) == subset.videos(lists, FEW)


def test_videos_that_are_added_push_out_as_few_as_they_replace() -> None:
    lists = whole()
    more = Splits(CLASSES, {1: [*lists.rows[1], Row("another", "train", (5,))]})
    before, after = subset.videos(Splits(CLASSES, {1: lists.rows[1]}), FEW), subset.videos(more, FEW)
    assert len(before - after) == len(after - before) <= 1


def test_several_labels_are_kept_as_far_as_their_classes_are() -> None:
    lists = whole(labels=3)
    few = subset.reduced(lists, FEW)
    before = {row.video: {CLASSES[label] for label in row.labels} for row in lists.rows[1]}
    for row in few.rows[1]:
        assert row.labels and {few.classes[label] for label in row.labels} == before[row.video] & set(few.classes)
    for label in range(3):
        assert sum(label in row.labels for row in few.rows[1] if row.part == "train") >= 4


def test_more_than_there_is_takes_all() -> None:
    everything = Subset(classes=99, train=999, test=999)
    assert subset.reduced(whole(), everything) == whole()


def test_split_tables_of_a_subset(tmp_path) -> None:
    """Counts are those of the whole lists; mirrored classes are renumbered."""
    lists = whole()
    entries = [sources.Entry(video, video, 1, video) for video in subset.videos(lists, FEW)]

    class Plugin:
        COUNTS: ClassVar = {
            split: {part: sum(row.part == part for row in rows) for part in ("train", "val", "test")}
            for split, rows in lists.rows.items()
        }
        MIRRORED = (("class 1", "class 8"), ("class 5", "class 0"))
        LAYOUT = ""

        @staticmethod
        def splits(folder, options):
            return lists

    dataset = Dataset("invented", "generated", None, {}, Decode(72, 90, "ffmpeg", 8, 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "loaded", lambda name: Plugin)
        built = splits.build("invented", dataset, entries, tmp_path, FEW)
        assert built.classes == ("class 1", "class 5", "class 8")
        assert built.mirrored == (2, -1, 0)
        assert {split: len(table) for split, table in built.tables.items()} == {1: 24, 2: 24}
        assert not [note for note in built.notes if "absent" in note]
        Plugin.COUNTS[1]["train"] += 1
        with pytest.raises(UserError, match="published"):
            splits.build("invented", dataset, entries, tmp_path, FEW)


def test_the_manifest_holds_the_subset_alone(tmp_path) -> None:
    for name in ("a/1.avi", "a/2.avi", "b/3.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    dataset = Dataset("folder", str(tmp_path), None, {}, Decode(72, 90, "ffmpeg", 8, 0.1))
    assert [entry.video for entry in sources.manifest("own", dataset, tmp_path, {"a/2", "b/3"})] == ["a/2", "b/3"]
    with pytest.raises(UserError, match="none of the 1 that the tier takes"):
        sources.manifest("own", dataset, tmp_path, {"c/4"})
