"""Fixtures of several test files: data, videos, frame stores, a bucket."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import simplejpeg
import torch

from pipeline.decode.packing import INDEX, write_index, write_shard
from pipeline.digest.files import sha256, write_sums
from pipeline.storage.remote import Remote, place, remove

ROOT = Path(__file__).parents[1]
CACHE = tempfile.TemporaryDirectory(prefix="actionbench-tests-")  # of files known to be whole; goes with the process
os.environ["ACTIONBENCH_CACHE"] = CACHE.name
torch.set_num_threads(1)  # the machine's cores are shared; one thread is also what a training task has


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with 12 training and 5 test videos of 6 frames, 40x36; one test video is not decoded."""
    draws = np.random.default_rng(0)
    names = [f"video-{n:02d}" for n in range(17)]
    frames = tmp_path / "frames" / "tiny"
    frames.mkdir(parents=True)
    jpegs = [[simplejpeg.encode_jpeg(draws.integers(0, 255, (36, 40, 3), np.uint8)) for _ in range(6)] for _ in names]
    write_shard(frames / "shard-00000.arrow", [{"jpeg": video} for video in jpegs[:-1]])
    rows = [
        {
            **{"video": name, "shard": 0, "batch": batch, "width": 40, "height": 36, "fps": 12.0, "frames": 6},
            **{"timestamps": [0.0] * 6, "sha256": "", "decoder": "", "decoder_version": ""},
        }
        for batch, name in enumerate(names[:-1])
    ]
    write_index(frames, pa.Table.from_pylist(rows, INDEX), [sha256(frames / "shard-00000.arrow")])
    splits = tmp_path / "splits" / "tiny"
    splits.mkdir(parents=True)
    labels = pa.array([[n % 3] for n in range(17)], pa.list_(pa.int32()))
    parts = ["train"] * 12 + ["test"] * 5
    pyarrow.parquet.write_table(pa.table({"video": names, "part": parts, "labels": labels}), splits / "split-1.parquet")
    (splits / "classes.json").write_text('["a", "b", "c"]')
    (splits / "mirrored.json").write_text("[0, 1, 2]")
    write_sums(splits)
    return tmp_path


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a video of a kind, once."""
    from tests.support.videos.encoded import KINDS, make

    folder = tmp_path_factory.mktemp("videos")

    def made(kind: str) -> Path:
        name, size, seconds, options, *_ = KINDS[kind]
        path = folder / name
        return path if path.exists() else make(path, size, seconds, options)

    return made


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ten videos of 5 to 14 frames in two classes, two of them damaged."""
    from pipeline.executable import ffmpeg_exe

    root = tmp_path_factory.mktemp("videos")
    for n in range(8):
        path = root / ("run", "sit")[n % 2] / f"{n}.mp4"
        path.parent.mkdir(exist_ok=True)
        source = f"testsrc2=size={48 + 2 * n}x40:rate=10:duration={(5 + n) / 10}"
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", source, str(path)], check=True)
    (root / "run" / "cut.mp4").write_bytes((root / "run" / "0.mp4").read_bytes()[:-50])
    (root / "sit" / "text.mp4").write_text("no video")
    return root


@pytest.fixture(scope="session")
def decoded_store(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a frame store of the videos."""
    from tests.support.videos.stores import decoded

    folder = tmp_path_factory.mktemp("store")
    decoded(folder, videos)
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server with an empty bucket "there", named in the environment with its keys and a cache folder."""
    import boto3
    from moto.server import ThreadedMotoServer

    from tests.support.machines.bucket import SECRET

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("ACTIONBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", str(ROOT))
        boto3.client("s3").create_bucket(Bucket="there")
        yield url
    server.stop()


@pytest.fixture
def store(endpoint: str) -> Remote:
    """Return an empty S3 storage."""
    from tests.support.machines.bucket import S3

    found = place(S3.storage)
    assert isinstance(found, Remote)
    remove(found)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests need real data that is not available."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if "ACTIONBENCH_TEST_DATA" in str(report.longrepr)
    ]
    if skipped:
        files = sorted({report.nodeid.partition("::")[0] for report in skipped})
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped for want of ACTIONBENCH_TEST_DATA: {', '.join(files)}"
        )
