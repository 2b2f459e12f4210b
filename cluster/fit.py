"""Training of a row's runs in parallel.

One worker is a Ray task; several use Ray Train, which takes a second to import, so others don't import it.
"""

import io
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from cluster.auto import Placed, at_once, placed
from cluster.fanout import lost, progress
from pipeline.config.schema import Cluster
from pipeline.digest import state
from pipeline.digest.files import sha256, write_sums
from pipeline.errors import UserError
from pipeline.storage import remote
from pipeline.storage.remote import Place, write
from pipeline.tracking import run_log
from pipeline.train import divergence, keys, node_cache
from pipeline.train import loop as loop
from pipeline.train.divergence import Diverged
from pipeline.train.run import Run

TRIES = 3  # of a training with a damaged or missing result
STATE, WEIGHTS, LOG = "state.pt", "weights.pt", run_log.RUNNING
DIVERGED = "diverged.json"  # in a run's state: epoch, step and message
WATCH = 10.0  # seconds from one look at the running logs to the next
# Ray Train's variables, which it passes to its processes.
PATIENCE = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # its controller polls the workers; every report() waits for that
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",  # time for which a range waits for a lost node
}


@dataclass(frozen=True)
class Training:
    """The arguments of a process that trains a run."""

    run: Run
    weights: Path | None  # to initialize the backbone from
    cluster: Placed
    folder: Place  # of its state, which survives a crash
    key: str  # of the training (pipeline/train/keys.py)
    token: Place  # a file that shows if this process sees the storage


def fit(runs: Sequence[Run], weights: Path | None, cluster: Cluster, watch: Callable[[], None]) -> None:
    """Train every run and write its weights and curve.

    Work that an earlier call finished is not repeated. Results are collected by their key and checksum. One that is
    missing or damaged then is trained again from the remaining state.

    Args:
        runs: Of one row.
        weights: To initialize the backbones from.
        cluster: Where to train.
        watch: Called repeatedly during training.

    Raises:
        Diverged: A run's loss isn't finite; the other runs of the row stop too.
        UserError: A worker hit a user's mistake or doesn't see the storage, or the storage keeps no results.
    """
    cluster = placed(cluster, len(runs))
    for run in runs:
        divergence.unmark(run)
    token = remote.place(cluster.storage) / ".tokens" / secrets.token_hex(8)
    checksum = sha256(weights) if weights else None
    keyed = [(run, keys.training(run, checksum)) for run in runs]
    todo = [Training(run, weights, cluster, keys.state(run, cluster, key), key, token) for run, key in keyed]
    for attempt in range(TRIES):
        if not (todo := [training for training in todo if not _collect(training)]):
            break
        if attempt:
            names = ", ".join(training.run.name for training in todo)
            message = f"train {runs[0].row}: no whole weights of {names} in {cluster.storage}; training them again"
            print(message, file=sys.stderr, flush=True)
        write(token, token.name)
        try:
            sent = node_cache.sent([training.run for training in todo], cluster, [weights] if weights else [])
            train_all([replace(training, run=run) for training, run in zip(todo, sent, strict=True)], watch)
        finally:
            token.unlink(missing_ok=True)
    if todo := [training for training in todo if not _collect(training)]:
        raise UserError(f"{todo[0].folder} loses training's files; check the disk or the store")
    write_sums(runs[0].weights.parent)
    watch()


def train_all(todo: Sequence[Training], watch: Callable[[], None]) -> None:
    """Train in tasks of the Ray session; `watch` is called meanwhile."""
    first, cluster = todo[0].run, todo[0].cluster
    if team(first, cluster)[1] > 1:
        waiting = [_controller(training) for training in todo]
    else:
        task = ray.remote(train_run).options(
            num_cpus=reserved(cluster, len(todo)), num_gpus=cluster.gpus_per_worker, max_retries=cluster.max_failures
        )
        waiting = [task.remote(training) for training in todo]
    total = sum(training.run.recipe.epochs for training in todo)
    with progress(f"train {first.row}, epochs", total) as advance:
        shown, watched, reported = 0, time.monotonic(), ""
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=2.0)
            done = sum(_epochs_done(training.folder) for training in todo)
            advance(done - shown)
            shown = done
            if time.monotonic() - watched > WATCH:
                watch()
                watched = time.monotonic()
                if (lacking := lack(first, cluster)) and lacking != reported:
                    print(f"train {first.row} waits for nodes: {lacking}", file=sys.stderr, flush=True)
                reported = lacking
            for reference in ready:
                _result(reference)
            if ready:
                _raise_diverged(todo)


def reserved(cluster: Placed, runs: int) -> float:
    """Return the CPUs that each of several trainings of one worker reserves."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    places = int(sum(nodes) / cluster.cpus_per_worker)
    if cluster.gpus_per_worker or len(nodes) > 1 or not places:
        return cluster.cpus_per_worker
    # Ray counts in steps of 0.0001; rounded up, three times two thirds of a CPU would not fit two.
    return math.floor(1e4 * cluster.cpus_per_worker * places / at_once(runs, places)) / 1e4


def _raise_diverged(todo: Sequence[Training]) -> None:
    """Raise a worker's divergence and mark the row's result; the next try starts over."""
    for training in todo:
        if content := state.get(training.folder / DIVERGED, training.key):
            (training.folder / DIVERGED).unlink(missing_ok=True)
            error = Diverged(*json.loads(content))
            divergence.mark(training.run, error.epoch, error.step)
            raise error


def _collect(training: Training) -> bool:
    """Write a finished training's files to data/.

    Return False without a valid result of its key.
    """
    content = state.get(training.folder / WEIGHTS, training.key)
    if content is None:
        return False
    head, _, weights = content.partition(b"\n")
    lines, timings = json.loads(head)
    run = training.run
    write(run.curve, _jsonl(lines))
    write(run.timings, _jsonl(timings))
    write(run.weights, weights)
    return True


def team(run: Run, cluster: Placed) -> tuple[int, int]:
    """Return the smallest and largest number of workers of a training.

    A range ends at the number of a step's micro batches.
    """
    fewest, most = cluster.team
    return fewest, max(fewest, min(most, run.recipe.batch // run.recipe.micro_batch))


def lack(run: Run, cluster: Placed) -> str:
    """Describe the resources that the cluster lacks for one such training, or ""."""
    workers, present = team(run, cluster)[0], ray.cluster_resources()
    needed = {"CPU": workers * cluster.cpus_per_worker, "GPU": workers * cluster.gpus_per_worker}
    return "; ".join(
        f"its {workers} {'workers take' if workers > 1 else 'worker takes'} {amount:g} {kind}, "
        f"the cluster has {present.get(kind, 0):g}"
        for kind, amount in needed.items()
        if amount > present.get(kind, 0)
    )


def forget(runs: Sequence[Run], weights: str | None, cluster: Cluster) -> None:
    """Remove a row's state, once its outputs are safe.

    `weights` is the initial weights' sha256.
    """
    made_under = [(run, key) for run in runs for key in (keys.training(run, weights), keys.evaluation(run))]
    folders = [keys.state(run, cluster, key) for run, key in made_under]
    state.clear(remote.place(cluster.storage), runs[0].row, folders)


def running_log(run: Run, weights: str | None, cluster: Cluster) -> Place:
    """Return the file that shows a run's curve and timings while it trains.

    It is only for display.
    """
    return keys.state(run, cluster, keys.training(run, weights)) / LOG


def train_run(training: Training) -> None:
    """Train one run in this process, which may be one of several ranks.

    Rank 0 keeps state each epoch. Training resumes if there is state of the same key, with any number of ranks;
    otherwise it starts over. Everything written depends on the key alone: several processes may train the same run at
    once.

    Raises:
        UserError: The node does not see the storage, or its code or data differ.
    """
    cluster, folder, token = training.cluster, training.folder, training.token
    if not token.exists() or token.read_text() != token.name:
        raise UserError(
            f"a worker on {ray.util.get_node_ip_address()} does not see cluster.storage; "
            "set it to a folder that all nodes share, or to s3://bucket/name"
        )
    run, weights = node_cache.brought(training.run, cluster, training.weights, "train")
    state.check(keys.training(run, sha256(weights) if weights else None), training.key, "train")
    distributed = torch.distributed.is_initialized()
    place = device(cluster)
    if distributed:
        import ray.train as ray_train
        import ray.train.torch as ray_torch

        place = ray_torch.get_device()
    torch.set_num_threads(run.recipe.threads)
    first = not distributed or torch.distributed.get_rank() == 0
    resumed: list[Any] = [_resume(training) if first else None]
    if distributed:
        # All resume from one rank's state: on a shared file system, another may read the previous epoch.
        torch.distributed.broadcast_object_list(resumed, src=0, device=place)
    kept, lines, timings = resumed[0] or (None, [], [])
    if first and lines:  # a killed process may have written the state without the log
        _show(folder, lines, timings)
    try:
        for epoch in loop.epochs(run, weights, kept, place, cluster.loader_workers):
            lines, timings = [*lines, *epoch.lines], [*timings, *epoch.timings]
            kept = epoch.state
            if first:
                _keep(training, kept, lines, timings)
                _show(folder, lines, timings)
            if distributed:
                ray_train.report({"epoch": epoch.number, "loss": lines[-1]["loss"]})
    except Diverged as error:  # the same on every rank; if raised, Ray would restart the workers
        if first:
            state.put(folder / DIVERGED, json.dumps(error.args).encode(), training.key)
        return
    if first and kept:
        # Contiguous copies: the bytes then don't depend on the memory order that training used.
        model = (kept["best"] if run.recipe.checkpoint == "best" else kept)["model"]
        weights_only = _saved({name: value.cpu().contiguous() for name, value in model.items()})
        state.put(folder / WEIGHTS, json.dumps([lines, timings]).encode() + b"\n" + weights_only, training.key)


def _keep(training: Training, kept: dict[str, Any], lines: list[dict], timings: list[dict]) -> None:
    content = _saved({"lines": json.dumps([lines, timings]), **kept})
    state.put(training.folder / STATE, content, training.key)


def _resume(training: Training) -> tuple[dict[str, Any], list[dict], list[dict]] | None:
    """Return the last epoch's state, the curve's lines and their timings, or None."""
    content = state.get(training.folder / STATE, training.key)
    if content is None:
        return None
    kept = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return kept, *json.loads(kept.pop("lines"))


def _show(folder: Place, lines: Sequence[dict], timings: Sequence[dict]) -> None:
    write(folder / LOG, _jsonl([{**timing, **line} for line, timing in zip(lines, timings, strict=True)]))


def _jsonl(lines: Sequence[dict]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def _saved(content: dict[str, Any]) -> bytes:
    # Through memory: torch.save to a path writes the file's name into the archive, and equal states would differ.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _epochs_done(folder: Place) -> int:
    try:
        return (folder / LOG).read_bytes().count(b'"kind": "epoch"')
    except FileNotFoundError:
        return 0


def device(cluster: Placed) -> torch.device:
    """Return the device of a Ray task: its GPU if it has one, or the CPU.

    Ray shows it no other GPU.
    """
    return torch.device("cuda", 0) if cluster.gpus_per_worker and torch.cuda.is_available() else torch.device("cpu")


def _controller(training: Training) -> Any:
    """Start a task that drives Ray Train for one run and reserves no CPU."""
    task = ray.remote(train_distributed).options(num_cpus=0, max_retries=training.cluster.max_failures)
    return task.remote(training)


def train_distributed(training: Training) -> None:
    """Train as train_run() does, on team() data-parallel workers of Ray Train.

    Ray Train restarts the workers when their number changes.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from cluster.gloo import Gloo

    run, cluster = training.run, training.cluster
    fewest, most = team(run, cluster)
    resources = {"CPU": float(cluster.cpus_per_worker)}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    # Ray's files of one start, apart from our state, which others may use or remove at any time.
    above, name = remote.place(cluster.storage) / ".ray", f"{run.row}-{run.name}-{secrets.token_hex(8)}"
    try:
        TorchTrainer(
            _loop,
            train_loop_config={"training": training},
            scaling_config=ScalingConfig(
                num_workers=(fewest, most) if fewest < most else most,  # type: ignore[arg-type]  # the stub has no range
                use_gpu=bool(cluster.gpus_per_worker),
                resources_per_worker=resources,
            ),
            torch_config=TorchConfig(backend="nccl") if cluster.gpus_per_worker else Gloo(),
            run_config=RunConfig(
                name=name, **remote.arrow(above), failure_config=FailureConfig(max_failures=cluster.max_failures)
            ),
        ).fit()
    finally:
        remote.remove(above / name)


def _loop(config: dict[str, Any]) -> None:
    train_run(config["training"])


def _result(reference: Any) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error.cause
        failures = getattr(cause, "worker_failures", None)
        if failures:  # Ray Train wraps a worker's exception
            cause = next(iter(failures.values()))
            cause = getattr(cause, "cause", None) or cause
        if isinstance(cause, UserError | OSError):
            raise cause from None
        if line := lost("train", cause):
            raise line from None
        raise
    except ray.exceptions.RayError as error:
        raise lost("train", error) or error from None
