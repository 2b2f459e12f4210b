"""MAAGN's modules against loops over the paper's equations, its ablations against the paper's rows, and its limits."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from test_golden import stored
from torch import Tensor, nn

from models import costs, video
from models.attention import maagn
from models.attention.maagn import Agm, Maagn, Mtam, Sdm

ROWS = Path(__file__).parents[2] / "shared" / "published" / "maagn.yaml"


def tiny(backbone: str = "resnet", frames: int = 8, **knobs) -> video.VideoNet:
    torch.manual_seed(0)
    return video.build(backbone, "tiny", "maagn", frames, classes=5, knobs=knobs)


def modules(net: video.VideoNet) -> list[nn.Module]:
    return list(net.backbone.neck.pyramid.attention)


# No authors' code: an evaluation in double precision of the same reading of the paper.
@pytest.mark.parametrize("path", stored("spec_maagn_sdm*.npz"))
def test_sdm_as_stored(path):
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    module = Sdm(x.shape[1]).double()
    module.load_state_dict({f"mlp.{2 * at}.weight": torch.from_numpy(data[f"W{at}"]) for at in range(2)})
    out = module(x).detach().numpy()
    np.testing.assert_allclose(out, data["out"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(out, data["x"] * (1 + data["mask"][..., None, None, None]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", stored("spec_maagn_mtam*.npz"))
def test_mtam_as_stored(path):
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    state = {"mlp.0.weight": data["M0"], "mlp.2.weight": data["M1"], "iso.weight": data["K1"]}
    masks = {"max": ["mask1"], "avg": ["mask2"], "both": ["mask1", "mask2"], "both+ISO": ["mask1", "mask2", "mask3"]}
    for pooling, used in masks.items():
        module = Mtam(x.shape[1], pooling).double()
        module.load_state_dict({name: torch.from_numpy(state[name]) for name in module.state_dict()})
        expected = data["x"] * (1 + sum(data[key] for key in used))[..., None, None, None]
        np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=1e-10)
        if pooling == "both+ISO":
            np.testing.assert_allclose(module(x).detach().numpy(), data["out"], rtol=0, atol=1e-10)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def perceptron(layers: nn.Sequential, v: list[float]) -> list[float]:
    """Two matrices and a ReLU between, unit by unit."""
    first, second = layers[0].weight.tolist(), layers[2].weight.tolist()
    hidden = [max(0.0, sum(w * value for w, value in zip(row, v, strict=True))) for row in first]
    return [sum(w * value for w, value in zip(row, hidden, strict=True)) for row in second]


def plane(x: Tensor) -> list[float]:
    """All values of one place on the axis that is weighed."""
    return x.flatten().tolist()


def sdm_weights(module: Sdm, x: Tensor) -> list[float]:
    """Equations 1 to 5, one clip x (D, A, H, W): late less early half, maximum of all but D, two layers, sigmoid."""
    half = len(x) // 2
    late = range(len(x) - half, len(x))
    pooled = [
        max(b - a for a, b in zip(plane(x[early]), plane(x[later]), strict=True)) for early, later in enumerate(late)
    ]
    return [sigmoid(value) for value in perceptron(module.mlp, pooled)]


def mtam_weights(module: Mtam, x: Tensor) -> list[float]:
    """Equations 7 to 12, one clip x (D, A, H, W): m1 + m2 + m3 for each place on D."""
    average = perceptron(module.mlp, [sum(plane(part)) / len(plane(part)) for part in x])
    maximum = perceptron(module.mlp, [max(plane(part)) for part in x])
    dim, weights, taps = len(x), [], module.iso.weight.detach()
    for out in range(dim):
        both = 0.0
        for at in range(dim):
            if module.iso.groups == 1:  # (D, 2D, 3); the sequence is one value long, so taps 0 and 2 meet the padding
                both += float(taps[out, at, 1]) * average[at]
                both += float(taps[out, dim + at, 1]) * maximum[at]
            elif at == out:
                both += float(taps[out, 0, 1]) * average[at]
                both += float(taps[out, 1, 1]) * maximum[at]
        weights.append(sigmoid(maximum[out]) + sigmoid(average[out]) + sigmoid(both))
    return weights


@pytest.mark.parametrize("mask", maagn.MASKS)
@pytest.mark.parametrize("dim,reduction", [(8, 16), (8, 2), (5, 1), (2, 16)])
def test_sdm_equations_1_to_6(dim, reduction, mask):
    torch.manual_seed(dim)
    x = torch.randn(2, dim, 3, 4, 2, dtype=torch.double)
    module = Sdm(dim, mask, reduction).double()
    assert module.mlp[0].out_features == max(1, (dim // 2) // reduction)
    out = module(x)
    combined = {"F*H": lambda f, h: f * h, "F+H": lambda f, h: f + h, "F-H": lambda f, h: f - h}
    combine = combined.get(mask, lambda f, h: f + f * h)
    for clip in range(2):
        for at, weight in enumerate(sdm_weights(module, x[clip])):
            torch.testing.assert_close(out[clip, at], combine(x[clip, at], weight))


@pytest.mark.parametrize("groups", ["dense", "apart"])
@pytest.mark.parametrize("dim,reduction", [(8, 16), (6, 2), (1, 16)])
def test_mtam_equations_7_to_13(dim, reduction, groups):
    torch.manual_seed(dim)
    x = torch.randn(2, dim, 3, 4, 2, dtype=torch.double)
    module = Mtam(dim, reduction=reduction, groups=1 if groups == "dense" else dim).double()
    assert module.mlp[0].out_features == max(1, dim // reduction)
    out = module(x)
    for clip in range(2):
        for at, weight in enumerate(mtam_weights(module, x[clip])):
            torch.testing.assert_close(out[clip, at], x[clip, at] * (1 + weight))


def convolved(weight: Tensor, parts: list[Tensor]) -> list[Tensor]:
    """1x3x3 kernels (outs, ins, 1, 3, 3) over parts (A, H, W), tap by tap, zeros outside."""
    outs = []
    for kernel in weight:
        out = torch.zeros_like(parts[0])
        for part, taps in zip(parts, kernel, strict=True):
            padded = F.pad(part, (1, 1, 1, 1))
            for i, j in itertools.product(range(3), range(3)):
                out += taps[0, i, j] * padded[:, i : i + out.shape[1], j : j + out.shape[2]]
        outs.append(out)
    return outs


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_agm_gates_as_the_paper_says(alpha):
    torch.manual_seed(0)
    dim = 4
    module = Agm(dim).double()
    nn.init.constant_(module.alpha, alpha)
    s, t = torch.randn(2, 2, dim, 3, 4, 5, dtype=torch.double)
    out = module(s, t)
    for clip in range(2):
        merged = convolved(module.merge.weight, [*s[clip], *t[clip]])
        total = sum(part.exp() for part in merged)
        x = [part.exp() / total for part in merged]
        inner = convolved(module.gate_in.weight, x)
        y0 = convolved(module.gate_out.weight, [part * alpha * gate for part, gate in zip(x, inner, strict=True)])
        inner = convolved(module.conv2.weight, [gate + part for gate, part in zip(y0, t[clip], strict=True)])
        y = convolved(module.conv3.weight, [part + more for part, more in zip(s[clip], inner, strict=True)])
        torch.testing.assert_close(out[clip], torch.stack(y))
        assert bool(torch.stack(y0).any()) == bool(alpha)


def test_the_gate_is_shut_when_training_starts_and_can_open():
    agm = modules(tiny())[0].agm
    s, t = torch.randn(2, 2, 8, 6, 4, 4)
    assert not agm.gated(s, t).any()
    agm(s, t).square().sum().backward()
    assert agm.alpha.grad != 0
    assert not agm.gate_out.weight.grad.any()


def test_with_axis_c_each_channel_has_convolutions_of_its_own():
    torch.manual_seed(0)
    agm = Agm(6, groups=6).double()
    nn.init.ones_(agm.alpha)
    s, t = torch.randn(2, 1, 6, 3, 4, 4, dtype=torch.double)
    before = agm.conv2(agm.merge(maagn.paired(s, t, 6)))
    s[:, 2] += 1
    t[:, 4] += 1
    moved = (agm.conv2(agm.merge(maagn.paired(s, t, 6))) - before).flatten(2).abs().amax((0, 2))
    assert [at for at in range(6) if moved[at]] == [2, 4]


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
            "parallel": lambda s=s, t=t, module=module: module.agm(s(turned), t(turned)),
        }[arrangement]()
        torch.testing.assert_close(outs[arrangement], expected.transpose(1, 2) if axis == "T" else expected)
        assert outs[arrangement].shape == x.shape
    for one, other in itertools.combinations(outs.values(), 2):
        assert not torch.allclose(one, other, atol=1e-3)


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
    """(attention, knobs) of one of the paper's own rows."""
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
    """Every row that the paper's authors ran themselves; where there is no file, one parameter that is skipped."""
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
        ("resnet", {"reduction": 0}, "reduction is 0; 1 or more is needed"),
        ("resnet3d", {}, "layout that keeps all frames up to res5"),
        ("inception_resnet_v2", {}, "layout, that ends in res4 and res5, not in res5 and tail"),
    ],
)
def test_what_does_not_go_is_said(backbone, knobs, message):
    with pytest.raises(ValueError, match=message):
        tiny(backbone, **knobs)


def test_a_net_that_strides_over_frames_can_have_its_channels_weighed():
    assert tiny("resnet3d", axis="C")(torch.randn(2, 8, 3, 32, 32)).shape == (2, 5)
