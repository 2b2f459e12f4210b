"""Reader of a frame store: Arrow IPC shards of JPEG frames, and an index.

A video is a record batch. A shard has a column "jpeg", and a column of grayscale JPEGs for each plane of flow.
"""

import csv
import json
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import simplejpeg

from pipeline.decode.layout import SHARDS, open_arrow, read_table, shard_path
from pipeline.digest.checked import holds
from pipeline.digest.files import SUMS, sums
from pipeline.direction import source
from pipeline.errors import UserError

OPEN_SHARDS = 256  # memory maps held at a time, each of which holds a file descriptor


class Entry(NamedTuple):
    """Place and size of a video's frames."""

    shard: int
    batch: int
    width: int  # pixels
    height: int
    fps: float
    frames: int


class FrameStore:
    """A folder of shards, each checked against the index and mapped when first used.

    Threads may share it. A pickled store opens its files where it lands. Except for `videos`, a video may have either
    name of pipeline/direction.py; both have the same frames.
    """

    videos: dict[str, Entry]

    def __init__(self, folder: Path) -> None:
        """Open the store; UserError if `folder` holds no finished one."""
        self.folder = folder
        index = folder / "index.arrow"
        if not index.exists() or not (folder / SUMS).exists():
            raise UserError(f"{folder} holds no frames: the decode stage has not finished there")
        if not holds(index, sums(folder).get(index.name, "")):
            raise UserError(f"{index} does not have the sha256 that {SUMS} lists; {self._remedy}")
        table = read_table(index)
        columns = [table[name].to_pylist() for name in Entry._fields]
        self.videos = dict(zip(table["video"].to_pylist(), map(Entry._make, zip(*columns, strict=True)), strict=True))
        self._rows = dict(zip(self.videos, range(len(self.videos)), strict=True))
        self._table = table
        self._sums = json.loads(table.schema.metadata[SHARDS])
        self._open: dict[int, pa.ipc.RecordBatchFileReader] = {}
        self._lock = threading.Lock()  # of _open: threads read clips ahead

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __contains__(self, video: str) -> bool:
        return source(video) in self.videos

    def jpegs(self, video: str, indices: Iterable[int], column: str = "jpeg") -> list[np.ndarray]:
        """Return frames of a video as read-only uint8 views of the mapped file.

        Args:
            video: its name.
            indices: of the frames.
            column: "jpeg", or a plane of pipeline/decode/flow.py's.

        Raises:
            UserError: The store lacks the video or column.
            IndexError: A frame is outside of 0 to frames - 1.
        """
        entry = self.entry(video)
        with self._lock:
            reader = self._reader(entry.shard)
            batch = reader.get_batch(entry.batch)
        if (place := batch.schema.get_field_index(column)) < 0:
            columns = ", ".join(batch.schema.names)
            raise UserError(f"{self.folder} holds no {column!r}, only {columns}; run the decode stage again")
        stored = batch.column(place)
        _, offsets, data = stored.buffers()
        ends = np.frombuffer(offsets, np.int64)
        content = np.frombuffer(data, np.uint8)
        views = []
        for index in indices:
            if not 0 <= index < entry.frames:
                raise IndexError(f"{video} has frames 0 to {entry.frames - 1}, not {index}")
            views.append(content[ends[index] : ends[index + 1]])
        return views

    def entry(self, video: str) -> Entry:
        """Return a video's entry; UserError gives the reason that a video is absent."""
        try:
            return self.videos[source(video)]
        except KeyError:
            raise UserError(f"no frames of {video!r} in {self.folder}: {self._why_absent(video)}") from None

    def timestamps(self, video: str) -> list[float]:
        """Return the time of each frame, in s."""
        self.entry(video)
        return self._table["timestamps"][self._rows[source(video)]].as_py()

    def _reader(self, shard: int) -> pa.ipc.RecordBatchFileReader:
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                del self._open[next(iter(self._open))]  # views handed out keep their map alive
            path = shard_path(self.folder, shard)
            try:
                if not holds(path, self._sums[shard]):
                    raise UserError(f"{path} does not have the sha256 that index.arrow lists; {self._remedy}")
                self._open[shard] = open_arrow(path)
            except (OSError, pa.ArrowInvalid):
                raise UserError(f"{path} is missing or damaged; {self._remedy}") from None
        return self._open[shard]

    @property
    def _remedy(self) -> str:
        return f"`dvc repro -f decode@{self.folder.name}` makes it again"

    def _why_absent(self, video: str) -> str:
        failed = self.folder / "failed.csv"
        if failed.is_file():
            with failed.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
                for row in csv.DictReader(file):
                    if row.get("video") == source(video):
                        return f"it could not be decoded ({row.get('reason')})"
        return f"it is not among its {len(self.videos)} videos"


def decode_jpeg(view: np.ndarray | bytes) -> np.ndarray:
    """Decode a frame to (H, W, 3) uint8 RGB; ValueError for a damaged JPEG.

    It uses libjpeg's accurate transform and upsampling: the fast ones save a tenth of the time and add 0.3 of 255 to
    the error.
    """
    return simplejpeg.decode_jpeg(view)
