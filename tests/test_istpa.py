"""ISTPA's equations, one number at a time, stored evaluations of its reading, and every row of its paper's tables."""

import copy
import functools
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor, nn

from models import video
from models.pyramid import InteractionPyramid, attention_loss, interaction_loss

SHARED = Path(__file__).parents[2] / "shared"
STAGES = ("res2", "res3", "res4", "res5")
FRAMES_BACKBONES = ("resnet", "vgg", "bn_inception", "inception_resnet_v2", "mobilenet_v2")
FUSIONS = {"product": math.prod, "sum": sum, "max": max}
IN_GOLDEN = {"mul": "product", "sum": "sum", "max": "max"}


def stored(pattern: str) -> list:
    """Golden files of that pattern; where there are none, one parameter that is skipped."""
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {SHARED / 'golden'}"))
    return [pytest.param(path, id=path.stem) for path in sorted((SHARED / "golden").glob(pattern))] or [missing]


def build(backbone: str = "resnet", frames: int = 3, seed: int = 0, **knobs) -> video.VideoNet:
    """The tiny member with ISTPA, and a head whose logits are no near zeros."""
    torch.manual_seed(seed)
    net = video.build(backbone, "tiny", "istpa", frames, classes=5, knobs={"positions": 2} | knobs)
    nn.init.normal_(net.head.weight)
    return net


def clips(n: int = 2, t: int = 3, side: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(n, t, 3, side, side, generator=torch.Generator().manual_seed(seed))


def attended(net: video.VideoNet) -> list[Tensor]:
    """A list that takes A of every forward pass from now on."""
    seen: list[Tensor] = []
    net.backbone.neck.attention.register_forward_hook(lambda m, scores, out: seen.append(out.detach()))
    return seen


def run(neck: InteractionPyramid, maps: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """The scores, A and M of a neck over maps (N, K, C, H, W) of its stages."""
    caught: list = []
    hook = neck.attention.register_forward_hook(lambda m, inputs, out: caught.extend((inputs[0], out)))
    seen: dict[str, Tensor] = {}
    for stage, x in maps.items():
        merged = neck(stage, x.flatten(0, 1), seen)
    hook.remove()
    return *caught, merged


@pytest.mark.parametrize("path", stored("spec_istpa_*.npz"))
def test_the_stored_evaluation(path):
    data = np.load(path)
    maps = [torch.from_numpy(data[f"x{at}"]) for at in range(sum(name[0] == "x" for name in data.files))]
    names = STAGES[-len(maps) :]
    fusion = IN_GOLDEN[json.loads(str(data["meta"])).get("fusion", "mul")]
    channels = {name: x.shape[2] for name, x in zip(names, maps, strict=True)}
    neck = InteractionPyramid(maps[0].shape[1], channels, tuple(maps[-1].shape[3:]), fusion).double()
    for at, name in enumerate(names):
        state = {"weight": torch.from_numpy(data[f"W{at}"].T), "bias": torch.from_numpy(data[f"b{at}"][0])}
        neck.scores[name].load_state_dict(state)
    scores, attention, merged = run(neck, dict(zip(names, maps, strict=True)))
    x = maps[-1].flatten(3).transpose(2, 3).flatten(1, 2)  # (N, K*P, C)
    ours = {
        "A": attention,
        "M": merged,
        "L_interactive": interaction_loss(x, attention),
        "L_attn": attention_loss(attention, scores, neck.frames),
        **{f"Y{at}": score for at, score in enumerate(scores)},
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value.detach().numpy(), data[name], rtol=0, atol=1e-10, err_msg=name)


def pooled(image: Tensor, h: int, w: int) -> list[float]:
    """One channel of one frame (H, W) -> h*w maxima, row by row, of windows that may overlap."""
    height, width = image.shape
    rows = [(i * height // h, -(-(i + 1) * height // h)) for i in range(h)]
    columns = [(j * width // w, -(-(j + 1) * width // w)) for j in range(w)]
    return [
        max(float(image[y, x]) for y in range(*row) for x in range(*column))
        for row, column in itertools.product(rows, columns)
    ]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def by_hand(maps: list[Tensor], weights: list[Tensor], biases: list[Tensor], fusion: str, size: tuple[int, int]):
    """One clip's maps (K, C, H, W) of each scale, W_j (C, P), b_j (P) -> X_i[c][r], Y_j[m][r], a_m[r], M[c][m].

    r counts positions of all frames, frame by frame; m those of the merged map. Columns of Y_j and A are lists here.
    """
    xs = [[[value for frame in x for value in pooled(frame[c], *size)] for c in range(x.shape[1])] for x in maps]
    scores = []
    for x, weight, bias in zip(xs, weights, biases, strict=True):
        columns = range(size[0] * size[1])
        scores.append(
            [
                [
                    sum(x[c][r] * float(weight[c, m]) for c in range(len(x))) + float(bias[m])  # equation 2
                    for r in range(len(x[0]))
                ]
                for m in columns
            ]
        )
    attention = []
    for columns in zip(*scores, strict=True):  # each scale's column m
        a = softmax([FUSIONS[fusion](values) for values in zip(*columns, strict=True)])
        length = math.sqrt(sum(value * value for value in a))
        attention.append([value / length for value in a])
    merged = [[sum(x * a for x, a in zip(row, column, strict=True)) for column in attention] for row in xs[-1]]
    return xs[-1], scores, attention, merged


def interaction_by_hand(x: list[list[float]], attention: list[list[float]]) -> float:
    """Equation 8 of one clip."""
    total = 0.0
    for m, a in enumerate(attention):
        total -= sum(sum(value * weight for value, weight in zip(row, a, strict=True)) ** 2 for row in x)
        for n, other in enumerate(attention):
            if n != m:
                total += sum(one * two for one, two in zip(a, other, strict=True)) ** 2
    return total


def attention_by_hand(attention: list[list[float]], scores: list[list[list[float]]], frames: int) -> float:
    """Equations 14 and 15 of one clip."""
    radicand = 0.0
    for columns in scores:
        for a, column in zip(attention, columns, strict=True):
            alone = softmax(column)
            positions = len(a) // frames
            for t in range(frames):
                rows = range(t * positions, (t + 1) * positions)
                delta = math.sqrt(sum((a[r] - alone[r]) ** 2 for r in rows))
                radicand += 1 - delta**2
    return math.sqrt(max(1e-12, radicand))


@pytest.mark.parametrize(
    "sizes,size,frames",
    [([(7, 5), (4, 3)], (2, 2), 3), ([(2, 3)], (2, 3), 2), ([(8, 8), (4, 4), (1, 1), (3, 2)], (2, 2), 1)],
)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("shared", [False, True])
def test_the_equations(fusion, shared, sizes, size, frames):
    generator = torch.Generator().manual_seed(0)
    names = STAGES[-len(sizes) :]
    maps = {
        name: torch.randn(2, frames, 3 + at, *side, dtype=torch.double, generator=generator)
        for at, (name, side) in enumerate(zip(names, sizes, strict=True))
    }
    neck = InteractionPyramid(frames, {name: x.shape[2] for name, x in maps.items()}, size, fusion, shared).double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter, generator=generator)
    scores, attention, merged = run(neck, maps)
    x = neck._positions(maps[names[-1]].flatten(0, 1))
    losses = interaction_loss(x, attention), attention_loss(attention, scores, frames)
    positions = size[0] * size[1]
    for clip in range(2):
        weights = [layer.weight.detach().T.expand(-1, positions) for layer in neck.scores.values()]
        biases = [layer.bias.detach().expand(positions) for layer in neck.scores.values()]
        hand_x, hand_y, hand_a, hand_m = by_hand([x[clip] for x in maps.values()], weights, biases, fusion, size)
        close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
        close(attention[clip].T, torch.tensor(hand_a, dtype=torch.double))
        close(merged[clip].flatten(1), torch.tensor(hand_m, dtype=torch.double))
        for score, columns in zip(scores, hand_y, strict=True):
            close(score[clip].T, torch.tensor(columns, dtype=torch.double))
        assert losses[0][clip].item() == pytest.approx(interaction_by_hand(hand_x, hand_a), rel=1e-10)
        assert losses[1][clip].item() == pytest.approx(attention_by_hand(hand_a, hand_y, frames), rel=1e-10)
    if shared:  # one attention for all positions; a matrix product may be summed otherwise at a block's end
        close(merged, merged[..., :1, :1].expand_as(merged))


# Equations 12 and 16: what is added to the classification loss of a clip.
@pytest.mark.parametrize("interaction,attention", [(1e-4, 1e-4), (0.5, 0.0), (0.0, 2.0)])
def test_the_penalty_is_both_losses_by_their_weights(interaction, attention):
    net = build(interaction=interaction, attention=attention).double()
    neck, caught = net.backbone.neck, []
    neck.attention.register_forward_hook(lambda m, inputs, out: caught.extend((inputs[0], out)))
    tops: list[Tensor] = []
    neck.register_forward_hook(lambda m, inputs, out: tops.append(inputs[1]))
    net(clips().double())
    scores, a = caught
    x = F.adaptive_max_pool2d(tops[-1], 2).unflatten(0, (2, 3)).flatten(3)  # (N, K, C, P)
    wanted = 0.0
    for clip in range(2):
        columns = a[clip].T.tolist()
        rows = [[value for frame in x[clip] for value in frame[c].tolist()] for c in range(x.shape[2])]
        wanted += interaction * interaction_by_hand(rows, columns) / 2
        wanted += attention * attention_by_hand(columns, [score[clip].T.tolist() for score in scores], 3) / 2
    penalty = net.penalty(torch.sum)
    assert penalty.item() == pytest.approx(wanted, rel=1e-9)
    assert penalty.requires_grad


def test_a_penalty_is_of_the_last_clips_and_once():
    net = build(interaction=0.0, attention=1.0)
    net(clips())
    first = net.penalty(torch.sum)
    assert first > 0 and net.penalty(torch.sum) == 0
    net(clips(seed=2))
    net(clips())
    assert net.penalty(torch.sum) == first
    net(clips())
    net.eval()(clips())
    assert net.penalty(torch.sum) == 0
    copy.deepcopy(net)


def test_without_losses_there_is_no_penalty():
    net = build(interaction=0.0, attention=0.0)
    net(clips())
    copy.deepcopy(net)  # nothing of the graph is kept
    assert net.penalty(torch.sum) == 0


def test_the_interaction_loss_holds_the_maps_fixed():
    x = torch.randn(2, 6, 4, requires_grad=True)
    attention = torch.rand(2, 6, 2, requires_grad=True)
    interaction_loss(x, attention).sum().backward()
    assert x.grad is None and attention.grad.any()


def test_the_attention_loss_of_an_image_cannot_be_the_root_of_less_than_nothing():
    attention = torch.eye(4, 2).unsqueeze(0)
    far = torch.zeros(1, 4, 2)
    far[:, 3] = 100.0
    far.requires_grad_()
    loss = attention_loss(attention, [far], frames=1)  # both deltas' squares are 2
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e-6, rel=1e-3)
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("backbone", FRAMES_BACKBONES)
def test_below_the_pyramid_the_net_is_the_plain_one(backbone):
    torch.manual_seed(0)
    plain = video.build(backbone, "tiny", "none", 3, classes=5).eval()
    net = video.build(backbone, "tiny", "istpa", 3, classes=5, knobs={"positions": 2}).eval()
    state = {name: value for name, value in net.state_dict().items() if name.startswith("backbone.neck.")}
    net.load_state_dict(plain.state_dict() | state)
    frames = clips().flatten(0, 1)
    x, maps = frames, {}
    for stage in plain.backbone.stages:
        x = maps[stage] = plain.backbone.stage(stage, x)
    passed, raw = {}, {}
    net.backbone.neck.register_forward_hook(lambda m, inputs, out: raw.update({inputs[0]: inputs[1]}))
    net.backbone.neck.register_forward_hook(lambda m, inputs, out: passed.update({inputs[0]: out}))
    net.backbone(frames)
    for stage in ("stem", "res2", "res3", "res4"):
        if stage in passed:
            torch.testing.assert_close(passed[stage], maps[stage])
    bare = {stage for stage in ("res3", "res4", "res5") if (raw[stage] < 0).any()}
    linear = {"mobilenet_v2": {"res3", "res4"}, "inception_resnet_v2": {"res5"}}.get(backbone, set())
    activated = {"resnet": {"res3", "res4", "res5"}, "inception_resnet_v2": {"res3", "res4"}}.get(backbone, set())
    assert net.backbone.neck.bare == activated
    assert bare == activated | linear
    top = torch.relu(raw["res5"]) if "res5" in activated else raw["res5"]
    torch.testing.assert_close(top, maps["res5"])
    assert ((passed["res5"] < 0).any()) == (backbone == "inception_resnet_v2")


@pytest.mark.parametrize(
    "knobs", [{}, {"position": "fc", "scales": 1}, {"position": "B", "scales": 2}, {"shift": True}]
)
def test_trained_with_3_frames_and_tested_with_25(knobs):
    net, long = build(frames=3, **knobs).eval(), build(frames=25, seed=1, **knobs).eval()
    long.load_state_dict(net.state_dict())
    net.retime(25)
    seen = attended(net)
    batch = clips(2, 25)
    assert torch.equal(net(batch), long(batch))
    side = {"fc": 1}.get(knobs.get("position"), 2)
    assert seen[0].shape == (2, 25 * side**2, side**2)


# Softmax shares each weight by K, the length of a column of K like parts is sqrt(K) times theirs, and M adds up K.
def test_of_equal_frames_k_make_sqrt_k_times_what_one_makes():
    neck = InteractionPyramid(1, {"res4": 3, "res5": 4}, (2, 2)).double()
    maps = {"res4": torch.randn(2, 1, 3, 4, 4).double(), "res5": torch.randn(2, 1, 4, 2, 2).double()}
    *_, one = run(neck, maps)
    neck.frames = 9
    _, attention, nine = run(neck, {stage: x.expand(-1, 9, -1, -1, -1) for stage, x in maps.items()})
    torch.testing.assert_close(nine, 3 * one)
    torch.testing.assert_close(attention.square().sum(1), torch.ones(2, 4).double())


@pytest.mark.parametrize("side", [32, 33, 64, 100])
def test_an_image_of_any_size(side):
    net = build(frames=1)
    seen = attended(net)
    assert net(clips(2, 1, side)).shape == (2, 5)
    assert seen[0].shape == (2, 4, 4)


def test_after_the_pooling_a_frame_has_one_weight():
    net = build(position="fc", scales=1).double().eval()
    nn.init.normal_(net.backbone.neck.scores["res5"].weight)
    plain = video.build("resnet", "tiny", "none", 3, classes=5).double().eval()
    plain.backbone.load_state_dict({n: v for n, v in net.backbone.state_dict().items() if not n.startswith("neck.")})
    batch = clips().double()
    features = plain.backbone(batch.flatten(0, 1)).mean((2, 3)).unflatten(0, (2, 3))  # (N, K, C)
    layer = net.backbone.neck.scores["res5"]
    for clip, logits in zip(features, net(batch), strict=True):
        weights = softmax([(frame @ layer.weight[0] + layer.bias).item() for frame in clip])
        length = math.sqrt(sum(weight**2 for weight in weights))
        merged = sum(weight / length * frame for weight, frame in zip(weights, clip, strict=True))
        torch.testing.assert_close(logits, net.head(merged))


def test_no_scale_is_the_plain_net():
    net = build(scales=0).eval()
    plain = video.build("resnet", "tiny", "none", 3, classes=5).eval()
    plain.load_state_dict(net.state_dict())
    assert not net.attention_parameters
    assert torch.equal(net(clips()), plain(clips()))


@pytest.mark.parametrize("scales,position", [(3, "C"), (0, "C"), (1, "fc")])
def test_the_shift_below_it_is_tsms(scales, position):
    net = build(scales=scales, position=position, shift=True)
    tsm = video.build("resnet", "tiny", "tsm", 3, classes=5)
    kinds = [[type(block.entry) for _, block in each.backbone.blocks()] for each in (net, tsm)]
    assert kinds[0] == kinds[1]
    if not scales:
        tsm.load_state_dict(net.state_dict())
        assert torch.equal(net.eval()(clips()), tsm.eval()(clips()))


@pytest.mark.parametrize(
    "backbone,knobs",
    [
        *((backbone, {}) for backbone in FRAMES_BACKBONES),
        ("resnet", {"scales": 4}),
        ("resnet", {"fusion": "max"}),
        ("resnet", {"shared": True}),
        ("resnet", {"position": "A", "scales": 2}),
        ("inception_resnet_v2", {"scales": 4, "position": "C"}),
        ("inception_resnet_v2", {"position": "B"}),
        ("resnet", {"shift": True, "scales": 2}),
    ],
)
@pytest.mark.parametrize("losses", [True, False])
def test_gradient_beyond_rounding_reaches_all_scores_and_the_pixels(backbone, knobs, losses):
    weights = {} if losses else {"interaction": 0.0, "attention": 0.0}
    net = build(backbone, **knobs, **weights).double()
    batch = clips().double().requires_grad_()
    ((net(batch) * torch.randn(2, 5)).sum() + net.penalty(torch.sum)).backward()
    most = max(float(value.grad.abs().max()) for value in net.parameters())
    largest = {name: float(net.get_parameter(name).grad.abs().max()) for name in net.attention_parameters}
    assert [name for name, value in largest.items() if value < 1e-12 * most] == []
    assert batch.grad.flatten(1).any(1).all()


@pytest.mark.parametrize("knobs", [{"scales": 1}, {"fusion": "sum"}, {"scales": 1, "position": "fc"}])
def test_where_a_columns_bias_does_nothing(knobs):
    net = build(interaction=0.1, attention=0.1, **knobs).double()
    torch.manual_seed(0)
    ((net(clips().double()) * torch.randn(2, 5)).sum() + net.penalty(torch.sum)).backward()
    for layer in net.backbone.neck.scores.values():
        assert layer.bias.grad.abs().max() < 1e-9 * layer.weight.grad.abs().max()


def test_lower_precision_stops_before_the_scores():
    net = build(interaction=1.0).train()
    caught: list[Tensor] = []
    net.backbone.neck.attention.register_forward_hook(lambda m, inputs, out: caught.extend((*inputs[0], out)))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(clips()).dtype == torch.bfloat16
    assert {x.dtype for x in caught} == {torch.float32}
    torch.testing.assert_close(caught[-1].square().sum(1), torch.ones(2, 4), rtol=0, atol=1e-6)
    assert net.penalty(torch.sum).dtype == torch.float32
    whole = net.bfloat16()
    assert whole(clips().bfloat16()).dtype == torch.bfloat16
    assert caught[-1].dtype == torch.float32


@pytest.mark.parametrize("knobs", [{}, {"position": "fc", "scales": 1}])
def test_compiled_and_exported(knobs):
    net, batch = build(**knobs), clips()
    plain = copy.deepcopy(net)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    wanted, penalty = plain(batch), plain.penalty(torch.sum)
    torch.testing.assert_close(compiled(batch), wanted)
    torch.testing.assert_close(net.penalty(torch.sum), penalty)
    exported = torch.export.export(plain.eval(), (batch,)).module()
    torch.testing.assert_close(exported(batch), plain(batch))


@pytest.mark.parametrize(
    "backbone,knobs,message",
    [
        ("resnet3d", {}, "not one of layout 'volume'"),
        ("resnet", {"fusion": "mean"}, "fusion is 'mean'; known: product, sum, max"),
        ("resnet", {"position": "D"}, "position is 'D'; known: A, B, C, fc"),
        ("resnet", {"positions": 0}, "positions is 0"),
        ("resnet", {"scales": 5}, "scales is 5; position 'C' of this backbone has 0 to 4: res5, res4, res3, res2"),
        ("resnet", {"scales": -1}, "scales is -1"),
        ("bn_inception", {"scales": 4}, "0 to 3: res5, res4, res3$"),
        ("resnet", {"position": "A"}, "0 to 2: res3, res2$"),
        ("vgg", {"position": "fc"}, "0 to 1: tail$"),
        ("resnet", {"interaction": -1.0}, "interaction is -1.0"),
        ("resnet", {"attention": -1.0}, "attention is -1.0"),
        ("resnet", {"position": "B", "shift": True}, "shift needs position C or fc"),
    ],
)
def test_what_it_does_not_take(backbone, knobs, message):
    with pytest.raises(ValueError, match=message):
        video.build(backbone, "tiny", "istpa", 3, classes=5, knobs=knobs)


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
    """(backbone, knobs) of each net that a row of the paper's own is made of."""
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
    """stage -> (C, H, W) of the plain net's maps of a frame of the published size."""
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
    """Builds a system, and lets its neck see maps of the published size of 3 and 25 frames."""
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
