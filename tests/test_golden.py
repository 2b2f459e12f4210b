"""Numbers of the authors' own code, stored beside the repository, against ours."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import video
from models.attention.action import Action
from models.attention.cbam import Cbam
from models.attention.eam import Eam
from models.attention.eca import EfficientChannelAttention
from models.attention.se import SqueezeExcitation
from models.shift import TemporalShift

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"

# prefix of our names -> prefix of the authors'
ACTION_NAMES = {
    "shift.": "action_shift.",
    "paths.ste.conv.": "action_p1_conv1.",
    "paths.ce.squeeze.": "action_p2_squeeze.",
    "paths.ce.conv.": "action_p2_conv1.",
    "paths.ce.expand.": "action_p2_expand.",
    "paths.me.squeeze.": "action_p3_squeeze.",
    "paths.me.norm.": "action_p3_bn1.",
    "paths.me.conv.": "action_p3_conv1.",
    "paths.me.expand.": "action_p3_expand.",
}
SE_NAMES = {"squeeze.": "fc.0.", "expand.": "fc.2."}
ECA_NAMES = {"conv.": "conv."}
CBAM_NAMES = {
    "channel.mlp.0.": "ChannelGate.mlp.1.",
    "channel.mlp.2.": "ChannelGate.mlp.3.",
    "spatial.conv.": "SpatialGate.spatial.conv.",
    "spatial.norm.": "SpatialGate.spatial.bn.",
}


def stored(pattern: str) -> list:
    """Golden files of that pattern; where there are none, one parameter that is skipped."""
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN}"))
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDEN.glob(pattern))] or [missing]


def renamed(name: str, prefixes: dict[str, str]) -> str:
    prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
    return prefixes[prefix] + name.removeprefix(prefix)


def load(module: nn.Module, data: np.lib.npyio.NpzFile, prefixes: dict[str, str]) -> None:
    """The file's weights; a 1x1 convolution's may be a linear layer's here. All of them must be used."""
    state = {name: "sd/" + renamed(name, prefixes) for name in module.state_dict()}
    assert set(state.values()) == {name for name in data.files if name.startswith("sd/")}
    module.load_state_dict(
        {name: torch.from_numpy(data[state[name]]).reshape(own.shape) for name, own in module.state_dict().items()}
    )


def close(ours: Tensor, golden: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("path", stored("action_c*.npz"))
def test_action(path, order):
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    x = torch.from_numpy(data["x"]).contiguous(memory_format=order)
    module = Action(x.shape[1], meta["n_segment"])
    load(module, data, ACTION_NAMES)
    module.eval()
    close(module.shift(x), data["x_shift"])
    for name, excitation in module.paths.items():
        close(excitation(torch.from_numpy(data["x_shift"])), data[f"mask_{name}"])
    close(module(x), data["out"])
    module.train()
    close(module(x), data["out_train"])
    close(module.paths["me"].norm.running_mean, data["train_running_mean"])
    close(module.paths["me"].norm.running_var, data["train_running_var"])


@pytest.mark.parametrize("path", stored("action_c*.npz"))
@pytest.mark.parametrize("name", ["ste", "ce", "me"])
def test_one_path_of_action(path, name):
    data = np.load(path)
    x = torch.from_numpy(data["x"])
    whole = Action(x.shape[1], json.loads(str(data["meta"]))["n_segment"])
    load(whole, data, ACTION_NAMES)
    single = Action(x.shape[1], whole.shift.frames, paths=[name])
    single.load_state_dict({key: value for key, value in whole.state_dict().items() if key in single.state_dict()})
    close(single.eval()(x), data[f"y_{name}"])


@pytest.mark.parametrize("path", stored("tsm_shift.npz"))
@pytest.mark.parametrize(
    "key,frames,fold", [("out_div8", 4, 8), ("out_div4", 4, 4), ("out_div3", 4, 3), ("out_seg8_div8", 8, 8)]
)
def test_tsm(path, key, frames, fold):
    data = np.load(path)
    assert json.loads(str(data["meta"]))["n_segment"] == 4
    assert np.array_equal(TemporalShift(frames, fold)(torch.from_numpy(data["x"])).numpy(), data[key])


@pytest.mark.parametrize("path", stored("se_c*.npz"))
def test_se(path):
    data = np.load(path)
    module = SqueezeExcitation(data["x"].shape[1], json.loads(str(data["meta"]))["reduction"])
    load(module, data, SE_NAMES)
    close(module(torch.from_numpy(data["x"])), data["out"])


@pytest.mark.parametrize("path", stored("eca_k*.npz"))
def test_eca(path):
    data = np.load(path)
    module = EfficientChannelAttention(json.loads(str(data["meta"]))["k"])
    load(module, data, ECA_NAMES)
    close(module(torch.from_numpy(data["x"])), data["out"])


@pytest.mark.parametrize("path", stored("cbam_c*.npz"))
def test_cbam(path):
    data = np.load(path)
    spatial = any(name.startswith("sd/SpatialGate.") for name in data.files)
    x = torch.from_numpy(data["x"])
    module = Cbam(x.shape[1], json.loads(str(data["meta"]))["reduction_ratio"], spatial)
    load(module.eval(), data, CBAM_NAMES)
    close(module(x), data["out"])
    close(x * module.channel(x)[..., None, None], data["out_channel_gate"])


# No authors' code: an evaluation in double precision of the same reading of the paper.
@pytest.mark.parametrize("path", stored("spec_eam_k*.npz"))
@pytest.mark.parametrize("mode,key", [("ST", ""), ("S", "_s"), ("T", "_t"), ("TS", "_ts"), ("S//T", "_par")])
def test_eam(path, mode, key):
    data = np.load(path)
    v = torch.from_numpy(data["x"])
    module = Eam(v.shape[2], mode, data["kc"].size).double()
    kernels = {"S": data["kc"], "T": data["kt"]}
    module.load_state_dict({f"gates.{axis}.conv.weight": torch.from_numpy(kernels[axis]) for axis in module.gates})
    folded = module(v.transpose(1, 2).flatten(0, 1)).unflatten(0, v.shape[::2][:2]).transpose(1, 2)
    for out in (module(v), module.published(v), folded):
        np.testing.assert_allclose(out.detach().numpy(), data[f"out{key}"], rtol=0, atol=1e-10)


def official(name: str, wrapped: bool) -> str:
    """The authors' name of one of our parameters; `wrapped`: their modules wrap conv1 instead of preceding it."""
    name = name.replace("head.", "new_fc.").replace("backbone.", "base_model.")
    if wrapped:
        name = re.sub(r"(layer\d\.\d+)\.conv1\.", r"\1.conv1.net.", name)
    block, _, inner = name.partition(".entry.")
    return f"{block}.conv1.{renamed(inner, ACTION_NAMES)}" if inner else name


def generated(kind: str, k: int, shape: list[int]) -> np.ndarray:
    """Entry k of a manifest by the golden data's recipe: w weight, g and b a norm's, rm and rv its statistics."""
    v = np.random.RandomState(1000 + k).standard_normal(shape)
    values = {"g": 1 + 0.1 * v, "b": 0.1 * v, "rm": 0.1 * v, "rv": 1 + 0.5 * np.abs(v)}
    return (v * np.sqrt(1 / np.prod(shape[1:])) if kind == "w" else values[kind]).astype(np.float32)


@pytest.mark.parametrize("path", stored("full_*_resnet*cls.npz"))
def test_whole_resnets(path):
    system, family, variant, classes = re.fullmatch(r"full_(\w+)_(resnet|resnet3d)(\d+)_(\d+)cls", path.stem).groups()
    data = np.load(path)
    meta = json.loads(str(data["meta"]))
    shape = [int(size) for size in re.search(r"\((\d+(?:, \d+){4})\)", meta["input"])[1].split(", ")]
    frames = shape[2] if family == "resnet3d" else shape[1]
    attention = {"tsn": "none", "hara": "none"}.get(system, system)
    net = video.build(family, variant, attention, frames=frames, classes=int(classes)).eval()
    assert sum(value.numel() for value in net.parameters()) == meta["params"]

    manifest = {name: (k, kind, shape) for k, (name, shape, kind) in enumerate(json.loads(str(data["manifest"])))}
    used = set()
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if system == "hara":
            theirs = name.replace("head.", "fc.").removeprefix("backbone.")
        else:
            theirs = official(name, wrapped=attention != "none")
        used.add(theirs)
        k, kind, their_shape = manifest[theirs]
        if kind != "keep":
            value.copy_(torch.from_numpy(generated(kind, k, their_shape)).reshape(value.shape))
    assert used == set(manifest)

    maps = {}
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        net.backbone.get_submodule(layer).register_forward_hook(
            lambda m, i, out, layer=layer: maps.update({layer: out})
        )
    net.backbone.layer1.register_forward_pre_hook(lambda m, i: maps.update({"maxpool": i[0]}))
    clip = torch.from_numpy(np.random.RandomState(7).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        logits = net(clip.transpose(1, 2) if family == "resnet3d" else clip).numpy()
    assert {key.removeprefix("shape/") for key in data.files if key.startswith("shape/")} <= set(maps)
    for layer, features in maps.items():
        if f"shape/{layer}" not in data.files:
            continue
        assert tuple(features.shape) == tuple(data[f"shape/{layer}"])
        flat = features.flatten().double().numpy()
        ours = [flat.mean(), flat.std(), flat.min(), flat.max(), *flat[:: max(1, flat.size // 64)][:64]]
        np.testing.assert_allclose(ours, data[f"stage/{layer}"], rtol=0, atol=1e-3 * flat.std())
    np.testing.assert_allclose(logits, data["logits"], rtol=0, atol=1e-3 * data["logits"].std())
