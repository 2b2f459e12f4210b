"""Networks with TPN's neck: its inputs, auxiliary loss, temporal shift and parameters."""

import copy

import pytest
import torch
import torch.nn.functional as F

from models import costs, video
from models.layers import tpn
from tests.support.nets.tpn import filled


def tiny(backbone: str, frames: int, **knobs) -> video.VideoNet:
    torch.manual_seed(0)
    return video.build(backbone, "tiny", "tpn", frames, classes=5, knobs=knobs)


def test_flows_differ_in_where_the_bottom_up_one_starts():
    nets = [tiny("resnet", 4, flow=flow).eval() for flow in ("cascade", "parallel")]
    clips = torch.randn(2, 4, 3, 64, 64)
    assert not torch.allclose(nets[0](clips), nets[1](clips), rtol=1e-3)


# MODELS.md's counts of the authors' code; what the tools count is in test_costs.py
@pytest.mark.parametrize(
    "backbone,variant,frames,classes,aux,parameters",
    [
        ("resnet", "50", 8, 174, True, 82_445_724),
        ("resnet", "50", 8, 174, False, 63_210_734),
        ("slowonly", "50", 8, 400, True, 91_498_336),
        ("slowonly", "50", 32, 400, True, 91_498_336),
        ("slowonly", "101", 32, 400, True, 119_403_360),
    ],
)
def test_parameters_are_the_authors(backbone, variant, frames, classes, aux, parameters):
    with torch.device("meta"):
        net = video.build(backbone, variant, "tpn", frames, classes, knobs={"aux": aux})
    assert costs.parameters(net) == parameters


@pytest.mark.parametrize("backbone,size", [("resnet", 64), ("slowonly", 64), ("resnet", 45)])
def test_gradient_reaches_every_parameter_with_the_penalty(backbone, size):
    net = filled(tiny(backbone, 8))
    logits = net(torch.randn(3, 8, 3, size, size))
    assert logits.shape == (3, 5)
    target = torch.tensor([0, 3, 4])
    loss = F.cross_entropy(logits, target) + net.penalty(lambda logits: F.cross_entropy(logits, target))
    loss.backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_the_neck_sees_res4_and_res5():
    net = tiny("resnet", 4).eval()
    clips, maps = torch.randn(2, 4, 3, 64, 64), {}
    for stage, layer in (("res4", "layer3"), ("res5", "layer4")):
        net.backbone.get_submodule(layer).register_forward_hook(
            lambda m, i, out, stage=stage: maps.update({stage: out})
        )
    out = net.backbone(clips.flatten(0, 1))
    assert [maps[stage].shape[2] for stage in ("res4", "res5")] == [4, 2]
    levels = [maps[stage].unflatten(0, (2, 4)).transpose(1, 2) for stage in ("res4", "res5")]
    torch.testing.assert_close(net.backbone.neck.pyramid(levels).squeeze(2), out)
    assert out.shape == (2, net.backbone.features, 2, 2)


def test_half_the_auxiliary_loss_is_the_penalty():
    net = tiny("resnet", 4)
    aux, target = net.backbone.neck.aux, torch.tensor([1, 2])
    aux.dropout.p = 0
    maps = []
    net.backbone.layer3.register_forward_hook(lambda m, i, out: maps.append(out))
    net(torch.randn(2, 4, 3, 64, 64))
    features = aux.conv(maps[0].unflatten(0, (2, 4)).transpose(1, 2))  # (N, 2C, T, h, w)
    scores = features.mean((2, 3, 4)) @ aux.fc.weight.T + aux.fc.bias
    nll = [-torch.log(torch.exp(row[label]) / torch.exp(row).sum()) for row, label in zip(scores, target, strict=True)]
    penalty = net.penalty(lambda logits: F.cross_entropy(logits, target))
    torch.testing.assert_close(penalty, 0.5 * (nll[0] + nll[1]) / 2)
    assert net.penalty(lambda logits: F.cross_entropy(logits, target)) == 0  # asked a second time
    net(torch.randn(2, 4, 3, 64, 64))
    copy.deepcopy(net.eval())  # a tensor with a history could not be copied


def test_evaluation_leaves_no_auxiliary_logits():
    net = tiny("resnet", 4).eval()
    net(torch.randn(1, 4, 3, 32, 32))
    assert net.backbone.neck.aux.logits is None
    assert net.penalty(lambda logits: logits.sum()) == 0
    assert tiny("resnet", 4, aux=False).penalty(lambda logits: logits.sum()) == 0


def test_a_tpn_of_frames_is_shifted_and_one_of_volumes_is_not():
    def shifted(net: video.VideoNet) -> list[str]:
        kinds = (tpn.TemporalShift, tpn.ShiftedShortcut)
        return [type(module).__name__ for module in net.modules() if isinstance(module, kinds)]

    assert shifted(tiny("resnet", 4)) == ["TemporalShift", *["TemporalShift", "ShiftedShortcut"] * 3]
    assert shifted(tiny("resnet", 4, shift=False)) == shifted(tiny("slowonly", 4)) == []


def test_the_shift_renames_no_weight():
    plain = video.build("resnet", "tiny", "none", 4, classes=5).state_dict().keys()
    assert {name for name in tiny("resnet", 4).state_dict() if ".neck." not in name} == set(plain)


@pytest.mark.parametrize("backbone", ["resnet", "slowonly"])
def test_another_number_of_frames_is_pooled_to_one_as_well(backbone):
    net = tiny(backbone, 4).eval()
    net.retime(6)
    fresh = tiny(backbone, 6).eval()
    fresh.load_state_dict(net.state_dict())
    clips = torch.randn(2, 6, 3, 32, 32)
    torch.testing.assert_close(net(clips), fresh(clips))


@pytest.mark.parametrize(
    "backbone,variant,knobs,message",
    [
        ("resnet", "tiny", {"flow": "upward"}, "flow is 'upward'; known: cascade, parallel"),
        ("vgg", "tiny", {}, "layout, that ends in res4 and res5, not in res5 and tail"),
        ("resnet", "tiny", {"aux": "yes"}, "knob aux is 'yes'; it must be of type bool"),
    ],
)
def test_invalid_requests_are_named(backbone, variant, knobs, message):
    with pytest.raises(ValueError, match=message):
        video.build(backbone, variant, "tpn", 4, classes=5, knobs=knobs)
