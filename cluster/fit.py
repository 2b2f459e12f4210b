"""Training the cells of a row side by side: as Ray tasks with one worker each, through Ray Train with several."""

import io
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.fanout import progress
from cluster.gloo import Gloo
from pipeline import copies, storage, training
from pipeline.cells import Cell, training_fingerprint
from pipeline.errors import UserError
from pipeline.schema import Cluster
from pipeline.storage import Place, write

WATCH = 10.0  # seconds from one look at the running logs to the next
# Of Ray Train; it passes them on to where they count.
PATIENCE = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # its controller looks at the workers; every report() waits for that
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",  # a range counts on a lost node for so long, once or twice
}


def fit(cells: Sequence[Cell], weights: Path | None, cluster: Cluster, watch: Callable[[], None]) -> None:
    """Trains every cell and writes its weights and log; what an earlier, killed call did is not done again.

    `watch` is called now and then while training goes on. Raises UserError for a user's mistake found by a worker and
    where a worker doesn't see the storage.
    """
    folders = [cell.state(cluster) for cell in cells]
    token = secrets.token_hex(8)
    for folder in folders:
        write(folder / "token", token)
    cells = copies.sent(cells, cluster, [weights] if weights else [])
    if team(cells[0], cluster)[1] > 1:
        waiting = [
            _controller(cell, weights, cluster, folder, token) for cell, folder in zip(cells, folders, strict=True)
        ]
    else:
        task = ray.remote(train_cell).options(
            num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker, max_retries=cluster.max_failures
        )
        waiting = [
            task.remote(cell, weights, cluster, folder, token) for cell, folder in zip(cells, folders, strict=True)
        ]
    total = sum(cell.recipe.epochs for cell in cells)
    with progress(f"train {cells[0].row}, epochs", total) as advance:
        shown, watched, said = 0, time.monotonic(), ""
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=2.0)
            done = sum(_epochs_done(folder) for folder in folders)
            advance(done - shown)
            shown = done
            if time.monotonic() - watched > WATCH:
                watch()
                watched = time.monotonic()
                if (lacking := lack(cells[0], cluster)) and lacking != said:
                    print(f"train {cells[0].row} waits for nodes: {lacking}", file=sys.stderr, flush=True)
                said = lacking
            for reference in ready:
                _result(reference)
    for cell, folder in zip(cells, folders, strict=True):
        write(cell.weights, (folder / "weights.pt").read_bytes())
        write(cell.log, (folder / "log.jsonl").read_bytes())
    watch()


def team(cell: Cell, cluster: Cluster) -> tuple[int, int]:
    """The fewest and the most workers of a training; a range ends at what a step's micro batches keep at work."""
    fewest, most = cluster.team
    return fewest, max(fewest, min(most, cell.recipe.batch // cell.recipe.micro_batch))


def lack(cell: Cell, cluster: Cluster) -> str:
    """What the whole cluster, as it is now, has too little of for one such training; empty where it has room."""
    workers, there = team(cell, cluster)[0], ray.cluster_resources()
    wanted = {"CPU": workers * cluster.cpus_per_worker, "GPU": workers * cluster.gpus_per_worker}
    return "; ".join(
        f"its {workers} {'workers take' if workers > 1 else 'worker takes'} {amount:g} {kind}, "
        f"the cluster has {there.get(kind, 0):g}"
        for kind, amount in wanted.items()
        if amount > there.get(kind, 0)
    )


def forget(row: str, cluster: Cluster) -> None:
    """Removes a row's training state; called once its outputs are safe."""
    storage.remove(storage.place(cluster.storage) / row)


def train_cell(cell: Cell, weights: Path | None, cluster: Cluster, folder: Place, token: str) -> None:
    """Trains one cell in this process, which may be one of several ranks; rank 0 keeps state in `folder` each epoch.

    The folder's state is gone on from when it was made under the same fingerprint, by however many ranks, else begun
    anew.
    """
    if not (folder / "token").exists() or (folder / "token").read_text() != token:
        raise UserError(
            f"a worker on {ray.util.get_node_ip_address()} does not see cluster.storage; "
            "set it to a folder that all nodes share, or to s3://bucket/name"
        )
    cell, weights = copies.brought(cell, cluster, weights, "train")
    distributed = torch.distributed.is_initialized()
    place = ray.train.torch.get_device() if distributed else device(cluster)
    if place.type == "cpu":
        torch.set_num_threads(cluster.cpus_per_worker)
    first = not distributed or torch.distributed.get_rank() == 0
    mark, own = training_fingerprint(cell), secrets.token_hex(8)
    found: list[Any] = [None, []]
    if first:
        write(folder / "owner", own)  # before it looks what is there: an earlier start adds nothing from here on
        found = list(_resume(folder, mark))
        if found[0]:
            _log(folder, found[1])  # who kept the state may have been killed before it came to the log
        else:
            for leftover in ("log.jsonl", "weights.pt"):  # of another fingerprint
                (folder / leftover).unlink(missing_ok=True)
    if distributed:
        # What one rank has read is what all go on from: a shared file system may show another one the epoch before.
        torch.distributed.broadcast_object_list(found, src=0, device=place)
    state, lines = found
    for epoch in training.epochs(cell, weights, state, place, cluster.loader_workers):
        lines = [*lines, *epoch.lines]
        if first:
            _hold(folder, own)
            _save(folder / "state.pt", {"fingerprint": mark, "lines": json.dumps(lines), **epoch.state})
            _log(folder, lines)
        state = epoch.state
        if distributed:
            ray.train.report({"epoch": epoch.number, "loss": lines[-1]["loss"]})
    if first and state:
        _hold(folder, own)
        # Contiguous copies: the bytes then don't depend on the memory order that training used.
        _save(folder / "weights.pt", {name: value.cpu().contiguous() for name, value in state["model"].items()})


def _hold(folder: Place, own: str) -> None:
    """RuntimeError where another start of this training has taken over.

    Ray starts one for a node that it lost sight of. The first may still be at work there, and would put its shorter
    log over the other's.
    """
    if (folder / "owner").read_text() != own:
        raise RuntimeError(f"another start of the training in {folder} has taken over")


def _resume(folder: Place, mark: str) -> tuple[dict[str, Any] | None, list[dict]]:
    try:
        content = (folder / "state.pt").read_bytes()
    except FileNotFoundError:
        return None, []
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    if state["fingerprint"] != mark:
        return None, []
    return state, json.loads(state["lines"])


def _log(folder: Place, lines: Sequence[dict]) -> None:
    write(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _save(target: Place, content: dict[str, Any]) -> None:
    # Through memory: torch.save to a path writes the file's name into the archive, and equal states would differ.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write(target, buffer.getvalue())


def _epochs_done(folder: Place) -> int:
    try:
        return (folder / "log.jsonl").read_text().count('"kind": "epoch"')
    except FileNotFoundError:
        return 0


def device(cluster: Cluster) -> torch.device:
    """The device of a Ray task: its GPU where it was given one (Ray shows it no other), else the CPU."""
    return torch.device("cuda", 0) if cluster.gpus_per_worker and torch.cuda.is_available() else torch.device("cpu")


def _controller(cell: Cell, weights: Path | None, cluster: Cluster, folder: Place, token: str) -> Any:
    """A task that drives Ray Train for one cell; it holds no CPU of its own."""
    task = ray.remote(train_distributed).options(num_cpus=0, max_retries=cluster.max_failures)
    return task.remote(cell, weights, cluster, folder, token)


def train_distributed(cell: Cell, weights: Path | None, cluster: Cluster, folder: Place, token: str) -> None:
    """As train_cell(), on team() data-parallel workers of Ray Train, which restarts them where their number changes."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    fewest, most = team(cell, cluster)
    resources = {"CPU": float(cluster.cpus_per_worker)}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    # A name of its own for every start: the state to go on from is ours, in `folder`.
    name = f"{cell.row}-{cell.name}-{time.time_ns()}"
    TorchTrainer(
        _loop,
        train_loop_config={"arguments": (cell, weights, cluster, folder, token)},
        scaling_config=ScalingConfig(
            num_workers=(fewest, most) if fewest < most else most,  # type: ignore[arg-type]  # its hint knows no range
            use_gpu=bool(cluster.gpus_per_worker),
            resources_per_worker=resources,
        ),
        torch_config=TorchConfig(backend="nccl") if cluster.gpus_per_worker else Gloo(),
        run_config=RunConfig(
            name=name,
            **storage.arrow(folder / "ray"),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
        ),
    ).fit()
    storage.remove(folder / "ray")


def _loop(config: dict[str, Any]) -> None:
    train_cell(*config["arguments"])


def _result(reference: Any) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause: BaseException = error.cause
        failures = getattr(cause, "worker_failures", None)
        if failures:  # Ray Train's wrapper round what a worker raised
            cause = next(iter(failures.values()))
            cause = getattr(cause, "cause", None) or cause
        if isinstance(cause, UserError | OSError):
            raise cause from None
        raise
