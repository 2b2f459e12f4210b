"""Tasks on Ray, and Ray Train with one and two workers, with failures."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.fanout import fan_out
from cluster.fit import fit, lack, train_run
from cluster.gloo import interface
from cluster.score import score
from cluster.session import session
from pipeline.config.schema import Cluster
from pipeline.errors import UserError
from pipeline.measure import results
from pipeline.train.run import Run
from tests.support.trainings import folder, params, tiny_run, training

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """Start one Ray session for this file, whose workers can import its functions."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    with session(Cluster()):
        yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def double(number: int) -> int:
    return 2 * number


def blames(number: int) -> int:
    raise UserError(f"number {number} is wrong")


def dies_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), 9)
    return "done"


def dies(_: int) -> None:
    os.kill(os.getpid(), 9)


def takes_too_much(_: int) -> None:
    raise MemoryError("4 TiB")


def test_no_cluster_at_an_address_is_an_error() -> None:
    """This test runs first, because the others share a session."""
    with pytest.raises(UserError, match="no Ray cluster answers"), session(Cluster(address="127.0.0.1:1")):
        pass


@pytest.mark.parametrize(
    ("message", "tries"), [("The current node timed out during startup.", 3), ("no space left", 1)]
)
def test_a_node_too_slow_to_come_up_is_started_again(monkeypatch: pytest.MonkeyPatch, message: str, tries: int) -> None:
    import ray

    tried = []

    def init(**options: object) -> None:
        tried.append(options)
        if len(tried) < 3:
            raise Exception(message)

    monkeypatch.setattr(ray, "init", init)
    if tries == 3:
        with session(Cluster()):
            pass
    else:
        with pytest.raises(Exception, match=message), session(Cluster()):
            pass
    assert len(tried) == tries


def test_a_node_that_never_comes_up_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed start leaves no process, which would slow the next one."""
    import subprocess

    import ray

    started = []

    def init(**options: object) -> None:
        started.append(subprocess.Popen(["sleep", "600"]))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match="Ray did not come up in 5 times 30 s") as caught, session(Cluster()):
        pass
    assert "\n" not in str(caught.value)
    assert [process.wait(10) for process in started] == [-9] * 5


def test_results_come_with_their_positions(joined: None) -> None:
    assert dict(fan_out(double, [(n,) for n in range(30)], "doubling")) == {n: 2 * n for n in range(30)}


def test_a_users_mistake_in_a_task_keeps_its_message(joined: None) -> None:
    with pytest.raises(UserError, match="number 7 is wrong"):
        list(fan_out(blames, [(7,)], "blaming"))


@pytest.mark.parametrize(
    ("function", "words"),
    [(dies, "draw: a process died (WorkerCrashedError"), (takes_too_much, "draw: out of memory (MemoryError")],
)
def test_whatever_a_task_dies_of_is_a_line(joined: None, function: Callable[[int], None], words: str) -> None:
    with pytest.raises(UserError) as caught:
        list(fan_out(function, [(1,)], "draw", retries=1))
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_a_task_whose_process_dies_is_tried_again(joined: None, tmp_path: Path) -> None:
    assert list(fan_out(dies_once, [(tmp_path / "died",)], "dying", retries=1)) == [(0, "done")]


def test_an_address_selects_its_interface() -> None:
    """The address selects the interface; test_nodes.py checks with four workers that gloo uses it."""
    assert interface("127.0.0.1") in ("lo", "lo0") and interface("192.0.2.1") is None


def losses(run: Run) -> list[float]:
    lines = [json.loads(line) for line in run.curve.read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "steps"]


def test_one_and_two_workers_give_one_curve_and_the_same_evaluation(joined: None, data: Path, tmp_path: Path) -> None:
    run = tiny_run(data)
    watched = []
    alone = Cluster(storage=str(tmp_path / "alone"))
    fit([run], None, alone, lambda: watched.append(1))
    first, weights = losses(run), torch.load(run.weights, weights_only=True)
    assert watched and len(first) == 6
    two = Cluster(workers=2, storage=str(tmp_path / "two"))
    fit([run], None, two, lambda: None)
    np.testing.assert_allclose(losses(run), first, rtol=1e-4)
    for name, value in torch.load(run.weights, weights_only=True).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4, msg=name)
    # The same checkpoint, scored under either setting: equal to the bit.
    scored = [
        score([run], replace(cluster, storage=str(tmp_path / name))) for name, cluster in (("a", alone), ("b", two))
    ]
    assert [block[:4] for block in scored[0]] == [b"PAR1"]
    first_rows, second_rows = (_logits(blocks) for blocks in scored)
    assert first_rows == second_rows and any(first_rows)


def _logits(blocks: list[bytes]) -> list[list[float] | None]:
    import pyarrow.parquet

    return [
        row for block in blocks for row in pyarrow.parquet.read_table(pyarrow.BufferReader(block))["logits"].to_pylist()
    ]


def test_finished_training_is_reused(joined: None, data: Path, tmp_path: Path) -> None:
    run, cluster = tiny_run(data, epochs=1), Cluster(storage=str(tmp_path))
    fit([run], None, cluster, lambda: None)
    state = folder(run, cluster) / "state.pt"
    before = state.stat().st_mtime_ns
    run.weights.unlink()  # as DVC does before a stage runs again
    fit([run], None, cluster, lambda: None)
    assert run.weights.exists() and state.stat().st_mtime_ns == before


def test_state_of_other_settings_is_not_resumed(joined: None, data: Path, tmp_path: Path) -> None:
    cluster = Cluster(storage=str(tmp_path))
    fit([tiny_run(data, epochs=1)], None, cluster, lambda: None)
    other = tiny_run(data, epochs=2, lr=0.01)
    fit([other], None, cluster, lambda: None)
    assert {json.loads(line)["epoch"] for line in other.curve.read_text().splitlines()} == {0, 1}


def test_a_mistake_found_by_a_worker_is_one_line(joined: None, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than a batch"):
        fit([tiny_run(data, batch=64)], None, Cluster(storage=str(tmp_path)), lambda: None)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_diverges_is_one_line_and_a_mark(joined: None, data: Path, tmp_path: Path, workers: int) -> None:
    run, cluster = tiny_run(data, lr=1e30), Cluster(workers=workers, storage=str(tmp_path))
    for _ in "ab":  # each try trains
        with pytest.raises(UserError, match="diverged at epoch 1 of 2, step 2"):
            fit([run], None, cluster, lambda: None)
        predictions = results.read(params(lr=1e30), "row", data).predictions
        assert predictions == "failed: diverged at epoch 1, step 2 (split1-seed3)"
    mended = tiny_run(data, epochs=1)
    fit([mended], None, cluster, lambda: None)
    mended.weights.unlink()
    assert results.read(params(), "row", data).predictions == "not run"


def test_resources_that_the_cluster_lacks_are_named(joined: None, data: Path) -> None:
    """A range needs its fewest workers; more join later."""
    import ray

    resources = ray.cluster_resources()
    assert lack(tiny_run(data), Cluster(workers=(1, 4096))) == ""
    message = lack(tiny_run(data), Cluster(workers=2, cpus_per_worker=4096, gpus_per_worker=512))
    assert message == (
        f"its 2 workers take 8192 CPU, the cluster has {resources['CPU']:g}; "
        f"its 2 workers take 1024 GPU, the cluster has {resources.get('GPU', 0):g}"
    )


def test_storage_that_a_worker_does_not_see_is_named(joined: None, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not see cluster\.storage"):
        train_run(replace(training(tiny_run(data), tmp_path), token=tmp_path / "elsewhere"))
