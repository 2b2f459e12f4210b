"""VideoNet's additions to its backbone."""

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.backbone import Neck
from tests.support.nets.image_nets import build


def test_other_numbers_of_frames_are_refused():
    with pytest.raises(ValueError, match=r"T = 4, not \(1, 8, 3, 32, 32\)"):
        build("tsm")(torch.zeros(1, 8, 3, 32, 32))
    with pytest.raises(ValueError, match=r"not \(4, 3, 32, 32\)"):
        build()(torch.zeros(4, 3, 32, 32))


def test_penalties_of_modules_add_up_and_none_is_zero():
    net = build("tsm")
    assert net.penalty(torch.sum) == 0

    class Penalised(nn.Identity):
        def penalty(self, criterion) -> Tensor:
            return criterion(net.head.weight) * 0 + 1.5

    for _, block in net.backbone.blocks():
        block.exit = Penalised()
    assert net.penalty(torch.sum) == 4 * 1.5
    assert net.penalty(torch.sum).requires_grad


@pytest.mark.parametrize("attention", ["none", "tsm", "action", "eam"])
def test_a_retimed_net_is_one_built_for_that_t(attention):
    net, other = build(attention), video.build("resnet", "tiny", attention, frames=7, classes=5)
    other.load_state_dict(net.state_dict())
    net.retime(7)
    clips = torch.randn(2, 7, 3, 32, 32)
    assert torch.equal(net.eval()(clips), other.eval()(clips))
    with pytest.raises(ValueError, match="T = 7"):
        net(clips[:, :4])


def test_weights_of_one_t_are_not_retimed():
    class Fixed(nn.Identity):
        frames, retimable = 4, False

    net = build()
    net.backbone.layer1[0].after = Fixed()
    net.retime(4)
    with pytest.raises(ValueError, match="weights of Fixed are for T = 4, not 8"):
        net.retime(8)
    assert net.frames == 4


@pytest.mark.parametrize("backbone", ["resnet", "slowonly", "bn_inception"])
def test_a_net_for_flow_starts_from_kernels_for_rgb(backbone):
    torch.manual_seed(0)
    rgb = video.build(backbone, "tiny", "none", frames=4, classes=5)
    torch.manual_seed(0)
    flow = video.build(backbone, "tiny", "none", frames=4, classes=5, planes=10)
    first = next(name for name, value in rgb.named_parameters() if value.ndim > 3)
    ours, theirs = dict(flow.named_parameters())[first], dict(rgb.named_parameters())[first]
    assert ours.shape[1] == 10
    torch.testing.assert_close(ours, theirs.mean(1, keepdim=True).expand_as(ours))
    rest = {name for name, value in flow.named_parameters() if torch.equal(value, dict(rgb.named_parameters())[name])}
    assert rest == {name for name, _ in rgb.named_parameters()} - {first}
    assert flow.mean == (128.0,) * 10 and len(set(flow.std)) == 1 and flow.std[0] == sum(rgb.std) / 3
    assert flow(torch.randn(2, 4, 10, 32, 32)).shape == (2, 5)


def test_a_neck_sees_every_stage_and_its_output_is_used():
    class Doubling(Neck):
        def forward(self, stage, maps, seen):
            assert list(seen) == stages[: stages.index(stage)]
            seen[stage] = maps
            return 2 * maps

    net = build().eval()
    stages = list(net.backbone.stages)
    clips = torch.randn(2, 4, 3, 32, 32)
    x = clips.flatten(0, 1)
    for stage in stages:
        x = 2 * net.backbone.stage(stage, x)
    net.backbone.neck = Doubling()
    assert torch.equal(net.backbone(clips.flatten(0, 1)), x)


def test_a_fresh_head_guesses_uniformly():
    net = build(classes=100).eval()
    chances = net(torch.randn(2, 4, 3, 32, 32)).softmax(1)
    assert (chances - 0.01).abs().max() < 0.002
