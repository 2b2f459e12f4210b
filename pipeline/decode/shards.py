"""Decoding of a data set by shards: each is a task, done once under its key.

A finished shard has a sealed report, outside the frame store, with its sha256. So a shard that a kill left behind, or
that is damaged, never counts as whole. The frame store itself depends on the frames alone.
"""

import csv
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import simplejpeg

from pipeline.config.schema import Decode
from pipeline.decode import flow
from pipeline.decode.layout import shard_path
from pipeline.decode.packing import INDEX, packed, write_index, write_shard
from pipeline.decode.video import Damaged, decode, opened
from pipeline.digest import checked, state
from pipeline.digest.key import key
from pipeline.errors import UserError
from pipeline.storage.atomic import writing

# A shard's report: an index row for each of its videos, decoded or failed.
REPORT = INDEX.append(pa.field("path", pa.string())).append(pa.field("reason", pa.string()))
SHA256, DECODER_VERSION, FRAME_BYTES = b"sha256", b"decoder_version", b"bytes"  # in its metadata


@dataclass(frozen=True)
class Source:
    """A line of the download's manifest."""

    video: str
    path: str  # relative to the folder of videos
    sha256: str
    first: int | None = None  # of a folder of frames: the range of numbers, None for all
    last: int | None = None
    fps: float = 0.0  # of a folder of frames, as published; 0 if unknown

    @property
    def facts(self) -> tuple[str | int | float | None, ...]:
        """The fields that are part of a shard's key; those of a folder only if set."""
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
    reports: Path  # folder of the reports
    code: str  # digest of the code that decodes

    @property
    def path(self) -> Path:
        return shard_path(self.folder, self.shard)

    @property
    def report(self) -> Path:
        return self.reports / f"{self.path.stem}-{self.key[:16]}"

    @property
    def key(self) -> str:
        """Digest of a shard's inputs except the decoder's version, which its node knows."""
        settings = asdict(self.decode)
        for name in ("videos_per_shard", "max_failed"):  # the first is seen in the sources
            del settings[name]
        versions = {"simplejpeg": simplejpeg.__version__, "OpenCV": cv2.__version__}
        videos = [source.facts for source in self.sources]
        return key([self.code], {"decode": settings, "versions": versions, "videos": videos}, {})


@dataclass(frozen=True)
class ShardReport:
    """The result of decoding a shard."""

    shard: int
    videos: int  # decoded
    failed: int
    frames: int
    bytes: int  # of JPEG, flow included
    seconds: float  # 0.0 if the shard existed


def plan(
    folder: Path, root: Path, sources: Sequence[Source], decode: Decode, reports: Path | None = None
) -> list[Task]:
    """Plan the shards of a data set, in the manifest's order.

    Args:
        folder: of the frame store.
        root: folder of the videos.
        sources: the manifest's lines.
        decode: settings; a shard has `videos_per_shard` videos.
        reports: folder of the reports, by default next to `folder`.

    Raises:
        UserError: A setting is out of its range.
    """
    if decode.short_side < 1 or decode.videos_per_shard < 1 or not 1 <= decode.quality <= 100:
        raise UserError("decode: short_side and videos_per_shard are at least 1, quality is 1 to 100")
    if decode.flow is not None:
        flow.check(decode.flow, decode.short_side)
    size = decode.videos_per_shard
    groups = [tuple(sources[begin : begin + size]) for begin in range(0, len(sources), size)]
    digest, reports = state.running("decode"), reports or folder.with_name(f".{folder.name}-reports")
    return [Task(folder, shard, root, group, decode, reports, digest) for shard, group in enumerate(groups)]


def decode_shard(task: Task) -> ShardReport:
    """Decode a shard's videos into its file, unless that is done under its key.

    A video that cannot be decoded is a row with its reason. The report is written last.
    """
    state.check(state.running("decode"), task.code, "decode")
    task.folder.mkdir(parents=True, exist_ok=True)
    with opened(task.decode) as decoder:
        report = _read_report(task)
        if report is not None and report.schema.metadata[DECODER_VERSION].decode() == decoder.version:
            return _summary(task, report, 0.0)
        began = time.perf_counter()
        for leftover in task.folder.glob(f".{task.path.stem}.*"):
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

        write_shard(task.path, videos(), ("jpeg", *flow.columns(task.decode.flow)))
        metadata = {SHA256: checked.sha256(task.path), DECODER_VERSION: decoder.version, FRAME_BYTES: str(size)}
        table = pa.Table.from_pylist(rows, schema=REPORT.with_metadata(metadata))
        state.put(task.report, packed(table), task.key)
        return _summary(task, table, time.perf_counter() - began)


def finish(folder: Path, tasks: Sequence[Task]) -> list[ShardReport]:
    """Merge the reports into index.arrow and failed.csv, and remove other files.

    Raises:
        UserError: A shard has not been decoded.
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
    failed = rows.filter(rows["reason"].is_valid()).select(["video", "path", "reason"]).sort_by("video")
    for path in folder.glob(".SHA256SUMS.*"):  # of a call that was killed; the new sums would list it
        path.unlink(missing_ok=True)
    with writing(folder / "failed.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, failed.column_names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(failed.to_pylist())
    write_index(folder, decoded, [table.schema.metadata[SHA256].decode() for table in tables])
    kept = {path for task in tasks for path in (task.path, task.report)}
    written = [*folder.glob("shard-*.arrow"), *folder.glob(".*.arrow.*"), *folder.glob(".failed.csv.*")]
    for path in (*written, *(path for task in tasks[:1] for path in task.reports.iterdir())):
        if path not in kept:
            path.unlink(missing_ok=True)
    return [_summary(task, table, 0.0) for task, table in zip(tasks, tables, strict=True)]


def _read_report(task: Task) -> pa.Table | None:
    """Return the report of a shard that is finished under its key and whole, or None."""
    if (content := state.get(task.report, task.key)) is None:
        return None
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    try:
        if checked.holds(task.path, table.schema.metadata[SHA256].decode()):
            return table
    except FileNotFoundError:
        return None
    print(f"{task.path} is damaged and counts as absent", file=sys.stderr, flush=True)
    return None


def _summary(task: Task, table: pa.Table, seconds: float) -> ShardReport:
    decoded = table["reason"].null_count
    frames = sum(count for count in table["frames"].to_pylist() if count is not None)
    size = int(table.schema.metadata[FRAME_BYTES])
    return ShardReport(task.shard, decoded, table.num_rows - decoded, frames, size, seconds)
