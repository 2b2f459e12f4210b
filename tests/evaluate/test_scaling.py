"""The simulated cluster against known answers; evaluation reads a data set once, not per block."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import simulation
from bench.simulation import LIMITS, Costs, Job, Machine, drained
from cluster import score

times = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)
FREE = Costs((2.0,), 0.0, (1.0,), (1.0,), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
JOB = Job(
    train=1024, test=256, frames=10, shard=16, epochs=3, batch=64, micro_batch=8, clip=8, block=32, views=2, view=8,
    train_clip=0.25, evaluate_view=0.5, weights=1000,
)  # fmt: skip
IDEAL = Machine(gpus=1, node=4, cores=1, storage=math.inf, inside=math.inf, outside=math.inf)


@settings(deadline=None)
@given(times)
def test_one_worker_takes_the_sum_and_any_number_the_longest(costs: list[float]) -> None:
    assert drained(costs, 1) == pytest.approx(sum(costs))
    assert drained(costs, len(costs) + 1) == max(costs)


@settings(deadline=None)
@given(times, st.integers(1, 8))
def test_a_list_of_tasks_ends_within_grahams_bounds(costs: list[float], workers: int) -> None:
    share, longest = sum(costs) / workers, max(costs)
    assert max(share, longest) * 0.999 <= drained(costs, workers) <= (share + (1 - 1 / workers) * longest) * 1.001


def test_equal_tasks_go_in_rounds() -> None:
    assert drained([3.0] * 10, 4) == 9.0


def test_a_slow_driver_or_storage_sets_the_pace() -> None:
    assert drained([1.0] * 50, 50, driver=2.0) == 50 * 2.0 + 1.0
    assert drained([1.0] * 50, 50, transfer=2.0) == 50 * 2.0 + 1.0
    assert drained([1.0] * 50, 1, driver=0.5) == 0.5 + 50.0  # hidden behind the work, except for the first
    assert drained([1.0] * 5, 1, start=0.5) == 5 * 1.5  # not hidden
    assert drained([1.0] * 50, 1, driver=1.0, ahead=1) == 50 * 2.0  # nothing ahead: nothing hidden


@settings(max_examples=50, deadline=None)
@given(times, st.integers(1, 8), st.floats(0, 2), st.floats(0, 2))
def test_costs_of_ray_never_help(costs: list[float], workers: int, driver: float, start: float) -> None:
    assert drained(costs, workers, driver, start) >= drained(costs, workers) - 1e-9


def test_one_gpu_without_overheads_takes_the_work_alone() -> None:
    actual = simulation.stages(FREE, JOB, IDEAL)
    assert actual == pytest.approx({
        "decode": 2.0 * (1024 + 256), "train": 3 * 1024 * 0.25, "evaluate": 256 * 2 * 0.5
    })  # fmt: skip
    assert simulation.efficiency(FREE, JOB, IDEAL) == pytest.approx(1.0)


def test_a_run_takes_no_more_workers_than_its_step_has_micro_batches() -> None:
    trains = [simulation.stages(FREE, JOB, replace(IDEAL, gpus=gpus))["train"] for gpus in (1, 8, 64)]
    assert trains == pytest.approx([768.0, 96.0, 96.0])
    assert next(iter(simulation.losses(FREE, JOB, replace(IDEAL, gpus=64)))) == "recipe's micro batches"
    many = replace(JOB, runs=8)
    assert simulation.stages(FREE, many, replace(IDEAL, gpus=64))["train"] == pytest.approx(96.0)
    assert simulation.efficiency(FREE, replace(many, test=2048), replace(IDEAL, gpus=16)) == pytest.approx(
        1.0, abs=0.01
    )


def test_all_reduce_and_storage_take_what_their_bandwidth_says() -> None:
    linked = replace(IDEAL, gpus=4, inside=1000.0)  # 2 x 3 / 4 x 1000 bytes a step
    assert simulation.trained(FREE, JOB, linked, 4, 4) == pytest.approx(768 / 4 + 3 * 16 * 1.5)
    stored = replace(FREE, frame_bytes=1.0)
    slow = replace(IDEAL, storage=2.0)  # 8 bytes a clip: 4 s
    assert simulation.trained(stored, JOB, slow, 1, 1) == pytest.approx(3 * 1024 * 4.0)
    assert simulation.losses(stored, JOB, slow)["shared storage"] > 0.5


def test_without_any_one_limit_nothing_takes_longer() -> None:
    costs = Costs((1.0, 3.0), 0.01, (0.9, 1.1), (0.8, 1.2), 0.1, 0.01, 0.2, 5.0, 9.0, 0.1, 0.1, 0.1, 10.0, 1.0)
    machine = replace(IDEAL, gpus=16, storage=100.0, inside=1000.0, outside=100.0)
    saved = simulation.losses(costs, replace(JOB, runs=3), machine)
    assert set(saved) == set(LIMITS) and min(saved.values()) >= 0


def test_a_process_reads_a_cell_once_for_all_of_its_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []

    class Scorer:
        def __init__(self, run: object, device: object) -> None:
            self.store = None
            made.append(current[0])

        def score(self, block: list) -> bytes:
            return made[-1].encode()

    class Run:
        def __init__(self, name: str) -> None:
            self.weights, self.copy, self.recipe = Path(name), None, SimpleNamespace(threads=1)

    monkeypatch.setattr(score.inference, "Scorer", Scorer)
    monkeypatch.setattr(score, "scorers", {})
    current = [""]
    monkeypatch.setattr(score.keys, "evaluation", lambda run: current[0])
    for number, (name, mark) in enumerate([("a", "1"), ("a", "1"), ("b", "1"), ("b", "2"), ("b", "2")]):
        current[0] = mark
        score.block(Run(name), mark, [], tmp_path / str(number), score.Cluster())  # type: ignore[arg-type]
    assert made == ["1", "1", "2"]
