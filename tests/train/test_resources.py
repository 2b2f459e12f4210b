"""No setting of the cluster changes a byte of the results."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.fit import fit
from cluster.score import score
from pipeline.config.schema import Cluster
from pipeline.errors import UserError
from pipeline.evaluate import inference
from pipeline.train import keys
from tests.support.machines.local import local
from tests.support.trainings import tiny_run

# Every field of `cluster:`, and why it can't change a byte on CPUs.
FIELDS = {
    "address": "names the machines",
    "workers": "gradients are added in one order (reduction.py); tests/train/test_workers.py",
    "cpus_per_worker": "is reserved alone: the recipe says how many threads compute; below",
    "gpus_per_worker": "is reserved alone; a GPU rounds otherwise than a CPU, as another CPU does",
    "loader_workers": "clips are drawn by (seed, epoch, video, view); below",
    "max_failures": "counts restarts, and resumed runs have an undisturbed run's bytes; tests/chaos/test_chaos.py",
    "storage": "names a place; tests/storage/test_shared_storage.py",
}


def test_every_field_of_the_cluster_has_its_reason() -> None:
    assert {field.name for field in fields(Cluster)} == FIELDS.keys()


def test_reserved_cpus_and_loaders_change_no_byte(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local(monkeypatch)
    one, contents = tiny_run(data, epochs=1), set()
    settings: list[dict[str, Any]] = [{}, {"cpus_per_worker": 4}, {"loader_workers": 2}]
    for at, more in enumerate(settings):
        cluster = Cluster(storage=str(tmp_path / f"storage-{at}"), **more)
        torch.set_num_threads(3)  # as a process may begin
        fit([one], None, cluster, lambda: None)
        assert torch.get_num_threads() == 1
        torch.set_num_threads(3)
        target = tmp_path / "predictions.parquet"
        inference.gather([one], score([one], cluster), target)
        assert torch.get_num_threads() == 1
        contents.add((one.weights.read_bytes(), one.curve.read_bytes(), target.read_bytes()))
    assert len(contents) == 1


def test_the_recipes_threads_are_part_of_the_key_and_in_range(data: Path) -> None:
    assert keys.training(tiny_run(data), None) != keys.training(tiny_run(data, threads=2), None)
    with pytest.raises(UserError, match=r"recipes\.r\.threads is 0; it must be from 1 to"):
        tiny_run(data, threads=0)
