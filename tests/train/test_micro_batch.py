"""A micro batch of one gives a one-line error if a norm follows pooling to one value."""

from pathlib import Path

import pytest
import torch

from pipeline.config.load import parse
from pipeline.errors import UserError
from pipeline.train import loop
from pipeline.train.rows import runs
from tests.support.recipes import RECIPE
from tests.support.trainings import params


def trained(data: Path, backbone: str, attention: str, micro_batch: int, size: int = 32) -> float:
    given = params()
    row = {"dataset": "tiny", "backbone": backbone, "variant": "tiny", "attention": attention, "knobs": {}}
    raw = {
        "suite": "test",
        "datasets": {"tiny": _plain(given.datasets["tiny"])},
        "recipes": {"r": {**RECIPE, "epochs": 1, "batch": 2, "micro_batch": micro_batch, "size": size}},
        "protocols": {"p": {**_plain(given.protocols["p"])}},
        "experiments": {"row": {**row, "weights": None, "recipe": "r", "protocol": "p", "splits": [1], "seeds": [3]}},
        "tables": {},
    }
    (epoch,) = loop.epochs(runs(parse(raw), "row", data)[0], None, None, torch.device("cpu"))
    return float(epoch.lines[-1]["loss"])


def _plain(value: object) -> dict:
    from dataclasses import asdict

    return asdict(value)  # type: ignore[call-overload]


@pytest.mark.parametrize(("backbone", "attention"), [("resnet", "tpn"), ("resnet", "maagn"), ("resnet3d", "none")])
def test_a_micro_batch_of_one_is_a_line_where_a_norm_has_one_value(data: Path, backbone: str, attention: str) -> None:
    with pytest.raises(UserError, match=r"recipes\.r: .*micro_batch of 2 at least, not 1") as caught:
        trained(data, backbone, attention, 1)
    assert "\n" not in str(caught.value)
    assert trained(data, backbone, attention, 2) > 0


def test_a_net_without_such_a_norm_trains_on_one(data: Path) -> None:
    assert trained(data, "resnet", "none", 1) > 0
