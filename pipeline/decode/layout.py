"""The files of a frame store: shards and an index, Arrow IPC, read by memory map."""

from pathlib import Path

import pyarrow as pa

SHARDS = b"shards"  # in the index's metadata: the sha256 of each shard
_OPTIONS = pa.ipc.IpcReadOptions(use_threads=False)


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.arrow"


def open_arrow(path: Path) -> pa.ipc.RecordBatchFileReader:
    """Map an Arrow IPC file; OSError if it is absent, pa.ArrowInvalid if damaged."""
    return pa.ipc.open_file(pa.memory_map(str(path)), options=_OPTIONS)


def read_table(path: Path) -> pa.Table:
    return open_arrow(path).read_all()
