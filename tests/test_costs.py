"""Parameters and multiply-accumulates, against the papers and against counts of the authors' own code."""

import json
import re
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn

from models import costs, counting, video

COUNTS = Path(__file__).parents[2] / "shared" / "golden" / "parity_counts.json"
PATHS = ("ste", "ce", "me")


@cache
def resnet50(system: str, classes: int, stages: tuple[str, ...] = ()) -> video.VideoNet:
    """A row of the ACTION-Net paper, on the meta device: no memory, no arithmetic."""
    attention = {"tsn": "none", "tsm": "tsm"}.get(system, "action")
    knobs = {**({"paths": [system]} if system in PATHS else {}), **({"stages": list(stages)} if stages else {})}
    with torch.device("meta"):
        return video.build("resnet", "50", attention, frames=8, classes=classes, knobs=knobs)


# ACTION-Net, table 3, millions; the baselines have EgoGesture's 83 classes, the others Something-Something V2's 174
@pytest.mark.parametrize(
    "system,classes,printed",
    [
        ("tsn", 83, "23.68"),
        ("tsm", 83, "23.68"),
        ("ste", 174, "23.9"),
        ("ce", 174, "26.08"),
        ("me", 174, "25.9"),
        ("action", 174, "28.08"),
    ],
)
def test_parameters_are_the_printed_ones(system, classes, printed):
    digits = len(printed.split(".")[1])
    assert f"{costs.parameters(resnet50(system, classes)) / 1e6:.{digits}f}" == printed


@cache
def volumes(backbone: str, variant: str, attention: str, frames: int, classes: int = 51) -> video.VideoNet:
    """A 3D net of Hara's, its attention one module after each stage, on the meta device."""
    knobs = {"placement": "stage"} if attention in ("se", "eca", "cbam") else {}
    with torch.device("meta"):
        return video.build(backbone, variant, attention, frames, classes, knobs=knobs)


@cache
def as_tools_count(net: video.VideoNet, shape: tuple[int, ...]) -> tuple[int, int]:
    found = counting.layers(net, shape)
    return sum(map(counting.ptflops, found)), sum(map(counting.thop, found))


# ACTION-Net, table 3, GFLOPs, classes as above
@pytest.mark.parametrize(
    "system,classes,printed",
    [
        ("tsn", 83, "33"),
        ("tsm", 83, "33"),
        ("ste", 174, "33.1"),
        ("ce", 174, "33.16"),
        ("me", 174, "34.69"),
        ("action", 174, "34.75"),
    ],
)
def test_ptflops_would_print_action_nets_flops(system, classes, printed):
    flops, _ = as_tools_count(resnet50(system, classes), (1, 8, 3, 224, 224))
    digits = len(printed.partition(".")[2])
    assert f"{flops / 1e9:.{digits}f}" == printed


# EAM, table 4, millions and GFLOPs; it cuts some of its numbers off and rounds others
@pytest.mark.parametrize(
    "net,printed",
    [
        (("resnet3d", "50", "none", 16), (46.30, 10.102)),
        (("resnet3d", "50", "se", 16), (46.99, 10.105)),
        (("resnet3d", "50", "eca", 16), (46.30, 10.104)),
        (("resnet3d", "50", "cbam", 16), (47.00, 10.106)),
        (("resnet3d", "50", "eam", 16), (46.30, 10.106)),
        (("resnext3d", "101", "none", 16), (47.62, 9.616)),
        (("resnext3d", "101", "se", 16), (48.32, 9.619)),
        (("resnext3d", "101", "eca", 16), (47.62, 9.619)),
        (("resnext3d", "101", "cbam", 16), (48.32, 9.620)),
        (("resnext3d", "101", "eam", 16), (47.62, 9.620)),
        (("resnext3d", "101", "none", 64), (47.62, 38.466)),
        (("resnext3d", "101", "se", 64), (48.32, 38.476)),
        (("resnext3d", "101", "eca", 64), (47.62, 38.475)),
        (("resnext3d", "101", "cbam", 64), (48.32, 38.476)),
        (("resnext3d", "101", "eam", 64), (47.62, 38.483)),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
def test_thop_would_print_eams_flops(net, printed):
    built = volumes(*net)
    _, flops = as_tools_count(built, (1, net[3], 3, 112, 112))
    assert cut_or_rounded(costs.parameters(built) / 1e6, printed[0], 2)
    assert cut_or_rounded(flops / 1e9, printed[1], 3)


def cut_or_rounded(value: float, printed: float, digits: int) -> bool:
    return round(printed * 10**digits) in (int(value * 10**digits), round(value * 10**digits))


def rows() -> list:
    """The counts of nets that are here: (how to build one, its clips, parameters, MACs, ptflops, thop)."""
    if not COUNTS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {COUNTS}"))]
    found = []
    for row in json.loads(COUNTS.read_text()):
        classes = int(re.search(r"(\d+) classes", row["setting"])[1])
        counts = [row.get(key) for key in ("params", "conv_linear_macs", "ptflops_0_6_4", "thop_0_0_31")]
        frames = re.fullmatch(r"(TSN/TSM|STE|CE|ME|ACTION) ResNet-50(?: stages res2..res(\d))?", row["name"])
        volume = re.fullmatch(r"3D (R|RX|ResNet-)(\d+)(?:-\d+f)? ?\(?(\w+).*", row["name"])
        if frames:
            stages = tuple(f"res{at}" for at in range(2, int(frames[2]) + 1)) if frames[2] else ()
            for system in frames[1].lower().split("/"):
                case = (partial(resnet50, system, classes, stages), (1, 8, 3, 224, 224), *counts)
                found.append(pytest.param(case, id=f"{system}-{classes}-{'-'.join(stages)}"))
        if volume:
            backbone = "resnext3d" if volume[1] == "RX" else "resnet3d"
            attention, t = volume[3].lower() if volume[3] in ("SE", "ECA", "CBAM", "EAM") else "none", row["input"][1]
            build = partial(volumes, backbone, volume[2], attention, t, classes)
            case = (build, (1, t, 3, 112, 112), *counts)
            found.append(pytest.param(case, id=f"{backbone}-{attention}-{t}-{classes}"))
    return found


@pytest.mark.parametrize("row", rows())
def test_parameters_and_counts_are_the_authors_codes(row):
    build, shape, *counts = row
    net = build()
    assert [costs.parameters(net), costs.macs(net, shape), *as_tools_count(net, shape)] == counts


def test_tools_count_what_was_published():
    net = video.build("resnet3d", "tiny", "eam", frames=4, classes=5)
    shape = (1, 4, 3, 32, 32)
    found = counting.layers(net, shape)
    assert "forward" not in vars(net.backbone)
    # stem, 3 a block and its shortcut, 2 a module and the head
    assert [layer.kind for layer in found].count("convolution") == 1 + 4 * 4 + 4 * 2
    assert sum(layer.macs for layer in found) == costs.macs(net, shape)
    relus = [layer.inputs for layer in found if layer.kind == "relu"]
    assert relus[0] == 8 * 4 * 16 * 16  # before the stem's pooling


@pytest.mark.parametrize(
    "call,of_ptflops,of_thop",
    [
        (lambda x: x.mean((2, 3)), 120, 126),
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
