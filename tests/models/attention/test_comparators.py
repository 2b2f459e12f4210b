"""Systems that the papers compare with: structure, and costs against the printed ones."""

import pytest
import torch

from models import costs, paper_flops, video
from models.backbone import Neck
from models.backbones import c3d, i3d, resnet, slowfast
from tests.support.nets.comparators import made


def flops(net: video.VideoNet, size: int) -> int:
    """Return FLOPs as mmaction2 counts them: ptflops' count without the bias of linear layers."""
    layers = paper_flops.layers(net, (1, net.frames, 3, size, size))
    return sum(paper_flops.ptflops(layer) - (layer.bias if layer.kind == "linear" else 0) for layer in layers)


# mmaction2's metafiles print these to the last digit; the size is what they were counted at.
@pytest.mark.parametrize(
    "backbone,variant,attention,knobs,frames,classes,size,parameters,printed",
    [
        ("i3d", "50", "none", {}, 32, 400, 256, 28_043_472, 43_564_040_192),
        ("i3d", "50", "non_local", {}, 32, 400, 256, 35_397_840, 54_334_488_576),
        ("i3d", "50", "non_local", {"mode": "dot_product"}, 32, 400, 256, 35_397_840, 54_334_488_576),
        ("i3d", "50", "non_local", {"mode": "gaussian"}, 32, 400, 256, 31_723_728, 48_962_109_440),
        ("resnet", "50", "tam", {}, 8, 400, 256, 25_590_320, 43_065_983_104),
        ("resnet", "50", "tam", {}, 8, 174, 224, 25_127_246, 32_972_787_840),
        ("resnet", "50", "tam", {}, 16, 174, 224, 25_134_670, 65_946_542_336),
        ("c3d", "sports1m", "none", {}, 16, 101, 112, 78_409_573, 38_615_475_200),
        ("slowfast", "4x16", "none", {}, 32, 400, 256, 34_479_288, 36_441_296_896),
        ("slowfast", "8x8", "none", {}, 32, 400, 256, 34_565_560, 66_222_034_944),
        ("slowfast", "101-8x8", "none", {}, 32, 400, 256, 62_912_312, 127_070_375_936),
    ],
)
def test_parameters_and_flops_are_the_printed_ones(
    backbone, variant, attention, knobs, frames, classes, size, parameters, printed
):
    net = made(backbone, variant, attention, frames, classes, **knobs)
    assert costs.parameters(net) == parameters
    assert flops(net, size) == printed


# torchvision prints 31505325 parameters and 40.52 G for r2plus1d_18 at 16x112x112.
def test_r2plus1d_18_is_torchvisions():
    net = made("r2plus1d", "18", "none", 16, 400)
    assert costs.parameters(net) == 31_505_325
    assert round(costs.macs(net, (1, 16, 3, 112, 112)) / 1e9, 2) == 40.52
    names = net.backbone.state_dict().keys()
    assert {"stem.0.weight", "stem.4.running_var", "layer1.0.conv1.0.3.weight", "layer2.0.downsample.1.bias"} <= names
    assert {"layer1.0.conv2.0.1.weight", "layer1.0.conv2.1.weight", "layer4.1.conv1.1.weight"} <= names
    assert net.backbone.layer2[0].conv2[0][0].out_channels == 230


# Parameters are printed exactly. FLOPs, printed and counted: 53.176 and 53.230 G, 212.702 and 212.922 G.
@pytest.mark.parametrize("frames,printed", [(8, 53_175_572_992), (32, 212_701_677_568)])
def test_r2plus1d_34_as_mmaction2_has_it(frames, printed):
    net = made("r2plus1d", "34-224", "none", frames, 400)
    assert costs.parameters(net) == 63_759_281
    assert flops(net, 256) == pytest.approx(printed, rel=0.0011)


def test_r2plus1d_34_as_its_authors_have_it():
    net = made("r2plus1d", "34", "none", 32, 400).backbone
    assert [net.get_submodule(f"layer{at}.0.conv2.0.0").out_channels for at in range(1, 5)] == [144, 288, 576, 1152]
    assert net.stem[0].out_channels == 45 and net.stem[1].eps == 1e-3
    assert net(torch.empty(1, 3, 32, 112, 112, device="meta")).shape == (1, 512, 4, 7, 7)


def test_c3ds_weights_load_by_their_authors_names():
    net = c3d.build("tiny")
    own = net.state_dict()
    theirs = {name.split(".", 1)[1] if name.startswith(("stem", "res")) else name: own[name] for name in own}
    assert {"conv1a.weight", "conv5b.bias", "fc6.weight"} <= theirs.keys()
    assert net.fitted(theirs).keys() == own.keys() == net.fitted(own).keys()
    mmaction2s = {name.replace(".", ".conv.") if name.startswith("conv") else name: theirs[name] for name in theirs}
    assert net.fitted(mmaction2s).keys() == own.keys()


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


@pytest.mark.parametrize("variant,slow", [("4x16", [0, 8, 16, 24]), ("8x8", list(range(0, 32, 4)))])
def test_slowfast_has_a_pathway_for_few_frames_and_one_for_all(variant, slow):
    net = made("slowfast", variant, "none", 32, 400).backbone
    seen = {}
    for name in ("conv1", "layer4", "fast_conv1", "fast_layer4", "layer2"):
        net.get_submodule(name).register_forward_hook(
            lambda module, given, out, name=name: seen.update({name: (tuple(given[0].shape), tuple(out.shape))})
        )
    assert net(torch.empty(1, 3, 32, 224, 224, device="meta")).shape == (1, 2304, 1, 1, 1)
    assert seen["conv1"] == ((1, 3, len(slow), 224, 224), (1, 64, len(slow), 112, 112))
    assert seen["fast_conv1"] == ((1, 3, 32, 224, 224), (1, 8, 32, 112, 112))
    assert seen["layer2"][0] == (1, 256 + 64, len(slow), 56, 56)
    assert (seen["layer4"][1], seen["fast_layer4"][1]) == ((1, 2048, len(slow), 7, 7), (1, 256, 32, 7, 7))


def test_slowfasts_slow_pathway_sees_its_frames_and_the_others_through_the_fast_one():
    torch.manual_seed(0)
    net = slowfast.build("tiny").eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    other = clip.clone()
    other[:, :, 1::2] += 1
    with torch.no_grad():
        assert (net(clip) - net(other))[:, :512].abs().max() > 1e-3
        for at in range(1, 5):
            net.get_submodule(f"lateral{at}").weight.zero_()
        assert torch.equal(net(clip)[:, :512], net(other)[:, :512])


def test_slowfasts_places_are_its_slow_pathways():
    net = slowfast.build("tiny")
    assert [name for name, _ in net.blocks()] == [f"layer{at}.0" for at in range(1, 5)]
    assert [block.out_channels for _, block in net.blocks()] == [64, 128, 256, 512]
    with pytest.raises(ValueError, match="one by one"):
        net.stage("res2", torch.empty(1, 64, 4, 8, 8))


class Halves(Neck):
    """A neck that keeps half of res5's channels."""

    def forward(self, stage: str, maps: torch.Tensor, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        return maps[:, ::2] if stage == "res5" else maps


def test_slowfasts_neck_works_on_the_slow_pathway():
    net = slowfast.build("tiny").eval()
    clip = torch.randn(2, 3, 4, 32, 32)
    plain = net(clip)
    net.neck, net.features = Halves(), 256
    assert torch.equal(net(clip), torch.cat((plain[:, :512:2], plain[:, 512:]), 1))
    assert net.features == net(clip).shape[1]
