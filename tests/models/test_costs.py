"""Parameters and multiply-accumulates against counts of the authors' code and the papers' tools."""

import json
import re
from typing import NamedTuple

import pytest
import torch
from torch import nn

from models import costs, paper_flops, video
from tests.support.real_data import TEST_DATA

COUNTS = TEST_DATA / "golden" / "parity_counts.json"
FILES = {"BNInception": ("bn_inception", "cadene"), "MobileNetV2": ("mobilenet_v2", "1.0")}
FILES |= {"VGG-16": ("vgg", "16"), "Inception-ResNet-V2": ("inception_resnet_v2", "cadene")}


class Row(NamedTuple):
    """A counted network: builder, clip, parameters, MACs, ptflops and thop; None if unknown."""

    names: tuple[str, str, str]  # backbone, variant, attention
    knobs: dict
    classes: int
    clips: tuple[int, ...]
    counts: tuple[int | None, ...]
    pooling: str = ""  # where the published net's is not that of its users' copies


def built(names: tuple[str, str, str], frames: int, classes: int, knobs: dict | None = None) -> video.VideoNet:
    """Build on the meta device, without memory or arithmetic."""
    with torch.device("meta"):
        return video.build(*names, frames, classes, knobs=knobs)


def as_tools_count(net: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    actual = paper_flops.layers(net, shape)
    return sum(map(paper_flops.ptflops, actual)), sum(map(paper_flops.thop, actual))


def nets(name: str) -> list[tuple[tuple[str, str, str], dict]]:
    """Return (backbone, variant, attention) and knobs of the networks that a count's name means."""
    if actual := re.fullmatch(r"(TSN/TSM|STE|CE|ME|ACTION) ResNet-50(?: stages res2\.\.res(\d))?", name):
        stages = {"stages": [f"res{at}" for at in range(2, int(actual[2]) + 1)]} if actual[2] else {}
        if actual[1] == "TSN/TSM":
            return [(("resnet", "50", attention), {}) for attention in ("none", "tsm")]
        paths = {} if actual[1] == "ACTION" else {"paths": [actual[1].lower()]}
        return [(("resnet", "50", "action"), {**paths, **stages})]
    if actual := re.fullmatch(r"(TSN/TSM|ACTION) (BNInception|MobileNetV2)( \(.*\))?", name):
        attentions = ("none", "tsm") if actual[1] == "TSN/TSM" else ("action",)
        return [((*FILES[actual[2]], attention), {}) for attention in attentions]
    if actual := re.fullmatch(r"3D (?:R|RX|ResNet-)(50|101)(?:-\d+f)? \(?(baseline|SE|ECA|CBAM|EAM|ST-MANet).*", name):
        attention = {"baseline": "none", "ST-MANet": "none"}.get(actual[2], actual[2].lower())
        knobs = {"placement": "stage"} if attention in ("se", "eca", "cbam") else {}
        return [(("resnext3d" if "RX" in name else "resnet3d", actual[1], attention), knobs)]
    if actual := re.fullmatch(r"TSM-R50 \+ TPN \((with|no) aux head\)", name):
        return [(("resnet", "50", "tpn"), {"aux": actual[1] == "with"})]
    if actual := re.fullmatch(r"SlowOnly-R(50|101) \+ TPN \d+f", name):
        return [(("slowonly", actual[1], "tpn"), {})]
    if actual := re.fullmatch(r"([\w-]+)(?: \(Cadene\))?", name):
        return [((*FILES[actual[1]], "none"), {})]
    return []


def rows() -> list:
    """Return every count as a Row; a Row without networks if none here has the name."""
    if not COUNTS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {COUNTS}"))]
    actual = []
    for count in json.loads(COUNTS.read_text()):
        name, shape = count["name"], count["input"]
        if len(shape) == 3:
            shape = [1, *shape]
        if shape[1] != 3:  # (C, T, H, W)
            shape = [shape[1], shape[0], *shape[2:]]
        classes = int(re.search(r"(\d+) classes", count["setting"])[1])
        counts = tuple(count.get(key) for key in ("params", "conv_linear_macs", "ptflops_0_6_4", "thop_0_0_31"))
        pooling = "unseen" if name == "BNInception (Cadene)" else ""  # TSM's and ACTION-Net's copies made it a module
        for names, knobs in nets(name) or [(("", "", ""), {})]:
            row = Row(names, knobs, classes, (1, *shape), counts, pooling)
            counted = any(f"{name}, {names[2]}, " in str(param.id) for param in actual)  # with another classifier
            marks = [pytest.mark.slow] if counted else []
            actual.append(pytest.param(row, id=f"{name}, {names[2]}, {classes}", marks=marks))
    return actual


@pytest.mark.parametrize("row", rows())
def test_parameters_and_counts_are_the_authors_codes(row: Row):
    net = built(row.names, row.clips[1], row.classes, row.knobs)
    actual = [costs.parameters(net)]
    if row.counts[1]:
        net.backbone.pooling = row.pooling or net.backbone.pooling
        actual += [costs.macs(net, row.clips), *as_tools_count(net, row.clips)]
    known = [count for count in row.counts if count is not None]
    assert actual[: len(known)] == known


def test_all_counted_nets_are_here():
    if not COUNTS.exists():
        pytest.skip(f"no {COUNTS}")
    counted = json.loads(COUNTS.read_text())
    assert len(counted) == 55
    assert [count["name"] for count in counted if not nets(count["name"])] == []


def test_tf_slims_bn_inception_has_the_parameters_it_has_there():
    """With a plain first convolution, the parameters equal the sum over TF-Slim's widths."""
    assert costs.parameters(built(("bn_inception", "slim", "none"), 1, 101)) == 10_263_557


def test_tools_count_what_was_published():
    net = video.build("resnet3d", "tiny", "eam", frames=4, classes=5)
    shape = (1, 4, 3, 32, 32)
    actual = paper_flops.layers(net, shape)
    assert "forward" not in vars(net.backbone)
    # stem, 3 a block and its shortcut, 2 a module and the head
    assert [layer.kind for layer in actual].count("convolution") == 1 + 4 * 4 + 4 * 2
    assert sum(layer.macs for layer in actual) == costs.macs(net, shape)
    relus = [layer.inputs for layer in actual if layer.kind == "relu"]
    assert relus[0] == 8 * 4 * 16 * 16  # before the stem's pooling


@pytest.mark.parametrize(
    "call,of_ptflops,of_thop",
    [
        (lambda x: x.mean((2, 3)), 120, 126),
        (lambda x: nn.functional.adaptive_avg_pool2d(x, 1), 120, 126),
        (lambda x: nn.functional.adaptive_avg_pool2d(x, (4, 5)), 120, 240),
        (lambda x: x.sum((2, 3)), 0, 0),
        (lambda x: x.flatten(2).amax(-1), 120, 0),
        (lambda x: x.mean(1), 0, 0),
        (lambda x: x.mean(), 0, 0),
        (lambda x: nn.functional.avg_pool2d(x, 2), 120, 24),
        (lambda x: nn.functional.max_pool2d(x, 2), 120, 0),
        (lambda x: x.relu_(), 120, 0),
        (lambda x: x.sigmoid() @ x.transpose(2, 3), 0, 0),
        (nn.BatchNorm2d(3), 240, 240),
        (nn.Conv2d(3, 5, 1), 600 + 200, 600 + 200),
        (nn.Conv2d(3, 5, 1, bias=False), 600, 600),
        (nn.Linear(5, 7), 24 * 35 + 7, 24 * 35),
    ],
)
def test_the_tools_rules(call, of_ptflops, of_thop):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.call = call

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.call(x)

    assert as_tools_count(Net(), (2, 3, 4, 5)) == (of_ptflops, of_thop)


def test_counting_leaves_the_net_as_it_is():
    net = video.build("resnet", "tiny", "action", frames=4, classes=5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    one, two = costs.macs(net, (1, 4, 3, 32, 32)), costs.macs(net, (2, 4, 3, 32, 32))
    assert two == 2 * one
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_multiply_accumulate_is_one():
    assert costs.macs(nn.Conv2d(3, 5, 3, padding=1), (2, 3, 7, 7)) == 2 * 5 * 7 * 7 * 3 * 9
    assert costs.parameters(nn.BatchNorm2d(4)) == 8
