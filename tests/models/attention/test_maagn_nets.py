"""MAAGN in its networks: its ablations against the paper's rows, initial gates, and limits."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import nn

from models import costs, video
from models.attention import maagn
from models.attention.maagn import Agm, Maagn, Mtam, Sdm
from tests.support.nets.maagn import modules, tiny
from tests.support.real_data import TEST_DATA

ROWS = TEST_DATA / "published" / "maagn.yaml"


@pytest.mark.parametrize("axis", maagn.AXES)
def test_arrangements(axis):
    x = torch.randn(2, 8, 4, 3, 3)  # N, C, T, H, W
    turned = x.transpose(1, 2) if axis == "T" else x
    outs = {}
    for arrangement in maagn.ARRANGEMENTS:
        torch.manual_seed(0)
        module = Maagn(turned.shape[1], axis, arrangement, "F+F*H", "both+ISO", 2)
        outs[arrangement] = module(x)
        s, t = module.sdm, module.mtam
        expected = {
            "sdm": lambda s=s, t=t: s(turned),
            "mtam": lambda s=s, t=t: t(turned),
            "serial": lambda s=s, t=t: t(s(turned)),
            "serial_reversed": lambda s=s, t=t: s(t(turned)),
            "parallel_sum": lambda s=s, t=t: s(turned) + t(turned),
            "parallel": lambda s=s, t=t, module=module: module.agm(s(turned), t(turned), turned),
        }[arrangement]()
        torch.testing.assert_close(outs[arrangement], expected.transpose(1, 2) if axis == "T" else expected)
        assert outs[arrangement].shape == x.shape
    torch.testing.assert_close(outs.pop("parallel"), outs["parallel_sum"])  # as long as AGM is as it starts
    for one, other in itertools.combinations(outs.values(), 2):
        assert not torch.allclose(one, other, atol=1e-3)


def features(agm: Agm) -> torch.Tensor:
    """Return S, T and X for an AGM: three (N, D, A, H, W)."""
    return torch.randn(3, 2, agm.merge.out_channels, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("axis", maagn.AXES)
def test_agm_in_a_net_sums_at_first_and_gates_the_input(axis):
    for level in modules(tiny(axis=axis)):
        s, t, x = features(level.agm)
        torch.testing.assert_close(level.agm(s, t, x), s + t)
        nn.init.ones_(level.agm.alpha)
        torch.testing.assert_close(level.agm.gated(s, t, 2 * x), 2 * level.agm.gated(s, t, x))


def test_agms_other_readings_in_a_net():
    for level in modules(tiny(start="xavier")):
        s, t, x = features(level.agm)
        assert not torch.allclose(level.agm(s, t, x), s + t, atol=0.1)
    for level in modules(tiny(gated="softmax")):
        s, t, x = features(level.agm)
        nn.init.ones_(level.agm.alpha)
        assert torch.equal(level.agm.gated(s, t, 2 * x), level.agm.gated(s, t, x))


@pytest.mark.parametrize("axis", maagn.AXES)
def test_the_open_gate_multiplies_the_levels_input(axis):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 3, 3)  # N, C, T, H, W
    turned = x.transpose(1, 2) if axis == "T" else x
    module = Maagn(turned.shape[1], axis, "parallel", "F+F*H", "both+ISO", 2)
    nn.init.ones_(module.agm.alpha)
    s, t = module.sdm(turned), module.mtam(turned)
    share = torch.softmax(module.agm.merge(maagn.paired(s, t, module.agm.groups)), 1)
    expected = s + t + module.agm.gate_out(share * module.agm.gate_in(turned))
    torch.testing.assert_close(module(x), expected.transpose(1, 2) if axis == "T" else expected)


def test_each_level_is_weighed_between_spatial_and_temporal_modulation():
    net = tiny(arrangement="serial").eval()
    pyramid = net.backbone.neck.pyramid
    order = []
    for kind in ("spatial", "attention", "temporal"):
        for at, module in enumerate(getattr(pyramid, kind)):
            module.register_forward_hook(
                lambda m, i, out, kind=kind, at=at: order.append((kind, at, tuple(i[0].shape), tuple(out.shape)))
            )
    net(torch.randn(2, 8, 3, 64, 64))
    whole = (2, 128, 8, 2, 2)
    assert order == [
        ("spatial", 0, (2, 64, 8, 4, 4), whole),
        ("attention", 0, whole, whole),
        ("temporal", 0, whole, (2, 64, 1, 2, 2)),
        ("spatial", 1, whole, whole),
        ("attention", 1, whole, whole),
        ("temporal", 1, whole, (2, 64, 1, 2, 2)),
    ]


@pytest.mark.parametrize("arrangement", maagn.ARRANGEMENTS)
@pytest.mark.parametrize("backbone,axis", [("resnet", "T"), ("slowonly", "T"), ("resnet", "C")])
def test_gradient_reaches_every_parameter(backbone, axis, arrangement):
    # With a few hidden units of many channels all may start behind a closed ReLU.
    net = tiny(backbone, arrangement=arrangement, axis=axis, reduction=2 if axis == "C" else 16)
    for module in net.modules():
        if isinstance(module, Agm):
            nn.init.ones_(module.alpha)
    nn.init.normal_(net.head.weight)
    target = torch.tensor([0, 3])
    loss = F.cross_entropy(net(torch.randn(2, 8, 3, 64, 64)), target)
    (loss + net.penalty(lambda logits: F.cross_entropy(logits, target))).backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("seed", range(8))
def test_a_single_hidden_unit_is_never_shut(seed):
    torch.manual_seed(seed)
    for module in (Sdm(8), Mtam(8)):
        x = torch.relu(torch.randn(2, 8, 4, 3, 3))
        module(x).square().sum().backward()
        assert all(layer.weight.grad.any() for layer in (module.mlp[0], module.mlp[2]))


def test_the_baselines_auxiliary_loss_stays():
    net = tiny()
    net(torch.randn(2, 8, 3, 64, 64))
    logits = net.backbone.neck.aux.logits
    assert logits.shape == (2, 5)
    torch.testing.assert_close(net.penalty(lambda logits: logits.sum()), 0.5 * logits.sum())
    assert tiny(aux=False).backbone.neck.aux is None


# MODELS.md, section 4b: weights of layers T wide at T = 8, both levels
@pytest.mark.parametrize(
    "arrangement,knobs,weights",
    [
        ("sdm", {}, 24),
        ("mtam", {}, 800),
        ("mtam", {"pooling": "both"}, 32),
        ("serial", {}, 824),
        ("parallel_sum", {}, 824),
        ("parallel", {}, 824 + 6912 + 2),
        ("sdm", {"axis": "C"}, 2 * 3 * 2048**2 // 64),
        ("mtam", {"axis": "C", "pooling": "both"}, 2 * 2048**2 // 8),
    ],
)
def test_parameters_of_the_modules(arrangement, knobs, weights):
    with torch.device("meta"):
        net = video.build("resnet", "50", "maagn", 8, classes=174, knobs={"arrangement": arrangement, **knobs})
    assert costs.parameters(net) == 82_445_724 + weights


def knobs_of(table: str, row: dict) -> tuple[str, dict]:
    """Return (attention, knobs) of a row that the authors ran."""
    if table == "T4":
        return "maagn", {"arrangement": "sdm", "mask": row["method"]}
    if table == "T5":
        pooling = {(True, False): "max", (False, True): "avg", (True, True): "both"}[row["maxpool"], row["avgpool"]]
        return "maagn", {"arrangement": "mtam", "pooling": pooling + ("+ISO" if row["iso"] else "")}
    arrangements = {
        "MAAGN": "parallel",
        "TPN+SDM": "sdm",
        "TPN+MTAM": "mtam",
        "serial SDM->MTAM": "serial",
        "serial MTAM->SDM": "serial_reversed",
        "parallel, summation": "parallel_sum",
        "parallel, AGM": "parallel",
        "MAAGN (Serial)": "serial",
        "MAAGN (Parallel)": "parallel",
    }
    if row["method"] not in arrangements:
        assert row["method"] in ("TPN baseline", "TPN (our baseline)")
        return "tpn", {}
    return "maagn", {"arrangement": arrangements[row["method"]]}


def own_rows() -> list:
    """Return every row that the authors ran; without the file, one skipped parameter."""
    if not ROWS.exists():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=f"no {ROWS}"))]
    tables = YAML(typ="safe").load(ROWS.read_text())["tables"]
    return [
        pytest.param(table["table"], row, id=f"{table['table']}-{at}-{row['method']}")
        for table in tables
        for at, row in enumerate(table["rows"])
        if row["own"]
    ]


@pytest.mark.parametrize("table,row", own_rows())
def test_every_row_of_the_paper_can_be_built(table, row):
    attention, knobs = knobs_of(table, row)
    backbone = "slowonly" if table == "T2" else "resnet"
    frames = row.get("frames") or int(row.get("frames_clips_crops", "8x").split("x")[0])
    variant = row.get("backbone", "ResNet-50").removeprefix("ResNet-")
    with torch.device("meta"):
        net = video.build(backbone, variant, attention, frames, classes=174, knobs=knobs)
        assert net.eval()(torch.empty(1, frames, 3, 64, 64)).shape == (1, 174)
    levels = [module for module in modules(net) if isinstance(module, Maagn)]
    assert len(levels) == (0 if attention == "tpn" else 2)
    for level in levels:
        assert (level.sdm is not None, level.mtam is not None) == (
            knobs["arrangement"] != "mtam",
            knobs["arrangement"] != "sdm",
        )
        assert (level.agm is not None) == (knobs["arrangement"] == "parallel")


@pytest.mark.parametrize("frames", [2, 3, 7])
def test_any_number_of_frames_from_two_up(frames):
    net = tiny(frames=frames)
    assert net(torch.randn(2, frames, 3, 32, 32)).isfinite().all()


def test_the_middle_of_an_odd_number_of_frames_is_in_neither_half():
    torch.manual_seed(0)
    module, x = Sdm(5, "F*H"), torch.rand(1, 5, 2, 3, 3)
    nn.init.ones_(module.mlp[0].weight)
    before = module(x)
    x[:, 2] += 1
    after = module(x)
    assert torch.equal(after[:, [0, 1, 3, 4]], before[:, [0, 1, 3, 4]])
    x[:, 4] += 1
    assert not torch.equal(module(x)[:, 0], after[:, 0])


def test_one_frame_has_no_halves():
    with pytest.raises(ValueError, match="SDM halves the clip's frames; it needs 2 or more, not 1"):
        tiny(frames=1)
    for knobs in ({"arrangement": "mtam"}, {"axis": "C"}):
        assert tiny(frames=1, **knobs)(torch.randn(2, 1, 3, 32, 32)).shape == (2, 5)


def test_weights_for_frames_are_for_one_number_of_them():
    with pytest.raises(ValueError, match="the weights of Maagn are for T = 8, not 4"):
        tiny().retime(4)
    net = tiny(axis="C")
    net.retime(4)
    assert net(torch.randn(2, 4, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    "backbone,knobs,message",
    [
        ("resnet", {"arrangement": "both"}, "arrangement is 'both'; known: sdm, mtam, serial"),
        ("resnet", {"mask": "H"}, r"mask is 'H'; known: F\*H, F\+H"),
        ("resnet", {"pooling": "min"}, "pooling is 'min'; known: max, avg, both"),
        ("resnet", {"axis": "t"}, "axis is 't'; known: T, C"),
        ("resnet", {"flow": "up"}, "attention 'maagn': flow is 'up'; known: cascade, parallel"),
        ("resnet", {"reduction": 0}, "reduction is 0; it must be 1 or more"),
        ("resnet3d", {}, "layout that keeps all frames up to res5"),
        ("inception_resnet_v2", {}, "layout, that ends in res4 and res5, not in res5 and tail"),
    ],
)
def test_invalid_requests_are_named(backbone, knobs, message):
    with pytest.raises(ValueError, match=message):
        tiny(backbone, **knobs)


def test_a_net_that_strides_over_frames_can_have_its_channels_weighed():
    assert tiny("resnet3d", axis="C")(torch.randn(2, 8, 3, 32, 32)).shape == (2, 5)
