"""Writer of a frame store: shards of JPEG frames, and an index over them.

Equal frames give equal bytes: no file names the code that wrote it, or the time.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.decode.layout import SHARDS, shard_path
from pipeline.digest.files import SUMS, sha256
from pipeline.storage.atomic import write, writing

INDEX = pa.schema(
    [
        ("video", pa.string()),
        ("shard", pa.int32()),
        ("batch", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("frames", pa.int32()),
        ("timestamps", pa.list_(pa.float64())),  # s
        ("sha256", pa.string()),
        ("decoder", pa.string()),
        ("decoder_version", pa.string()),
        ("warning", pa.string()),  # a decoder's complaint about whole frames, or ""
    ]
)


def write_shard(
    path: Path, videos: Iterable[Mapping[str, Sequence[bytes]]], columns: Sequence[str] = ("jpeg",)
) -> None:
    """Write a record batch for each video, as it comes: memory holds one. Atomic."""
    schema = pa.schema([pa.field(name, pa.large_binary(), nullable=False) for name in columns])
    with writing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for video in videos:
            arrays = [pa.array(video[name], pa.large_binary()) for name in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def write_index(folder: Path, table: pa.Table, shards: Sequence[str]) -> None:
    """Write index.arrow with each shard's sha256, then SHA256SUMS of all files."""
    index, failed = folder / "index.arrow", folder / "failed.csv"
    write_table(index, table.replace_schema_metadata({SHARDS: json.dumps(list(shards))}))
    listed = {path.name: sha256(path) for path in (failed, index) if path.exists()}
    listed |= {shard_path(folder, shard).name: digest for shard, digest in enumerate(shards)}
    write(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in listed.items()))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as an Arrow IPC file. Atomic."""
    with writing(path) as temporary:
        temporary.write_bytes(packed(table))


def packed(table: pa.Table) -> bytes:
    """Return a small table as the bytes of an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
