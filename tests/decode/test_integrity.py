"""Damaged videos are named with a reason, and files that are no videos stop nothing else."""

import random
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.decode import ffmpeg, integrity
from pipeline.decode.ffmpeg import complaint
from pipeline.decode.integrity import Damaged
from pipeline.decode.video import decode, opened
from pipeline.executable import ffmpeg_exe
from tests.support.real_data import TEST_DATA
from tests.support.videos.encoded import H264, VP9, XVID, make, settings

JHMDB = TEST_DATA / "data" / "jhmdb"


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
        monkeypatch.setattr(ffmpeg, "ffmpeg_exe", lambda: (str(program), "0"))
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
    assert complaint(sound + "[info]   title: [error] of mine\n", Path("a")) == (None, "")
    assert complaint(sound + picture, Path("a")) == ("the file is damaged (dec:h264: corrupt decoded frame)", "")
    reason = "some of its pictures are damaged (h264: error while decoding MB 3 4, bytestream 9)"
    assert complaint(picture + sound + cause, Path("a")) == (reason, "")


def damaged(kind: str, content: bytes, rng: random.Random) -> bytes:
    """Return `content` truncated, emptied, replaced by text, with a zeroed sector, or with a share of bits flipped."""
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
    """Return clips of a few hundred kB: generated ones, and real ones if available."""
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
    """Return (kind, reason of the decoding failure or "") for seeded damage to a clip."""
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


def test_damaged_files_are_named(tmp_path: Path) -> None:
    count = 300
    sources, kinds = originals(tmp_path), ["cut", "1e-3", "cut", "zeros", "1e-4", "no content", "text"]
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


def test_a_reason_is_the_same_every_time(tmp_path: Path) -> None:
    for source in originals(tmp_path)[:3]:
        path = tmp_path / f"broken-{source.name}"
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
    integrity.check(video(kind))
    missed = []
    for length in range(64, len(content), max(1, len(content) // 300)):
        path.write_bytes(content[:length])
        try:
            integrity.check(path)
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
            integrity.check(path)
