"""Decode a data set shard by shard, resumably: a shard is one task, and what a kill leaves is never taken for whole."""

import csv
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import simplejpeg

from pipeline import flow
from pipeline.atomic import writing
from pipeline.decoding import Damaged, decode, opened
from pipeline.errors import UserError
from pipeline.frames import FINGERPRINT, INDEX, SHARDS, open_arrow, read_table, shard_path, write_shard, write_table
from pipeline.schema import Decode

# What a shard leaves beside itself: an index row for each of its videos, decoded or failed.
REPORT = INDEX.append(pa.field("path", pa.string())).append(pa.field("reason", pa.string()))
DECODER_VERSION, FRAME_BYTES = b"decoder_version", b"bytes"


@dataclass(frozen=True)
class Source:
    """A line of the download's manifest."""

    video: str
    path: str  # relative to the folder of videos
    sha256: str
    first: int | None = None  # of a folder of frames: the range of numbers, all where None
    last: int | None = None
    fps: float = 0.0  # of a folder of frames, as its makers say; 0 where they don't

    @property
    def facts(self) -> tuple[str | int | float | None, ...]:
        """All of it that matters: of a video file, what has been in fingerprints since before there were folders."""
        folder = (self.first, self.last, self.fps)
        return (self.video, self.path, self.sha256, *(folder if folder != (None, None, 0.0) else ()))


@dataclass(frozen=True)
class Task:
    """One shard to decode."""

    folder: Path  # of the frame store
    shard: int
    root: Path  # folder of the videos
    sources: tuple[Source, ...]
    decode: Decode

    @property
    def path(self) -> Path:
        return shard_path(self.folder, self.shard)

    @property
    def report_path(self) -> Path:
        return self.path.with_suffix(".index.arrow")

    @property
    def fingerprint(self) -> str:
        """Of all that a shard's content follows from, but for the decoder's version."""
        videos = [source.facts for source in self.sources]
        settings = (self.decode.short_side, self.decode.quality, self.decode.decoder, simplejpeg.__version_info__)
        own: list[Any] = [videos, settings]
        if self.decode.flow is not None:
            own.append([asdict(self.decode.flow), cv2.__version__])
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()


@dataclass(frozen=True)
class ShardReport:
    """What a shard's decoding came to."""

    shard: int
    videos: int  # decoded
    failed: int
    frames: int
    bytes: int  # of JPEG, flow included
    seconds: float  # 0.0 where the shard was there already


def plan(folder: Path, root: Path, sources: Sequence[Source], decode: Decode) -> list[Task]:
    """The shards of a data set, `decode.videos_per_shard` videos each, in the manifest's order.

    Raises UserError for settings that make no sense.
    """
    if decode.short_side < 1 or decode.videos_per_shard < 1 or not 1 <= decode.quality <= 100:
        raise UserError("decode: short_side and videos_per_shard are at least 1, quality is 1 to 100")
    if decode.flow is not None:
        flow.check(decode.flow, decode.short_side)
    size = decode.videos_per_shard
    groups = [tuple(sources[begin : begin + size]) for begin in range(0, len(sources), size)]
    return [Task(folder, shard, root, group, decode) for shard, group in enumerate(groups)]


def decode_shard(task: Task) -> ShardReport:
    """Decode a shard's videos into its file; returns at once where that has been done.

    A video that cannot be decoded is a row with its reason. The report is written last, and an old one removed first:
    a shard without its own report was not finished.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    with opened(task.decode) as decoder:
        found = _read_report(task)
        if found is not None and found.schema.metadata[DECODER_VERSION].decode() == decoder.version:
            return _summary(task, found, 0.0)
        began = time.perf_counter()
        for leftover in (task.report_path, *task.folder.glob(f".{task.path.stem}.*")):
            leftover.unlink(missing_ok=True)
        rows: list[dict[str, Any]] = []
        size = 0

        def videos() -> Iterator[dict[str, list[bytes]]]:
            nonlocal size
            batches = itertools.count()
            for source in task.sources:
                row: dict[str, Any] = {"video": source.video, "path": source.path}
                rows.append(row)
                try:
                    video = decode(
                        task.root / source.path, decoder, source.sha256, source.first, source.last, source.fps
                    )
                    columns = {"jpeg": video.jpegs}
                    if task.decode.flow is not None:
                        columns |= flow.planes(video.jpegs, task.decode.flow, task.decode.quality)
                except Damaged as damage:
                    row["reason"] = str(damage)
                    continue
                facts = {name: value for name, value in vars(video).items() if name != "jpegs"}
                row |= facts | {"shard": task.shard, "batch": next(batches), "frames": len(video.jpegs)}
                size += sum(len(jpeg) for jpegs in columns.values() for jpeg in jpegs)
                yield columns

        write_shard(task.path, videos(), task.fingerprint, ("jpeg", *flow.columns(task.decode.flow)))
        metadata = {FINGERPRINT: task.fingerprint, DECODER_VERSION: decoder.version, FRAME_BYTES: str(size)}
        table = pa.Table.from_pylist(rows, schema=REPORT.with_metadata(metadata))
        write_table(task.report_path, table)
        return _summary(task, table, time.perf_counter() - began)


def finish(folder: Path, tasks: Sequence[Task]) -> list[ShardReport]:
    """Merge the shards' reports into index.arrow and failed.csv, and remove what belongs to none of them.

    Raises UserError where a shard has not been decoded.
    """
    tables = []
    for task in tasks:
        table = _read_report(task)
        if table is None:
            raise UserError(f"shard {task.shard} of {folder} has not been decoded; run the decode stage again")
        tables.append(table)
    bare = [table.replace_schema_metadata(None) for table in tables]
    rows = pa.concat_tables(bare) if bare else REPORT.empty_table()
    decoded = rows.filter(rows["reason"].is_null()).select(INDEX.names)
    fingerprints = json.dumps([task.fingerprint for task in tasks])
    write_table(folder / "index.arrow", decoded.replace_schema_metadata({SHARDS: fingerprints}))
    failed = rows.filter(rows["reason"].is_valid()).select(["video", "path", "reason"]).sort_by("video")
    with writing(folder / "failed.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, failed.column_names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(failed.to_pylist())
    wanted = {path for task in tasks for path in (task.path, task.report_path)}
    for path in (*folder.glob("shard-*.arrow"), *folder.glob(".*.arrow.*"), *folder.glob(".failed.csv.*")):
        if path not in wanted:
            path.unlink(missing_ok=True)
    return [_summary(task, table, 0.0) for task, table in zip(tasks, tables, strict=True)]


def _read_report(task: Task) -> pa.Table | None:
    """The report of a shard that was finished with this very task; None where it was not."""
    try:
        table = read_table(task.report_path)
        shard = open_arrow(task.path)
    except (OSError, pa.ArrowInvalid):
        return None
    prints = {(schema.metadata or {}).get(FINGERPRINT) for schema in (table.schema, shard.schema)}
    whole = shard.num_record_batches == table.num_rows - table["reason"].is_valid().to_numpy().sum()
    return table if prints == {task.fingerprint.encode()} and whole else None


def _summary(task: Task, table: pa.Table, seconds: float) -> ShardReport:
    decoded = table["reason"].null_count
    frames = sum(count for count in table["frames"].to_pylist() if count is not None)
    size = int(table.schema.metadata[FRAME_BYTES])
    return ShardReport(task.shard, decoded, table.num_rows - decoded, frames, size, seconds)
