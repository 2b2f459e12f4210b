"""Unusual but intact videos are accepted; others are refused with a reason."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline.decode.ffmpeg import FFmpegRun, complaint
from pipeline.decode.integrity import Damaged
from pipeline.decode.video import Video, decode, opened
from pipeline.errors import UserError
from pipeline.executable import ffmpeg_exe
from tests.support.videos.encoded import make, settings

DATA = os.environ.get("ACTIONBENCH_TEST_DATA")
CASES = Path(DATA or "absent") / "cases"
CLIPS = Path(DATA or "absent") / "data" / "clips"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="ACTIONBENCH_TEST_DATA names no folder with cases/")
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="ACTIONBENCH_TEST_DATA names no folder with data/clips/")
NOISY = ["-vf", "noise=alls=6:allf=t"]
OPEN_GOP = [*NOISY, "-c:v", "libx264", "-g", "25", "-bf", "2", "-x264-params", "open-gop=1"]
MPEG2 = [*NOISY, "-c:v", "mpeg2video", "-q:v", "4", "-bf", "2", "-g", "12"]


def decoded(path: Path, decoder: str = "ffmpeg") -> Video:
    with opened(settings(decoder)) as chosen:
        return decode(path, chosen)


def reason(path: Path, decoder: str = "ffmpeg") -> str:
    with pytest.raises(Damaged) as caught:
        decoded(path, decoder)
    message = str(caught.value)
    assert "\n" not in message and str(path) not in message
    return message


def ffmpeg(*words: object) -> None:
    subprocess.run([ffmpeg_exe()[0], "-v", "error", "-y", "-nostdin", *map(str, words)], check=True)


# -- two decoders, two videos ------------------------------------------------------------------------------------------


def test_decord_is_refused_where_it_fills_gaps_with_neighbors(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.mp4", "160x120", 3, [*OPEN_GOP])
    stream, vob = tmp_path / "a.ts", make(tmp_path / "a.vob", "160x120", 3, [*MPEG2, "-f", "vob"])
    ffmpeg("-i", whole, "-c", "copy", stream)
    for path in (stream, vob):
        assert len(decoded(path).jpegs) == 75
        assert "decord and ffmpeg read two videos in it: decord repeats frame" in reason(path, "decord")
    assert len(decoded(whole, "decord").jpegs) == 75


def test_still_pictures_are_no_gap(tmp_path: Path) -> None:
    still = make(tmp_path / "still.mp4", "160x120", 1, ["-vf", "loop=24:1:0,setpts=N/25/TB", "-c:v", "libx264"])
    actual = decoded(still, "decord")
    assert len(actual.jpegs) == len(decoded(still).jpegs) > 10 and actual.warning == ""


def test_decords_other_stream_is_noticed(tmp_path: Path) -> None:
    """Two streams with equal frame counts and times are told apart by their pictures."""
    from pipeline.decode.decoders import difference_of

    flat, bright = np.zeros((4, 4), np.int16), np.full((4, 4), 90, np.int16)
    times = [0.0, 0.04, 0.08]
    assert difference_of([flat] * 3, [flat] * 3, times, 25.0, times, []) == ""
    assert difference_of([flat] * 3, [flat, bright, bright], times, 25.0, times, []) == "frame 1 and 1 more differ"
    assert difference_of([flat] * 3, [flat] * 2, times, 25.0, times[:2], []) == "2 frames and 3"
    late = [time + 0.5 for time in times]
    assert difference_of([flat] * 3, [flat] * 3, times, 25.0, late, []) == "from 0.50 to 0.58 s and from 0.00 to 0.08 s"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_several_streams_both_decoders_take_ffmpegs_default(tmp_path: Path, order: tuple[int, int]) -> None:
    small = make(tmp_path / "small.mp4", "80x60", 1, ["-r", "10", "-c:v", "libx264"])
    large = make(tmp_path / "large.mp4", "320x240", 1, ["-c:v", "libx264"])
    both, maps = tmp_path / "both.mkv", [word for number in order for word in ("-map", number)]
    ffmpeg("-i", small, "-i", large, *maps, "-c", "copy", "-disposition:v:0", 0, "-disposition:v:1", 0, both)
    assert len(decoded(both).jpegs) == 25
    with opened(settings("decord")) as decoder:
        try:
            assert len(decode(both, decoder).jpegs) == 25
        except Damaged as damage:
            assert "two videos" in str(damage)


# -- refused though whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_cut_by_copy_is_whole(tmp_path: Path, suffix: str) -> None:
    whole, cut = make(tmp_path / "a.mp4", "160x120", 4, OPEN_GOP), tmp_path / f"cut.{suffix}"
    ffmpeg("-i", whole, "-ss", 1.7, "-t", 1.5, "-c", "copy", cut)
    actual, source = decoded(cut), decoded(whole).jpegs
    begin = source.index(actual.jpegs[0])
    assert actual.jpegs == source[begin : begin + len(actual.jpegs)] and len(actual.jpegs) >= 30


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "hevc.mp4"])
def test_user_data_whose_size_is_wrong_is_a_warning(tmp_path: Path, name: str) -> None:
    """The user data unit is built by hand, because encoders differ, and put before the first picture."""
    codec = "hevc" if "hevc" in name else "h264"
    stream, path = tmp_path / f"a.{codec}", tmp_path / name
    quiet = ["-bsf:v", "filter_units=remove_types=6", "-bf", "0"]
    if codec == "hevc":
        quiet = ["-x265-params", "log-level=none:info=0:bframes=0"]
    make(stream, "160x120", 1, ["-c:v", "libx265" if codec == "hevc" else "libx264", *quiet])
    start, picture = b"\0\0\0\1", b"\x28" if codec == "hevc" else b"\x65"  # an IDR picture's first byte
    user = (b"\x4e\x01" if codec == "hevc" else b"\x06") + b"\x05\x64" + b"A" * 39 + b"\x80"  # 100 of 39 bytes
    content = stream.read_bytes()
    at = content.index(b"\0\0\1" + picture)
    stream.write_bytes(content[:at].rstrip(b"\0") + start + user + b"\0" + content[at:])
    ffmpeg("-r", 25, "-i", stream, "-c", "copy", path)
    actual = decoded(path)
    assert len(actual.jpegs) == 25
    assert "SEI type 5 size 100 truncated" in actual.warning or codec == "hevc"  # whose decoder may keep silent


@needs_cases
def test_the_cases_complaints_are_warnings() -> None:
    folder = CASES / "03-benign-complaints"
    cut = decoded(folder / "walk" / "cut_by_copy.mp4")
    assert len(cut.jpegs) == 20 and cut.warning == "h264: mmco: unref short failure"
    source = decoded(folder / "source.mp4").jpegs
    assert cut.jpegs == source[(begin := source.index(cut.jpegs[0])) : begin + 20]
    long = decoded(folder / "walk" / "sei_too_long.mp4")
    assert long.jpegs == decoded(folder / "sei_right.mp4").jpegs and "SEI" in long.warning
    assert len(decoded(CASES / "01-decord-repeats-frames" / "walk" / "as_ts.ts").jpegs) == 75
    assert "decord repeats" in reason(CASES / "01-decord-repeats-frames" / "walk" / "as_ts.ts", "decord")
    trailer = CASES / "04-trailing-bytes" / "walk" / "camera_trailer.mp4"
    for decoder in ("ffmpeg", "decord"):
        assert len(decoded(trailer, decoder).jpegs) == 10
    assert reason(CASES / "12-unclear-reasons" / "walk" / "sound_only.mp4") == "the file holds no video stream"
    assert "the file is no video" in reason(CASES / "12-unclear-reasons" / "walk" / "web_page.mp4")
    assert "from which on it is whole" in reason(folder / "walk" / "mid_gop_start.ts")


@pytest.mark.parametrize(("name", "unit", "dropped"), [("a.ts", 188, 60), ("a.vob", 2048, 12), ("b.ts", 188, 45)])
def test_a_recording_that_begins_within_a_group_of_pictures_says_so(
    tmp_path: Path, name: str, unit: int, dropped: int
) -> None:
    path = make(tmp_path / name, "160x120", 3, [*MPEG2, *(["-f", "vob"] if name.endswith("vob") else [])])
    content, kept = path.read_bytes(), 0 if unit == 2048 else 3 * unit
    path.write_bytes(content[:kept] + content[unit * dropped :])
    message = reason(path)
    assert "begins within a group of pictures" in message and "from which on it is whole" in message


TRAILERS = {
    "zeros": bytes(100),
    "text": b"Made by Some Editor 1.0\n",
    "three bytes": b"abc",
    "random": random.Random(1).randbytes(5000),
    "XML": b"<?xml version='1.0'?><x/>" * 10,
    "a phone's": random.Random(2).randbytes(300) + b"SEFH" + bytes(20) + b"SEFT",
}
ENDED = {
    "first.mp4": ["-c:v", "libx264", "-movflags", "faststart"],
    "last.mp4": ["-c:v", "libx264"],
    "pieces.mp4": ["-c:v", "libx264", "-g", "5", "-movflags", "frag_keyframe+empty_moov"],
    "a.webm": ["-c:v", "libvpx-vp9", "-cpu-used", "8"],
    "a.mkv": ["-c:v", "libx264"],
    "a.avi": ["-c:v", "mpeg4"],
    "a.mov": ["-c:v", "mjpeg"],
}


@pytest.mark.parametrize("name", ENDED)
def test_bytes_behind_a_complete_file_are_no_damage(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name, "160x120", 0.4, ENDED[name])
    content, good = path.read_bytes(), decoded(path).jpegs
    for trailer in TRAILERS.values():
        path.write_bytes(content + trailer)
        assert decoded(path).jpegs == good
    path.write_bytes(content[: len(content) * 2 // 3])
    reason(path)  # and a cut is one still


def test_a_fragment_that_follows_damage_is_not_taken_for_a_trailer(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", "160x120", 1, ENDED["pieces.mp4"])
    content = path.read_bytes()
    second = content.index(b"moof", content.index(b"moof") + 4)
    path.write_bytes(content[:second] + b"xoof" + content[second + 4 :])
    assert "more fragments follow" in reason(path)


@pytest.mark.parametrize(("codec", "suffix"), [("libvpx-vp9", "mkv"), ("libvpx-vp9", "mp4"), ("libvpx", "mkv")])
def test_zeros_of_another_stream_are_no_hole(tmp_path: Path, codec: str, suffix: str) -> None:
    silent = ["-f", "lavfi", "-t", "1", "-i", "anullsrc=r=48000", "-c:a", "pcm_s16le"]
    path = make(tmp_path / f"a.{suffix}", "160x120", 1, [*silent, *NOISY, "-c:v", codec, "-b:v", "300k"])
    assert len(decoded(path).jpegs) == 25
    content = bytearray(path.read_bytes())
    ffmpeg("-i", path, "-map", "0:v", "-c", "copy", "-f", "data", tmp_path / "pictures")
    picture = (tmp_path / "pictures").read_bytes()
    at = content.index(picture[2000:2064])
    content[at : at + 1024] = bytes(1024)
    path.write_bytes(content)
    reason(path)


# -- reasons for the owner ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b'{"error": "not found"}', "a web page or a site's error message"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b"hello, I am a video\n" * 9, "the file is no video but text"),
        (random.Random(0).randbytes(5000), "no video"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "avi", "webm"])
def test_what_is_no_video_is_called_that(tmp_path: Path, content: bytes, words: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    assert words in reason(path)


def test_sound_a_cover_and_a_picture_are_no_video(tmp_path: Path) -> None:
    sound, cover, picture = tmp_path / "sound.mp4", tmp_path / "cover.mp4", tmp_path / "picture.mp4"
    still = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=1:duration=1"]
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound)
    ffmpeg(
        "-i",
        sound,
        *still,
        "-map",
        0,
        "-map",
        1,
        "-c:a",
        "copy",
        "-c:v",
        "png",
        "-disposition:v",
        "attached_pic",
        cover,
    )
    ffmpeg(*still, "-frames:v", 1, "-f", "mjpeg", picture)
    assert reason(sound) == "the file holds no video stream"
    assert reason(cover) == "the file holds no video stream but a cover picture"
    assert "no video" in reason(picture)


def test_an_mp4_without_its_index_is_called_cut(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", "160x120", 1, ["-c:v", "libx264"])
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])
    assert "an MP4's index (its moov box) is missing" in reason(path)


def test_the_log_is_judged_by_who_speaks() -> None:
    path = Path("a")
    assert complaint("[h264 @ 0x1] [error] mmco: unref short failure\n", path) == (
        None,
        "h264: mmco: unref short failure",
    )
    assert complaint("[hevc @ 0x1] [error] SEI type 5 size 100 truncated at 41\n", path)[0] is None
    assert complaint("[mjpeg @ 0x1] [error] unable to decode APP fields: x\n", path)[0] is None
    assert complaint("[mjpeg @ 0x1] [error] error count: 64\n", path)[0] is not None
    assert (
        complaint("[in#0/ogg @ 0x1] [error] CRC mismatch!\n", path)[0]
        == "the file is damaged (in#0/ogg: CRC mismatch!)"
    )


# -- bounded -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["ffmpeg", "decord"])
def test_pipes_and_devices_are_no_videos(tmp_path: Path, decoder: str) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "null.mp4").symlink_to("/dev/null")
    for path in sorted(tmp_path.iterdir()):
        assert "no file but a pipe" in reason(path, decoder)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    reason(tmp_path / "loop.mp4", decoder)


def huge(jpeg: bytes, side: int) -> bytes:
    """Return the JPEG with another size in its header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + side.to_bytes(2, "big") * 2 + jpeg[at + 4 :]


@pytest.mark.parametrize("side", [60_000, 65_500, 20_000])
def test_a_jpeg_that_declares_a_giant_is_refused(tmp_path: Path, side: int) -> None:
    jpeg = huge(simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8)), side)
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "00001.jpg").write_bytes(jpeg)
    assert reason(folder) == f"frame 00001.jpg declares {side}x{side} pixels, more than can be decoded"
    video = make(tmp_path / "a.avi", "64x64", 0.4, ["-c:v", "mjpeg"])
    content = video.read_bytes()
    at = content.index(b"\xff\xc0") + 5
    video.write_bytes(content.replace(content[at : at + 4], side.to_bytes(2, "big") * 2))
    reason(video)


@pytest.mark.parametrize(
    "names", [["20240101123045.jpg", "20240101123046.jpg"], ["1.jpg", f"{10**80}.jpg"], ["0009.jpg"]]
)
def test_frames_named_by_dates_are_counted_not_listed(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(simplejpeg.encode_jpeg(np.zeros((96, 128, 3), np.uint8)))
    assert " is missing, and " in reason(tmp_path)


def test_a_pipe_is_no_frame(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    assert reason(tmp_path) == "the folder holds no numbered JPEG frames"


@needs_clips
@pytest.mark.parametrize(
    "path", sorted(CLIPS.glob("*.*[a-z0-9]")) if CLIPS.is_dir() else [], ids=lambda path: path.name
)
def test_real_clips_are_accepted_and_decord_agrees_or_says_so(path: Path) -> None:
    if path.suffix == ".csv":
        pytest.skip("the clips' list")
    actual = decoded(path)
    assert actual.warning == ""
    try:
        assert len(decoded(path, "decord").jpegs) == len(actual.jpegs)
    except Damaged as damage:
        assert "decord and ffmpeg read two videos in it" in str(damage)


def test_an_ffmpeg_that_cannot_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import executable

    (tmp_path / "ffmpeg").write_bytes(b"\x7fELF of another machine")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert shutil.which("ffmpeg") == str(tmp_path / "ffmpeg")
    assert executable.ffmpeg_exe.__wrapped__()[0] != str(tmp_path / "ffmpeg")


@pytest.mark.parametrize("decoder", ["ffmpeg", "decord"])
def test_a_killed_decoder_does_not_condemn_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    """A decoder killed for lack of memory does not mark its video as damaged."""
    path = make(tmp_path / "a.mp4", "160x120", 1, ["-c:v", "libx264"])
    if decoder == "ffmpeg":
        begin = FFmpegRun.header

        def header(run: FFmpegRun) -> tuple[int, int, float]:
            actual = begin(run)
            run._process.kill()
            return actual

        monkeypatch.setattr(FFmpegRun, "header", header)
    with opened(settings(decoder)) as chosen:
        if decoder == "decord":
            decode(path, chosen)  # starts its process
            chosen._process.kill()  # type: ignore[union-attr]
        with pytest.raises(UserError, match=f"{decoder} was killed while it decoded") as caught:
            decode(path, chosen)
    assert "\n" not in str(caught.value)
