"""Simulated time of decoding, training and evaluation on a cluster.

Nothing here measures: `Costs` are from benchmarks, `Job` from a row's recipe and protocol, `Machine` is assumed. The
stages follow one another, as in `dvc repro`. Times are in s, sizes in bytes.

Tasks are submitted as in cluster/fanout.py: by one driver, one after the other, so many ahead of those that run. A task
first reads and writes its data, which shared storage serves in turn, at its full bandwidth, then computes. A training
step waits for its slowest worker, then for the ring all-reduce of the gradients, none of it hidden behind the backward
pass. Training clips are loaded in parallel with the GPU's work, so a step takes the longer of both.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.fanout import AHEAD

# Limits of a cluster; Machine.without removes one.
LIMITS = (
    "recipe's micro batches",
    "end of a stage",
    "slowest worker of a step",
    "driver's tasks",
    "start-up",
    "index of videos",
    "shared storage",
    "all-reduce",
)


@dataclass(frozen=True)
class Costs:
    """Measured costs."""

    decode: tuple[float, ...]  # of a core, for each of the videos measured
    load: float  # of a core, for a training clip
    steps: tuple[float, ...]  # timed windows of training steps, each divided by their mean
    evaluate: tuple[float, ...]  # and blocks of test videos, each divided by their mean
    task: float  # the driver's time for a task,
    ahead: float  # and the additional time for each submitted ahead
    start: float  # of an empty task, there and back: a worker waits at most so long for its next
    process: float  # until a worker's process has started and imported its code
    trainer: float  # until Ray Train's workers take their first step
    finish: float  # merging the index, for a video
    open: float  # reading the index, for a video
    list: float  # making the list of training clips, for a video
    video_bytes: float  # of a video's file
    frame_bytes: float  # of a stored frame


@dataclass(frozen=True)
class Job:
    """The work to do."""

    train: int  # videos
    test: int
    frames: int  # of a video
    shard: int  # videos per decoding task
    epochs: int
    batch: int  # clips per step
    micro_batch: int
    clip: int  # frames of a training clip
    block: int  # videos per evaluation task
    views: int  # of a test video, each of `view` frames
    view: int
    train_clip: float  # s of a GPU
    evaluate_view: float  # s of a GPU
    weights: int  # bytes of the gradients
    runs: int = 1  # rows x splits x seeds, trained and evaluated in parallel


@dataclass(frozen=True)
class Machine:
    """An assumed cluster."""

    gpus: int
    node: int  # GPUs of a node
    cores: int  # for each GPU, which decode, or load clips
    storage: float  # bytes/s of the shared storage, reading or writing
    inside: float  # bytes/s between GPUs of a node,
    outside: float  # and of different nodes
    without: str = ""  # one of LIMITS


def drained(
    costs: Sequence[float],
    workers: int,
    driver: float = 0.0,
    start: float = 0.0,
    transfer: float = 0.0,
    ahead: int = AHEAD,
) -> float:
    """Return the end of the last task, in s.

    Each goes to the worker that is free first.

    Args:
        costs: s of each task.
        workers: their number.
        driver: s for each task, one after the other.
        start: s from free and submitted to started.
        transfer: s of the shared storage for each task, one after the other.
        ahead: at most `ahead` x workers submitted tasks are not yet done.
    """
    running: list[float] = []  # ends of the running tasks: a heap
    ended: list[float] = []  # ends of the finished tasks, in order
    handed = served = 0.0
    for n, cost in enumerate(costs):
        if len(running) == workers:
            ended.append(heapq.heappop(running))
        handed = max(handed, ended[n - ahead * workers] if n >= ahead * workers else 0.0) + driver
        begun = max(handed, ended[-1] if ended else 0.0) + start
        served = max(served, begun) + transfer
        heapq.heappush(running, served + cost)
    return max(running, default=0.0)


def decoded(costs: Costs, job: Job, machine: Machine) -> float:
    """Return the time of the decode stage, on all cores."""
    videos, workers = job.train + job.test, machine.gpus * machine.cores
    shards = -(-videos // job.shard)
    drawn = np.random.default_rng(0).choice(costs.decode, (shards, job.shard)).sum(axis=1)
    size = job.shard * (costs.video_bytes + job.frames * costs.frame_bytes)
    return _tasks(costs, drawn, workers, size, machine) + _index(costs.finish, videos, machine)


def trained(costs: Costs, job: Job, machine: Machine, workers: int, active: int) -> float:
    """Return the time of a training run, while `active` GPUs train in all."""
    micros = job.batch // job.micro_batch
    steps = job.train // job.batch
    rounds = micros / workers if machine.without == "recipe's micro batches" else math.ceil(micros / workers)
    drawn = np.random.default_rng(1).choice(costs.steps, (steps, workers))
    waits = drawn.mean() if machine.without == "slowest worker of a step" else drawn.max(axis=1).mean()
    rate = math.inf if machine.without == "shared storage" else machine.storage
    loading = max(costs.load / machine.cores, active * job.clip * costs.frame_bytes / rate)
    step = rounds * job.micro_batch * max(job.train_clip * waits, loading)
    link = machine.inside if workers <= machine.node else machine.outside
    if machine.without != "all-reduce":
        step += 2 * (workers - 1) / workers * job.weights / link
    begin = _start(costs.trainer if workers > 1 else costs.process, machine)
    return begin + _index(costs.open + costs.list, job.train, machine) + job.epochs * steps * step


def evaluated(costs: Costs, job: Job, machine: Machine) -> float:
    """Return the time of the evaluation of all runs, on all GPUs."""
    sizes = [min(job.block, job.test - begin) for begin in range(0, job.test, job.block)] * job.runs
    drawn = np.random.default_rng(2).choice(costs.evaluate, len(sizes)) * sizes * job.views
    drawn *= job.evaluate_view + costs.load  # stage 5 loads and forwards views in one process, in turn
    size = job.block * job.views * job.view * costs.frame_bytes
    return _tasks(costs, drawn, machine.gpus, size, machine) + _index(costs.open, job.train + job.test, machine)


def stages(costs: Costs, job: Job, machine: Machine) -> dict[str, float]:
    """Return the seconds of each stage.

    Training uses the best number of workers per run. That number is at most the recipe's.
    """
    free = machine.without == "recipe's micro batches"
    most = min(machine.gpus, machine.gpus if free else job.batch // job.micro_batch)
    options = []
    for workers in sorted({min(most, 2**n) for n in range(most.bit_length() + 1)}):
        groups = min(job.runs, machine.gpus // workers)
        run = trained(costs, job, machine, workers, groups * workers)
        even = machine.without == "end of a stage"
        options.append(
            run * max(1.0, job.runs / (machine.gpus // workers)) if even else drained([run] * job.runs, groups)
        )
    return {"decode": decoded(costs, job, machine), "train": min(options), "evaluate": evaluated(costs, job, machine)}


def efficiency(costs: Costs, job: Job, machine: Machine) -> float:
    """Return one GPU's time divided by (GPUs times their time): 1 without loss."""
    alone = sum(stages(costs, job, replace(machine, gpus=1, without="")).values())
    return alone / (machine.gpus * sum(stages(costs, job, machine).values()))


def losses(costs: Costs, job: Job, machine: Machine) -> dict[str, float]:
    """Return, for each of LIMITS, the share of time saved without it, largest first."""
    whole = sum(stages(costs, job, machine).values())
    saved = {limit: 1 - sum(stages(costs, job, replace(machine, without=limit)).values()) / whole for limit in LIMITS}
    return dict(sorted(saved.items(), key=lambda item: -item[1]))


def _tasks(costs: Costs, drawn: np.ndarray, workers: int, size: float, machine: Machine) -> float:
    """Return the time of tasks that read and write `size` bytes each."""
    driver, start = costs.task + costs.ahead * AHEAD * workers, costs.start
    if machine.without == "driver's tasks":
        driver = start = 0.0
    transfer = 0.0 if machine.without == "shared storage" else size / machine.storage
    begin = _start(costs.process, machine)
    if machine.without == "end of a stage":
        return begin + max(
            len(drawn) * max(driver, transfer), (drawn.sum() + len(drawn) * (start + transfer)) / workers
        )
    return begin + drained(drawn.tolist(), workers, driver, start, transfer)


def _start(seconds: float, machine: Machine) -> float:
    return 0.0 if machine.without == "start-up" else seconds


def _index(seconds: float, videos: int, machine: Machine) -> float:
    """Return the time of one process's work for every video, at any number of GPUs."""
    return 0.0 if machine.without == "index of videos" else seconds * videos
