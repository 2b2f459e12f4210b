"""Our numbers against those of the authors' code, stored outside the repository."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from models.attention.action import Action
from models.attention.cbam import Cbam
from models.attention.eam import Eam
from models.attention.eca import EfficientChannelAttention
from models.attention.se import SqueezeExcitation
from models.layers.shift import TemporalMaxPool, TemporalShift
from models.registry import known, named
from tests.support.nets import full_nets
from tests.support.nets.golden import ACTION_NAMES, close, stored

SE_NAMES = {"squeeze.": "fc.0.", "expand.": "fc.2."}
ECA_NAMES = {"conv.": "conv."}
CBAM_NAMES = {
    "channel.mlp.0.": "ChannelGate.mlp.1.",
    "channel.mlp.2.": "ChannelGate.mlp.3.",
    "spatial.conv.": "SpatialGate.spatial.conv.",
    "spatial.norm.": "SpatialGate.spatial.bn.",
}


def renamed(name: str, prefixes: dict[str, str]) -> str:
    prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
    return prefixes[prefix] + name.removeprefix(prefix)


def load(module: nn.Module, data: np.lib.npyio.NpzFile, prefixes: dict[str, str]) -> None:
    """Load all weights of a file; a linear layer's may fill a 1x1 convolution."""
    state = {name: "sd/" + renamed(name, prefixes) for name in module.state_dict()}
    assert set(state.values()) == {name for name in data.files if name.startswith("sd/")}
    module.load_state_dict(
        {name: torch.from_numpy(data[state[name]]).reshape(own.shape) for name, own in module.state_dict().items()}
    )


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


@pytest.mark.parametrize("path", stored("tsm_*.npz"))
def test_tsm(path):
    data = np.load(path)
    x, frames = torch.from_numpy(data["x"]), json.loads(str(data["meta"]))["n_segment"]
    outs = [key for key in data.files if key.startswith(("out", "temporal_pool"))]
    assert outs
    for key in outs:
        segments = re.search(r"seg(\d+)", key)
        t = int(segments[1]) if segments else frames
        if key.startswith("temporal_pool"):
            ours = TemporalMaxPool(t, "res2")("res2", x, {})
        else:
            ours = TemporalShift(t, int(re.search(r"div(\d+)", key)[1]))(x)
        assert np.array_equal(ours.numpy(), data[key]), key


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


@pytest.mark.parametrize("path", stored("full_*.npz"))
def test_whole_networks(path):
    full_nets.check(path, ACTION_NAMES)


@pytest.mark.parametrize(
    "stem,net",
    [
        ("full_action_resnet50_174cls", ("resnet", "50", "action", {})),
        ("full_tsm_resnet50_83cls", ("resnet", "50", "tsm", {})),
        ("full_ste_resnet50", ("resnet", "50", "action", {"paths": ["ste"]})),
        ("full_action_bninception", ("bn_inception", "cadene", "action", {})),
        ("full_bninception_tsm_83cls", ("bn_inception", "cadene", "tsm", {})),
        ("full_action_mobilenetv2_83cls", ("mobilenet_v2", "1.0", "action", {})),
        ("full_mobilenet_v2_1000cls", ("mobilenet_v2", "1.0", "none", {})),
        ("full_hara_resnext101_51cls", ("resnext3d", "101", "none", {})),
        ("full_hara_resnet3d50_51cls", ("resnet3d", "50", "none", {})),
        ("full_hara_resnet101_51cls", ("resnet3d", "101", "none", {})),
        ("full_eam_resnet3d50_51cls", ("resnet3d", "50", "eam", {})),
        ("full_vgg16_1000cls", ("vgg", "16", "none", {})),
        ("full_inceptionresnetv2_cadene", ("inception_resnet_v2", "cadene", "none", {})),
        ("full_tpn_tsm_resnet50_174cls", ("resnet", "50", "tpn", {"shift": True})),
        ("full_tsm_tpn_resnet50_174cls", ("resnet", "50", "tpn", {"shift": True})),
        ("full_tpn_resnet50_8f_174cls", ("resnet", "50", "tpn", {})),
        ("full_tpn_slowonly_r50_400cls", ("slowonly", "50", "tpn", {})),
        ("full_slowonly101_tpn", ("slowonly", "101", "tpn", {})),
        ("full_maagn_resnet50_174cls", ("resnet", "50", "maagn", {})),
        ("full_tea_res2net50_83cls", ("res2net", "50", "tea", {})),
        ("full_se_resnet50", ("resnet", "50", "se", {})),
        ("full_hara_se_resnet3d50_51cls", ("resnet3d", "50", "se", {"placement": "stage"})),
        ("full_hara_cbam_resnext101_51cls", ("resnext3d", "101", "cbam", {"placement": "stage"})),
        ("full_nonlocal_i3d_r50_400cls", ("i3d", "50", "non_local", {})),
        ("full_slowfast_r101_400cls", ("slowfast", "101-8x8", "none", {})),
        ("full_stmanet_resnet3d50_101cls", ("resnet3d", "50", "st_manet", {})),
        ("full_istpa_vgg16_101cls", ("vgg", "16", "istpa", {})),
    ],
)
def test_names_of_whole_networks(stem, net):
    assert full_nets.parsed(stem) == net


@pytest.mark.parametrize("attention", known("attention"))
@pytest.mark.parametrize("backbone", known("backbone"))
def test_every_pair_has_a_name(backbone, attention):
    size = {"resnext3d": "101", "vgg": "16", "r2plus1d": "34"}.get(backbone, "")
    size = size or ("50" if backbone in ("resnet", "resnet3d", "res2net", "slowonly", "slowfast", "i3d") else "")
    actual = full_nets.parsed(f"full_{attention}_{backbone}{size}_174cls")
    assert (actual[0], actual[2]) == (backbone, attention)
    assert actual[1] in named("backbone", backbone).VARIANTS
