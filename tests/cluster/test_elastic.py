"""Training with a changing number of workers: equal results, and the number in the log."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray.cluster_utils
import ray.train
import ray.train.torch
import torch

from cluster.fit import fit, team, train_run
from cluster.session import session
from pipeline.aggregate.provenance import workers
from pipeline.config.schema import Cluster
from pipeline.tracking import run_log
from pipeline.train import loop as loop
from pipeline.train.run import Run
from tests.support.trainings import folder as folder_of
from tests.support.trainings import tiny_run, training

ROOT = Path(__file__).parents[2]
RECIPE: dict[str, Any] = {"epochs": 40}  # long enough to be struck


@pytest.mark.parametrize(
    ("workers", "expected"), [(1, (1, 1)), (3, (3, 3)), ((1, 4), (1, 2)), ((2, 2), (2, 2)), ((3, 4), (3, 3))]
)
def test_a_range_ends_where_a_step_has_no_more_to_share(
    data: Path, workers: int | tuple[int, int], expected: tuple[int, int]
) -> None:
    """Workers are limited to a step's two micro batches; a larger minimum is rejected."""
    assert team(tiny_run(data), Cluster(workers=workers)) == expected


def rank(number: int, port: int, run: Run, folders: list[Path], seen: Path) -> None:
    """Train as one of Ray Train's two ranks, with a separate folder."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    resumed: list[int] = []
    ray.train.report = lambda metrics: resumed.append(metrics["epoch"])
    ray.train.torch.get_device = lambda: torch.device("cpu")
    train_run(training(run, folders[number], Cluster(workers=2)))
    seen.with_suffix(f".{number}").write_text(json.dumps(resumed))
    torch.distributed.destroy_process_group()


def test_all_ranks_resume_from_the_epoch_that_the_first_one_reads(data: Path, tmp_path: Path) -> None:
    """Both ranks resume from one state, even if the file system shows one of them an older state."""
    run = tiny_run(data, epochs=4)
    folders = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(InterruptedError):
        train_until(2, run, folders[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folders[0] / "log.jsonl").unlink()  # killed after it had kept the state, and before it wrote the log
    torch.multiprocessing.start_processes(rank, (port, run, folders, tmp_path / "seen"), nprocs=2, start_method="spawn")
    assert [json.loads((tmp_path / f"seen.{number}").read_text()) for number in (0, 1)] == [[2, 3], [2, 3]]
    assert [line["world"] for line in run_log.epochs(folders[0] / "log.jsonl")] == [1, 1, 2, 2]
    assert [path.name for path in folders[1].iterdir()] == ["token"]


def train_until(epochs: int, run: Run, folder: Path) -> None:
    """Train alone until the next epoch begins."""
    whole = loop.epochs

    def some(*arguments: Any) -> Iterator[loop.Epoch]:
        for epoch in whole(*arguments):
            if epoch.number == epochs:
                raise InterruptedError
            yield epoch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "epochs", some)
        train_run(training(run, folder))


def log_of(path: Path, worlds: list[int | None]) -> Path:
    lines = [{"kind": "epoch", "epoch": n} | ({"world": world} if world else {}) for n, world in enumerate(worlds)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_history_of_workers_is_described(tmp_path: Path) -> None:
    assert workers([log_of(tmp_path / "a", [1, 1, 1])]) == "1"
    assert (
        workers([log_of(tmp_path / "b", [2, 2, 1, 2])]) == "2 in epochs 1 to 2, 1 in epochs 3 to 3, 2 in epochs 4 to 4"
    )
    assert workers([log_of(tmp_path / "c", [None, 1])]) == "unknown"
    assert workers([tmp_path / "absent"]) == "unknown"


@dataclass
class Pair:
    """Start a cluster of two nodes with a CPU each."""

    nodes: ray.cluster_utils.Cluster
    second: Any
    over: threading.Event = field(default_factory=threading.Event)

    def lose_the_second(self) -> None:
        self.nodes.remove_node(self.second)

    def replace_the_second(self) -> None:
        """Add a node after Ray Train has waited for it once in vain."""
        self.lose_the_second()
        time.sleep(20)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signal, "signal", lambda *_: None)  # which a thread may not call
            self.nodes.add_node(num_cpus=1)
        self.over.wait()  # a node ends with the thread that started it

    def kill_a_worker(self) -> None:
        """Kill the last rank in the list of processes."""
        workers = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "RayTrainWorker" in " ".join(process.info["cmdline"] or "")
        ]
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        max(
            (process for process in workers if process.pid in children), key=lambda process: process.create_time()
        ).kill()


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    nodes = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = nodes.add_node(num_cpus=1)
        with session(Cluster(address=nodes.address)):
            yield Pair(nodes, second)
    finally:
        nodes.shutdown()
        os.environ.clear()
        os.environ.update(before)


def strike(log: Path, blow: Callable[[], None]) -> threading.Thread:
    """Wait in a thread for some epochs, then strike."""

    def wait() -> None:
        end = time.monotonic() + 300
        while len(list(run_log.epochs(log))) < 3:
            if time.monotonic() > end:
                return  # the training has failed, and says why
            time.sleep(0.05)
        blow()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "blow", "after"),
    [((1, 2), "lose_the_second", 1), ((1, 2), "kill_a_worker", 2), (2, "replace_the_second", 2)],
)
def test_training_with_changing_workers_ends_the_same(
    pair: Pair,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    workers: int | tuple[int, int],
    blow: str,
    after: int,
) -> None:
    """Train a range with the workers left, and a fixed number after a node has joined."""
    run = tiny_run(data, **RECIPE)
    fit([run], None, Cluster(storage=str(tmp_path / "alone")), lambda: None)
    losses, weights = curve(run), run.weights.read_bytes()
    assert worlds(run) == [1] * 40
    cluster = Cluster(workers=workers, storage=str(tmp_path / "struck"))
    log = folder_of(run, cluster) / "log.jsonl"
    assert isinstance(log, Path)
    thread = strike(log, getattr(pair, blow))
    fit([run], None, cluster, lambda: None)
    pair.over.set()
    thread.join()
    history = worlds(run)
    assert len(history) == 40 and history[:3] == [2, 2, 2] and history[-1] == after and {*history} == {2, after}
    assert curve(run) == losses and run.weights.read_bytes() == weights
    waited = "train row waits for nodes: its 2 workers take 2 CPU, the cluster has 1" in capfd.readouterr().err
    assert waited == (blow == "replace_the_second")


def curve(run: Run) -> list[float]:
    lines = [json.loads(line) for line in run.curve.read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "steps"]


def worlds(run: Run) -> list[int]:
    return [line["world"] for line in run_log.epochs(run.timings)]
