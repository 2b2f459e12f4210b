"""The training of one run as fit() passes it to a process, in a folder of the test's choice."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from cluster.fit import Training
from pipeline.config.load import parse
from pipeline.config.schema import Cluster, Params
from pipeline.digest import state
from pipeline.storage.remote import Place, write
from pipeline.train import keys, loop, rows
from pipeline.train.run import Run
from tests.support.recipes import RECIPE

CPU = torch.device("cpu")


def params(attention: str = "action", **recipe: Any) -> Params:
    decode = {"short_side": 36, "quality": 90, "decoder": "ffmpeg", "videos_per_shard": 64, "max_failed": 0.1}
    protocol = {"clips": 2, "crops": "three", "sampling": "segments", "size": 32, "average": "softmax", "batch": 4}
    row = {"dataset": "tiny", "backbone": "resnet", "variant": "tiny", "attention": attention, "knobs": {}}
    return parse(
        {
            "suite": "test",
            "datasets": {
                "tiny": {"file": "folder", "source": "nowhere", "lists": None, "options": {}, "decode": decode}
            },
            "recipes": {"r": {**RECIPE, **recipe}},
            "protocols": {"p": protocol},
            "experiments": {
                "row": {**row, "weights": None, "recipe": "r", "protocol": "p", "splits": [1], "seeds": [3]}
            },
            "tables": {},
        }
    )


def tiny_run(data: Path, attention: str = "action", **recipe: Any) -> Run:
    return rows.runs(params(attention, **recipe), "row", data)[0]


def train(
    one: Run, state: dict[str, Any] | None = None, device: torch.device = CPU, loaders: int = 0
) -> list[loop.Epoch]:
    """Return all epochs; states are copied, because the next epoch overwrites their tensors."""
    torch.set_num_threads(1)
    return [
        dataclasses.replace(epoch, state=copy.deepcopy(epoch.state))
        for epoch in loop.epochs(one, None, state, device, loaders)
    ]


def losses(epochs: list[loop.Epoch]) -> list[float]:
    return [float(line["loss"]) for epoch in epochs for line in epoch.lines if line["kind"] == "steps"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerance: float) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


def training(cell: Run, folder: Place, cluster: Cluster | None = None) -> Training:
    """Return the training, and write the token that its process checks."""
    token = folder / "token"
    write(token, "token")
    return Training(cell, None, cluster or Cluster(), folder, keys.training(cell, None), token)


def trained(training: Training) -> bytes:
    """Return the weights file of a finished training."""
    content = state.get(training.folder / "weights.pt", training.key)
    assert content is not None
    return content.partition(b"\n")[2]


def folder(cell: Run, cluster: Cluster) -> Place:
    """Return the folder of fit()'s state."""
    return keys.state(cell, cluster, keys.training(cell, None))


def bind(path: Path) -> Path:
    """Write SHA256SUMS for a file that a test wrote."""
    from pipeline.digest.files import write_sums

    write_sums(path.parent)
    return path
