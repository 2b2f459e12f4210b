"""Both decoders return every frame of many kinds of videos."""

import csv
import os
import signal
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline.decode import decoders
from pipeline.decode.integrity import Damaged
from pipeline.decode.video import decode, opened
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from tests.support.real_data import TEST_DATA
from tests.support.videos import against_ffmpeg
from tests.support.videos.encoded import H264, KINDS, XVID, make, settings

SHARED = TEST_DATA
CLIPS, JHMDB = SHARED / "data" / "clips", SHARED / "data" / "jhmdb"
needs_clips = pytest.mark.skipif(
    not CLIPS.is_dir(), reason="the real clips of ACTIONBENCH_TEST_DATA/data/clips are not here"
)
needs_jhmdb = pytest.mark.skipif(not JHMDB.is_dir(), reason="J-HMDB, ACTIONBENCH_TEST_DATA/data/jhmdb, is not here")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_whole(kind: str, video: Callable[[str], Path]) -> None:
    path, (*_, size, frames) = video(kind), KINDS[kind]
    with opened(settings()) as decoder:
        actual = decode(path, decoder)
    assert (actual.width, actual.height) == size
    assert len(actual.jpegs) == len(actual.timestamps) == frames
    assert actual.fps == pytest.approx(25)
    np.testing.assert_allclose(np.diff(actual.timestamps), 1 / 25, atol=1e-3)
    assert {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in actual.jpegs} == {size[::-1]}
    assert against_ffmpeg.error(path, actual.jpegs, *size) < 3


def test_pixels_are_those_of_the_source_where_nothing_is_scaled(tmp_path: Path) -> None:
    flat = make(
        tmp_path / "flat.mkv", "96x64", 0.2, ["-vf", "drawbox=c=0x4080c0:t=fill", "-c:v", "ffv1", "-pix_fmt", "yuv444p"]
    )
    with opened(settings(short_side=64)) as decoder:
        actual = decode(flat, decoder)
    pixels = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in actual.jpegs]).astype(int)
    assert np.abs(pixels - (0x40, 0x80, 0xC0)).max() <= 3


def test_an_odd_short_side_is_kept_and_the_other_made_even(video: Callable[[str], Path]) -> None:
    with opened(settings(short_side=31)) as decoder:
        actual = decode(video("odd size"), decoder)
    assert (actual.width, actual.height) == (42, 31)
    assert {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in actual.jpegs} == {(31, 42)}
    assert against_ffmpeg.error(video("odd size"), actual.jpegs, 42, 31) < 4


def test_a_rotated_video_is_turned_upright(video: Callable[[str], Path], tmp_path: Path) -> None:
    content = bytearray(video("h264").read_bytes())
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    at = content.index(matrix, content.index(b"tkhd"))
    content[at : at + len(matrix)] = clockwise
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    with opened(settings()) as decoder:
        plain, actual = decode(video("h264"), decoder), decode(turned, decoder)
    assert (actual.width, actual.height) == (96, 128)
    first, upright = simplejpeg.decode_jpeg(plain.jpegs[0]), simplejpeg.decode_jpeg(actual.jpegs[0])
    assert np.abs(np.rot90(first, -1).astype(int) - upright).mean() < 6


def test_odd_times_are_kept_and_no_frame_is_dropped_or_doubled(tmp_path: Path) -> None:
    gaps = make(tmp_path / "vfr.mkv", "160x120", 1, ["-vf", "select='not(eq(mod(n,5),3))'", "-fps_mode", "vfr", *H264])
    with opened(settings()) as decoder:
        actual = decode(gaps, decoder)
    expected = [n / 25 for n in range(25) if n % 5 != 3]
    np.testing.assert_allclose(actual.timestamps, expected, atol=1e-3)


def test_times_that_run_backwards_are_no_damage(tmp_path: Path) -> None:
    odd = make(tmp_path / "xvid.mp4", "160x120", 1, XVID)  # ffmpeg's muxer gives the last frame an earlier time
    with opened(settings()) as decoder:
        actual = decode(odd, decoder)
    assert len(actual.jpegs) == 23 and min(np.diff(actual.timestamps)) < 0
    assert against_ffmpeg.error(odd, actual.jpegs, 128, 96) < 3


def test_a_decoder_can_be_used_again_and_says_what_it_is(video: Callable[[str], Path]) -> None:
    with opened(settings()) as decoder:
        first, second = decode(video("h264"), decoder), decode(video("h264"), decoder)
    assert first == second
    assert (first.decoder, first.decoder_version) == ("ffmpeg", ffmpeg_exe()[1])


@pytest.mark.parametrize("kind", ["h264", "xvid with B-frames", "vp9", "odd size"])
def test_decord_agrees_with_ffmpeg(kind: str, video: Callable[[str], Path]) -> None:
    with opened(settings("decord")) as decoder:
        actual = decode(video(kind), decoder)
    with opened(settings()) as decoder:
        other = decode(video(kind), decoder)
    assert (actual.width, actual.height, len(actual.jpegs)) == (other.width, other.height, len(other.jpegs))
    assert actual.decoder == "decord"
    assert against_ffmpeg.error(video(kind), actual.jpegs, actual.width, actual.height) < 8


def test_decords_padded_rows_are_read_right(tmp_path: Path) -> None:
    """Rows of 72 pixels, which decord pads to 288 bytes, are not taken for four channels."""
    path = make(tmp_path / "square.mp4", "96x96", 0.5, ["-c:v", "libx264"])
    with opened(settings("decord", short_side=72)) as decoder:
        actual = decode(path, decoder)
    assert (actual.width, actual.height) == (72, 72)
    assert against_ffmpeg.error(path, actual.jpegs, 72, 72) < 8


def test_decords_death_and_time_out_cost_one_video_each(video: Callable[[str], Path]) -> None:
    decoder = decoders.Decord(96, 90, timeout=60.0)
    try:
        good = decoder.frames(video("h264"))
        os.kill(decoder._process.pid, signal.SIGSEGV)
        with pytest.raises(Damaged, match="decord crashed"):
            decoder.frames(video("h264"))
        assert decoder.frames(video("h264")) == good
        os.kill(decoder._process.pid, signal.SIGKILL)  # as the system does where memory is short
        with pytest.raises(UserError, match=r"decord was killed while it decoded .*; free memory"):
            decoder.frames(video("h264"))
        assert decoder.frames(video("h264")) == good
        decoder.timeout = 0.5
        os.kill(decoder._process.pid, signal.SIGSTOP)
        with pytest.raises(Damaged, match="took too long"):
            decoder.frames(video("h264"))
        decoder.timeout = 60.0
        assert decoder.frames(video("h264")) == good
    finally:
        decoder.close()


@needs_clips
def test_real_clips_have_the_frames_of_their_manifest() -> None:
    with (CLIPS / "MANIFEST.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with opened(settings(short_side=240)) as decoder:
        for row in rows:
            actual = decode(CLIPS / row["path"], decoder)
            assert len(actual.jpegs) == int(row["n_frames"]), row["path"]
            assert actual.fps == pytest.approx(float(row["fps"]), abs=0.02), row["path"]
            assert against_ffmpeg.error(CLIPS / row["path"], actual.jpegs, actual.width, actual.height) < 4, row["path"]


@needs_jhmdb
@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.slow)])
def test_jhmdb_is_good_though_its_headers_count_too_many_frames(every: int) -> None:
    lists = SHARED / "data" / "annotations" / "jhmdb" / "lists"
    rows = [
        line.split("\t") for part in ("train1", "test1") for line in (lists / f"{part}.tsv").read_text().splitlines()
    ]
    assert len(rows) == 928

    def frames(row: list[str]) -> int:
        with opened(settings()) as decoder:
            return len(decode(JHMDB / row[0], decoder).jpegs)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(frames, rows[::every])) == [int(row[2]) for row in rows[::every]]
