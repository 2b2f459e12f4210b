"""What every attention on every backbone that takes it must keep to."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from models import shift as shifts
from models import video
from models.attention import action
from models.backbones import resnet, slowonly
from models.named import known, named

# Backbones without a block in res2, where an attention of one module a stage needs its stages named.
NO_RES2 = [("bn_inception", "eam"), ("inception_resnet_v2", "eam")]
PAIRS = [
    *(
        (backbone, attention, {})
        for backbone in known("backbone")
        for attention in known("attention")
        if (backbone, attention) not in NO_RES2
    ),
    *((backbone, attention, {"stages": ["res3", "res4", "res5"]}) for backbone, attention in NO_RES2),
    *(("resnet", "action", {"paths": [path]}) for path in ("ste", "ce", "me")),
    ("resnet", "action", {"paths": ["me", "ste"], "stages": ["res5", "res2"]}),
    ("resnet", "tsm", {"fold": 3}),
    ("resnet", "eam", {"k": 5, "stages": ["res4", "res3"]}),
    ("resnet3d", "eam", {"mode": "S//T"}),
    ("resnext3d", "cbam", {"placement": "stage"}),
]
ATTENTIONS = ("action", "cbam", "eam", "eca", "se", "tsm")  # that come with tests of their own


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets as small as these take longer on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(map(str, (pair[0], pair[1], *pair[2].values()))))
def pair(request: pytest.FixtureRequest) -> tuple:
    return request.param


def build(pair: tuple, frames: int, seed: int = 0) -> video.VideoNet:
    """The smallest member, its head and norms far from their initial values, so that nothing hides behind zeros."""
    backbone, attention, knobs = pair
    torch.manual_seed(seed)
    variants = named("backbone", backbone).VARIANTS
    try:
        net = video.build(
            backbone, "tiny" if "tiny" in variants else variants[0], attention, frames, classes=5, knobs=knobs
        )
    except ValueError as error:
        if "layout" not in str(error):
            raise
        pytest.skip(str(error))
    nn.init.normal_(net.head.weight)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def clips(n: int, t: int, h: int = 32, w: int = 32, seed: int = 1) -> Tensor:
    """Standard normal clips in a loader's memory order, (N, T, H, W, C) seen as (N, T, C, H, W)."""
    return torch.randn(n, t, h, w, 3, generator=torch.Generator().manual_seed(seed)).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("t,h,w", [(4, 32, 32), (1, 32, 32), (3, 45, 37)])
def test_a_clip_becomes_one_row_of_logits(pair, t, h, w):
    net = build(pair, t)
    logits = net(clips(2, t, h, w))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_gradient_reaches_every_parameter(pair):
    silent = []
    for seed in range(4):  # a bottleneck of one channel, as 16 reduced 16 times is, may start behind a closed ReLU
        net = build(pair, 4, seed)
        (net(clips(3, 4)) * torch.randn(3, 5)).sum().backward()
        silent.append({name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()})
    assert set.intersection(*silent) == set()


def test_clips_of_a_batch_do_not_see_each_other(pair):
    net = build(pair, 4).eval()
    one, other = clips(2, 4), clips(2, 4)
    other[1] = clips(1, 4, seed=2)[0]
    before, after = net(one), net(other)
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_a_clip_scores_alike_alone_and_in_a_batch(pair):
    net = build(pair, 4).eval()
    batch = clips(3, 4)
    torch.testing.assert_close(net(batch[1:2])[0], net(batch)[1], rtol=1e-4, atol=1e-4)


def test_memory_order_changes_no_score(pair):
    net = build(pair, 4).eval()
    batch = clips(2, 4)
    torch.testing.assert_close(net(batch.contiguous()), net(batch), rtol=1e-4, atol=1e-4)


def test_a_state_dict_is_the_whole_net(pair):
    net, other = build(pair, 4), build(pair, 4, seed=1)
    net(clips(2, 4))  # moves the running statistics
    batch = clips(2, 4, seed=3)
    assert not torch.equal(net.eval()(batch), other.eval()(batch))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(batch), other(batch))


def test_evaluation_has_no_chance_in_it(pair):
    net = build(pair, 4).eval()
    net.dropout.p = 0.5
    state = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(net(clips(2, 4)), net(clips(2, 4)))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_the_attentions_parameters_are_known_by_name(pair):
    net = build(pair, 4)
    plain = video.build(pair[0], "tiny", "none", 4, classes=5)
    assert not plain.attention_parameters
    if pair[1] in ATTENTIONS:
        brought = {name for name, _ in net.named_parameters()} - {name for name, _ in plain.named_parameters()}
        assert net.attention_parameters == brought
        assert bool(brought) == (pair[1] != "tsm")


@pytest.mark.parametrize(
    "backbone,attention,sees_order",
    [
        *(("resnet", attention, False) for attention in ("none", "se", "eca", "cbam")),
        *(("resnet", attention, True) for attention in ("tsm", "action", "eam")),
        *((backbone, "none", True) for backbone in ("resnet3d", "resnext3d", "slowonly")),
    ],
)
def test_who_sees_the_order_of_frames(backbone, attention, sees_order):
    net = build((backbone, attention, {}), 4).eval()
    batch = clips(2, 4)
    moved = (net(batch) - net(batch[:, [2, 0, 3, 1]])).abs().max()
    assert moved > 1e-2 if sees_order else moved < 1e-4


@pytest.mark.parametrize("attention", ["none", *ATTENTIONS])
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


def test_what_was_published_is_what_runs(pair):
    net = build(pair, 4).eval()
    published = [module for module in net.modules() if hasattr(module, "published")]
    checked = []

    def compare(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        torch.testing.assert_close(module.published(*inputs), output, rtol=1e-4, atol=1e-5)
        checked.append(module)

    for module in published:
        module.register_forward_hook(compare)
    with torch.no_grad():
        net(clips(2, 4))
    assert set(published) == set(checked)
    assert net in checked


def shifted(x: Tensor, frames: int, width: int) -> Tensor:
    """TSM's shift one frame at a time: x (N*T, C, ...)."""
    rows = []
    for row in range(len(x)):
        t, out = row % frames, x[row].clone()
        out[:width] = x[row + 1, :width] if t + 1 < frames else 0
        out[width : 2 * width] = x[row - 1, width : 2 * width] if t > 0 else 0
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("frames,channels,fold", [(4, 16, 8), (8, 9, 3), (1, 8, 2), (2, 4, 8)])
def test_the_shift_and_its_gradients(frames, channels, fold):
    x = torch.randn(8, channels, 2, 3, dtype=torch.double, requires_grad=True)
    shift = shifts.TemporalShift(frames, fold)
    assert torch.equal(shift(x), shifted(x, frames, channels // fold))
    assert torch.autograd.gradcheck(shift, x)
    assert torch.autograd.gradgradcheck(shift, x)


def test_actions_convolution_starts_as_the_shift():
    x = torch.randn(8, 19, 3, 5)
    torch.testing.assert_close(action.TemporalShiftConv(19, 4)(x), shifts.TemporalShift(4, 8)(x))


def test_deep_nets_are_shifted_at_every_second_block():
    with torch.device("meta"):
        deep = [video.build("resnet", "101", name, 8, classes=5) for name in ("tsm", "action")]
        all_blocks = video.build("resnet", "50", "tsm", 8, classes=5)
    filled = [[not isinstance(block.entry, nn.Identity) for _, block in net.backbone.blocks()] for net in deep]
    assert filled[0] == filled[1]
    assert filled[0] == [at % 2 == 0 for depth in (3, 4, 23, 3) for at in range(depth)]
    assert all(not isinstance(block.entry, nn.Identity) for _, block in all_blocks.backbone.blocks())


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
