"""Detection of damage in video files: by container check, decoder, or nothing.

    python -m bench.damage [--videos FOLDER] [--each N]

Each clip is damaged N times in each way, seeded, and decoded. Undetected damage is classified by its frames: the same
bits as the intact clip's, or others. A flipped bit that leaves a valid stream gives another picture, not an error, and
no decoder can detect it. The sha256 that the download stage records detects all of it, if the damage came later.

- cut: ends at a random byte.    - zeros: 4096 bytes in a row are 0.    - one bit: a single bit is flipped.
- 1e-4, 1e-3: as many bits as that share of the file's bytes are flipped.
"""

import hashlib
import random
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import report
from bench.decoding import pans
from bench.running import options
from pipeline import datasets
from pipeline.config.schema import Decode
from pipeline.decode import integrity
from pipeline.decode.integrity import Damaged
from pipeline.decode.video import decode, opened
from pipeline.executable import ffmpeg_exe

WAYS = ("cut", "zeros", "1e-3", "1e-4", "one bit")
FATES = ("container", "decoder", "same frames", "other frames")
CLIPS = {
    "H.264 in MP4": ("mp4", ["-c:v", "libx264", "-g", "12"]),
    "H.264 in Matroska": ("mkv", ["-c:v", "libx264", "-g", "12"]),
    "Xvid with B-frames in AVI": ("avi", ["-c:v", "libxvid", "-bf", "2", "-q:v", "5"]),
    "VP9 in WebM": ("webm", ["-c:v", "libvpx-vp9", "-b:v", "400k", "-cpu-used", "8"]),
    "VP8 in WebM": ("webm", ["-c:v", "libvpx", "-b:v", "400k"]),
}


class Job(NamedTuple):
    kind: str  # of clip
    path: Path
    way: str
    number: int
    whole: str  # digest of the intact clip's frames


def main() -> None:
    args = options(
        __doc__,
        videos=(Path, "a folder of videos to damage as well; 20 of them are taken"),
        each=(30, "times that each kind of clip is damaged in each way"),
    )
    with tempfile.TemporaryDirectory() as folder:
        clips = {
            kind: pans(Path(folder, kind), 2, suffix, "320x240", 2, codec) for kind, (suffix, codec) in CLIPS.items()
        }
        if args.videos:
            videos = datasets.found(args.videos)
            some = random.Random(0).sample(videos, min(20, len(videos)))
            clips["the videos given"] = [args.videos / video.path for video in some]
        whole = {path: fate_of(path)[1] for paths in clips.values() for path in paths}
        jobs = [
            Job(kind, path := paths[number % len(paths)], way, number, whole[path])
            for kind, paths in clips.items()
            for way in WAYS
            for number in range(args.each)
        ]
        with ProcessPoolExecutor() as pool:
            fates = list(pool.map(fate, jobs, chunksize=8))
    counts = Counter((job.kind, job.way, fate) for job, fate in zip(jobs, fates, strict=True))
    rows = [
        {"clip": kind, "damage": way, **{fate: counts[kind, way, fate] for fate in FATES}}
        for kind, way in dict.fromkeys((job.kind, job.way) for job in jobs)
    ]
    text = f"Of {args.each} damaged files each; ffmpeg {ffmpeg_exe()[1]}."
    head = [
        "clip",
        "damage",
        "detected by the container's check",
        "by the decoder",
        "not, same frames",
        "not, other frames",
    ]
    title = "Detection of damage to a video file, by the check that detects it"
    report.save("damage", title, text, head, [list(row.values()) for row in rows], rows)


def damaged(way: str, content: bytes, rng: random.Random) -> bytes:
    if way == "cut":
        return content[: rng.randrange(1, len(content))]
    broken = bytearray(content)
    if way == "zeros":
        at = rng.randrange(len(content) - 4096)
        broken[at : at + 4096] = bytes(4096)
        return bytes(broken)
    for _ in range(1 if way == "one bit" else max(2, round(len(content) * float(way)))):
        broken[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def fate(job: Job) -> str:
    """Return one of FATES."""
    rng = random.Random(f"{job.path.name} {job.way} {job.number}")
    with tempfile.NamedTemporaryFile(suffix=job.path.suffix) as file:
        file.write(damaged(job.way, job.path.read_bytes(), rng))
        file.flush()
        check, digest = fate_of(Path(file.name))
    return check or ("same frames" if digest == job.whole else "other frames")


def fate_of(path: Path) -> tuple[str, str]:
    """Return (the check that rejects a video, or "", the digest of its frames)."""
    try:
        integrity.check(path)
    except Damaged:
        return "container", ""
    try:
        with opened(Decode(64, 90, "ffmpeg", 1, 0.0), timeout=60.0) as decoder:
            return "", hashlib.sha256(b"".join(decode(path, decoder).jpegs)).hexdigest()
    except Damaged:
        return "decoder", ""


if __name__ == "__main__":
    main()
