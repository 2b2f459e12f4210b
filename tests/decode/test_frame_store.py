"""A frame store returns what was stored, despite kills, damage and changed settings."""

import gc
import hashlib
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline.config.schema import Decode
from pipeline.decode import frame_store
from pipeline.decode.frame_store import FrameStore, decode_jpeg
from pipeline.decode.layout import read_table
from pipeline.decode.packing import INDEX, write_shard
from pipeline.decode.shards import decode_shard, plan
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from tests.support.videos.stores import BAD, sources

ROOT = Path(__file__).parents[2]


def test_a_store_holds_every_frame_of_every_good_video(decoded_store: Path, videos: Path) -> None:
    store = FrameStore(decoded_store)
    assert set(store.videos) == {source.video for source in sources(videos)} - BAD
    for name, entry in store.videos.items():
        number = int(name.split("/")[1])
        assert entry.frames == 5 + number and entry.fps == 10
        views = store.jpegs(name, range(entry.frames))
        assert all(decode_jpeg(view).shape == (entry.height, entry.width, 3) for view in views)
        np.testing.assert_allclose(store.timestamps(name), np.arange(entry.frames) / 10)
        later = store.jpegs(name, [2, 2, 0])
        assert [bytes(view) for view in later] == [bytes(views[2]), bytes(views[2]), bytes(views[0])]


def test_the_index_says_where_a_video_comes_from(decoded_store: Path, videos: Path) -> None:
    table = read_table(decoded_store / "index.arrow")
    assert table.schema.equals(INDEX)
    known = {source.video: source.sha256 for source in sources(videos)}
    for row in table.to_pylist():
        assert row["sha256"] == known[row["video"]]
        assert (row["decoder"], row["decoder_version"]) == ("ffmpeg", ffmpeg_exe()[1])
    assert table["shard"].to_pylist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert table["batch"].to_pylist() == [0, 1, 2, 3, 0, 1, 2, 0]


def test_the_index_has_each_shards_sha256_under_the_name_that_stores_on_disk_have(decoded_store: Path) -> None:
    shards = sorted(decoded_store.glob("shard-*.arrow"))
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in shards]
    assert shards and json.loads(read_table(decoded_store / "index.arrow").schema.metadata[b"shards"]) == expected


def test_failed_videos_are_listed_with_their_reasons(decoded_store: Path) -> None:
    lines = (decoded_store / "failed.csv").read_text().splitlines()
    assert lines[0] == "video,path,reason"
    assert [line.split(",")[:2] for line in lines[1:]] == [["run/cut", "run/cut.mp4"], ["sit/text", "sit/text.mp4"]]
    assert "the file is cut" in lines[1]


def test_views_are_no_copies_and_outlive_the_store(decoded_store: Path) -> None:
    store = FrameStore(decoded_store)
    view = store.jpegs("run/0", [0])[0]
    assert view.dtype == np.uint8 and not view.flags.owndata and not view.flags.writeable
    before = bytes(view)
    del store
    gc.collect()
    assert bytes(view) == before


def test_a_store_travels_by_pickle_and_by_fork(decoded_store: Path) -> None:
    store = FrameStore(decoded_store)
    expected = [bytes(view) for view in store.jpegs("sit/3", range(8))]
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 (what was just pickled here)
    assert again.videos == store.videos and [bytes(view) for view in again.jpegs("sit/3", range(8))] == expected
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply_async(_read, (store, "sit/3")).get(30) == expected


def _read(store: FrameStore, video: str) -> list[bytes]:
    return [bytes(view) for view in store.jpegs(video, range(store.videos[video].frames))]


def test_missing_files_are_named(decoded_store: Path, tmp_path: Path) -> None:
    store = FrameStore(decoded_store)
    with pytest.raises(UserError, match=r"'run/cut'.*could not be decoded \(the file is cut"):
        store.jpegs("run/cut", [0])
    with pytest.raises(UserError, match=r"'run/99'.*not among its 8 videos"):
        store.timestamps("run/99")
    for index in (-1, 5):
        with pytest.raises(IndexError, match="frames 0 to 4"):
            store.jpegs("run/0", [index])
    with pytest.raises(UserError, match="decode stage has not finished"):
        FrameStore(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files can only be counted in /proc")
def test_many_shards_do_not_use_up_file_descriptors(
    decoded_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_store, "OPEN_SHARDS", 2)
    store = FrameStore(decoded_store)
    expected = {name: _read(store, name) for name in store.videos}
    held = _descriptors()
    for name in list(store.videos) * 3:
        assert _read(store, name) == expected[name]
    assert _descriptors() <= held + 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_that_reads_frames_imports_polars_or_a_decoder() -> None:
    code = "import sys, pipeline.decode.frame_store; sys.exit(any(name in sys.modules for name in ('polars', 'ffmpeg', 'decord')))"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_index_does_not_vouch_for_newer_shards(videos: Path, decoded_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(decoded_store, store)
    decode_shard(plan(store, videos, sources(videos), Decode(24, 90, "ffmpeg", 4, 0.5))[0])
    reader = FrameStore(store)
    with pytest.raises(UserError, match=r"does not have the sha256 that index\.arrow lists"):
        reader.jpegs("run/0", [0])
    (store / "shard-00001.arrow").unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        reader.jpegs(next(name for name, entry in reader.videos.items() if entry.shard == 1), [0])


def test_videos_are_written_as_they_come(tmp_path: Path) -> None:
    written = []

    def stream() -> Iterator[dict[str, list[bytes]]]:
        for _ in range(50):
            written.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
            yield {"jpeg": [bytes(100_000) for _ in range(10)]}

    write_shard(tmp_path / "shard-00000.arrow", stream())
    assert written[-1] > 45 * 1_000_000


def test_jpegs_decode_accurately_and_damage_is_an_error() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    jpeg = simplejpeg.encode_jpeg(ramp, 95)
    assert np.abs(decode_jpeg(np.frombuffer(jpeg, np.uint8)).astype(int) - ramp).max() <= 3
    with pytest.raises(ValueError):
        decode_jpeg(jpeg[: len(jpeg) // 2])
