"""Any number of data-parallel workers trains the same network: bit for bit in order, nearly so by DDP."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline.errors import UserError
from pipeline.train import loop
from pipeline.train.run import Run
from tests.support.trainings import CPU, losses, same, tiny_run, train


def _worker(rank: int, world: int, port: int, one: Run, ordered: bool, path: Path) -> None:
    torch.set_num_threads(1)
    loop.in_order = lambda device: ordered
    loop.reduction.CHUNK = 1000
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    epochs = list(loop.epochs(one, None, None, CPU))
    if rank == 0:
        measured = {"losses": losses(epochs), "norms": norms(epochs), "scores": scores(epochs)}
        torch.save({**measured, "model": epochs[-1].state["model"]}, path)
    dist.destroy_process_group()


def norms(epochs: list[loop.Epoch]) -> list[float]:
    return [float(line["grad_norm"]) for epoch in epochs for line in epoch.lines]


def scores(epochs: list[loop.Epoch]) -> list[float]:
    return [float(epoch.lines[-1]["validation_loss"]) for epoch in epochs if "validation_loss" in epoch.lines[-1]]


def together(one: Run, world: int, ordered: bool, path: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_worker, (world, port, one, ordered, path), nprocs=world, start_method="spawn")
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_number_of_workers_changes_no_bit(data: Path, tmp_path: Path, world: int) -> None:
    """A step has four micro batches, so two of three workers have no work in the second round."""
    mixed = {"crop": "random", "mixup": 0.2}
    one = tiny_run(data, batch=8, micro_batch=2, augment=mixed, clip_grad=5.0, validate=0.3)
    alone, actual = train(one), together(one, world, True, tmp_path / "out.pt")
    assert actual["losses"] == losses(alone) and actual["norms"] == norms(alone)
    assert actual["scores"] == scores(alone) and len(scores(alone)) == 2
    same(alone[-1].state["model"], actual["model"])


def test_ddp_makes_nearly_the_same_of_it(data: Path, tmp_path: Path) -> None:
    """Gradients are exchanged as on GPUs; of three micro batches, the second of two workers has one."""
    one = tiny_run(data, batch=6, micro_batch=2, augment={"crop": "random", "mixup": 0.2}, clip_grad=5.0)
    alone, actual = train(one), together(one, 2, False, tmp_path / "out.pt")
    np.testing.assert_allclose(actual["losses"], losses(alone), rtol=1e-4)
    np.testing.assert_allclose(actual["norms"], norms(alone), rtol=1e-3)
    same(alone[-1].state["model"], actual["model"], rtol=1e-3, atol=1e-4)


def test_more_workers_than_micro_batches_is_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "rank_and_world", lambda: (0, 3))
    with pytest.raises(UserError, match="at most 2 workers"):
        next(loop.epochs(tiny_run(data), None, None, CPU))
