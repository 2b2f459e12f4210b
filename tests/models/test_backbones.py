"""Backbones other than ResNet: authors' counts, weight files, logits, and places of attention."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import costs, video
from models.attention.action import Action
from models.backbones import bn_inception, inception_resnet_v2, mobilenet_v2, vgg
from models.registry import named
from tests.support.real_data import TEST_DATA

SHARED = TEST_DATA
BN_INCEPTION = SHARED / "golden" / "full_bninception_83cls.npz"
MOBILENET = SHARED / "data" / "weights" / "mobilenet_v2-imagenet-features.pth"


@cache
def net(backbone: str, variant: str, attention: str, frames: int, classes: int) -> video.VideoNet:
    """Build on the meta device, without memory or arithmetic."""
    with torch.device("meta"):
        return video.build(backbone, variant, attention, frames, classes)


# ACTION-Net, table 3, with EgoGesture's 83 classes; ISTPA, table 10, UCF-101's 101; VGG-16 as everybody counts it
@pytest.mark.parametrize(
    "backbone,variant,attention,classes,printed",
    [
        ("mobilenet_v2", "1.0", "tsm", 83, "2.33"),
        ("mobilenet_v2", "1.0", "action", 83, "2.36"),
        ("bn_inception", "cadene", "tsm", 83, "10.36"),
        ("vgg", "16", "none", 1000, "138.36"),
        ("inception_resnet_v2", "cadene", "none", 1000, "55.84"),
    ],
)
def test_parameters_are_the_printed_ones(backbone, variant, attention, classes, printed):
    assert f"{costs.parameters(net(backbone, variant, attention, 8, classes)) / 1e6:.2f}" == printed


def places(backbone: str, attention: str) -> dict[str, int]:
    """Return block -> channels at its entry, of the full network."""
    backbone = net(backbone, named("backbone", backbone).VARIANTS[0], attention, 8, 5).backbone
    return {name: block.in_channels for name, block in backbone.blocks() if not isinstance(block.entry, nn.Identity)}


@pytest.mark.parametrize("attention", ["tsm", "action"])
def test_mobilenets_places_are_the_layers_with_a_shortcut(attention):
    blocks = [
        *("res2.3", "res3.5", "res3.6", "res4.8", "res4.9", "res4.10", "res4.12", "res4.13", "res5.15", "res5.16")
    ]
    widths = [24, 32, 32, 64, 64, 64, 96, 96, 160, 160]
    assert places("mobilenet_v2", attention) == dict(zip(blocks, widths, strict=True))


def test_action_stands_on_the_outputs_of_ten_blocks_of_bn_inception():
    widths = [192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024]
    names = [f"inception_{name}" for name in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    assert places("bn_inception", "action") == dict(zip(names, widths, strict=True))
    assert places("bn_inception", "tsm") == {"conv2": 64, **places("bn_inception", "action")}


def test_stages_of_bn_inception_end_where_sizes_do():
    backbone = bn_inception.build("tiny").eval()
    sizes = {}
    for name, block in backbone.blocks():
        stage = next(stage for stage, parts in backbone.parts.items() if name in parts)
        block.after.register_forward_hook(lambda m, i, out, stage=stage: sizes.update({stage: out.shape[2:]}))
    backbone(torch.zeros(1, 3, 64, 64))
    assert sizes == {"stem": (8, 8), "res3": (8, 8), "res4": (4, 4), "res5": (2, 2)}


@pytest.mark.parametrize(
    "backbone,attention,knobs",
    [
        ("bn_inception", "action", {"stages": ["res2"]}),
        ("bn_inception", "eam", {}),
        ("inception_resnet_v2", "action", {"stages": ["res2"]}),
        ("inception_resnet_v2", "eam", {}),
    ],
)
def test_stages_without_a_block_are_refused(backbone, attention, knobs):
    with pytest.raises(ValueError, match=rf"'{attention}': stages \['res2'.*\] must be some of .*res3, res4, res5"):
        video.build(backbone, "tiny", attention, 4, 5, knobs=knobs)


def saved(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_vgg_of_torchvisions_form_gives_the_same(tmp_path):
    """A plain chain of layers, numbered as in torchvision, gives the same logits."""
    torch.manual_seed(0)
    member, ins, layers = vgg.MEMBERS["tiny"], 3, []
    for outs in member.widths:
        layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        ins = outs
    features = nn.Sequential(*layers)
    hidden = member.hidden
    linear = [nn.Linear(ins * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()]
    classifier = nn.Sequential(*linear, nn.Linear(hidden, 5)).eval()
    path = saved(nn.ModuleDict({"features": features, "classifier": classifier}).state_dict(), tmp_path / "vgg.pth")
    ours = video.build("vgg", "tiny", "none", 1, 5, weights=path).eval()
    for size in (224, 70):
        x = torch.randn(2, 3, size, size)
        theirs = classifier(nn.functional.adaptive_avg_pool2d(features(x), 7).flatten(1))
        torch.testing.assert_close(ours(x.unsqueeze(1)), theirs, rtol=1e-4, atol=1e-5)


def test_vgg_16s_convolutions_have_torchvisions_numbers():
    numbers = [*(0, 2), *(5, 7), *(10, 12, 14), *(17, 19, 21), *(24, 26, 28)]
    given = {f"features.{number}.weight": torch.empty(0) for number in numbers}
    fitted = net("vgg", "16", "none", 1, 5).backbone.fitted({**given, "classifier.3.bias": torch.empty(0)})
    own = {name for name in net("vgg", "16", "none", 1, 5).backbone.state_dict() if name.endswith("weight")}
    assert set(fitted) == {*own, "fc7.bias"} - {"fc6.weight", "fc7.weight"}


def test_files_of_torchvisions_mobilenet_load(tmp_path):
    source = video.build("mobilenet_v2", "tiny", "none", 1, 5)
    state = {"features." + name.partition(".")[2]: value for name, value in source.backbone.state_dict().items()}
    assert {"features.0.0.weight", "features.1.conv.1.weight", "features.3.conv.0.0.weight"} <= set(state)
    head = {"classifier.1.weight": source.head.weight.detach(), "classifier.1.bias": source.head.bias.detach()}
    path = saved({**state, **head}, tmp_path / "mobilenet.pth")
    loaded = video.build("mobilenet_v2", "tiny", "tsm", 4, 5, weights=path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.state_dict().items())


@pytest.mark.skipif(not MOBILENET.exists(), reason=f"no {MOBILENET}")
def test_mobilenets_imagenet_weights_load_to_the_last_tensor():
    state = torch.load(MOBILENET, weights_only=True)
    backbone = video.build("mobilenet_v2", "1.0", "action", 2, 83, weights=MOBILENET).backbone
    own = dict(backbone.state_dict())
    fitted = backbone.fitted(state)
    assert len(fitted) == len(state) == 312
    assert all(torch.equal(own[name], value) for name, value in fitted.items())


@pytest.mark.parametrize("backbone,names", [
    ("bn_inception", ("conv1_7x7_s2.bias", "conv2_3x3_bn.running_var", "inception_5b_pool_proj.weight")),
    ("inception_resnet_v2", ("conv2d_1a.bn.bias", "mixed_5b.branch3.1.conv.weight", "repeat_1.19.conv2d.bias")),
])  # fmt: skip
def test_cadenes_names(backbone, names, tmp_path):
    assert set(names) <= set(net(backbone, "cadene", "none", 1, 5).backbone.state_dict())
    source = video.build(backbone, "tiny", "none", 1, 5)
    state = {
        name.replace("head.", "last_linear.").removeprefix("backbone."): v for name, v in source.state_dict().items()
    }
    loaded = video.build(backbone, "tiny", "none", 1, 5, weights=saved(state, tmp_path / "net.pth")).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.state_dict().items())


@pytest.mark.skipif(not BN_INCEPTION.exists(), reason=f"no {BN_INCEPTION}")
def test_a_whole_bn_inception():
    """Weights follow the golden data's recipe: w for weights, g and b for norms or biases, rm and rv for statistics."""
    data = np.load(BN_INCEPTION)
    ours = video.build("bn_inception", "cadene", "none", frames=8, classes=83).eval()
    state = {}
    for k, (name, shape, kind) in enumerate(json.loads(str(data["manifest"]))):
        v = np.random.RandomState(1000 + k).standard_normal(shape)
        scaled = {"w": v / np.sqrt(np.prod(shape[1:])), "g": 1 + 0.1 * v, "rv": 1 + 0.5 * np.abs(v)}.get(kind, 0.1 * v)
        state[name.replace("b.fc.", "head.").replace("b.", "backbone.", 1)] = torch.from_numpy(
            scaled.astype(np.float32)
        )
    counted = {name: value for name, value in ours.state_dict().items() if name.endswith("num_batches_tracked")}
    ours.load_state_dict({**counted, **state})
    clip = torch.from_numpy(np.random.RandomState(7).standard_normal((1, 8, 3, 224, 224)).astype(np.float32))
    with torch.no_grad():
        logits = ours(clip).numpy()
    np.testing.assert_allclose(logits, data["logits"], rtol=0, atol=1e-3 * data["logits"].std())


def test_a_norm_without_scale_is_one_of_scale_one():
    torch.manual_seed(0)
    small = {"depths": (1, 1, 1), "divisor": 8, "padded": True}
    scaled, slim = (
        inception_resnet_v2.InceptionResNetV2(inception_resnet_v2.Member(**small, scaled=s)) for s in (True, False)
    )
    state = {name: value for name, value in scaled.state_dict().items() if not name.endswith("bn.weight")}
    slim.load_state_dict(state)
    x = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(slim(x), scaled(x))
    assert not any(name.endswith("bn.weight") for name, _ in slim.named_parameters())


def test_inception_resnets_maps_have_the_published_sizes():
    backbone = net("inception_resnet_v2", "cadene", "none", 1, 5).eval().backbone
    maps = {}
    for part in ("conv2d_4a", "repeat", "repeat_1", "block8", "conv2d_7b"):
        backbone.get_submodule(part).register_forward_hook(lambda m, i, out, part=part: maps.update({part: out.shape}))
    backbone(torch.empty(1, 3, 299, 299, device="meta"))
    assert {part: tuple(shape[1:]) for part, shape in maps.items()} == {
        "conv2d_4a": (192, 71, 71),
        "repeat": (320, 35, 35),
        "repeat_1": (1088, 17, 17),
        "block8": (2080, 8, 8),
        "conv2d_7b": (1536, 8, 8),
    }


@pytest.mark.parametrize("module", [bn_inception, inception_resnet_v2, mobilenet_v2, vgg])
def test_an_unknown_variant_is_named(module):
    with pytest.raises(ValueError, match=r"variant of backbone '\w+' 'tyny'; did you mean 'tiny'"):
        module.build("tyny")


@pytest.mark.parametrize("backbone", ["bn_inception", "inception_resnet_v2", "mobilenet_v2", "vgg"])
def test_blocks_are_as_wide_as_they_say(backbone):
    built = video.build(backbone, "tiny", "action", 2, 5).backbone
    assert built.features == list(built.stages.values())[-1]
    for name, block in built.blocks():
        widths = {}
        block.entry.register_forward_pre_hook(lambda m, i, widths=widths: widths.update(entry=i[0].shape[1]))
        block.exit.register_forward_hook(lambda m, i, out, widths=widths: widths.update(exit=out.shape[1]))
        built(torch.zeros(2, 3, 32, 32))
        assert widths == {"entry": block.in_channels, "exit": block.out_channels}, name
        assert isinstance(block.entry, Action) or name == "conv2"
