"""The straightforward networks compute what ours compute, without in-place operations."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from models import video


@pytest.fixture
def straightforward(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a module of bench/, which is not an installed package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return importlib.import_module("bench.straightforward")


@pytest.mark.parametrize(
    "backbone,attention",
    [
        ("resnet", "tsm"),
        ("resnet", "action"),
        ("resnet3d", "eam"),
        ("resnet", "tpn"),
        ("resnet", "maagn"),
        ("resnet", "istpa"),
        ("resnet3d", "st_manet"),
    ],
)
def test_a_straightforward_net_gives_the_same_outputs(straightforward, backbone, attention):
    knobs = {"positions": 2} if attention == "istpa" else {}
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(video.build(backbone, "tiny", attention, 4, classes=5, knobs=knobs))
    straightforward.straighten(nets[1])
    clips = torch.randn(2, 4, 3, 48, 48)
    gradients = []
    for net in nets:
        torch.manual_seed(1)  # for dropout in an auxiliary head
        with straightforward.NothingInPlace():
            logits = net(clips)
        (logits.square().sum() + net.penalty(lambda scores: scores.square().sum())).backward()
        gradients.append((logits.detach(), net.backbone.conv1.weight.grad))
    for ours, straight in zip(*gradients, strict=True):
        torch.testing.assert_close(straight, ours, rtol=1e-3, atol=1e-4)


def test_nothing_is_in_place(straightforward):
    x = torch.tensor([-1.0, 2.0])
    y = x
    with straightforward.NothingInPlace():
        y += 1
        F.relu(x, inplace=True)
        torch.nn.ReLU6(inplace=True)(x)
    assert x.tolist() == [-1.0, 2.0] and y.tolist() == [0.0, 3.0]
