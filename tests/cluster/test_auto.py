"""`auto` in `cluster:` follows from the nodes that Ray knows."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from cluster import fit
from cluster.auto import at_once, placed
from pipeline.config import load
from pipeline.config.schema import Cluster
from stages.repro import estimate
from tests.support.trainings import tiny_run

ROOT = Path(__file__).parents[2]
AUTO: dict[str, Any] = {"workers": "auto", "gpus_per_worker": "auto", "loader_workers": "auto"}
HEAD = {"CPU": 4.0}


def has(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float], built: bool = True) -> None:
    """Let Ray list these nodes, and a lost one."""
    listed = [{"Alive": True, "Resources": {"memory": 1e9, **node}} for node in nodes]
    lost = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 64.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*listed, lost])
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)


def node(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus}


@pytest.mark.parametrize(
    ("nodes", "runs", "settings", "expected"),
    [
        # expected: workers, GPUs of each, loaders of each
        ([node(16, 1)], 3, {}, (1, 1.0, 8)),
        ([node(4, 1)], 1, {}, (1, 1.0, 3)),
        ([node(1, 1)], 1, {}, (1, 1.0, 0)),
        ([node(16, 4)], 1, {}, ((1, 4), 1.0, 3)),
        ([node(16, 4)], 3, {}, (1, 1.0, 3)),
        ([node(16, 1)] * 3, 3, {}, (1, 1.0, 8)),
        ([HEAD, node(32, 4), node(16, 4)], 3, {}, ((1, 2), 1.0, 3)),
        ([node(48, 4)] * 3, 3, {}, ((1, 4), 1.0, 8)),
        ([node(16, 1)], 3, {"gpus_per_worker": 0.25}, (1, 0.25, 3)),
        ([node(16, 1)] * 3, 3, {"gpus_per_worker": 0.25}, ((1, 4), 0.25, 3)),
        ([node(16, 2)], 1, {"cpus_per_worker": 4}, ((1, 2), 1.0, 4)),
        ([node(16, 2)], 1, {"workers": 1, "loader_workers": 0}, (1, 1.0, 0)),
        ([node(16, 2)], 1, {"gpus_per_worker": 0.0}, (1, 0.0, 0)),
        ([node(2, 0)], 3, {}, (1, 0.0, 0)),
        ([HEAD] * 3, 3, {}, (1, 0.0, 0)),
    ],
)
def test_what_nodes_have_decides(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], runs: int, settings: dict[str, Any], expected: Any
) -> None:
    has(monkeypatch, *nodes)
    taken = placed(Cluster(**{**AUTO, **settings}), runs)
    assert (taken.workers, taken.gpus_per_worker, taken.loader_workers) == expected


def test_a_build_without_gpus_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, node(16, 4), built=False)
    assert asdict(placed(Cluster(**AUTO))) == asdict(Cluster())


def test_the_default_is_auto_and_the_same_on_a_cpu_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = load.load(ROOT / "params.yaml").cluster
    assert {name: getattr(cluster, name) for name in AUTO} == AUTO
    has(monkeypatch, HEAD)
    assert asdict(placed(cluster, 3)) == asdict(Cluster())
    monkeypatch.setattr(estimate, "gpus", lambda: 0)
    monkeypatch.setattr(estimate, "cores", lambda: 6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert estimate.side_by_side(cluster) == 6
    monkeypatch.setattr(estimate, "gpus", lambda: 4)
    assert (estimate.side_by_side(cluster), estimate.here(cluster).gpus_per_worker) == (4, 1.0)


@pytest.mark.parametrize(
    ("runs", "places", "expected"),
    [
        (1, 2, 2),
        (2, 2, 2),
        (3, 2, 3),
        (4, 2, 2),
        (5, 2, 3),
        (7, 2, 2),
        (9, 2, 3),
        (3, 1, 1),
        (3, 4, 4),
        (5, 4, 5),
        (9, 8, 9),
    ],
)
def test_runs_share_places_if_all_end_sooner(runs: int, places: int, expected: int) -> None:
    assert at_once(runs, places) == expected


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([node(2, 0)], {}, 0.6666),
        ([node(4, 0)], {"cpus_per_worker": 2}, 1.3333),
        ([node(3, 0)], {}, 1),
        ([node(2, 0)] * 2, {}, 1),
        ([node(2, 1)], {"gpus_per_worker": 0.5}, 1),
        ([node(1, 0)], {"cpus_per_worker": 2}, 2),
    ],
)
def test_three_runs_reserve_two_places(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], settings: dict[str, Any], expected: float
) -> None:
    has(monkeypatch, *nodes)
    assert fit.reserved(placed(Cluster(**settings)), 3) == expected


def test_without_auto_ray_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ray, "nodes")
    cluster = Cluster(workers=(1, 4), gpus_per_worker=0.5, loader_workers=2)
    assert asdict(placed(cluster, 3)) == asdict(cluster)


def test_training_gets_numbers(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, node(8, 2))
    taken: list[fit.Training] = []
    monkeypatch.setattr(fit, "train_all", lambda todo, watch: taken.extend(todo))
    monkeypatch.setattr(fit, "TRIES", 1)
    run = tiny_run(data)
    with pytest.raises(Exception, match=r"loses training.s files"):
        fit.fit([run], None, Cluster(**AUTO, storage=str(tmp_path)), lambda: None)
    (training,) = taken
    cluster = training.cluster
    assert (cluster.workers, cluster.gpus_per_worker, cluster.loader_workers) == ((1, 2), 1.0, 3)
    assert fit.team(run, cluster) == (1, 2), "its step has two micro batches"
