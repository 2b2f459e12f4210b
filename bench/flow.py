"""Optical flow frames per second: the decode stage, and OpenCV in a loop.

    python -m bench.flow [--turns N]

From video files to JPEG planes on one core, one video after the other, by the same algorithm with the same settings and
one OpenCV thread. CPU time is that of the process and of all it started, so that other load on the machine matters
little. A ratio is the median over turns, with the smallest and largest.

- OpenCV in a loop: cv2.VideoCapture, gray, calc() of a frame and the next, clipped to +-20 pixels, scaled to 8 bits,
  cv2.imwrite() of the two planes at JPEG quality 95.
- store: all of shards.decode_shard() with decode.flow: sha256, the container's check, the frames as JPEG, flow.
- store, compensated: the same, with a second flow without camera motion, which takes a second calc().

Workers: the same videos for one process and for two, already started, which take whole videos as Ray's take shards.
bench/overhead.py measures Ray's cost. By the clock two are twice as fast only on two free physical cores. The plain
loop, run once and twice in the same way, shows how far the machine's are. The clips are bench/decoding.py's.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import report
from bench.decoding import cpu, cpu_seconds, made
from pipeline.config.schema import Decode, Flow
from pipeline.decode.flow import ALGORITHMS
from pipeline.decode.shards import Source, Task, decode_shard

QUALITY, SIZE, SHORT_SIDE, BOUND = 95, "340x256", 256, 20.0
FRAMES = {"dis": 30, "tvl1": 3}  # of a video
VIDEOS = 4  # of two kinds, on which the algorithms differ in time: so two workers have equal work
WORKERS = {1: "one worker", 2: "two workers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        sets = {
            name: made(root / name, VIDEOS, "mp4", SIZE, frames / 30, ["-c:v", "libx264", "-g", "12"])
            for name, frames in FRAMES.items()
        }
        with workers(1) as one, workers(2) as two:
            pools = {WORKERS[1]: one, WORKERS[2]: two}
            rows = [
                each for turn in range(turns) for name in sets for each in shared(turn, name, sets[name], root, pools)
            ]
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        cv2.setNumThreads(1)
        rows = [row for turn in range(turns) for name in sets for row in race(turn, name, sets[name], root)] + rows
    machine = f"{os.cpu_count()} cores ({cpu()}), OpenCV {cv2.__version__}, load {os.getloadavg()[1]:.1f} meanwhile"
    text = f"{machine}; {VIDEOS} videos of {SIZE}, H.264, JPEG quality {QUALITY}, {turns} turns."
    head = ["flow", "way", "frames/s of CPU time", "the first = 1", "frames/s by the clock", "the first = 1"]
    report.save("flow", "Optical flow from video files", text, head, lines(rows), rows)


def race(turn: int, name: str, paths: Sequence[Path], root: Path) -> list[dict[str, Any]]:
    """Return a row per way, on this process's core."""
    ways: dict[str, Callable[[Path], None]] = {
        "OpenCV in a loop": lambda out: loop(name, paths, out),
        "store": lambda out: stored(tasks(name, paths, out)),
        "store, compensated": lambda out: stored(tasks(name, paths, out, compensated=True)),
    }
    rows = []
    for way, run in ways.items():
        shutil.rmtree(root / "out", ignore_errors=True)
        (root / "out").mkdir()
        began, cpu_began = time.perf_counter(), cpu_seconds()
        run(root / "out")
        rows.append(row(turn, name, way, cpu_seconds() - cpu_began, time.perf_counter() - began))
    return rows


def workers(count: int) -> ProcessPoolExecutor:
    """Return a pool of `count` started processes."""
    pool = ProcessPoolExecutor(count, get_context("spawn"))
    list(pool.map(time.sleep, [1] * count))
    return pool


def shared(
    turn: int, name: str, paths: Sequence[Path], root: Path, pools: Mapping[str, ProcessPoolExecutor]
) -> list[dict[str, Any]]:
    """Return a row for each pool of workers, of the plain loop and of the store."""
    rows = []
    for way in ("OpenCV in a loop", "store"):
        for count, pool in pools.items():
            shutil.rmtree(root / "out", ignore_errors=True)
            (root / "out").mkdir()
            work: list[Callable[[], object]] = (
                [partial(loop, name, [path], root / "out") for path in paths]
                if way == "OpenCV in a loop"
                else [partial(decode_shard, task) for task in tasks(name, paths, root / "out")]
            )
            began = time.perf_counter()
            spent = sum(pool.map(cpu_of, work))
            rows.append(row(turn, name, f"{way}, {count}", spent, time.perf_counter() - began))
    return rows


def row(turn: int, name: str, way: str, cpu_s: float, clock_s: float) -> dict[str, Any]:
    frames = VIDEOS * FRAMES[name]
    speed = {"cpu_frames_s": round(frames / cpu_s, 3), "clock_frames_s": round(frames / clock_s, 3)}
    return {"turn": turn, "flow": name, "way": way, "frames": frames, **speed}


def loop(name: str, paths: Sequence[Path], out: Path) -> None:
    """Compute every frame's flow to the next in a plain loop, as pairs of images."""
    algorithm = ALGORITHMS[name]()
    for path in paths:
        video = cv2.VideoCapture(str(path))
        there, frame = video.read()
        before, number = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 0
        while True:
            there, frame = video.read()
            if not there:
                break
            gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            flow = algorithm.calc(before, gray, None)
            bits = np.rint((np.clip(flow, -BOUND, BOUND) + BOUND) * (255 / (2 * BOUND))).astype(np.uint8)
            for plane, axis in enumerate("xy"):
                picture = str(out / f"{path.stem}-{axis}-{number:05d}.jpg")
                cv2.imwrite(picture, bits[..., plane], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            before, number = gray, number + 1


def stored(shards: Sequence[Task]) -> None:
    for task in shards:
        decode_shard(task)


def tasks(name: str, paths: Sequence[Path], out: Path, compensated: bool = False) -> list[Task]:
    """Return one shard per video."""
    settings = Decode(SHORT_SIDE, QUALITY, "ffmpeg", 1, 0.0, Flow(name, BOUND, compensated))  # type: ignore[arg-type]
    sources = [Source(path.name, path.name, sha256(path.read_bytes()).hexdigest()) for path in paths]
    return [Task(out, n, paths[n].parent, (source,), settings) for n, source in enumerate(sources)]


def cpu_of(work: Callable[[], object]) -> float:
    """Return the CPU time of the work, in s, on one OpenCV thread."""
    cv2.setNumThreads(1)
    began = cpu_seconds()
    work()
    return cpu_seconds() - began


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table's lines: medians over turns.

    Ratios are to the plain loop, or to one worker.
    """
    lines = []
    for name, way in sorted(dict.fromkeys((one["flow"], one["way"]) for one in rows), key=lambda key: key[0]):
        of, _, who = way.rpartition(", ")
        first = f"{of}, {WORKERS[1]}" if who in WORKERS.values() else "OpenCV in a loop"
        own, base = ([one for one in rows if (one["flow"], one["way"]) == (name, of)] for of in (way, first))
        cells = [name, way]
        for key in ("cpu_frames_s", "clock_frames_s"):
            ratios = [one[key] / other[key] for one, other in zip(own, base, strict=True)]
            cells.append(f"{statistics.median(one[key] for one in own):.3g}")
            cells.append(f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(cells)
    return lines


if __name__ == "__main__":
    main()
