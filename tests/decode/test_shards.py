"""Decoding into shards repeats no finished work and leaves no wrong shard."""

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.schema import Decode
from pipeline.decode import shards
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.layout import read_table
from pipeline.decode.shards import Source, Task, decode_shard, finish, plan
from pipeline.decode.video import Video
from pipeline.errors import UserError
from tests.support.videos.stores import BAD, SETTINGS, content, decoded, sources


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


def test_a_complaint_about_whole_frames_is_a_column_of_the_index(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning about intact frames is no damage: the video is decoded to the same frames."""
    decode = shards.decode

    def complaining(path: Path, *arguments: Any) -> Video:
        actual = decode(path, *arguments)
        return replace(actual, warning="h264: mmco: unref short failure") if path.name == "2.mp4" else actual

    monkeypatch.setattr(shards, "decode", complaining)
    decoded(tmp_path, videos)
    table = read_table(tmp_path / "index.arrow")
    message = dict(zip(table["video"].to_pylist(), table["warning"].to_pylist(), strict=True))
    assert message.pop("run/2") == "h264: mmco: unref short failure"
    assert set(message.values()) == {""} and len(message) == 7
    assert len(FrameStore(tmp_path).jpegs("run/2", range(7))) == 7


def test_other_settings_other_videos_and_damage_are_decoded_again(videos: Path, tmp_path: Path) -> None:
    task = plan(tmp_path, videos, sources(videos), SETTINGS)[0]
    decode_shard(task)
    good = content(tmp_path)
    changes = [
        replace(task, decode=Decode(24, 90, "ffmpeg", 4, 0.5)),
        replace(task, decode=Decode(32, 50, "ffmpeg", 4, 0.5)),
        replace(task, sources=task.sources[:2]),
    ]
    for change in changes:
        assert decode_shard(change).seconds > 0
        assert decode_shard(task).seconds > 0
        assert content(tmp_path) == good
    # What does not change a frame does not decode it again.
    assert decode_shard(replace(task, decode=Decode(32, 90, "ffmpeg", 99, 0.9))).seconds == 0
    for path in (task.path, task.report):
        whole = path.read_bytes()
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        for damage in (b"", whole[: len(whole) // 2], flipped):
            path.write_bytes(damage)
            assert decode_shard(task).seconds > 0
            assert content(tmp_path) == good
        path.unlink()
        assert decode_shard(task).seconds > 0
        assert content(tmp_path) == good


def test_a_shard_whose_report_is_of_other_settings_is_not_believed(videos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-other")
    task = plan(tmp_path, videos, sources(videos), SETTINGS)[0]
    decode_shard(task)
    good = content(tmp_path)
    other = replace(task, folder=elsewhere, decode=Decode(24, 90, "ffmpeg", 4, 0.5))
    decode_shard(other)
    shutil.copy(other.path, task.path)
    assert decode_shard(task).seconds > 0
    assert content(tmp_path) == good


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_is_harmless(seed: int, videos: Path, decoded_store: Path, tmp_path: Path) -> None:
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
    assert content(store) == content(decoded_store)


def _decode_all(tasks: list[Task]) -> None:
    for task in tasks:
        decode_shard(task)
    finish(tasks[0].folder, tasks)


def test_finish_waits_for_every_shard_and_sweeps_what_belongs_to_none(
    videos: Path, decoded_store: Path, tmp_path: Path
) -> None:
    tasks = decoded(tmp_path / "store", videos)
    temporaries = (".shard-00001.arrow.x1y2", ".index.arrow.x1y2", ".failed.csv.x1y2", ".SHA256SUMS.x1y2")
    for name in ("shard-00003.arrow", "shard-00003.index.arrow", *temporaries):
        (tmp_path / "store" / name).write_bytes(b"left over")
    finish(tmp_path / "store", tasks)
    assert content(tmp_path / "store") == content(decoded_store)
    tasks[1].report.unlink()
    with pytest.raises(UserError, match=r"shard 1 .* has not been decoded"):
        finish(tmp_path / "store", tasks)


def test_a_shard_of_failures_alone_and_no_videos_at_all(videos: Path, tmp_path: Path) -> None:
    bad = [source for source in sources(videos) if source.video in BAD]
    tasks = plan(tmp_path, videos, bad, SETTINGS)
    assert decode_shard(tasks[0]).failed == 2
    finish(tmp_path, tasks)
    assert FrameStore(tmp_path).videos == {}
    finish(tmp_path, [])
    assert FrameStore(tmp_path).videos == {} and {path.name for path in tmp_path.iterdir()} == {
        "SHA256SUMS",
        "index.arrow",
        "failed.csv",
    }


def test_shards_may_travel_to_another_process() -> None:
    task = Task(Path("a"), 0, Path("b"), (Source("v", "v.mp4", "ff"),), SETTINGS, Path("r"), "code")
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301 (what was just pickled here)
    assert replace(task, folder=Path("c"), root=Path("d"), reports=Path("s")).key == task.key
