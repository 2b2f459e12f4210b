"""The systems that the papers compare with: what they cost, beside what is printed of them, and their equations."""

import pytest
import torch

from models import costs, counting, video
from models.backbones import i3d, resnet


def made(backbone: str, variant: str, attention: str, frames: int, classes: int, **knobs: object) -> video.VideoNet:
    """A net without values."""
    with torch.device("meta"):
        return video.build(backbone, variant, attention, frames, classes, knobs=knobs)


def flops(net: video.VideoNet, size: int) -> int:
    """What mmaction2 prints as FLOPs: it counts as ptflops does, but for the bias of linear layers."""
    layers = counting.layers(net, (1, net.frames, 3, size, size))
    return sum(counting.ptflops(layer) - (layer.bias if layer.kind == "linear" else 0) for layer in layers)


# mmaction2's metafiles print these to the last digit; the size is what they were counted at.
@pytest.mark.parametrize(
    "backbone,variant,attention,knobs,frames,classes,size,parameters,printed",
    [
        ("i3d", "50", "none", {}, 32, 400, 256, 28_043_472, 43_564_040_192),
    ],
)
def test_parameters_and_flops_are_the_printed_ones(
    backbone, variant, attention, knobs, frames, classes, size, parameters, printed
):
    net = made(backbone, variant, attention, frames, classes, **knobs)
    assert costs.parameters(net) == parameters
    assert flops(net, size) == printed


def test_i3d_is_inflated_where_every_second_block_is():
    net = made("i3d", "50", "none", 32, 400).backbone
    long = {name for name, value in net.named_parameters() if value.ndim == 5 and value.shape[2] > 1}
    inflated = {"layer1": (0, 1, 2), "layer2": (0, 2), "layer3": (0, 2, 4), "layer4": (1,)}
    assert long == {"conv1.weight"} | {f"{at}.{n}.conv1.weight" for at, blocks in inflated.items() for n in blocks}


@pytest.mark.parametrize("frames,last", [(32, 4), (8, 1), (9, 2), (1, 1)])
def test_i3d_keeps_an_eighth_of_the_frames(frames, last):
    net = made("i3d", "50", "none", frames, 400).backbone
    x = torch.empty(1, 3, frames, 224, 224, device="meta")
    assert net(x).shape == (1, 2048, last, 7, 7)


def test_i3d_makes_of_equal_frames_what_resnet_makes_of_one():
    torch.manual_seed(0)
    image = resnet.ResNet(resnet.Member(resnet.Bottleneck, (1, 1, 1, 2), (8, 16, 32, 64), kernel=3)).eval()
    clip = i3d.build("tiny").eval()
    clip.load_state_dict(clip.fitted(image.state_dict()))
    x = torch.randn(2, 3, 32, 32)
    maps = clip(x.unsqueeze(2).expand(-1, -1, 128, -1, -1))  # the eighth of 16 maps sees no end
    torch.testing.assert_close(maps[:, :, 7], image(x), rtol=1e-4, atol=1e-5)
