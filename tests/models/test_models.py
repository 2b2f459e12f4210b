"""ResNets and 3D networks: authors' counts and names, frame order and memory under attention."""

import pytest
import torch
from torch import Tensor, nn

from models import video
from models.backbones import resnet, slowonly
from models.registry import known, named
from tests.support.nets.pairs import build, clips


@pytest.mark.parametrize(
    "backbone,attention,sees_order",
    [
        *(("resnet", attention, False) for attention in ("none", "se", "eca", "cbam", "istpa")),
        *(("resnet", attention, True) for attention in ("tsm", "action", "eam", "tpn", "maagn")),
        *((backbone, "none", True) for backbone in ("resnet3d", "resnext3d", "slowonly")),
    ],
)
def test_who_sees_the_order_of_frames(backbone, attention, sees_order):
    net = build((backbone, attention, {}), 4).eval()
    batch = clips(2, 4)
    moved = (net(batch) - net(batch[:, [2, 0, 3, 1]])).abs().max()
    assert moved > 1e-2 if sees_order else moved < 1e-4


@pytest.mark.parametrize("attention", ["none", "action", "cbam", "eam", "eca", "se", "tsm"])
def test_channels_last_clips_stay_so_to_the_end(attention):
    net = build(("resnet", attention, {}), 4)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    copied = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.is_contiguous(memory_format=torch.channels_last):
            copied.append(type(module).__name__)

    for _, block in net.backbone.blocks():
        for module in (block, block.entry, block.exit, block.after):
            module.register_forward_hook(note)
    net(clips(2, 4))
    assert copied == []


# Whole 3D nets are another matter: torch's 1x1x1 convolution gives up this order on a CPU.
@pytest.mark.parametrize("attention", ["cbam", "eam", "eca", "se"])
def test_channels_last_volumes_stay_so(attention):
    net = build(("resnet3d", attention, {}), 4)
    block = next(block for _, block in net.backbone.blocks())
    x = torch.randn(2, 4, 8, 8, block.out_channels).permute(0, 4, 1, 2, 3)
    assert block.after(block.exit(x)).is_contiguous(memory_format=torch.channels_last_3d)


# torchvision's published number of parameters, less those of its classifier
@pytest.mark.parametrize(
    "variant,features,parameters",
    [("18", 512, 11_689_512 - 513_000), ("50", 2048, 25_557_032 - 2_049_000), ("101", 2048, 44_549_160 - 2_049_000)],
)
def test_resnets_are_torchvisions(variant, features, parameters):
    with torch.device("meta"):
        net = named("backbone", "resnet").build(variant)
    names = net.state_dict().keys()
    assert sum(value.numel() for value in net.parameters()) == parameters
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.1.num_batches_tracked"} <= names
    assert ("layer1.0.downsample.0.weight" in names) == (variant != "18")
    assert net.features == net.stages["res5"] == features
    first = net.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == (((2, 2), (1, 1)) if variant == "18" else ((1, 1), (2, 2)))


# EAM's clips have 16 frames of 112 pixels and ST-MANet's 32; SlowOnly keeps its 8 to the end.
@pytest.mark.parametrize(
    "backbone,variant,clip,maps",
    [
        *(
            (backbone, variant, (16, 112), [(64, 8, 28), (256, 8, 28), (512, 4, 14), (1024, 2, 7), (2048, 1, 4)])
            for backbone, variant in (("resnet3d", "50"), ("resnet3d", "101"), ("resnext3d", "101"))
        ),
        ("resnet3d", "50", (32, 112), [(64, 16, 28), (256, 16, 28), (512, 8, 14), (1024, 4, 7), (2048, 2, 4)]),
        ("slowonly", "50", (8, 224), [(64, 8, 56), (256, 8, 56), (512, 8, 28), (1024, 8, 14), (2048, 8, 7)]),
    ],
)
def test_3d_nets_make_maps_of_the_printed_sizes(backbone, variant, clip, maps):
    with torch.device("meta"):
        net = named("backbone", backbone).build(variant)
        made = [net.maxpool(net.bn1(net.conv1(torch.empty(1, 3, clip[0], clip[1], clip[1]))))]
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        made.append(layer(made[-1]))
    assert [x.shape[1:] for x in made] == [(*size, size[-1]) for size in maps]
    assert list(net.stages.values()) == [size[0] for size in maps]
    assert net.conv1.stride == (1, 2, 2)


def test_3d_nets_have_haras_names_and_pixels():
    with torch.device("meta"):
        net = named("backbone", "resnext3d").build("101")
    names = net.state_dict().keys()
    assert {"conv1.weight", "layer3.22.bn3.running_var", "layer1.0.downsample.1.weight"} <= names
    assert "layer1.1.downsample.0.weight" not in names
    assert net.layer4[0].conv2.groups == 32 and net.layer4[0].conv2.stride == (2, 2, 2)
    assert net.layer4[0].downsample[0].kernel_size == (1, 1, 1)
    assert (net.mean, net.std, net.channels) == ((114.7748, 107.7354, 99.4750), (1, 1, 1), "rgb")


# mmaction2 prints 32.45 M for SlowOnly ResNet-50 with 400 classes
def test_slowonly_sees_time_in_res4_and_res5_alone():
    with torch.device("meta"):
        net = video.build("slowonly", "50", "none", frames=8, classes=400)
    assert f"{sum(value.numel() for value in net.parameters()) / 1e6:.2f}" == "32.45"
    long = {name for name, value in net.backbone.named_parameters() if value.ndim == 5 and value.shape[2] > 1}
    assert long == {f"layer{at}.{n}.conv1.weight" for at, depth in ((3, 6), (4, 3)) for n in range(depth)}


def test_inflated_weights_make_of_equal_frames_what_they_made_of_one():
    torch.manual_seed(0)
    image = resnet.ResNet(resnet.Member(resnet.Bottleneck, (1, 1, 1, 1), (8, 16, 32, 64), kernel=3)).eval()
    clip = slowonly.build("tiny").eval()
    clip.load_state_dict(clip.fitted(image.state_dict()))
    x = torch.randn(2, 3, 32, 32)
    maps = clip(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))  # the middle one of 5 frames sees no end through two kernels
    torch.testing.assert_close(maps[:, :, 2], image(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(clip.fitted(clip.state_dict())["layer4.0.conv1.weight"], clip.layer4[0].conv1.weight)


def test_parts_cover_every_parameter_of_a_plain_backbone():
    for backbone in known("backbone"):
        net = named("backbone", backbone).build("tiny")
        parts = [part for parts in net.parts.values() for part in parts]
        assert len(parts) == len(set(parts))
        assert {name.split(".")[0] for name, _ in net.named_parameters()} <= set(parts)
        assert set(parts) <= {name for name, _ in net.named_children()}
        assert list(net.parts) == list(net.stages)
