"""Frames per second on one core, from video files to JPEG, against ffmpeg.

    python -m bench.decoding [--videos FOLDER] [--turns N]

Every way scales to a short side of 256 with the same filter and encodes 4:2:0. Videos are decoded one after the other,
on one core, and the ways take turns. CPU time is that of the process and of all it started, so that other load on the
machine matters little; wall-clock time is listed too. A ratio is the median over turns, with the smallest and largest.

- ffmpeg to files: `ffmpeg -threads 1 -i VIDEO -vf scale=... -q:v 2 %05d.jpg`, one process per video, as is usual.
- store, ffmpeg: all of shards.decode_shard(): sha256, the container's check, decoding, JPEG, the Arrow file.
- store, decord: the same with decord, which runs in a separate process that is started once per shard. ffmpeg decodes
  each video too, to check decord's frames.
- torchcodec to files: its decoder, torch's antialiased resize, JPEG files of the store's quality by simplejpeg. Where
  it gives other frames than ffmpeg, the text above the table says so.

The store's JPEG quality is 95, where it loses no more than `-q:v 2` does. The error is the mean over pixels of the
absolute difference from ffmpeg's RGB frames in 0..255, of the worst frame of the first video. The clips are pans over
photographs with noise, made by ffmpeg.
"""

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import simplejpeg
import sklearn.datasets
import torch

from bench import peers, report
from bench.report import column
from bench.running import codecs, emptied, one_core, options, timed
from pipeline import datasets
from pipeline.config.schema import Decode
from pipeline.decode.frame_store import FrameStore
from pipeline.decode.shards import Source, Task, decode_shard, finish, plan
from pipeline.download.sources import Entry
from pipeline.executable import ffmpeg_exe
from tests.support.videos import against_ffmpeg

SHORT_SIDE, QUALITY, PLAIN, TORCHCODEC = 256, 95, "ffmpeg to files", "torchcodec to files"
SCALE = f"scale=w='if(lt(iw,ih),{SHORT_SIDE},-2)':h='if(lt(iw,ih),-2,{SHORT_SIDE})':flags=bilinear"
# name: (count, file's suffix, size, seconds, the encoder and its options)
CLIPS: dict[str, tuple[int, str, str, float, list[str]]] = {
    "H.264, 340x256, 10 s": (6, "mp4", "340x256", 10, ["-c:v", "libx264", "-g", "12"]),
    "Xvid with B-frames, 320x240, 10 s": (6, "avi", "320x240", 10, ["-c:v", "libxvid", "-bf", "2", "-q:v", "5"]),
    "VP9, 427x240, 4 s": (8, "webm", "427x240", 4, ["-c:v", "libvpx-vp9", "-b:v", "400k", "-cpu-used", "8"]),
    "H.264, 1280x720, 10 s": (2, "mp4", "1280x720", 10, ["-c:v", "libx264"]),
    "MPEG-4, 320x240, 40 frames": (32, "avi", "320x240", 4 / 3, ["-c:v", "mpeg4", "-q:v", "5"]),
}


def main() -> None:
    args = options(__doc__, videos=(Path, "a folder of videos to measure as well; its first 48 are taken"), turns=5)
    one_core()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = {name: pans(root / str(n), *spec) for n, (name, spec) in enumerate(CLIPS.items())}
        if args.videos:
            paths = [args.videos / video.path for video in datasets.found(args.videos)[:48]]
            sets[f"{len(paths)} of the videos given"] = paths
        rows = [row for name, paths in sets.items() for row in race(name, paths, root / "out", args.turns)]
    text = f"One core of {os.cpu_count()} ({codecs()}), ffmpeg {ffmpeg_exe()[1]}, JPEG quality {QUALITY} in the store, "
    text += f"{args.turns} turns."
    text += "".join(f" {line.strip()}" for line in peers.lacks("torchcodec"))
    text += "".join(others(rows))
    head = ["videos", "way", "frames/s of CPU time", "ffmpeg to files = 1", "by the clock", "kB a frame", "error"]
    report.save("decoding", "From video files to JPEG on one core", text, head, lines(rows), rows)


def pans(folder: Path, count: int, suffix: str, size: str, seconds: float, codec: list[str]) -> list[Path]:
    """Write videos of 30 frames per second, each of which pans over a photograph."""
    folder.mkdir()
    paths = [folder / f"{n}.{suffix}" for n in range(count)]
    for n, path in enumerate(paths):
        photo = folder / "photo.jpg"
        photo.write_bytes(simplejpeg.encode_jpeg(sklearn.datasets.load_sample_images().images[n % 2], 98))
        wander = f"x=(iw-iw/zoom)*(0.5+0.5*sin({n}+on/35)):y=(ih-ih/zoom)*(0.5+0.5*cos(on/50))"
        pan = f"zoompan=z=1.3+0.2*sin({n}+on/40):{wander}:d={round(30 * seconds)}:s={size}:fps=30"
        filters = f"{pan},noise=alls=5:allf=t,format=yuv420p"
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-i", photo, "-vf", filters, *codec, path], check=True)
    return paths


def race(name: str, paths: list[Path], out: Path, turns: int) -> list[dict[str, Any]]:
    """Return a row for each turn and way, after one warm-up turn."""
    ways: dict[str, Callable[[list[Path], Path], None]] = {
        PLAIN: to_files,
        "store, ffmpeg": partial(to_store, decoder="ffmpeg"),
        "store, decord": partial(to_store, decoder="decord"),
    }
    if not peers.lack("torchcodec"):
        ways[TORCHCODEC] = by_torchcodec
    rows = []
    for turn in range(turns + 1):
        for way, run in ways.items():
            timing = timed(run, paths, emptied(out))
            if turn:
                frames, size = count(out)
                speeds = {"cpu_frames_s": frames / timing.cpu, "frames_s": frames / timing.wall}
                error = {
                    "bytes_per_frame": round(size / frames),
                    "error": loss(paths[0], above(paths), out, way != TORCHCODEC),
                }
                rows.append({"videos": name, "way": way, "turn": turn, "frames": frames, **speeds, **error})
    return rows


def others(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each set of videos of which torchcodec gives other frames than ffmpeg."""
    for name in dict.fromkeys(row["videos"] for row in rows):
        plain, found = (column(rows, "frames", videos=name, way=way) for way in (PLAIN, TORCHCODEC))
        if found and found != plain:
            yield f" Of {name}, torchcodec gives {found[0]:,} frames, not {plain[0]:,}."


def to_files(paths: list[Path], out: Path) -> None:
    for n, path in enumerate(paths):
        folder = out / f"{n:03d}"
        folder.mkdir()
        options = ["-vf", SCALE, "-fps_mode", "passthrough", "-q:v", "2", folder / "%05d.jpg"]
        subprocess.run([ffmpeg_exe()[0], "-v", "error", "-nostdin", "-threads", "1", "-i", path, *options], check=True)


def by_torchcodec(paths: list[Path], out: Path) -> None:
    torch.set_num_threads(1)
    for n, path in enumerate(paths):
        folder = out / f"{n:03d}"
        folder.mkdir()
        for index, frame in enumerate(peers.torchcodec_frames(path, SHORT_SIDE), 1):
            jpeg = simplejpeg.encode_jpeg(frame, QUALITY, colorsubsampling="420")
            (folder / f"{index:05d}.jpg").write_bytes(jpeg)


def to_store(paths: list[Path], out: Path, decoder: str) -> None:
    settings = Decode(SHORT_SIDE, QUALITY, decoder, len(paths), 0.0)  # type: ignore[arg-type]
    decode(plan(out, above(paths), listed(paths, above(paths)), settings))


def listed(paths: Iterable[Path], root: Path) -> tuple[Source, ...]:
    """List video files for decoding, each by its path below a root."""
    named = ((path.relative_to(root).as_posix(), path) for path in paths)
    return tuple(Source(name, name, sha256(path.read_bytes()).hexdigest()) for name, path in named)


def above(paths: Iterable[Path]) -> Path:
    """Return the deepest folder that all files are in."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def sources_of(entries: Iterable[Entry]) -> list[Source]:
    """List a manifest's videos for decoding."""
    return [Source(entry.video, entry.path, entry.sha256) for entry in entries]


def decode(tasks: list[Task]) -> None:
    """Decode every shard in this process, and write the index."""
    for task in tasks:
        decode_shard(task)
    finish(tasks[0].folder, tasks)


def count(out: Path) -> tuple[int, int]:
    """Return (frames, bytes) of a way's output."""
    if (out / "index.arrow").exists():
        frames = sum(entry.frames for entry in FrameStore(out).videos.values())
    else:
        frames = sum(1 for _ in out.glob("*/*.jpg"))
    return frames, sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def loss(first: Path, root: Path, out: Path, whole: bool) -> float:
    """Return the worst frame's mean absolute error, of the first video.

    Raises:
        AssertionError: Frames are missing, and `whole` is true.
    """
    if (out / "index.arrow").exists():
        store, name = FrameStore(out), first.relative_to(root).as_posix()
        jpegs: list[Any] = store.jpegs(name, range(store.videos[name].frames))
    else:
        jpegs = [path.read_bytes() for path in sorted((out / "000").iterdir())]
    height, width = simplejpeg.decode_jpeg_header(jpegs[0])[:2]
    return against_ffmpeg.error(first, jpegs, width, height, whole)


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table's lines: medians over turns."""
    lines = []
    for name, way in dict.fromkeys((row["videos"], row["way"]) for row in rows):
        ours, plain = (report.select(rows, videos=name, way=each) for each in (way, PLAIN))
        speeds, gains = [], []
        for key in ("cpu_frames_s", "frames_s"):
            speeds.append(f"{statistics.median(column(ours, key)):.0f}")
            gains.append(report.spread(report.ratios(column(ours, key), column(plain, key))))
        facts = [f"{ours[0]['bytes_per_frame'] / 1000:.1f}", f"{ours[0]['error']:.2f}"]
        lines.append([name, way, speeds[0], gains[0], f"{speeds[1]}, {gains[1]}", *facts])
    return lines


if __name__ == "__main__":
    main()
