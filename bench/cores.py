"""Decoding and evaluation on one and two cores, and the costs of Ray's tasks.

    python -m bench.cores [--turns N]

The work is the fan-out of stages 2 and 5: shards of one video each (340x256, H.264, 10 s), and blocks of two videos for
TSM on ResNet-50 (8x224x224, one view). Ray has one CPU or two and uses cluster/fanout.py. The control is the same
functions in one process or two that take the next item when they are free. Workers have started, imported and loaded
their net before the clock starts. All four take turns. A run with one worker is pinned to one core, with its ffmpeg,
its driver and Ray's processes, because a worker and its ffmpeg would otherwise run on two. Efficiency is the time of
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
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray
import torch

from bench import report
from bench.decoding import cpu_seconds, made
from cluster import fanout, score
from cluster.session import MALLOC
from pipeline.config.load import load
from pipeline.config.schema import Cluster, Decode
from pipeline.decode import shards
from pipeline.evaluate import inference
from pipeline.train import rows
from pipeline.train.run import Run

ROOT = Path(__file__).parents[1]
VIDEOS, SECONDS, SIZE, NAME = 96, 10, "340x256", "videos"
DECODE = Decode(short_side=256, quality=90, decoder="ffmpeg", videos_per_shard=1, max_failed=0.0)
AHEAD = (4, 64, 1024)  # tasks submitted ahead
TASKS = 2048
WAYS = ("Ray", "processes")
Doing = Callable[[Callable[..., Any], list[tuple]], list[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding and evaluation on one core and on two, through Ray")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)  # stage, way, workers, folder
    given = parser.parse_args()
    if given.work:
        stage, way, count, place = given.work
        return print(json.dumps(overheads() if way == "cost" else timed(stage, way, int(count), Path(place))))
    rows = []
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for turn in range(given.turns):
            for stage in ("decode", "evaluate"):
                for count in (1, 2):
                    for way in WAYS:
                        rows += [{"turn": turn, **row} for row in child(stage, way, str(count), place)]
            rows += [{"turn": turn, **row} for row in child("", "cost", "1", place)]
        store = Path(place) / "frames" / NAME
        stored = sum(path.stat().st_size for path in store.glob("shard-?????.arrow"))
        size = sum(path.stat().st_size for path in (Path(place) / "videos").glob("*.mp4"))
        for what, value in (("file", size / VIDEOS), ("frame", stored / VIDEOS / SECONDS / 30)):
            rows.append({"turn": 0, "what": what, "way": "bytes", "value": round(value)})
    save(rows, given.turns)


def child(*work: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.cores", "--work", *work]
    env = os.environ | MALLOC | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def prepare(root: Path) -> None:
    """Write videos, their frames, their split and a net's weights."""
    few = made(root / "videos", 6, "mp4", SIZE, SECONDS, ["-c:v", "libx264", "-g", "12"])
    for n in range(len(few), VIDEOS):
        os.link(few[n % len(few)], root / "videos" / f"{n}.mp4")
    tasks = decoding(root, root / "frames" / NAME)
    for task in tasks:
        shards.decode_shard(task)
    shards.finish(tasks[0].folder, tasks)
    folder = root / "splits" / NAME
    folder.mkdir(parents=True)
    names = [f"{n}.mp4" for n in range(VIDEOS)]
    columns = {"video": names, "part": ["test"] * VIDEOS, "labels": pa.array([[0]] * VIDEOS, pa.list_(pa.int32()))}
    pa.parquet.write_table(pa.table(columns), folder / "split-1.parquet")
    (folder / "classes.json").write_text(json.dumps([str(n) for n in range(400)]))
    one = run_of(root)
    one.weights.parent.mkdir(parents=True)
    torch.save(one.net().state_dict(), one.weights)


def decoding(root: Path, out: Path) -> list[shards.Task]:
    paths = [root / "videos" / f"{n}.mp4" for n in range(VIDEOS)]
    listed = [shards.Source(path.name, path.name, sha256(path.read_bytes()).hexdigest()) for path in paths]
    return shards.plan(out, root / "videos", listed, DECODE)


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


def timed(stage: str, way: str, count: int, root: Path) -> list[dict[str, Any]]:
    """Return a row for the whole (wall-clock time), and one per item (CPU time)."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])  # inherited by children
    with tempfile.TemporaryDirectory(dir=root) as out, on_ray(count) if way == "Ray" else in_processes(count) as run:
        function, work = items(stage, root, Path(out))
        run(warm, [(function, *work[n]) for n in range(count)])
        began = time.perf_counter()
        spent = run(cpu_of, [(function, *item) for item in work[count:]])
        seconds = time.perf_counter() - began
    told = {"what": stage, "way": way, "workers": count}
    whole = {**told, "items": len(spent), "value": round(seconds, 4), "cpu_s": round(sum(spent), 4)}
    return [whole, *({**told, "way": f"{way}, an item", "value": round(one, 5)} for one in spent)]


def cpu_of(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the CPU seconds of a call, with those of the processes that it starts."""
    torch.set_num_threads(1)
    began = cpu_seconds()
    function(*arguments)
    return cpu_seconds() - began


def warm(function: Callable[..., Any], *arguments: Any) -> None:
    """Run an item per worker before the clock starts.

    The wait keeps one worker from doing two.
    """
    cpu_of(function, *arguments)
    time.sleep(2)


@contextmanager
def on_ray(count: int) -> Iterator[Doing]:
    ray.init(
        address="local", num_cpus=count, object_store_memory=256 * 2**20, include_dashboard=False, log_to_driver=False
    )
    try:
        yield lambda function, work: [value for _, value in fanout.fan_out(function, work, "items")]
    finally:
        ray.shutdown()


@contextmanager
def in_processes(count: int) -> Iterator[Doing]:
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        yield lambda function, work: [
            one.result() for one in as_completed([pool.submit(function, *item) for item in work])
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
        rows += [{"what": "task", "value": clock(lambda: ray.get(task.remote(0)))} for _ in range(100)]
        block = np.zeros(2**26, np.uint8)
        rows.append({"what": "transfer", "value": clock(lambda: ray.get(task.remote(ray.put(block))))})
    return [{**row, "way": "Ray", "value": round(row["value"], 7)} for row in rows]


def abs_(value: Any) -> int:
    return 0 if isinstance(value, int) else int(value.sum())


def imported() -> float:
    """Return this process's CPU seconds since its start.

    Imports of training and evaluation are included.
    """
    import cluster.fit
    import cluster.score  # noqa: F401

    return time.process_time()


def clock(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def save(rows: list[dict[str, Any]], turns: int) -> None:
    def found(what: str, way: str, count: int, key: str = "value") -> list[float]:
        return [row[key] for row in rows if (row["what"], row["way"], row.get("workers")) == (what, way, count)]

    lines = []
    for stage in ("decode", "evaluate"):
        for way in WAYS:
            (ones, twos), (cpu_1, cpu_2) = ([found(stage, way, n, key) for n in (1, 2)] for key in ("value", "cpu_s"))
            # The warm-up takes an item off each worker's list.
            shares = [found(stage, way, n, "items")[0] for n in (1, 2)]
            gains = [one / shares[0] / (two / shares[1]) / 2 for one, two in zip(ones, twos, strict=True)]
            dearer = [two / shares[1] / (one / shares[0]) for one, two in zip(cpu_1, cpu_2, strict=True)]
            lines.append([
                f"{stage}, {way}", f"{statistics.median(ones):.2f}", f"{statistics.median(twos):.2f}",
                f"{100 * statistics.median(gains):.0f} % ({100 * min(gains):.0f} to {100 * max(gains):.0f})",
                f"{statistics.median(dearer):.2f} ({min(dearer):.2f} to {max(dearer):.2f})",
            ])  # fmt: skip
    costs = [f"{1000 * statistics.median(found('hand out', 'Ray', ahead)):.2f} ms with {ahead:,}" for ahead in AHEAD]
    single = {
        what: statistics.median(row["value"] for row in rows if row["what"] == what)
        for what in ("task", "process", "transfer")
    }
    text = (
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[1]:.1f} meanwhile, {turns} turns. Of Ray: "
        f"handing out a task costs the driver {', '.join(costs)} ahead; a task takes {1000 * single['task']:.1f} ms "
        f"from handed out to its result, a process {single['process']:.1f} s of CPU to begin, 64 MiB "
        f"{single['transfer']:.2f} s."
    )
    head = ["stage", "one, s", "two, s", "efficiency of two (least to most)", "CPU of an item, two to one"]
    columns = ("turn", "what", "way", "workers", "items", "value", "cpu_s")
    every = [{column: row.get(column, "") for column in columns} for row in rows]
    report.save("cores", "Decoding and evaluation on one core and on two", text, head, lines, every)


if __name__ == "__main__":
    main()
