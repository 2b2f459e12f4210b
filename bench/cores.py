"""Decoding and evaluation on one and two cores, and the costs of Ray's tasks.

    python -m bench.cores [--turns N]

The work is the fan-out of stages 2 and 5: shards of one video each (340x256, H.264, 10 s), and blocks of two videos for
TSM on ResNet-50 (8x224x224, one view). Ray has one CPU or two and uses cluster/fanout.py. The control is the same
functions in one process or two that take the next item when they are free. Workers have started, imported and loaded
their net before the clock starts. All four take turns. A run with one worker is pinned to one core, with
its ffmpeg, its driver and Ray's processes. Otherwise a worker and its ffmpeg would use two. Efficiency is the time of
one worker divided by twice that of two. The control's loss is the machine's: its two cores may share a processor,
caches or memory.

The costs of Ray's tasks, on a Ray of one CPU:

- hand out: CPU time of the driver's process, all of its threads, for an empty task, in a fan-out that submits so many
  ahead.
- task: wall-clock time from submitting a task to its result.
- process: CPU time from a worker process's start until it has imported the code that trains and evaluates.
- transfer: seconds to put 64 MiB into the object store and read it in a task. The pipeline sends only paths.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
import torch

from bench import report
from bench.decoding import decode, listed, pans
from bench.report import column
from bench.running import ROOT, child, machine, parser, timed
from cluster import fanout, score
from cluster.session import MALLOC
from pipeline.config.load import load
from pipeline.config.schema import Cluster, Decode
from pipeline.decode import shards
from pipeline.evaluate import inference
from pipeline.train import rows
from pipeline.train.run import Run

VIDEOS, SECONDS, SIZE, NAME = 96, 10, "340x256", "videos"
DECODE = Decode(short_side=256, quality=90, decoder="ffmpeg", videos_per_shard=1, max_failed=0.0)
AHEAD = (4, 64, 1024)  # tasks submitted ahead
TASKS = 2048
WAYS = ("Ray", "processes")
VARIABLES = MALLOC | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
FanOut = Callable[[Callable[..., Any], list[tuple]], list[Any]]


def main() -> None:
    command = parser(__doc__, turns=5)
    command.add_argument("--work", nargs=4, help=argparse.SUPPRESS)  # stage, way, workers, folder
    args = command.parse_args()
    if args.work:
        stage, way, count, folder = args.work
        return print(json.dumps(overheads() if way == "cost" else race(stage, way, int(count), Path(folder))))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        works = [(stage, way, count) for stage in ("decode", "evaluate") for count in ("1", "2") for way in WAYS]
        for turn in range(args.turns):
            for work in (*works, ("", "cost", "1")):
                rows += [{"turn": turn, **row} for row in child("cores", "--work", *work, folder, **VARIABLES)]
        stored = sum(path.stat().st_size for path in Path(folder, "frames", NAME).glob("shard-?????.arrow"))
        size = sum(path.stat().st_size for path in Path(folder, "videos").glob("*.mp4"))
        for what, value in (("file", size / VIDEOS), ("frame", stored / VIDEOS / SECONDS / 30)):
            rows.append({"turn": 0, "what": what, "way": "bytes", "value": round(value)})
    save(rows, args.turns)


def prepare(root: Path) -> None:
    """Write videos, their frames, their split and a net's weights."""
    few = pans(root / "videos", 6, "mp4", SIZE, SECONDS, ["-c:v", "libx264", "-g", "12"])
    for n in range(len(few), VIDEOS):
        os.link(few[n % len(few)], root / "videos" / f"{n}.mp4")
    decode(decoding(root, root / "frames" / NAME))
    folder = root / "splits" / NAME
    folder.mkdir(parents=True)
    names = [f"{n}.mp4" for n in range(VIDEOS)]
    columns = {"video": names, "part": ["test"] * VIDEOS, "labels": pa.array([[0]] * VIDEOS, pa.list_(pa.int32()))}
    pa.parquet.write_table(pa.table(columns), folder / "split-1.parquet")
    (folder / "classes.json").write_text(json.dumps([str(n) for n in range(400)]))
    (folder / "mirrored.json").write_text(json.dumps([-1] * 400))
    run = run_of(root)
    run.weights.parent.mkdir(parents=True)
    torch.save(run.net().state_dict(), run.weights)


def decoding(root: Path, out: Path) -> list[shards.Task]:
    paths = [root / "videos" / f"{n}.mp4" for n in range(VIDEOS)]
    return shards.plan(out, root / "videos", listed(paths, root / "videos"), DECODE)


def run_of(root: Path) -> Run:
    params = load(ROOT / "params.yaml")
    row = replace(params.experiments["tsm"], dataset=NAME, variant="50", splits=(1,), seeds=(0,))
    protocol = replace(params.protocols["center"], size=224, batch=2)
    return replace(rows.runs(replace(params, experiments={"tsm": row}), "tsm", root)[0], protocol=protocol)


def items(stage: str, root: Path, out: Path) -> tuple[Callable[..., Any], list[tuple]]:
    """Return the function and items of the stage's fan-out."""
    if stage == "decode":
        return shards.decode_shard, [(task,) for task in decoding(root, out)]
    inference.BLOCK = 2  # in this process, the only one that cuts the blocks
    return score.block, list(score.blocks([run_of(root)], Cluster(storage=str(out))))


def race(stage: str, way: str, count: int, root: Path) -> list[dict[str, Any]]:
    """Return a row for the whole (wall-clock time), and one per item (CPU time)."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])  # inherited by children
    with tempfile.TemporaryDirectory(dir=root) as out, on_ray(count) if way == "Ray" else in_processes(count) as run:
        function, work = items(stage, root, Path(out))
        run(warm, [(function, *work[n]) for n in range(count)])
        timing = timed(run, cpu_of, [(function, *item) for item in work[count:]])
    cells = {"what": stage, "way": way, "workers": count}
    whole = {**cells, "items": len(timing.result), "value": timing.wall, "cpu_s": sum(timing.result)}
    return [whole, *({**cells, "way": f"{way}, an item", "value": seconds} for seconds in timing.result)]


def cpu_of(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the CPU seconds of a call, with those of the processes that it starts."""
    torch.set_num_threads(1)
    return timed(function, *arguments).cpu


def warm(function: Callable[..., Any], *arguments: Any) -> None:
    """Run an item per worker before the clock starts.

    The wait keeps one worker from doing two.
    """
    cpu_of(function, *arguments)
    time.sleep(2)


@contextmanager
def on_ray(count: int) -> Iterator[FanOut]:
    ray.init(
        address="local", num_cpus=count, object_store_memory=256 * 2**20, include_dashboard=False, log_to_driver=False
    )
    try:
        yield lambda function, work: [value for _, value in fanout.fan_out(function, work, "items")]
    finally:
        ray.shutdown()


@contextmanager
def in_processes(count: int) -> Iterator[FanOut]:
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        yield lambda function, work: [
            future.result() for future in as_completed([pool.submit(function, *item) for item in work])
        ]


def overheads() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with on_ray(1) as run:
        rows.append({"what": "process", "value": run(imported, [()])[0]})
        for ahead in AHEAD:
            fanout.AHEAD = ahead
            run(abs, [(0,)] * ahead)
            began = time.process_time()
            run(abs, [(0,)] * TASKS)
            rows.append({"what": "hand out", "workers": ahead, "value": (time.process_time() - began) / TASKS})
        task = ray.remote(abs_).options(num_cpus=1)
        rows += [{"what": "task", "value": timed(lambda: ray.get(task.remote(0))).wall} for _ in range(100)]
        block = np.zeros(2**26, np.uint8)
        rows.append({"what": "transfer", "value": timed(lambda: ray.get(task.remote(ray.put(block)))).wall})
    return [{**row, "way": "Ray"} for row in rows]


def abs_(value: Any) -> int:
    return 0 if isinstance(value, int) else int(value.sum())


def imported() -> float:
    """Return this process's CPU seconds since its start.

    Imports of training and evaluation are included.
    """
    import cluster.fit
    import cluster.score  # noqa: F401

    return time.process_time()


def save(rows: list[dict[str, Any]], turns: int) -> None:
    lines = []
    for stage in ("decode", "evaluate"):
        for way in WAYS:
            single, double = (report.select(rows, what=stage, way=way, workers=n) for n in (1, 2))
            # The warm-up takes an item off each worker's list.
            share = single[0]["items"] / double[0]["items"]
            gains = report.ratios(column(single, "value"), column(double, "value"))
            costs = report.ratios(column(double, "cpu_s"), column(single, "cpu_s"))
            efficiency = report.spread([100 * gain / share / 2 for gain in gains], ".0f", " %")
            times = [report.median(each, "value") for each in (single, double)]
            lines.append([f"{stage}, {way}", *times, efficiency, report.spread([c * share for c in costs], unit="")])
    submitted = [f"{1000 * cost('hand out', rows, workers=ahead):.2f} ms with {ahead:,}" for ahead in AHEAD]
    text = (
        f"{machine()}, {turns} turns. Of Ray: submitting a task costs the driver {', '.join(submitted)} ahead. A task "
        f"takes {1000 * cost('task', rows):.1f} ms from submission to its result, starting a process "
        f"{cost('process', rows):.1f} s of CPU, a transfer of 64 MiB {cost('transfer', rows):.2f} s."
    )
    head = ["stage", "one, s", "two, s", "efficiency of two (least to most)", "CPU of an item, two to one"]
    report.save("cores", "Decoding and evaluation on one core and on two", text, head, lines, rows)


def cost(what: str, rows: list[dict[str, Any]], **cells: Any) -> float:
    return float(np.median(column(rows, "value", what=what, **cells)))


if __name__ == "__main__":
    main()
