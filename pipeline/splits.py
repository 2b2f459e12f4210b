"""Split tables, the checked lists, with classes and mirror images."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline import datasets, direction
from pipeline.config.schema import Dataset, Subset
from pipeline.datasets import Row
from pipeline.download.sources import Entry
from pipeline.errors import UserError
from pipeline.storage import atomic
from pipeline.subset import reduced

SCHEMA = {"video": pl.String(), "part": pl.String(), "labels": pl.List(pl.Int32())}
SHOWN = 3  # names that a message lists of many


@dataclass(frozen=True)
class Tables:
    """A data set's splits."""

    classes: tuple[str, ...]  # in official order
    mirrored: tuple[int, ...]  # for each class that of its mirror image, or -1
    tables: dict[int, pl.DataFrame]  # by split: SCHEMA's columns, in the lists' order
    notes: tuple[str, ...]  # warnings for the user, a line each
    absent: pl.DataFrame  # split, part, video: listed, but absent


def build(name: str, dataset: Dataset, entries: Sequence[Entry], lists: Path, subset: Subset | None = None) -> Tables:
    """Build the splits of a data set, or of a subset, for the manifest's entries.

    Labels and numbers of rows are checked on the whole lists. A part that lacks some videos is a note: they stay in the
    table, so that they count as wrong. With dataset.direction each row of the lists becomes two.

    Args:
        name: of the data set.
        dataset: its settings.
        entries: the manifest's.
        lists: folder of the lists; for a set that is distributed with them, its folder of videos.
        subset: of classes and videos.

    Raises:
        UserError: A label is unknown; a video has no label in a single-label set; a video is twice in a split; the
            number of rows is not the published one; files are equal in training and test (a note for an official split,
            which is never changed); all videos of a part are absent; or dataset.direction is set for images.
    """
    plugin = datasets.loaded(dataset.file)
    if dataset.direction and getattr(plugin, "STILL", False):
        raise UserError(
            f"datasets.{name}.direction is true, but {dataset.file} holds images, which have no direction of time; "
            "set it to false"
        )
    whole = plugin.splits(lists, dataset.options)
    classes, splits = reduced(whole, subset) if subset else whole
    present = pl.DataFrame(
        # Empty files are all the same, and none is a video.
        [(entry.video, entry.sha256 if entry.bytes else None) for entry in entries],
        schema={"video": pl.String(), "sha256": pl.String()},
        orient="row",
    )
    tables, notes, absent = {}, [], []
    for split, rows in whole.rows.items():
        where = f"{name}, split {split}"
        # Before the table, whose 32 bits a mistyped label may not fit.
        _check_labels(where, rows, len(whole.classes), getattr(plugin, "MULTI_LABEL", False))
        table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        _check_once(where, table)
        counts = dict(table.group_by("part").len().rows())
        published = plugin.COUNTS.get(split, {})
        if plugin.COUNTS and counts != published:
            raise UserError(f"{where}: the lists have {_counted(counts)} rows, published are {_counted(published)}")
        if subset:
            table = pl.DataFrame(splits[split], schema=SCHEMA, orient="row")
        gone = table.join(present, on="video", how="anti", maintain_order="left")
        notes += _absent(where, table, gone, plugin.LAYOUT)
        absent.append(gone.select(pl.lit(split).alias("split"), "part", "video"))
        if same := _same_bytes(where, table.join(present, on="video")):
            if not plugin.COUNTS:
                raise UserError(same)
            notes.append(f"{same}; kept, because the split is the official one")
        if not plugin.COUNTS:  # the user's lists
            notes += _untrained(where, table, classes)
        tables[split] = table
    unlisted = present.join(pl.concat(tables.values()).select("video").unique(), on="video", how="anti")["video"]
    if len(unlisted):
        notes.append(f"{name}: {len(unlisted)} of {len(present)} videos are in no list: {_some(unlisted)}")
    pairs, one_way = getattr(plugin, "MIRRORED", ()), getattr(plugin, "ONE_WAY", ())
    if dataset.direction:  # of which mirrors change neither
        classes, pairs, one_way = direction.CLASSES, (), ()
        tables = {split: _both_ways(table) for split, table in tables.items()}
    return Tables(tuple(classes), mirror_images(classes, pairs, one_way), tables, tuple(notes), pl.concat(absent))


def write(built: Tables, folder: Path) -> None:
    """Write split-<k>.parquet, *.json and absent.csv, and remove old splits."""
    for old in folder.glob("split-*.parquet"):
        if old.stem.removeprefix("split-") not in map(str, built.tables):
            old.unlink()
    for split, table in built.tables.items():
        with atomic.writing(folder / f"split-{split}.parquet") as temporary:
            table.write_parquet(temporary, compression="zstd")
    atomic.write(folder / "absent.csv", built.absent.write_csv())
    atomic.write(folder / "classes.json", json.dumps(built.classes, ensure_ascii=False, indent=1) + "\n")
    atomic.write(folder / "mirrored.json", json.dumps(built.mirrored) + "\n")


def mirror_images(
    classes: Sequence[str], pairs: Iterable[tuple[str, str]], one_way: Iterable[str] = ()
) -> tuple[int, ...]:
    """Return each class's mirror image: its partner in `pairs`, or itself.

    It is -1, for none, if the class is `one_way` or its partner is not among the classes. A data set without either is
    safe to flip; of a user's folder only its owner knows.
    """
    partner = {name: other for pair in pairs for name, other in (pair, pair[::-1])}
    numbers = {name: number for number, name in enumerate(classes)} | dict.fromkeys(one_way, -1)
    return tuple(numbers.get(partner.get(name, name), -1) for name in classes)


def _both_ways(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with each video forward, then backward, labeled as such."""
    rows = [
        (name, part, [label])
        for video, part in table.select("video", "part").iter_rows()
        for label, name in enumerate(direction.names(video))
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _check_labels(where: str, rows: Sequence[Row], classes: int, multi_label: bool) -> None:
    for row in rows:
        if not (row.labels or multi_label) or not all(0 <= label < classes for label in row.labels):
            raise UserError(f"{where}: {row.video} has the labels {list(row.labels)}; there are {classes} classes")


def _check_once(where: str, table: pl.DataFrame) -> None:
    twice = table.group_by("video", maintain_order=True).agg(pl.len(), pl.col("part")).filter(pl.col("len") > 1)
    if len(twice):
        video, _, parts = twice.row(0)
        raise UserError(
            f"{where}: {len(twice)} videos stand more than once in its lists, e.g. {video} in {' and '.join(parts)}"
        )


def _absent(where: str, table: pl.DataFrame, gone: pl.DataFrame, layout: str) -> list[str]:
    notes = []
    for (part,), rows in table.group_by("part", maintain_order=True):
        absent = gone.filter(part=part)["video"]
        if len(absent) == len(rows):
            raise UserError(
                f"{where}: all {len(rows)} videos of its {part} list are absent, e.g. {absent[0]}. "
                f"Expected among the videos: {layout}"
            )
        if len(absent):
            notes.append(f"{where}: {len(absent)} of {len(rows)} {part} videos are absent: {_some(absent)}")
    return notes


def _untrained(where: str, table: pl.DataFrame, classes: Sequence[str]) -> list[str]:
    """Note classes that are tested but never trained: perhaps a mistyped label."""
    trained, tested = (
        set(table.filter(pl.col("part") == part)["labels"].explode().drop_nulls()) for part in ("train", "test")
    )
    unknown = [classes[label] for label in sorted(tested - trained)]
    return (
        [f"{where}: {len(unknown)} of {len(classes)} classes have no training video: {_some(unknown)}"]
        if unknown
        else []
    )


def _same_bytes(where: str, table: pl.DataFrame) -> str | None:
    """Return a note on files of the same bytes in two parts, or None.

    Pairs are counted, not listed: one "not available" image may replace thousands of videos.
    """
    pairs, example = 0, ""
    for first, second in itertools.combinations(("train", "val", "test"), 2):
        left, right = table.filter(part=first), table.filter(part=second)
        both = left.group_by("sha256").len().join(right.group_by("sha256").len(), on="sha256", suffix="_too")
        pairs += int((both["len"].cast(pl.Int64) * both["len_too"]).sum())
        if len(both) and not example:
            video = left.join(both, on="sha256", how="semi", maintain_order="left").row(0, named=True)
            copy = right.filter(sha256=video["sha256"])["video"][0]
            example = f"{video['video']} ({first}) and {copy} ({second})"
    return f"{where}: {pairs} pairs of files are the same, byte for byte, e.g. {example}" if pairs else None


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {part}" for part, count in sorted(counts.items(), reverse=True)) or "none"


def _some(names: Iterable[str]) -> str:
    listed = list(itertools.islice(names, SHOWN + 1))
    return ", ".join(listed[:SHOWN]) + (" ..." if len(listed) > SHOWN else "")
