"""RGB and flow in one network: attention fusion and motion reinforcement, weights, recipes, limits."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from models import explanations, video
from models.backbone import stage_blocks
from models.layers.two_streams import FusedPyramid, ReinforcedPyramid
from pipeline.config.schema import Augment, Recipe
from pipeline.train.optimizer import freeze, kinds, stage_modules, train_mode
from tests.support.nets.pairs import smallest
from tests.support.nets.two_streams import PLANES, build, clips


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=generator)


# Maps have the merged map's size here, so that nothing is pooled; tests/models/attention/test_istpa.py has the pooling.
@pytest.mark.parametrize("fusion", ["product", "sum", "max"])
def test_attention_fusion_is_one_softmax_over_both_streams(fusion):
    generator, k, h, w = torch.Generator().manual_seed(0), 3, 2, 2
    p, widths = h * w, {"res4": 3, "res5": 4}
    neck = FusedPyramid(k, widths, (h, w), fusion=fusion, interaction=0.3, attention=0.7).double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter.requires_grad_(False), generator=generator)
    maps = {stage: random(generator, 2, k, 2 * c, h, w) for stage, c in widths.items()}
    caught: list[Tensor] = []
    neck.attention.register_forward_hook(lambda m, given, out: caught.append(out))
    seen: dict[str, Tensor] = {}
    assert neck("res4", maps["res4"].flatten(0, 1), seen).shape == (2 * k, 6, h, w)
    merged = neck("res5", maps["res5"].flatten(0, 1), seen)  # (N, 4, h, w)
    joined = {"product": math.prod, "sum": sum, "max": max}[fusion]
    penalty = 0.0
    for clip in range(2):

        def column(stage: str, stream: int, t: int, position: int, clip: int = clip) -> Tensor:
            """Return the features (C,) of a stream at one position of a frame."""
            c = widths[stage]
            return maps[stage][clip, t, stream * c : (stream + 1) * c].flatten(1)[:, position]

        rows = list(itertools.product((0, 1), range(k), range(p)))  # stream, frame, position
        attention, alone = [], {stage: [] for stage in widths}
        for m in range(p):
            scored = {
                stage: [
                    float(layers[stage].weight[m] @ column(stage, stream, t, position) + layers[stage].bias[m])
                    for stream, t, position in rows
                    for layers in [neck.flow_scores if stream else neck.scores]
                ]
                for stage in widths
            }
            for stage, values in scored.items():
                alone[stage].append(softmax(values))
            a = softmax([joined(values) for values in zip(*scored.values(), strict=True)])
            length = math.sqrt(sum(value**2 for value in a))
            attention.append([value / length for value in a])
            expected = sum(weight * column("res5", *row) for weight, row in zip(attention[m], rows, strict=True))
            torch.testing.assert_close(merged[clip].flatten(1)[:, m], expected)
            penalty -= 0.3 * float(expected.square().sum()) / 2
        torch.testing.assert_close(caught[0][clip].T, torch.tensor(attention, dtype=torch.double))
        for one, other in itertools.permutations(attention, 2):
            penalty += 0.3 * sum(x * y for x, y in zip(one, other, strict=True)) ** 2 / 2
        distances = [
            1 - sum((attention[m][at] - alone[stage][m][at]) ** 2 for at in range(begin, begin + p))
            for stage, m, begin in itertools.product(widths, range(p), range(0, 2 * k * p, p))
        ]
        penalty += 0.7 * math.sqrt(sum(distances)) / 2
    assert neck.penalty(torch.sum).item() == pytest.approx(penalty, rel=1e-9)


def test_motion_reinforcement_gates_rgb_at_each_stage_that_the_layer_reads():
    generator, k, h, w = torch.Generator().manual_seed(0), 2, 2, 3
    widths = {"res4": 3, "res5": 4}
    neck = ReinforcedPyramid(k, widths, (h, w), bare={"res4"}).double().eval()
    for parameter in neck.parameters():
        nn.init.normal_(parameter.requires_grad_(False), generator=generator)
    maps = {stage: random(generator, 2 * k, 2 * c, h, w) for stage, c in {"res3": 2, **widths}.items()}
    gated = {}
    for stage, c in widths.items():
        rgb, flow, layer = maps[stage][:, :c], maps[stage][:, c:], neck.gates[stage]
        gated[stage] = torch.empty_like(rgb)
        for b, i, y, x in itertools.product(range(2 * k), range(c), range(h), range(w)):
            score = sum(float(layer.weight[i, j]) * float(flow[b, j, y, x]) for j in range(c)) + float(layer.bias[i])
            gated[stage][b, i, y, x] = rgb[b, i, y, x] * (1 + 1 / (1 + math.exp(-score)))
    seen: dict[str, Tensor] = {}
    assert neck("res3", maps["res3"], seen) is maps["res3"]
    passed = neck("res4", maps["res4"], seen)
    torch.testing.assert_close(passed, torch.cat([gated["res4"].relu(), maps["res4"][:, 3:].relu()], 1))
    merged = neck("res5", maps["res5"], seen)
    plain, again = super(ReinforcedPyramid, neck), {}
    plain.forward("res4", gated["res4"], again)
    torch.testing.assert_close(merged, plain.forward("res5", gated["res5"], again))
    assert merged.shape == (2, 4, h, w)


@pytest.mark.parametrize("backbone", ["resnet", "vgg", "bn_inception"])
@pytest.mark.parametrize("streams", ["attention", "reinforced"])
def test_both_nets_start_from_the_weights(backbone, streams, tmp_path):
    torch.manual_seed(0)
    plain = video.build(backbone, smallest(backbone), "none", 3, classes=9)
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    net = build(backbone, streams, weights=tmp_path / "plain.pt")
    state, loaded = plain.backbone.state_dict(), net.backbone.state_dict()
    for name, value in state.items():
        assert torch.equal(loaded[f"rgb.{name}"], value)
        flow = loaded.get(f"flow.{name}")  # None behind the layer
        if flow is not None and flow.shape != value.shape:
            expected = value.mean(1, keepdim=True).expand(-1, PLANES - 3, -1, -1)
            torch.testing.assert_close(flow, expected)
        elif flow is not None:
            assert torch.equal(flow, value)
    apart = {name.split(".")[1] for name in state if f"flow.{name.removeprefix('backbone.')}" not in loaded}
    assert bool(apart) == (backbone == "vgg")  # whose two layers of 4096 are behind the layer
    torch.save(net.state_dict(), tmp_path / "own.pt")
    again = build(backbone, streams, seed=1, weights=tmp_path / "own.pt").eval()
    assert torch.equal(again(clips()), net.eval()(clips()))


def test_pixels_are_normalised_by_plane_and_only_rgb_changes_its_order():
    net, plain = build("bn_inception", "attention"), video.build("bn_inception", "tiny", "none", 3, classes=5)
    assert plain.channels == net.channels == "bgr"
    assert net.mean == (*plain.mean, *[128.0] * (PLANES - 3))
    assert net.std == (*plain.std, *[sum(plain.std) / 3] * (PLANES - 3))
    flow = video.build("bn_inception", "tiny", "none", 3, classes=5, planes=PLANES - 3)
    assert flow.channels == "rgb"  # no order to change
    assert len(flow.mean) == len(flow.std) == PLANES - 3


@pytest.mark.parametrize("streams", ["attention", "reinforced"])
def test_a_recipe_freezes_and_holds_norms_in_both_nets(streams):
    recipe = Recipe(
        *(1, 2, 2, 3, "segments", 64, Augment("random"), 0.1, 0.9, 0.0),
        frozen=("stem", "res2"),
        partial_bn=True,
    )
    net = build("resnet", streams)
    assert {len(blocks) for blocks in stage_blocks(net.backbone).values()} == {2}
    assert len(stage_modules(net, "stem")) == 4
    freeze(net, recipe)
    still = {name for name, value in net.named_parameters() if not value.requires_grad}
    assert {name.split(".")[2] for name in still} == {"conv1", "bn1", "layer1"}
    assert {name.split(".")[1] for name in still} == {"rgb", "flow"}
    assert all(name.startswith("backbone.neck.") for name in net.attention_parameters)
    assert {kind for kind, _ in kinds(net)} >= {"attention", "norm", "weight", "head.weight"}
    train_mode(net, Recipe(*(1, 2, 2, 3, "segments", 64, Augment("random"), 0.1, 0.9, 0.0), partial_bn=True))
    moving = [name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    assert moving == ["backbone.rgb.bn1", "backbone.flow.bn1"]


@pytest.mark.parametrize("streams", ["attention", "reinforced"])
def test_where_it_looked(streams):
    net, clip = build("resnet", streams).eval(), clips(1)[0]
    assert explanations.available(net) == ("gradcam", "receptive")
    assert explanations.grad_cam(net, clip).max() == 1
    actual = explanations.salient_fields(net, clip)
    assert actual.fields.shape == (3, 2, 2)
    assert actual.places.shape == (4, 2) and (actual.places[:, 0] < 3).all() and (actual.places[:, 1] < 4).all()
    assert actual.shares.sum().item() == pytest.approx(1)


def test_what_two_streams_do_not_go_with():
    for attention in ("none", "tsm", "maagn"):
        with pytest.raises(ValueError, match=f"attention '{attention}' takes RGB or flow by itself; istpa takes both"):
            video.build("resnet", "tiny", attention, 4, classes=5, planes=PLANES)
    for knobs, planes in [({}, PLANES), ({"streams": "attention"}, 3), ({"streams": "reinforced"}, 4)]:
        with pytest.raises(ValueError, match=r"RGB with flow .*takes attention or reinforced"):
            video.build("resnet", "tiny", "istpa", 4, classes=5, knobs=knobs, planes=planes)
    with pytest.raises(ValueError, match="with scales 0; RGB with flow"):
        video.build("resnet", "tiny", "istpa", 4, 5, knobs={"streams": "attention", "scales": 0}, planes=PLANES)
    with pytest.raises(ValueError, match="streams is 'late'; known: one, attention, reinforced"):
        video.build("resnet", "tiny", "istpa", 4, 5, knobs={"streams": "late"}, planes=PLANES)
    with pytest.raises(ValueError, match="not one of layout 'volume'"):
        video.build("resnet3d", "tiny", "istpa", 4, 5, knobs={"streams": "attention"}, planes=PLANES)
