"""ISTPA in its networks: any number of frames, any size, compiled, exported, and its limits."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.layers.pyramid import InteractionPyramid
from tests.support.nets.istpa import attended, build, clips, run, softmax

FRAMES_BACKBONES = ("resnet", "vgg", "bn_inception", "inception_resnet_v2", "mobilenet_v2")


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
    linear = {"mobilenet_v2": {"res3", "res4", "res5"}, "inception_resnet_v2": {"res5"}}.get(backbone, set())
    activated = {"res3", "res4", "res5"} if backbone in ("vgg", "bn_inception") else set()  # behind the neck: 5.1.6
    assert net.backbone.neck.bare == activated
    assert bare == activated | linear
    top = torch.relu(raw["res5"]) if "res5" in activated else raw["res5"]
    torch.testing.assert_close(top, maps["res5"])
    assert ((passed["res5"] < 0).any()) == (backbone in ("inception_resnet_v2", "mobilenet_v2"))


@pytest.mark.parametrize("backbone", FRAMES_BACKBONES)
@pytest.mark.parametrize("bare", ["all", "none"])
def test_all_nets_maps_come_before_their_relu_or_none_do(backbone, bare):
    net = build(backbone, bare=bare)
    with_relu = {"mobilenet_v2": set(), "inception_resnet_v2": {"res3", "res4"}}.get(backbone, {"res3", "res4", "res5"})
    assert net.backbone.neck.bare == (with_relu if bare == "all" else set())


def test_on_mobilenet_the_layer_follows_the_linear_bottleneck_and_the_tail_sees_its_map():
    with torch.device("meta"):
        net = video.build("mobilenet_v2", "1.0", "istpa", 3, classes=5)
    assert net.backbone.neck.top == "res5" and net.backbone.stages["res5"] == 320
    seen: list[Tensor] = []
    net.backbone.tail.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    assert net(torch.empty(2, 3, 3, 224, 224, device="meta")).shape == (2, 5)
    assert seen[0].shape == (2, 320, 7, 7)


def test_x_keeps_its_own_size_and_columns_are_as_trained():
    """Table T14 trains at 224 and tests at 256."""
    net = build(positions=2).eval()
    seen = attended(net)
    net(clips(2, 3, 64)), net(clips(2, 3, 96))
    assert [tuple(a.shape) for a in seen] == [(2, 3 * 4, 4), (2, 3 * 9, 4)]


# A column of even attention over K*P positions has the factor sqrt(K*P) = 19.8; the classifier's steps are stable while
# lr |h|^2 / K < 2 (1 + momentum), and |h|^2 goes with the factor's square.
@pytest.mark.parametrize("start,low,high", [("xavier", 1, 8), ("normal", 12, 19.9)])
def test_columns_are_peaked_from_the_start_as_tf_slim_starts_them(start, low, high):
    torch.manual_seed(0)
    neck = InteractionPyramid(8, {"res3": 512, "res4": 1024, "res5": 2048}, (7, 7), start=start)
    for layer in neck.scores.values():
        assert layer.bias.unique().tolist() == [0.0 if start == "xavier" else 1.0]
    maps = {stage: torch.randn(1, 8, layer.in_features, 7, 7).relu() for stage, layer in neck.scores.items()}
    _, attention, _ = run(neck, maps)
    assert low < float(attention.detach().sum(1).mean()) < high


@pytest.mark.parametrize("start", [None, "xavier", "normal"])
def test_a_nets_scores_start_by_xaviers_rule_unless_asked(start):
    """Normal weights with biases at 1 diverge at the published rates of flow, HMDB51 and Kinetics-400."""
    net = build(**({"start": start} if start else {}))
    for layer in net.backbone.neck.scores.values():
        weight = layer.weight.detach()
        if start == "normal":
            assert float(weight.std()) == pytest.approx(0.01, rel=0.3)
            assert (layer.bias == 1).all()
        else:
            assert float(weight.abs().max()) == pytest.approx(math.sqrt(6 / sum(weight.shape)), rel=0.1)
            assert not layer.bias.any()


@pytest.mark.parametrize("fusion", ["product", "sum", "max"])
def test_from_xaviers_start_the_scores_learn(fusion):
    """Clips of a class have a mark at one position of one frame, and equally strong noise elsewhere."""
    torch.manual_seed(0)
    marks, draws = torch.randn(4, 8), torch.Generator().manual_seed(1)
    channels = {"res4": 8, "res5": 8}
    neck = InteractionPyramid(3, channels, (2, 2), fusion, interaction=1e-4, attention=1e-4)
    head = nn.Linear(8, 4)
    optimizer = torch.optim.SGD([*neck.parameters(), *head.parameters()], 0.05, momentum=0.9)
    losses = []
    for _ in range(300):
        labels = torch.randint(4, (32,), generator=draws)
        x = torch.randn(32, 3, 8, 2, 2, generator=draws)
        x[torch.arange(32), torch.randint(3, (32,), generator=draws), :, 0, 1] = 2 * marks[labels]
        seen: dict[str, Tensor] = {}
        neck("res4", x.flatten(0, 1), seen)
        logits = head(neck("res5", x.flatten(0, 1), seen).mean((2, 3)))
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        (loss + neck.penalty(torch.sum)).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-50:]) < 0.1 * sum(losses[:10]) * 5, "the head alone, over scores that stay, gets to a sixth"


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
    side, rows = {"fc": (1, 1), "B": (2, 4)}.get(knobs.get("position"), (2, 2))
    assert seen[0].shape == (2, 25 * rows**2, side**2)


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
    assert seen[0].shape == (2, (-(-side // 32)) ** 2, 4)


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
    expected, penalty = plain(batch), plain.penalty(torch.sum)
    torch.testing.assert_close(compiled(batch), expected)
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
        ("resnet", {"start": "zero"}, "start is 'zero'; known: xavier, normal"),
        ("resnet", {"bare": "some"}, "bare is 'some'; known: published, all, none"),
        ("resnet", {"interaction": -1.0}, "interaction is -1.0"),
        ("resnet", {"attention": -1.0}, "attention is -1.0"),
        ("resnet", {"position": "B", "shift": True}, "shift needs position C or fc"),
    ],
)
def test_what_it_does_not_take(backbone, knobs, message):
    with pytest.raises(ValueError, match=message):
        video.build(backbone, "tiny", "istpa", 3, classes=5, knobs=knobs)
