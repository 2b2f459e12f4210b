"""Videos as input, for either decoder: whole, damaged, and other files."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg

from bench.attack.changes import Change, cut, flip, hole
from bench.attack.judge import Attack
from pipeline import datasets
from pipeline.config.schema import Decode
from pipeline.decode import video
from pipeline.executable import ffmpeg_exe

FRAMES = 25
NOISE = ["-vf", "noise=alls=6:allf=t"]
H264 = [*NOISE, "-c:v", "libx264", "-g", "10", "-bf", "2", "-pix_fmt", "yuv420p"]
MPEG2 = [*NOISE, "-c:v", "mpeg2video", "-q:v", "4", "-g", "10"]
WHOLE: dict[str, tuple[str, list[str]]] = {
    "H.264 in MP4": ("a.mp4", H264),
    "H.264 in MOV": ("a.mov", H264),
    "H.264 in Matroska": ("a.mkv", H264),
    "H.264 in FLV": ("a.flv", H264),
    "H.264 in fragments": ("f.mp4", [*H264, "-movflags", "frag_keyframe+empty_moov"]),
    "VP9 in WebM": ("a.webm", [*NOISE, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]),
    "VP8 in WebM": ("8.webm", [*NOISE, "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]),
    "MPEG-2 in a program stream": ("a.mpg", MPEG2),
    "MPEG-4 in AVI": ("a.avi", [*NOISE, "-c:v", "mpeg4", "-q:v", "4"]),
    "Motion JPEG in AVI": ("m.avi", [*NOISE, "-c:v", "mjpeg", "-q:v", "3"]),
    "an odd size": ("odd.mp4", ["-vf", "scale=97:61", "-c:v", "libx264", "-pix_fmt", "yuv444p"]),
    "upright": ("up.mp4", ["-vf", "transpose=1", "-c:v", "libx264"]),
    "a rate of 1000": ("fast.mp4", ["-vf", "setpts=PTS/40", "-fps_mode", "passthrough", "-c:v", "libx264"]),
}
BOTH = ("H.264 in MP4", "H.264 in Matroska", "MPEG-4 in AVI", "upright")  # which decord reads too


def attacks(rng: random.Random) -> Iterator[Attack]:
    for words in WHOLE:
        yield _whole(words, "ffmpeg")
    for words in BOTH:
        yield _whole(words, "decord")
    for words in ("H.264 in MP4", "H.264 in Matroska", "MPEG-4 in AVI", "VP9 in WebM", "MPEG-2 in a program stream"):
        yield _damaged(words, f"cut at {(share := rng.uniform(0.3, 0.9)):.2f}", cut(share))
        yield _damaged(words, "a hole of zeros", hole(rng.uniform(0.4, 0.8)))
    for _ in range(6):
        words = rng.choice(BOTH)
        share, bit = rng.uniform(0.2, 0.9), rng.randrange(8)
        # A flipped bit may be outside all pictures, or give another valid picture.
        yield _damaged(words, f"bit {bit} flipped at {share:.3f}", flip(share, bit), "either")
    yield _damaged("H.264 in MP4", "bytes behind it", lambda content: content + b"maker's mark" * 20, "right")
    for words, content in {
        "an empty file": b"",
        "text": b"not a video\n" * 50,
        "a web page": b"<!DOCTYPE html><html>sign in</html>",
        "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "an ffconcat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "zeros": bytes(100_000),
        "noise": random.Random(1).randbytes(100_000),
        "a picture": simplejpeg.encode_jpeg(np.zeros((40, 40, 3), np.uint8)),
    }.items():
        yield Attack("videos", words, "line", _file(content))
    yield Attack("videos", "a pipe", "line", lambda folder: _decoded(_pipe(folder)))
    yield Attack("videos", "a link to /dev/zero", "line", lambda folder: _decoded(_link(folder, "/dev/zero")))
    yield Attack("videos", "a link to nothing", "line", lambda folder: _decoded(_link(folder, "nothing")))
    yield Attack("videos", "sound alone", "line", _sound)
    for words, wants, frames in (
        ("a folder of frames", "right", ["1.jpg", "2.jpg", "3.jpg"]),
        ("a frame named 20240101123045.jpg", "line", ["1.jpg", "2.jpg", "20240101123045.jpg"]),
        ("frames with a gap", "line", ["1.jpg", "3.jpg"]),
        ("an empty folder", "line", []),
    ):
        yield Attack("videos", words, wants, partial(_folder, names=frames))
    yield Attack("videos", "a frame of 60,000 x 60,000", "line", _huge)
    yield Attack("videos", "a frame that is a pipe", "line", _frame_pipe)
    yield Attack("videos", "a cut frame", "line", _cut_frame)
    for words, name in (
        ("%41 in its folder's name", "a%41b"),
        ("a line end in its name", "a\nb"),
        ("a name like an option", "-i"),
        ("a colon in its name", "http:x"),
    ):
        yield Attack("videos", words, "right", partial(_named, name=name))


def _decoded(path: Path, decoder: str = "ffmpeg") -> str:
    settings = Decode(48, 90, decoder, 8, 0.1)  # type: ignore[arg-type]
    with video.opened(settings, 40.0) as chosen:
        decoded = video.decode(path, chosen)
    return "" if len(decoded.jpegs) == FRAMES else f"{len(decoded.jpegs)} frames of {FRAMES}"


def _encoded(folder: Path, words: str) -> Path:
    name, options = WHOLE[words]
    path = folder / name
    source = f"testsrc2=size=96x64:rate=25:duration={FRAMES / 25}"
    command = [ffmpeg_exe()[0], "-v", "error", "-y", "-nostdin", "-f", "lavfi", "-i", source, *options, str(path)]
    subprocess.run(command, check=True)
    return path


def _whole(words: str, decoder: str) -> Attack:
    return Attack("videos", f"{words}, {decoder}", "right", lambda folder: _decoded(_encoded(folder, words), decoder))


def _damaged(words: str, how: str, change: Change, wants: str = "line") -> Attack:
    def act(folder: Path) -> str:
        path = _encoded(folder, words)
        path.write_bytes(change(path.read_bytes()))
        return _decoded(path)

    return Attack("videos", f"{words}, {how}", wants, act)


def _file(content: bytes) -> Callable[[Path], str]:
    def act(folder: Path) -> str:
        (folder / "a.mp4").write_bytes(content)
        return _decoded(folder / "a.mp4")

    return act


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.mp4")
    return folder / "a.mp4"


def _link(folder: Path, target: str) -> Path:
    (folder / "a.mp4").symlink_to(target)
    return folder / "a.mp4"


def _named(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    path = _encoded(folder, "H.264 in MP4").rename(folder / name / f"{name}.mp4")
    listed = datasets.found(folder)
    return "it isn't listed" if [video.path for video in listed] != [f"{name}/{name}.mp4"] else _decoded(path)


def _sound(folder: Path) -> str:
    path = folder / "a.mp4"
    command = [ffmpeg_exe()[0], "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(path)]
    subprocess.run(command, check=True)
    return _decoded(path)


def _frames(folder: Path, names: list[str]) -> Path:
    (folder / "v").mkdir()
    for number, name in enumerate(names):
        (folder / "v" / name).write_bytes(simplejpeg.encode_jpeg(np.full((48, 64, 3), 40 * number, np.uint8)))
    return folder / "v"


def _folder(folder: Path, names: list[str]) -> str:
    path = _frames(folder, names)
    with video.opened(Decode(48, 90, "ffmpeg", 8, 0.1)) as chosen:
        decoded = video.decode(path, chosen, fps=10.0)
    return "" if len(decoded.jpegs) == len(names) else f"{len(decoded.jpegs)} frames"


def _huge(folder: Path) -> str:
    path = _frames(folder, ["1.jpg"]) / "1.jpg"
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    return _decoded(path.parent)


def _frame_pipe(folder: Path) -> str:
    os.mkfifo(_frames(folder, ["1.jpg", "3.jpg"]) / "2.jpg")
    return _decoded(folder / "v")


def _cut_frame(folder: Path) -> str:
    path = _frames(folder, ["1.jpg", "2.jpg"]) / "2.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return _decoded(path.parent)
