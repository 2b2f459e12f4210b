"""Parameters and multiply-accumulates, against the papers and against counts of the authors' own code."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from models import costs, video

COUNTS = Path(__file__).parents[2] / "shared" / "golden" / "parity_counts.json"
PATHS = ("ste", "ce", "me")


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


def rows() -> list:
    """Rows of the counts that are ResNet-50 on frames: (name, classes, stages, parameters, MACs)."""
    if not COUNTS.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no {COUNTS}"))]
    found = []
    for row in json.loads(COUNTS.read_text()):
        name = re.fullmatch(r"(TSN/TSM|STE|CE|ME|ACTION) ResNet-50(?: stages res2..res(\d))?", row["name"])
        if name is None:
            continue
        stages = tuple(f"res{at}" for at in range(2, int(name[2]) + 1)) if name[2] else ()
        classes = int(re.search(r"(\d+) classes", row["setting"])[1])
        for system in name[1].lower().split("/"):
            case = (system, classes, stages, row["params"], row["conv_linear_macs"])
            found.append(pytest.param(case, id=f"{system}-{classes}-{'-'.join(stages)}"))
    return found


@pytest.mark.parametrize("row", rows())
def test_parameters_and_macs_are_the_authors_codes(row):
    system, classes, stages, parameters, macs = row
    net = resnet50(system, classes, stages)
    assert costs.parameters(net) == parameters
    assert costs.macs(net, (1, 8, 3, 224, 224)) == macs


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
