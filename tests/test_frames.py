"""The frame store gives back what was put in, and neither kills nor damage nor other settings leave a wrong one."""

import gc
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline import frames, shards
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from pipeline.frames import FrameStore, decode_jpeg, read_table, write_shard
from pipeline.schema import Decode
from pipeline.shards import Source, Task, decode_shard, finish, plan

ROOT = Path(__file__).parents[1]
SETTINGS = Decode(32, 90, "ffmpeg", 4, 0.5)
BAD = {"run/cut", "sit/text"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of 5 to 14 frames in two classes, two of them damaged."""
    root = tmp_path_factory.mktemp("videos")
    for n in range(8):
        path = root / ("run", "sit")[n % 2] / f"{n}.mp4"
        path.parent.mkdir(exist_ok=True)
        source = f"testsrc2=size={48 + 2 * n}x40:rate=10:duration={(5 + n) / 10}"
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", source, str(path)], check=True)
    (root / "run" / "cut.mp4").write_bytes((root / "run" / "0.mp4").read_bytes()[:-50])
    (root / "sit" / "text.mp4").write_text("no video")
    return root


def sources(root: Path) -> list[Source]:
    paths = sorted(root.glob("*/*.mp4"))
    names = [path.relative_to(root).as_posix() for path in paths]
    return [
        Source(name.removesuffix(".mp4"), name, sha256(path.read_bytes()).hexdigest())
        for name, path in zip(names, paths, strict=True)
    ]


def decoded(folder: Path, root: Path, settings: Decode = SETTINGS) -> list[Task]:
    tasks = plan(folder, root, sources(root), settings)
    for task in tasks:
        decode_shard(task)
    finish(folder, tasks)
    return tasks


@pytest.fixture(scope="module")
def folder(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    decoded(folder, videos)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_store_holds_every_frame_of_every_good_video(folder: Path, videos: Path) -> None:
    store = FrameStore(folder)
    assert set(store.videos) == {source.video for source in sources(videos)} - BAD
    for name, entry in store.videos.items():
        number = int(name.split("/")[1])
        assert entry.frames == 5 + number and entry.fps == 10
        views = store.jpegs(name, range(entry.frames))
        assert all(decode_jpeg(view).shape == (entry.height, entry.width, 3) for view in views)
        np.testing.assert_allclose(store.timestamps(name), np.arange(entry.frames) / 10)
        later = store.jpegs(name, [2, 2, 0])
        assert [bytes(view) for view in later] == [bytes(views[2]), bytes(views[2]), bytes(views[0])]


def test_the_index_says_where_a_video_comes_from(folder: Path, videos: Path) -> None:
    table = read_table(folder / "index.arrow")
    assert table.schema.equals(frames.INDEX)
    known = {source.video: source.sha256 for source in sources(videos)}
    for row in table.to_pylist():
        assert row["sha256"] == known[row["video"]]
        assert (row["decoder"], row["decoder_version"]) == ("ffmpeg", ffmpeg_exe()[1])
    assert table["shard"].to_pylist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert table["batch"].to_pylist() == [0, 1, 2, 3, 0, 1, 2, 0]


def test_failed_videos_are_listed_with_their_reasons(folder: Path) -> None:
    lines = (folder / "failed.csv").read_text().splitlines()
    assert lines[0] == "video,path,reason"
    assert [line.split(",")[:2] for line in lines[1:]] == [["run/cut", "run/cut.mp4"], ["sit/text", "sit/text.mp4"]]
    assert "the file is cut" in lines[1]


def test_views_are_no_copies_and_outlive_the_store(folder: Path) -> None:
    store = FrameStore(folder)
    view = store.jpegs("run/0", [0])[0]
    assert view.dtype == np.uint8 and not view.flags.owndata and not view.flags.writeable
    before = bytes(view)
    del store
    gc.collect()
    assert bytes(view) == before


def test_a_store_travels_by_pickle_and_by_fork(folder: Path) -> None:
    store = FrameStore(folder)
    wanted = [bytes(view) for view in store.jpegs("sit/3", range(8))]
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 (what was just pickled here)
    assert again.videos == store.videos and [bytes(view) for view in again.jpegs("sit/3", range(8))] == wanted
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply_async(_read, (store, "sit/3")).get(30) == wanted


def _read(store: FrameStore, video: str) -> list[bytes]:
    return [bytes(view) for view in store.jpegs(video, range(store.videos[video].frames))]


def test_what_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    store = FrameStore(folder)
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
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "_OPEN_SHARDS", 2)
    store = FrameStore(folder)
    wanted = {name: _read(store, name) for name in store.videos}
    held = _descriptors()
    for name in list(store.videos) * 3:
        assert _read(store, name) == wanted[name]
    assert _descriptors() <= held + 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_that_reads_frames_imports_polars_or_a_decoder() -> None:
    code = "import sys, pipeline.frames; sys.exit(any(name in sys.modules for name in ('polars', 'ffmpeg', 'decord')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_finished_shard_is_not_decoded_again(videos: Path, tmp_path: Path) -> None:
    first = plan(tmp_path, videos, sources(videos), SETTINGS)
    reports = [decode_shard(task) for task in first]
    assert [(report.videos, report.failed) for report in reports] == [(4, 0), (3, 1), (1, 1)]
    before = content(tmp_path)
    shutil.move(videos / "run", tmp_path / "away")  # there is nothing left to decode from
    try:
        again = [decode_shard(task) for task in first]
    finally:
        shutil.move(tmp_path / "away", videos / "run")
    assert content(tmp_path) == before
    assert all(report.seconds == 0 for report in again)
    assert [(r.videos, r.failed, r.frames, r.bytes) for r in again] == [
        (r.videos, r.failed, r.frames, r.bytes) for r in reports
    ]


def test_other_settings_other_videos_and_damage_are_decoded_again(videos: Path, tmp_path: Path) -> None:
    task = plan(tmp_path, videos, sources(videos), SETTINGS)[0]
    decode_shard(task)
    good = content(tmp_path)
    changes = [
        Task(tmp_path, 0, videos, task.sources, Decode(24, 90, "ffmpeg", 4, 0.5)),
        Task(tmp_path, 0, videos, task.sources, Decode(32, 50, "ffmpeg", 4, 0.5)),
        Task(tmp_path, 0, videos, task.sources[:2], SETTINGS),
    ]
    for change in changes:
        assert decode_shard(change).seconds > 0
        assert decode_shard(task).seconds > 0
        assert content(tmp_path) == good
    # What does not change a frame does not decode it again.
    assert decode_shard(Task(tmp_path, 0, videos, task.sources, Decode(32, 90, "ffmpeg", 99, 0.9))).seconds == 0
    for name in good:
        for damage in (b"", good[name][: len(good[name]) // 2]):
            (tmp_path / name).write_bytes(damage)
            assert decode_shard(task).seconds > 0
            assert content(tmp_path) == good
        (tmp_path / name).unlink()
        assert decode_shard(task).seconds > 0
        assert content(tmp_path) == good


def test_a_shard_whose_report_is_of_other_settings_is_not_believed(videos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-other")
    task = plan(tmp_path, videos, sources(videos), SETTINGS)[0]
    decode_shard(task)
    good = content(tmp_path)
    other = Task(elsewhere, 0, videos, task.sources, Decode(24, 90, "ffmpeg", 4, 0.5))
    decode_shard(other)
    shutil.copy(other.path, task.path)
    assert decode_shard(task).seconds > 0
    assert content(tmp_path) == good


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_is_harmless(seed: int, videos: Path, folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    tasks = plan(store, videos, sources(videos), SETTINGS)
    rng = random.Random(seed)
    for _ in range(6):
        child = multiprocessing.get_context("fork").Process(target=_decode_all, args=(tasks,))
        child.start()
        time.sleep(rng.uniform(0, 0.25))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    _decode_all(tasks)
    assert content(store) == content(folder)


def _decode_all(tasks: list[Task]) -> None:
    for task in tasks:
        decode_shard(task)
    finish(tasks[0].folder, tasks)


def test_finish_waits_for_every_shard_and_sweeps_what_belongs_to_none(
    videos: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "store")
    tasks = plan(tmp_path / "store", videos, sources(videos), SETTINGS)
    for name in ("shard-00003.arrow", "shard-00003.index.arrow", ".shard-00001.arrow.x1y2", ".index.arrow.x1y2"):
        (tmp_path / "store" / name).write_bytes(b"left over")
    finish(tmp_path / "store", tasks)
    assert content(tmp_path / "store") == content(folder)
    tasks[1].report_path.unlink()
    with pytest.raises(UserError, match=r"shard 1 .* has not been decoded"):
        finish(tmp_path / "store", tasks)


def test_an_index_does_not_vouch_for_newer_shards(videos: Path, folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(folder, store)
    decode_shard(plan(store, videos, sources(videos), Decode(24, 90, "ffmpeg", 4, 0.5))[0])
    reader = FrameStore(store)
    with pytest.raises(UserError, match="newer than the index"):
        reader.jpegs("run/0", [0])
    (store / "shard-00001.arrow").write_bytes(b"")
    with pytest.raises(UserError, match="missing or damaged"):
        reader.jpegs(next(name for name, entry in reader.videos.items() if entry.shard == 1), [0])


def test_a_shard_of_failures_alone_and_no_videos_at_all(videos: Path, tmp_path: Path) -> None:
    bad = [source for source in sources(videos) if source.video in BAD]
    tasks = plan(tmp_path, videos, bad, SETTINGS)
    assert decode_shard(tasks[0]).failed == 2
    finish(tmp_path, tasks)
    assert FrameStore(tmp_path).videos == {}
    finish(tmp_path, [])
    assert FrameStore(tmp_path).videos == {} and {path.name for path in tmp_path.iterdir()} == {
        "index.arrow",
        "failed.csv",
    }


def test_videos_are_written_as_they_come(tmp_path: Path) -> None:
    written = []

    def stream() -> Iterator[dict[str, list[bytes]]]:
        for _ in range(50):
            written.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
            yield {"jpeg": [bytes(100_000) for _ in range(10)]}

    write_shard(tmp_path / "shard-00000.arrow", stream(), "print")
    assert written[-1] > 45 * 1_000_000


@pytest.mark.parametrize("settings", [(0, 90, 4), (32, 0, 4), (32, 101, 4), (32, 90, 0)])
def test_settings_that_make_no_sense_are_said_before_anything_starts(settings: tuple[int, int, int]) -> None:
    short_side, quality, per_shard = settings
    with pytest.raises(UserError, match="quality is 1 to 100"):
        plan(Path("a"), Path("b"), [], Decode(short_side, quality, "ffmpeg", per_shard, 0.0))


def test_jpegs_decode_accurately_and_damage_is_an_error() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    jpeg = simplejpeg.encode_jpeg(ramp, 95)
    assert np.abs(decode_jpeg(np.frombuffer(jpeg, np.uint8)).astype(int) - ramp).max() <= 3
    with pytest.raises(ValueError):
        decode_jpeg(jpeg[: len(jpeg) // 2])


def test_shards_may_travel_to_another_process() -> None:
    task = Task(Path("a"), 0, Path("b"), (Source("v", "v.mp4", "ff"),), SETTINGS)
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301 (what was just pickled here)
    assert shards.Task(Path("c"), 0, Path("d"), task.sources, SETTINGS).fingerprint == task.fingerprint
