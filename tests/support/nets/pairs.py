"""Every attention on every tiny backbone, and the pairs of suites: the scope of the contract tests."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor, nn

from models import video
from models.registry import known, named

Pair = tuple[str, str, dict[str, Any]]  # backbone, attention, knobs

SUITES = sorted((Path(__file__).parents[3] / "conf" / "suite").glob("*.yaml"))

# Knobs that tiny nets need: a clip of 32 pixels has no map of 7x7 in its last stage.
# Nor is there more than one position left of its res4 once it is pooled.
TINY = {"istpa": {"positions": 2}, "non_local": {"subsample": False}}
# Backbones without a block in res2, where an attention of one module a stage needs its stages named.
NO_RES2 = [("bn_inception", "eam"), ("inception_resnet_v2", "eam")]

VARIANTS: list[Pair] = [
    *(("resnet", "action", {"paths": [path]}) for path in ("ste", "ce", "me")),
    ("resnet", "action", {"paths": ["me", "ste"], "stages": ["res5", "res2"]}),
    ("resnet", "tsm", {"fold": 3}),
    ("resnet", "tsm", {"pool": True}),
    ("resnet", "eam", {"k": 5, "stages": ["res4", "res3"]}),
    ("resnet3d", "eam", {"mode": "S//T"}),
    ("resnext3d", "cbam", {"placement": "stage"}),
    ("resnet", "istpa", {"scales": 1, "position": "fc"}),
    ("resnet", "istpa", {"scales": 2, "position": "B", "fusion": "max"}),
    ("resnet", "istpa", {"fusion": "sum", "shared": True, "shift": True}),
    ("resnet", "maagn", {"arrangement": "serial", "mask": "F-H", "aux": False}),
    ("resnet", "maagn", {"arrangement": "mtam", "pooling": "max", "flow": "parallel"}),
    ("resnet3d", "maagn", {"axis": "C"}),
    ("resnet", "tpn", {"flow": "parallel", "shift": False}),
    ("resnet", "non_local", {"mode": "concatenation", "blocks": 1}),
    ("resnet", "non_local", {"mode": "gaussian", "blocks": 10}),
    ("resnet3d", "non_local", {"mode": "dot_product"}),
    ("resnet", "tam", {"kernel": 5, "alpha": 1}),
    ("res2net", "tea", {"parts": ["me"]}),
    ("res2net", "tea", {"parts": ["mta"]}),
    ("resnet", "tdn", {"parts": ["short"], "share": 0.25}),
    ("resnet", "tdn", {"parts": ["long"]}),
    ("resnet3d", "st_manet", {"parts": ["tda"], "readout": "res4"}),
    ("resnet3d", "st_manet", {"parts": ["mf"]}),
    ("resnet3d", "st_manet", {"parts": ["sda"], "scaled": False, "second_softmax": True}),
    ("resnet3d", "st_manet", {"feed": False, "dense_maps": True, "dense_branch": False}),
]


UNFIT: dict[str, str] = {}  # pairs that there can't be -> why not, as found so far


def rows(suite: Path) -> dict[str, dict[str, Any]]:
    """Return name -> experiment of a suite's file, as written, with its knobs."""
    written = YAML(typ="safe").load(suite.read_text()).get("experiments") or {}
    return {name: {"knobs": {}, **row} for name, row in written.items()}


def pairs() -> list[Pair]:
    """Return all backbones x attentions, extra variants, and every triple of a suite, once each.

    A triple is (backbone, attention, knobs).
    """
    actual: list[Pair] = [
        (backbone, attention, {"stages": ["res3", "res4", "res5"]} if (backbone, attention) in NO_RES2 else {})
        for backbone in known("backbone")
        for attention in known("attention")
    ]
    actual += VARIANTS
    # Nets of two streams take other clips: tests/models/layers/test_two_streams.py.
    written = [row for suite in SUITES for row in rows(suite).values() if "streams" not in row["knobs"]]
    actual += [(row["backbone"], row["attention"], row["knobs"]) for row in written]
    tiny = [(backbone, attention, {**knobs, **TINY.get(attention, {})}) for backbone, attention, knobs in actual]
    return list({json.dumps(pair, sort_keys=True): pair for pair in tiny}.values())


def name(pair: Pair) -> str:
    """Return the id that pytest shows."""
    knobs = (f"{knob}={'+'.join(value) if isinstance(value, list) else value}" for knob, value in pair[2].items())
    return "-".join((*pair[:2], *knobs))


def smallest(backbone: str) -> str:
    """Return the fastest variant of a backbone for tests."""
    variants = named("backbone", backbone).VARIANTS
    return "tiny" if "tiny" in variants else variants[0]


def build(pair: Pair, frames: int, seed: int = 0) -> video.VideoNet:
    """Build the pair's tiny network for 5 classes; skip the test if the attention doesn't fit the backbone.

    Its head, norms and zero-initialized parameters are far from their initial values, so that nothing is hidden.
    """
    if name(pair) in UNFIT:
        pytest.skip(UNFIT[name(pair)])
    backbone, attention, knobs = pair
    torch.manual_seed(seed)
    try:
        net = video.build(backbone, smallest(backbone), attention, frames, classes=5, knobs=knobs)
    except ValueError as error:
        if "layout" not in str(error):
            raise
        UNFIT[name(pair)] = str(error)
        pytest.skip(str(error))
    for value in net.parameters():
        if not value.any():
            nn.init.normal_(value, std=0.3)
    nn.init.normal_(net.head.weight)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def clips(n: int, t: int, h: int = 32, w: int = 32, seed: int = 1) -> Tensor:
    """Return standard normal clips in a loader's memory order: (N, T, H, W, C) viewed as (N, T, C, H, W)."""
    return torch.randn(n, t, h, w, 3, generator=torch.Generator().manual_seed(seed)).permute(0, 1, 4, 2, 3)


def cross_entropy(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device) % logits.shape[1])


def loss_of(net: nn.Module, whole: video.VideoNet, batch: Tensor) -> Tensor:
    """Return the training loss of `net`'s outputs, plus what the modules of the `whole` network add."""
    return cross_entropy(net(batch)) + whole.penalty(cross_entropy)
