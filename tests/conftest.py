"""What several test files start from."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import simplejpeg
import torch

from pipeline.frames import INDEX, SHARDS, write_shard, write_table

sys.path.insert(0, str(Path(__file__).parent))  # tests share what they invent: invented.py
torch.set_num_threads(1)  # the machine's cores are shared; one thread is also what a training task has


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with 12 training and 5 test videos of 6 frames, 40x36; one test video was not decoded."""
    draws = np.random.default_rng(0)
    names = [f"video-{n:02d}" for n in range(17)]
    frames = tmp_path / "frames" / "tiny"
    frames.mkdir(parents=True)
    jpegs = [[simplejpeg.encode_jpeg(draws.integers(0, 255, (36, 40, 3), np.uint8)) for _ in range(6)] for _ in names]
    write_shard(frames / "shard-00000.arrow", [{"jpeg": video} for video in jpegs[:-1]], "mark")
    rows = [
        {
            **{"video": name, "shard": 0, "batch": batch, "width": 40, "height": 36, "fps": 12.0, "frames": 6},
            **{"timestamps": [0.0] * 6, "sha256": "", "decoder": "", "decoder_version": ""},
        }
        for batch, name in enumerate(names[:-1])
    ]
    write_table(frames / "index.arrow", pa.Table.from_pylist(rows, INDEX.with_metadata({SHARDS: '["mark"]'})))
    splits = tmp_path / "splits" / "tiny"
    splits.mkdir(parents=True)
    labels = pa.array([[n % 3] for n in range(17)], pa.list_(pa.int32()))
    parts = ["train"] * 12 + ["test"] * 5
    pyarrow.parquet.write_table(pa.table({"video": names, "part": parts, "labels": labels}), splits / "split-1.parquet")
    (splits / "classes.json").write_text('["a", "b", "c"]')
    (splits / "mirrored.json").write_text("[0, 1, 2]")
    return tmp_path


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a video of a kind, once."""
    from encoded import KINDS, make

    folder = tmp_path_factory.mktemp("videos")

    def made(kind: str) -> Path:
        name, size, seconds, options, *_ = KINDS[kind]
        path = folder / name
        return path if path.exists() else make(path, size, seconds, options)

    return made
