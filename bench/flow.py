"""Optical flow frames per second: the decode stage, and OpenCV in a loop.

    python -m bench.flow [--turns N]

From video files to JPEG planes, one video after the other, on one core with one OpenCV thread. Algorithm and settings
are the same. CPU time is that of the process and of all it started, so that other load on the machine matters
little. A ratio is the median over turns, with the smallest and largest.

- OpenCV in a loop: cv2.VideoCapture, gray, calc() of a frame and the next. The flow is clipped to +-20 pixels and
  scaled to 8 bits; cv2.imwrite() writes its two planes at JPEG quality 95.
- store: all of shards.decode_shard() with decode.flow: sha256, the container's check, the frames as JPEG, flow.
- store, compensated: the same, with a second flow without camera motion, which takes a second calc().

Workers: the same videos for one process and for two, already started, which take whole videos as Ray's take shards.
bench/overhead.py measures Ray's cost. By the clock two are twice as fast only on two free physical cores. The plain
loop, run once and twice in the same way, shows how far the machine's are. The clips are bench/decoding.py's.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import report
from bench.decoding import above, listed, pans
from bench.report import column
from bench.running import Timing, codecs, emptied, one_core, options, timed
from pipeline.config.schema import Decode, Flow
from pipeline.decode.flow import ALGORITHMS
from pipeline.decode.shards import Task, decode_shard, plan

QUALITY, SIZE, SHORT_SIDE, BOUND = 95, "340x256", 256, 20.0
FRAMES = {"dis": 30, "tvl1": 3}  # of a video
VIDEOS = 4  # of two kinds, on which the algorithms differ in time: so two workers have equal work
PLAIN = "OpenCV in a loop"
WORKERS = {1: "one worker", 2: "two workers"}


def main() -> None:
    turns = options(__doc__, turns=3).turns
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        codec = ["-c:v", "libx264", "-g", "12"]
        sets = {name: pans(root / name, VIDEOS, "mp4", SIZE, frames / 30, codec) for name, frames in FRAMES.items()}
        order = [(turn, name) for turn in range(turns) for name in sets]
        with workers(1) as single, workers(2) as double:
            pools = {WORKERS[1]: single, WORKERS[2]: double}
            side_by_side = [row for turn, name in order for row in shared(turn, name, sets[name], root / "out", pools)]
        one_core()
        cv2.setNumThreads(1)
        rows = [row for turn, name in order for row in race(turn, name, sets[name], root / "out")] + side_by_side
    text = f"{os.cpu_count()} cores ({codecs()}), OpenCV {cv2.__version__}, load {os.getloadavg()[1]:.1f} meanwhile; "
    text += f"{VIDEOS} videos of {SIZE}, H.264, JPEG quality {QUALITY}, {turns} turns."
    head = ["flow", "way", "frames/s of CPU time", "the first = 1", "frames/s by the clock", "the first = 1"]
    report.save("flow", "Optical flow from video files", text, head, lines(rows), rows)


def race(turn: int, name: str, paths: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Return a row per way, on this process's core."""
    ways: dict[str, Callable[[], None]] = {
        PLAIN: partial(loop, name, paths, out),
        "store": lambda: stored(tasks(name, paths, out)),
        "store, compensated": lambda: stored(tasks(name, paths, out, compensated=True)),
    }
    rows = []
    for way, run in ways.items():
        emptied(out)
        rows.append(row(turn, name, way, timed(run)))
    return rows


def workers(count: int) -> ProcessPoolExecutor:
    """Return a pool of `count` started processes."""
    pool = ProcessPoolExecutor(count, get_context("spawn"))
    list(pool.map(time.sleep, [1] * count))
    return pool


def shared(
    turn: int, name: str, paths: Sequence[Path], out: Path, pools: Mapping[str, ProcessPoolExecutor]
) -> list[dict[str, Any]]:
    """Return a row for each pool of workers, of the plain loop and of the store."""
    rows = []
    for way in (PLAIN, "store"):
        for count, pool in pools.items():
            emptied(out)
            work: list[Callable[[], object]] = (
                [partial(loop, name, [path], out) for path in paths]
                if way == PLAIN
                else [partial(decode_shard, task) for task in tasks(name, paths, out)]
            )
            timing = timed(lambda pool=pool, work=work: sum(pool.map(cpu_of, work)))
            rows.append(row(turn, name, f"{way}, {count}", timing._replace(cpu=timing.result)))
    return rows


def row(turn: int, name: str, way: str, timing: Timing) -> dict[str, Any]:
    frames = VIDEOS * FRAMES[name]
    speeds = {"cpu_frames_s": frames / timing.cpu, "clock_frames_s": frames / timing.wall}
    return {"turn": turn, "flow": name, "way": way, "frames": frames, **speeds}


def loop(name: str, paths: Sequence[Path], out: Path) -> None:
    """Compute every frame's flow to the next in a plain loop, as pairs of images."""
    algorithm = ALGORITHMS[name]()
    for path in paths:
        video = cv2.VideoCapture(str(path))
        _, frame = video.read()
        before, number = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 0
        while (following := video.read())[0]:
            gray = cv2.cvtColor(following[1], cv2.COLOR_BGR2GRAY)
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
    return plan(out, above(paths), listed(paths, above(paths)), settings)


def cpu_of(work: Callable[[], object]) -> float:
    """Return the CPU time of the work, in s, on one OpenCV thread."""
    cv2.setNumThreads(1)
    return timed(work).cpu


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table's lines: medians over turns.

    Ratios are to the plain loop, or to one worker.
    """
    lines = []
    for name, way in sorted(dict.fromkeys((row["flow"], row["way"]) for row in rows), key=lambda key: key[0]):
        base, _, who = way.rpartition(", ")
        first = f"{base}, {WORKERS[1]}" if who in WORKERS.values() else PLAIN
        cells = [name, way]
        for key in ("cpu_frames_s", "clock_frames_s"):
            values, others = (column(rows, key, flow=name, way=each) for each in (way, first))
            gain = report.spread(report.ratios(values, others))
            cells += [report.median(rows, key, ".3g", flow=name, way=way), gain]
        lines.append(cells)
    return lines


if __name__ == "__main__":
    main()
