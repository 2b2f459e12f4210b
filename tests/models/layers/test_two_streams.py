"""RGB and flow in one network: the contract of both forms."""

import copy
import itertools
from typing import Any

import pytest
import torch

from models import costs, video
from tests.support.nets.pairs import cross_entropy, smallest
from tests.support.nets.two_streams import PLANES, build, clips

BACKBONES = ("resnet", "res2net", "vgg", "bn_inception", "inception_resnet_v2", "mobilenet_v2")


CASES = [
    *itertools.product(BACKBONES, ("attention", "reinforced"), [{}]),
    *itertools.product(
        ["resnet"],
        ("attention", "reinforced"),
        [{"position": "fc", "scales": 1}, {"position": "B", "scales": 2, "fusion": "max"}, {"shift": True}],
    ),
    *itertools.product(["vgg"], ("attention", "reinforced"), [{"position": "B"}, {"position": "fc", "scales": 1}]),
    ("resnet", "attention", {"scales": 1, "shared": True, "interaction": 0.0, "attention": 0.0}),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest) -> tuple[str, str, dict[str, Any]]:
    return request.param


@pytest.mark.parametrize("t,h,w", [(3, 64, 64), (1, 64, 64), (2, 67, 75)])
def test_a_clip_becomes_one_row_of_logits(case, t, h, w):
    backbone, streams, knobs = case
    logits = build(backbone, streams, t, **knobs)(clips(2, t, h, w))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_gradient_reaches_every_parameter(case):
    backbone, streams, knobs = case
    silent = []
    for seed in range(3):  # a narrow layer may start behind closed ReLUs
        net = build(backbone, streams, 3, seed, **knobs)
        (cross_entropy(net(clips(3, 3, 96, 96))) + net.penalty(cross_entropy)).backward()
        silent.append({name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()})
        if not silent[-1]:
            break
    assert set.intersection(*silent) == set()


def test_clips_of_a_batch_do_not_see_each_other_nor_chance(case):
    backbone, streams, knobs = case
    # From Xavier's start a random net's columns may be of one stream alone.
    net = build(backbone, streams, start="normal", **knobs).eval()
    one, other = clips(), clips()
    for planes in (slice(0, 3), slice(3, None)):  # each stream has its say
        other[1, :, planes] = clips(1, seed=2)[0, :, planes]
        before, after = net(one), net(other)
        torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after[1], before[1], rtol=1e-6, atol=1e-6)
        assert torch.equal(net(other), after)
        one = other.clone()
    torch.testing.assert_close(net(one[1:])[0], net(one)[1], rtol=1e-4, atol=1e-4)


def test_a_state_dict_is_the_whole_net(case):
    backbone, streams, knobs = case
    net, other = build(backbone, streams, **knobs), build(backbone, streams, seed=1, **knobs)
    net(clips())  # moves the running statistics
    batch = clips(seed=3)
    assert not torch.equal(net.eval()(batch), other.eval()(batch))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(batch), other(batch))


def test_trained_with_3_frames_and_tested_with_7(case):
    backbone, streams, knobs = case
    net, long = build(backbone, streams, **knobs).eval(), build(backbone, streams, 7, seed=1, **knobs).eval()
    long.load_state_dict(net.state_dict())
    net.retime(7)
    assert torch.equal(net(clips(2, 7)), long(clips(2, 7)))


QUICK = (("resnet", "attention", {}), ("vgg", "reinforced", {"position": "B"}))  # others take half a minute


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
    ids=lambda case: "-".join(map(str, case)),
    indirect=True,
)
def test_exported_and_counted(case):
    backbone, streams, knobs = case
    net, batch = build(backbone, streams, **knobs).eval(), clips()
    with torch.no_grad():
        exported = torch.export.export(net, (batch,)).module()
        expected = net(batch)
        torch.testing.assert_close(exported(batch), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        torch.testing.assert_close(net.published(batch), expected, rtol=1e-4, atol=1e-4)
    plain = video.build(backbone, smallest(backbone), "none", 3, classes=5)
    assert costs.macs(net, (1, 3, PLANES, 64, 64)) > 1.5 * costs.macs(plain, (1, 3, 3, 64, 64))


def test_penalties_are_asked_for_once():
    for streams in ("attention", "reinforced"):
        net = build("resnet", streams, interaction=0.0, attention=1.0)
        net(clips())
        assert net.penalty(cross_entropy) > 0
        assert net.penalty(cross_entropy) == 0
        net(clips())
        net.eval()(clips())
        assert net.penalty(cross_entropy) == 0
        copy.deepcopy(net)
