"""How long a cluster takes to decode a data set, train on it and evaluate: a heap of workers, with what holds them up.

Nothing here measures: `Costs` come from benchmarks, `Job` from a row's recipe and protocol, `Machine` is assumed. The
stages follow one another, as in `dvc repro`. Times are in s, sizes in bytes.

Tasks are handed out as cluster/fanout.py does: by one driver, one after the other, so many ahead of those that run. A
task first reads and writes its data, which shared storage serves in turn, at its full bandwidth, then computes. A
training step waits for its slowest worker, then for the sum of the gradients round a ring, none of it hidden behind
the backward pass. Training clips are loaded beside the GPU's work, so a step takes the longer of both.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.fanout import AHEAD

# What may hold a cluster up; Machine.without takes one away.
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
    """What was measured."""

    decode: tuple[float, ...]  # of a core, for each of the videos that were tried
    load: float  # of a core, for a training clip
    steps: tuple[float, ...]  # windows of training steps that were timed, each by their mean
    evaluate: tuple[float, ...]  # and blocks of test videos, each by their mean
    task: float  # the driver's time for a task,
    ahead: float  # and as much more for each that is handed out ahead
    start: float  # of a task that does nothing, there and back: a worker waits so long for its next, at most
    process: float  # until a worker's process has begun and has imported what it needs
    trainer: float  # until Ray Train's workers take their first step
    finish: float  # merging the index, for a video
    open: float  # reading the index, for a video
    list: float  # making the list of training clips, for a video
    video_bytes: float  # of a video's file
    frame_bytes: float  # of a stored frame


@dataclass(frozen=True)
class Job:
    """What is to be done."""

    train: int  # videos
    test: int
    frames: int  # of a video
    shard: int  # videos a decoding task
    epochs: int
    batch: int  # clips a step
    micro_batch: int
    clip: int  # frames of a training clip
    block: int  # videos an evaluation task
    views: int  # of a test video, each of `view` frames
    view: int
    train_clip: float  # s of a GPU
    evaluate_view: float  # s of a GPU
    weights: int  # bytes of the gradients
    runs: int = 1  # rows x splits x seeds, which are trained and evaluated side by side


@dataclass(frozen=True)
class Machine:
    """A cluster that is assumed."""

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
    """When the last of the tasks is done, in s; each goes to the worker that is free first.

    driver: s for each task, one after the other, and at most `ahead` x workers of them not yet done. start: s from free
    and handed out to begun. transfer: s of the shared storage for each task, one after the other.
    """
    running: list[float] = []  # ends of the tasks that run: a heap
    ended: list[float] = []  # ends of those that are done, in order
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
    """The decode stage, on all cores."""
    videos, workers = job.train + job.test, machine.gpus * machine.cores
    shards = -(-videos // job.shard)
    drawn = np.random.default_rng(0).choice(costs.decode, (shards, job.shard)).sum(axis=1)
    size = job.shard * (costs.video_bytes + job.frames * costs.frame_bytes)
    return _tasks(costs, drawn, workers, size, machine) + _index(costs.finish, videos, machine)


def trained(costs: Costs, job: Job, machine: Machine, workers: int, active: int) -> float:
    """One training run on so many workers, while so many GPUs train in all."""
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
    """The evaluation of all runs, on all GPUs."""
    sizes = [min(job.block, job.test - begin) for begin in range(0, job.test, job.block)] * job.runs
    drawn = np.random.default_rng(2).choice(costs.evaluate, len(sizes)) * sizes * job.views
    drawn *= job.evaluate_view + costs.load  # stage 5 loads views where it forwards them, one after the other
    size = job.block * job.views * job.view * costs.frame_bytes
    return _tasks(costs, drawn, machine.gpus, size, machine) + _index(costs.open, job.train + job.test, machine)


def stages(costs: Costs, job: Job, machine: Machine) -> dict[str, float]:
    """Seconds of each stage. Training takes the number of workers a run that suits it best, up to the recipe's most."""
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
    return {
        "decode": decoded(costs, job, machine),
        "train": min(options),
        "evaluate": evaluated(costs, job, machine),
    }


def efficiency(costs: Costs, job: Job, machine: Machine) -> float:
    """What one GPU takes, by as many times the GPUs' time: 1 where nothing is lost."""
    alone = sum(stages(costs, job, replace(machine, gpus=1, without="")).values())
    return alone / (machine.gpus * sum(stages(costs, job, machine).values()))


def losses(costs: Costs, job: Job, machine: Machine) -> dict[str, float]:
    """For each of LIMITS, the share of the time that would be saved without it, most first."""
    whole = sum(stages(costs, job, machine).values())
    saved = {limit: 1 - sum(stages(costs, job, replace(machine, without=limit)).values()) / whole for limit in LIMITS}
    return dict(sorted(saved.items(), key=lambda item: -item[1]))


def _tasks(costs: Costs, drawn: np.ndarray, workers: int, size: float, machine: Machine) -> float:
    """Tasks that read and write `size` bytes each."""
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
    """What one process does for every video, whatever the number of GPUs."""
    return 0.0 if machine.without == "index of videos" else seconds * videos
