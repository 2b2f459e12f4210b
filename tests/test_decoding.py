"""Videos of many kinds come out whole, damaged ones are named, and nothing takes the caller along."""

import csv
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from pipeline import containers, decoders, ffmpeg_run
from pipeline.containers import Damaged
from pipeline.decoding import check_against_ffmpeg, decode, opened
from pipeline.executable import ffmpeg_exe
from pipeline.ffmpeg_run import complaint
from pipeline.schema import Decode

SHARED = Path(__file__).parents[2] / "shared"
CLIPS, JHMDB = SHARED / "data" / "clips", SHARED / "data" / "jhmdb"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips of ../shared/data/clips are not here")
needs_jhmdb = pytest.mark.skipif(not JHMDB.is_dir(), reason="J-HMDB, ../shared/data/jhmdb, is not here")

H264 = ["-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv420p"]
XVID = ["-c:v", "libxvid", "-bf", "2", "-g", "10", "-q:v", "4"]
VP9 = ["-c:v", "libvpx-vp9", "-b:v", "300k", "-deadline", "realtime", "-cpu-used", "8"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=1", "-map", "0:v", "-map", "1:a", "-c:a", "aac"]
# name: (file, size of the source, seconds, arguments of ffmpeg, width and height at a short side of 96, frames)
KINDS = {
    "h264": ("a.mp4", "160x120", 1, H264, (128, 96), 25),
    "h264 in Matroska": ("a.mkv", "160x120", 1, H264, (128, 96), 25),
    "xvid with B-frames": ("a.avi", "160x120", 1, [*XVID, "-bsf:v", "mpeg4_unpack_bframes"], (128, 96), 23),
    "xvid with packed B-frames": ("packed.avi", "160x120", 1, XVID, (128, 96), 23),
    "vp9": ("a.webm", "160x120", 1, VP9, (128, 96), 25),
    "vp9 of 10 bits": ("ten.webm", "160x120", 1, [*VP9, "-pix_fmt", "yuv420p10le"], (128, 96), 25),
    "vp8 with hidden frames": ("8.webm", "160x120", 1, ["-c:v", "libvpx", "-auto-alt-ref", "1"], (128, 96), 25),
    "mpeg2 in a program stream": ("a.mpg", "160x120", 1, ["-c:v", "mpeg2video", "-q:v", "4"], (128, 96), 25),
    "odd size": ("odd.avi", "41x31", 1, ["-c:v", "mjpeg", "-q:v", "2"], (128, 96), 25),
    "odd size, upright": ("odd2.avi", "31x41", 1, ["-c:v", "mjpeg", "-q:v", "2"], (96, 128), 25),
    "one frame": ("one.mp4", "160x120", 0.04, H264, (128, 96), 1),
    "sound": ("sound.mp4", "160x120", 1, [*SOUND, *H264], (128, 96), 25),
    "in fragments": ("f.mp4", "160x120", 1, [*H264, "-movflags", "frag_keyframe+empty_moov"], (128, 96), 25),
    "wide pixels": ("sar.mp4", "160x120", 1, [*H264, "-aspect", "16:9"], (128, 96), 25),
    "BT.709": (
        "709.mp4",
        "160x120",
        1,
        [*H264, "-vf", "scale=out_color_matrix=bt709", "-colorspace", "1"],
        (128, 96),
        25,
    ),
}


def make(path: Path, size: str, seconds: float, options: list[str]) -> Path:
    source = f"testsrc2=size={size}:rate=25:duration={seconds},hue=s=0.4,gblur=sigma=1"  # as soft as photographs
    command = [ffmpeg_exe()[0], "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def settings(decoder: str = "ffmpeg", short_side: int = 96) -> Decode:
    return Decode(short_side, 95, decoder, 8, 0.1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Callable[[str], Path]:
    def made(kind: str) -> Path:
        name, size, seconds, options, *_ = KINDS[kind]
        path = folder / name
        return path if path.exists() else make(path, size, seconds, options)

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_out_whole(kind: str, video: Callable[[str], Path]) -> None:
    path, (*_, size, frames) = video(kind), KINDS[kind]
    with opened(settings()) as decoder:
        found = decode(path, decoder)
    assert (found.width, found.height) == size
    assert len(found.jpegs) == len(found.timestamps) == frames
    assert found.fps == pytest.approx(25)
    np.testing.assert_allclose(np.diff(found.timestamps), 1 / 25, atol=1e-3)
    assert {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in found.jpegs} == {size[::-1]}
    assert check_against_ffmpeg(path, found.jpegs, *size) < 3


def test_pixels_are_those_of_the_source_where_nothing_is_scaled(folder: Path) -> None:
    flat = make(
        folder / "flat.mkv", "96x64", 0.2, ["-vf", "drawbox=c=0x4080c0:t=fill", "-c:v", "ffv1", "-pix_fmt", "yuv444p"]
    )
    with opened(settings(short_side=64)) as decoder:
        found = decode(flat, decoder)
    pixels = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in found.jpegs]).astype(int)
    assert np.abs(pixels - (0x40, 0x80, 0xC0)).max() <= 3


def test_an_odd_short_side_is_kept_and_the_other_made_even(video: Callable[[str], Path]) -> None:
    with opened(settings(short_side=31)) as decoder:
        found = decode(video("odd size"), decoder)
    assert (found.width, found.height) == (42, 31)
    assert {simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in found.jpegs} == {(31, 42)}
    assert check_against_ffmpeg(video("odd size"), found.jpegs, 42, 31) < 4


def test_a_rotated_video_is_turned_upright(video: Callable[[str], Path], folder: Path) -> None:
    content = bytearray(video("h264").read_bytes())
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    at = content.index(matrix, content.index(b"tkhd"))
    content[at : at + len(matrix)] = clockwise
    turned = folder / "turned.mp4"
    turned.write_bytes(content)
    with opened(settings()) as decoder:
        plain, found = decode(video("h264"), decoder), decode(turned, decoder)
    assert (found.width, found.height) == (96, 128)
    first, upright = simplejpeg.decode_jpeg(plain.jpegs[0]), simplejpeg.decode_jpeg(found.jpegs[0])
    assert np.abs(np.rot90(first, -1).astype(int) - upright).mean() < 6


def test_odd_times_are_kept_and_no_frame_is_dropped_or_doubled(folder: Path) -> None:
    gaps = make(folder / "vfr.mkv", "160x120", 1, ["-vf", "select='not(eq(mod(n,5),3))'", "-fps_mode", "vfr", *H264])
    with opened(settings()) as decoder:
        found = decode(gaps, decoder)
    wanted = [n / 25 for n in range(25) if n % 5 != 3]
    np.testing.assert_allclose(found.timestamps, wanted, atol=1e-3)


def test_times_that_run_backwards_are_no_damage(folder: Path) -> None:
    odd = make(folder / "xvid.mp4", "160x120", 1, XVID)  # ffmpeg's muxer gives the last frame an earlier time
    with opened(settings()) as decoder:
        found = decode(odd, decoder)
    assert len(found.jpegs) == 23 and min(np.diff(found.timestamps)) < 0
    assert check_against_ffmpeg(odd, found.jpegs, 128, 96) < 3


def test_a_decoder_can_be_used_again_and_says_what_it_is(video: Callable[[str], Path]) -> None:
    with opened(settings()) as decoder:
        first, second = decode(video("h264"), decoder), decode(video("h264"), decoder)
    assert first == second
    assert (first.decoder, first.decoder_version) == ("ffmpeg", ffmpeg_exe()[1])


@pytest.mark.parametrize("kind", ["h264", "xvid with B-frames", "vp9", "odd size"])
def test_decord_agrees_with_ffmpeg(kind: str, video: Callable[[str], Path]) -> None:
    with opened(settings("decord")) as decoder:
        found = decode(video(kind), decoder)
    with opened(settings()) as decoder:
        other = decode(video(kind), decoder)
    assert (found.width, found.height, len(found.jpegs)) == (other.width, other.height, len(other.jpegs))
    assert found.decoder == "decord"
    assert check_against_ffmpeg(video(kind), found.jpegs, found.width, found.height) < 8


def test_decords_padded_rows_are_read_right(folder: Path) -> None:
    """At 72 pixels its rows are padded to 288 bytes, which it shows as four channels."""
    path = make(folder / "square.mp4", "96x96", 0.5, ["-c:v", "libx264"])
    with opened(settings("decord", short_side=72)) as decoder:
        found = decode(path, decoder)
    assert (found.width, found.height) == (72, 72)
    assert check_against_ffmpeg(path, found.jpegs, 72, 72) < 8


def test_decords_death_and_time_out_cost_one_video_each(video: Callable[[str], Path]) -> None:
    decoder = decoders.Decord(96, 90, timeout=60.0)
    try:
        good = decoder.frames(video("h264"))
        os.kill(decoder._process.pid, signal.SIGKILL)
        with pytest.raises(Damaged, match="decord crashed"):
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


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exec sleep 60", "took too long"), ("kill -SEGV $$", "ffmpeg left with status -11"), ("exit 0", "no frame")],
)
def test_an_ffmpeg_that_hangs_or_dies_is_a_reason(
    script: str, reason: str, video: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    path = video("h264")
    with opened(settings(), timeout=0.5) as decoder:
        monkeypatch.setattr(ffmpeg_run, "ffmpeg_exe", lambda: (str(program), "0"))
        with pytest.raises(Damaged, match=reason):
            decode(path, decoder)


def test_a_file_that_changed_since_its_download_is_not_decoded(video: Callable[[str], Path], tmp_path: Path) -> None:
    with opened(settings()) as decoder:
        good = decode(video("h264"), decoder)
        assert decode(video("h264"), decoder, good.sha256) == good
        content = bytearray(video("h264").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(Damaged, match=r"^changed since download \(sha256 differs\)$"):
            decode(tmp_path / "a.mp4", decoder, good.sha256)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.txt", "a.ans"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello, I am a video\n" * 100, b"ffconcat version 1.0\nfile good.mp4\n", b"#EXTM3U\n#EXTINF:1,\ngood.mp4\n"],
)
def test_what_is_no_video_is_named(name: str, content: bytes, video: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copy(video("h264"), tmp_path / "good.mp4")
    (tmp_path / name).write_bytes(content)
    with opened(settings()) as decoder, pytest.raises(Damaged) as caught:
        decode(tmp_path / name, decoder)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_absent_files_folders_and_sound_alone_are_named(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    command = [ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(sound)]
    subprocess.run(command, check=True)
    with opened(settings()) as decoder:
        for path in (tmp_path / "absent.mp4", tmp_path, sound):
            with pytest.raises(Damaged):
                decode(path, decoder)


def test_a_frame_too_long_for_a_jpeg_is_a_reason(tmp_path: Path) -> None:
    long = make(tmp_path / "long.mkv", "1500x2", 0.2, ["-c:v", "ffv1"])
    with opened(settings()) as decoder, pytest.raises(Damaged, match="no JPEG holds a frame of 72000x96"):
        decode(long, decoder)


def test_names_that_ffmpeg_might_take_for_something_else(video: Callable[[str], Path], tmp_path: Path) -> None:
    with opened(settings()) as decoder:
        for name in ("-i.mp4", "a b'c.mp4", "%03d.mp4", "concat:a|b.mp4", "http:x.mp4", "ü[1]*.mp4"):
            shutil.copy(video("one frame"), tmp_path / name)
            assert len(decode(tmp_path / name, decoder).jpegs) == 1


def test_sound_that_is_damaged_does_not_fail_a_video() -> None:
    sound = "[aac @ 0x55d] [error] Number of bands (62) exceeds limit (43).\n"
    picture = "[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [warning] corrupt decoded frame\n"
    cause = "[h264 @ 0x3] [error] error while decoding MB 3 4, bytestream 9\n"
    assert complaint(sound + "[info]   title: [error] of mine\n", Path("a")) is None
    assert complaint(sound + picture, Path("a")) == "dec:h264: corrupt decoded frame"
    assert complaint(picture + sound + cause, Path("a")) == "h264: error while decoding MB 3 4, bytestream 9"
    opening = "[fatal] Error opening input file file:/secret/place/a.mp4.\n"
    assert complaint(opening, Path("/secret/place/a.mp4")) == "ffmpeg: Error opening input file the file."


def damaged(kind: str, content: bytes, rng: random.Random) -> bytes:
    """`content` cut, emptied, made text, with a sector of zeros, or with a share of its bits flipped."""
    if kind == "cut":
        return content[: rng.randrange(1, len(content))]
    if kind == "no content":
        return b""
    if kind == "text":
        return b"no video " * rng.randrange(1, 1000)
    broken = bytearray(content)
    if kind == "zeros":
        at = rng.randrange(64, len(content) - 4096)
        broken[at : at + 4096] = bytes(4096)
    else:
        for _ in range(1 if kind == "one bit" else max(2, int(len(content) * float(kind)))):
            broken[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def originals(folder: Path) -> list[Path]:
    """Clips of a few hundred kB: made ones, and real ones where they are."""
    busy = ["-vf", "noise=alls=20:allf=t"]
    made = [
        make(folder / "busy.mp4", "160x120", 1, [*busy, *H264]),
        make(folder / "busy.avi", "160x120", 1, [*busy, *XVID]),
        make(folder / "busy.webm", "160x120", 1, [*busy, *VP9]),
        make(folder / "busy.mkv", "160x120", 1, [*busy, *H264]),
    ]
    real = sorted(JHMDB.glob("*/*.avi"))
    return made + random.Random(0).sample(real, min(6, len(real)))


def fate(source: Path, kind: str, number: int, folder: Path) -> tuple[str, str]:
    """(kind, why decoding failed or "" where it did not) of a seeded damage to a clip."""
    rng = random.Random(f"{source.name} {kind} {number}")
    path = folder / f"{source.stem}-{kind}-{number}{source.suffix}"
    path.write_bytes(damaged(kind, source.read_bytes(), rng))
    try:
        with opened(settings(), timeout=60.0) as decoder:
            decode(path, decoder)
    except Damaged as damage:
        assert "\n" not in str(damage) and str(folder) not in str(damage)
        return kind, str(damage)
    finally:
        path.unlink()
    return kind, ""


def test_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    count = 300
    sources, kinds = originals(folder), ["cut", "1e-3", "cut", "zeros", "1e-4", "no content", "text"]
    jobs = [(sources[n % len(sources)], kinds[n % len(kinds)], n, tmp_path) for n in range(count)]
    with ThreadPoolExecutor(2) as pool:
        fates = list(pool.map(lambda job: fate(*job), jobs))
    missed = [
        (source.name, kind, n) for (source, kind, n, _), (_, reason) in zip(jobs, fates, strict=True) if not reason
    ]
    # A lost sector that takes a whole small H.264 frame leaves units of length 0, which are no error.
    assert [job for job in missed if job[1] != "zeros"] == []
    assert len(missed) <= 0.02 * count


def test_a_single_flipped_bit_is_found_by_the_checksum_where_no_decoder_can(
    video: Callable[[str], Path], tmp_path: Path
) -> None:
    source = video("xvid with B-frames")
    with opened(settings()) as decoder:
        good = decode(source, decoder)
        for number in range(12):
            path = tmp_path / f"{number}.avi"
            path.write_bytes(damaged("one bit", source.read_bytes(), random.Random(number)))
            with pytest.raises(Damaged, match="changed since download"):
                decode(path, decoder, good.sha256)


def test_a_reason_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    for source in originals(folder)[:3]:
        path = tmp_path / source.name
        path.write_bytes(damaged("1e-3", source.read_bytes(), random.Random(1)))
        reasons = set()
        for _ in range(4):
            with opened(settings()) as decoder, pytest.raises(Damaged) as caught:
                decode(path, decoder)
            reasons.add(str(caught.value))
        assert len(reasons) == 1


@pytest.mark.parametrize("kind", ["h264", "xvid with B-frames", "vp9", "h264 in Matroska"])
def test_a_cut_is_seen_in_the_container_wherever_it_is(kind: str, video: Callable[[str], Path], tmp_path: Path) -> None:
    content, path = video(kind).read_bytes(), tmp_path / "cut"
    containers.check(video(kind))
    missed = []
    for length in range(64, len(content), max(1, len(content) // 300)):
        path.write_bytes(content[:length])
        try:
            containers.check(path)
        except Damaged:
            continue
        missed.append(length)
    # Between two boxes of an MP4 nothing is amiss yet; the decoder finds what is missing.
    assert len(missed) <= (3 if kind == "h264" else 0)


def test_a_wrong_checksum_and_a_wrong_index_are_seen(video: Callable[[str], Path], tmp_path: Path) -> None:
    for kind, reason in (("h264 in Matroska", "checksum"), ("xvid with B-frames", "entries of its index")):
        content, path = bytearray(video(kind).read_bytes()), tmp_path / "broken"
        at = content.find(b"00dc", content.find(b"movi")) if reason != "checksum" else len(content) // 2
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(Damaged, match=reason):
            containers.check(path)


@needs_clips
def test_real_clips_have_the_frames_of_their_manifest() -> None:
    with (CLIPS / "MANIFEST.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with opened(settings(short_side=240)) as decoder:
        for row in rows:
            found = decode(CLIPS / row["path"], decoder)
            assert len(found.jpegs) == int(row["n_frames"]), row["path"]
            assert found.fps == pytest.approx(float(row["fps"]), abs=0.02), row["path"]
            assert check_against_ffmpeg(CLIPS / row["path"], found.jpegs, found.width, found.height) < 4, row["path"]


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
