"""Loading weight files into a VideoNet."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import video
from models.backbones import resnet
from models.registry import named
from tests.support.nets.image_nets import build, image_net


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


def same(net: video.VideoNet, state: dict[str, Tensor]) -> bool:
    own = net.backbone.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))


@pytest.mark.parametrize("attention", ["none", "tsm", "se", "action"])
def test_an_image_networks_file_loads_under_any_attention(path, attention):
    torch.save(image_net(), path)
    net = build(attention, weights=path)
    assert same(net, image_net())
    assert torch.equal(net.head.weight, image_net()["fc.weight"])


@pytest.mark.parametrize("backbone", ["resnet3d", "resnext3d"])
@pytest.mark.parametrize("attention", ["none", "eam"])
def test_a_file_as_haras_loads(path, backbone, attention):
    torch.manual_seed(7)
    net = named("backbone", backbone).build("tiny")
    state = {**net.state_dict(), "fc.weight": torch.ones(400, net.features), "fc.bias": torch.ones(400)}
    wrapped = {f"module.{name}": value for name, value in state.items() if "num_batches_tracked" not in name}
    torch.save({"epoch": 200, "arch": "resnet-50", "state_dict": wrapped, "optimizer": {"state": {}}}, path)
    loaded = video.build(backbone, "tiny", attention, frames=4, classes=400, weights=path)
    assert all(torch.equal(loaded.backbone.state_dict()[name], value) for name, value in net.state_dict().items())
    assert torch.equal(loaded.head.weight, state["fc.weight"])
    del wrapped["module.layer2.0.bn2.weight"]
    torch.save({"arch": "resnet-50", "state_dict": wrapped}, path)
    with pytest.raises(ValueError, match=r"it lacks layer2\.0\.bn2\.weight$"):
        video.build(backbone, "tiny", attention, frames=4, classes=400, weights=path)


def test_an_image_networks_file_starts_slowonly_and_no_other_3d_net(path):
    torch.manual_seed(7)
    image = resnet.ResNet(resnet.Member(resnet.Bottleneck, (1, 1, 1, 1), (8, 16, 32, 64), kernel=3))
    torch.save({**image.state_dict(), "fc.weight": torch.ones(1000, 256), "fc.bias": torch.ones(1000)}, path)
    net = video.build("slowonly", "tiny", "cbam", frames=4, classes=5, weights=path)
    kernel = image.layer3[0].conv1.weight
    assert torch.equal(net.backbone.layer3[0].conv1.weight, torch.stack([kernel / 3] * 3, dim=2))
    assert torch.equal(net.backbone.layer1[0].conv2.weight[:, :, 0], image.layer1[0].conv2.weight)
    torch.save(net.state_dict(), path)
    video.load_weights(net, path)
    torch.save(image.state_dict(), path)
    with pytest.raises(ValueError, match=r"other shapes: conv1\.weight \(8, 3, 3, 3\) for \(8, 3, 3, 3, 3\)"):
        video.build("resnet3d", "tiny", "none", frames=4, classes=5, weights=path)


def test_a_classifier_of_other_classes_leaves_the_head_fresh(path):
    torch.save(image_net(classes=1000), path)
    net = build(weights=path)
    assert same(net, image_net())
    assert net.head.out_features == 5
    assert net.head.weight.std() < 0.002 and not net.head.bias.any()


def test_old_and_wrapped_files_load(path):
    old = {f"module.{name}": value for name, value in image_net().items() if "num_batches_tracked" not in name}
    torch.save({"epoch": 3, "state_dict": old}, path)
    assert same(build(weights=path), {name.removeprefix("module."): value for name, value in old.items()})


def test_a_backbone_alone_loads(path):
    state = {name: value for name, value in image_net().items() if not name.startswith("fc.")}
    torch.save(state, path)
    assert same(build(weights=path), state)


@pytest.mark.parametrize("attention", ["none", "tsm", "se", "action"])
def test_our_own_file_starts_another_data_set(path, attention):
    source = build(attention)
    torch.save(source.state_dict(), path)
    net = build(attention, classes=3, weights=path)
    assert same(net, source.backbone.state_dict())
    assert net.head.out_features == 3
    again = build(attention)
    video.load_weights(again, path)
    assert torch.equal(again.head.weight, source.head.weight)


def test_our_own_plain_file_starts_another_attention(path):
    source = build()
    torch.save(source.state_dict(), path)
    assert same(build("action", weights=path), source.backbone.state_dict())


def broken(change: str) -> object:
    state = image_net()
    if change == "lacks":
        del state["layer3.0.conv1.weight"]
    if change == "surplus":
        state["layer3.1.conv1.weight"] = state["layer3.0.conv1.weight"]
    if change == "shape":
        state["layer3.0.conv1.weight"] = torch.zeros(64, 32, 1, 1)
    return [1, 2] if change == "list" else {"state_dict": state, "list": [1]} if change == "none" else state


@pytest.mark.parametrize(
    "change,message",
    [
        ("lacks", "lacks layer3.0.conv1.weight"),
        ("surplus", "has the unknown layer3.1.conv1.weight"),
        ("shape", "has other shapes: layer3.0.conv1.weight \\(64, 32, 1, 1\\) for \\(64, 32, 3, 3\\)"),
        ("list", "holds no dict of tensors"),
    ],
)
@pytest.mark.parametrize("attention", ["none", "action"])
def test_a_file_that_does_not_fit_is_refused_by_name(path, change, message, attention):
    torch.save(broken(change), path)
    with pytest.raises(ValueError, match=message):
        build(attention, weights=path)


def test_a_file_for_another_attention_is_refused(path):
    torch.save(build("se").state_dict(), path)
    with pytest.raises(
        ValueError, match=r"tiny, action: it has the unknown layer1\.0\.exit\.squeeze\.weight, .*and 5 more"
    ):
        build("action", weights=path)
    with pytest.raises(ValueError, match=r"lacks layer1\.0\.entry\.shift\.weight"):
        video.load_weights(build("action"), path)


def test_a_file_for_other_knobs_is_refused(path):
    torch.save(build("action").state_dict(), path)
    with pytest.raises(
        ValueError, match=r"other shapes: layer1\.0\.entry\.paths\.ce\.squeeze\.weight \(1, 16\) for \(4, 16\)"
    ):
        build("action", weights=path, reduction=4)


class Harmful:
    def __reduce__(self) -> tuple:
        return print, ("code of the file was run",)


HARMFUL = [pickle.dumps({"conv1.weight": Harmful()}, 2), pickle.dumps(Harmful(), 4)]


@pytest.mark.parametrize("content", [b"", b"no weights", *HARMFUL])
def test_a_file_that_is_none_is_refused(path, content, capsys, recwarn):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pt is no file of weights"):
        build(weights=path)
    assert "was run" not in capsys.readouterr().out and not recwarn.list


def test_a_file_that_is_absent_is_named(path):
    with pytest.raises(ValueError, match=r"no weights at .*weights\.pt"):
        build(weights=path)
