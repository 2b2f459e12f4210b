"""Every row of the ISTPA paper's tables can be built and has the printed costs."""

import functools
import itertools

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from models import video
from tests.support.nets.istpa import run
from tests.support.real_data import TEST_DATA

SHARED = TEST_DATA


def parameters(net: nn.Module) -> int:
    return sum(value.numel() for value in net.parameters())


# Table 10, in millions; Inception-ResNet-v2 with TF-slim's auxiliary classifier, which is no part of the net here.
@pytest.mark.parametrize(
    "backbone,variant,side,classes,known,printed,added",
    [
        (
            *("inception_resnet_v2", "slim", 8, 101, 2_597_760 + 769 * 101),
            *(["57.11", "57.24", "57.31", "57.33"], [133_184, 69_696, 20_544]),
        ),
        ("bn_inception", "cadene", 7, 101, 0, None, [50_225, 49 * 609, 49 * 321]),
        ("vgg", "16", 7, 1000, 0, None, [49 * 513, 49 * 513, 49 * 257]),
        ("resnet", "50", 7, 400, 0, None, [49 * 2049, 49 * 1025, 49 * 513]),
    ],
)
def test_parameters(backbone, variant, side, classes, known, printed, added):
    counts = []
    for scales in range(4):
        with torch.device("meta"):
            net = video.build(*(backbone, variant, "istpa", 3, classes), knobs={"scales": scales, "positions": side})
        counts.append(parameters(net) + known)
    assert [after - before for before, after in itertools.pairwise(counts)] == added
    if printed:
        assert [f"{count / 1e6:.2f}" for count in counts] == printed


FULL = {
    "inception_resnet_v2": ("slim", 299, 8),
    "bn_inception": ("cadene", 224, 7),
    "vgg": ("16", 224, 7),
    "resnet": ("50", 224, 7),
}
NO_LOSS = {"interaction": 0.0, "attention": 0.0}
FLOW = 10
T4 = {
    "interaction-aware loss only": {"attention": 0.0},
    "pyramid attention loss only": {"interaction": 0.0},
    "without both": NO_LOSS,
    "both": {},
}
T15 = {"Ours, entire loss": {}, "Ours, L_inter": T4["interaction-aware loss only"]}
T15 |= {"Ours, L_attn": T4["pyramid attention loss only"], "Ours, no loss": NO_LOSS}
IRV2 = ("inception_resnet_v2", {})
# What other parts of the comparison add to these nets' scores, or to their inputs.
LATER = ("iDT", "motion", "Attention fusion")


def systems(table: str, row: dict) -> list[tuple[str, dict]]:
    """Return (backbone, knobs) of each network in a row that the authors ran."""
    method = row["method"]
    backbone = {"BN-Inception": "bn_inception", "ResNet-50": "resnet"}.get(row.get("backbone"), "inception_resnet_v2")
    match table:
        case "T1":
            positions = {"Block A": ("A", 35), "Block B": ("B", 17), "Block C": ("C", 8), "Fully Connected": ("fc", 1)}
            position, side = positions[method.split(" (")[0]]
            return [(backbone, {"scales": 1, "position": position, "positions": side, **NO_LOSS})]
        case "T2":
            return [(backbone, {"scales": row["scales"], **NO_LOSS})]
        case "T3":
            fusions = {"maximum": "max", "sum": "sum", "multiplication": "product"}
            return [(backbone, {"fusion": fusions[method.split()[-1]], **NO_LOSS})]
        case "T4":
            return [(backbone, T4[method])]
        case "T5":
            return [(backbone, {"shared": method.startswith("1x1")})]
        case "T6":
            return [(backbone, {"scales": 0 if method == "baseline" else 3})]
        case "T9":
            return [(each, {"scales": 3 if row["attention"] else 0}) for each in ("vgg", "bn_inception", IRV2[0])]
        case "T10":
            return [(each, {"scales": row["scales"]}) for each in ("vgg", "bn_inception", IRV2[0])]
        case "T14":
            return [(backbone, {"shift": method.startswith("TSM")})]
        case "T15":
            return [(backbone, T15.get(method, {}))]
        case "T7" | "T8":  # by class, of table 4's system and the plain net
            return [IRV2, (backbone, {"scales": 0})]
        case "T11" | "T12" | "T13":
            return [] if any(word in method for word in LATER) else [(backbone, {})]
        case "F4A" | "F4B":
            return [(backbone, {}), (backbone, {"scales": 0})]
    raise AssertionError(table)


def rows() -> list:
    path = SHARED / "published" / "istpa.yaml"
    if not path.exists():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no {path}"))]
    tables = YAML(typ="safe").load(path)["tables"]
    return [
        pytest.param(table["table"], row, id=f"{table['table']}-{row['method']}")
        for table in tables
        for row in table["rows"]
        if row["own"]
    ]


@functools.cache
def stage_shapes(backbone: str, planes: int) -> dict[str, tuple[int, ...]]:
    """Return stage -> (C, H, W) of the plain network's maps for a frame of the published size."""
    variant, size, _ = FULL[backbone]
    with torch.device("meta"):
        net = video.build(backbone, variant, "none", 1, classes=101, planes=planes).backbone.eval()
        x, shapes = torch.empty(1, planes, size, size), {}
        for stage in net.stages:
            x = net.stage(stage, x)
            shapes[stage] = tuple(x.shape[1:])
    return shapes


@functools.cache
def merges(backbone: str, knobs: tuple[tuple[str, object], ...], planes: int) -> None:
    """Build a system, and run its neck on maps of the published size for 3 and 25 frames."""
    variant, _, side = FULL[backbone]
    shapes = stage_shapes(backbone, planes)
    with torch.device("meta"):
        net = video.build(*(backbone, variant, "istpa", 3, 101), knobs={"positions": side} | dict(knobs), planes=planes)
        neck = net.backbone.neck
        if not dict(knobs).get("scales", 3):
            assert neck is None
            return
        for frames in (3, 25):
            net.retime(frames)
            *_, merged = run(neck, {stage: torch.empty(2, frames, *shapes[stage]) for stage in neck.scores})
            top = (shapes[neck.top][0], 1, 1) if neck.average else shapes[neck.top]
            assert merged.shape == (2, *top)


@pytest.mark.parametrize("table,row", rows())
def test_every_row_of_the_tables_can_be_built(table, row):
    nets = systems(table, row)
    assert nets or any(word in row["method"] for word in LATER)
    for backbone, knobs in nets:
        for planes in {"rgb": (3,), "flow": (FLOW,)}.get(
            row.get("stream"), (3, FLOW) if "flow" in row["values"] else (3,)
        ):
            merges(backbone, tuple(sorted(knobs.items())), planes)
