"""The parameter names of authors' released files, from ours."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import video, weights
from tests.support.nets.golden import ACTION_NAMES

Written = dict[str, Tensor]


def by_action(name: str) -> str:
    """Return TSN's, TSM's and ACTION-Net's name of our parameter; a wrapped first convolution is `net`."""
    head = re.match(r"head\.", name)
    if head:
        return "module.new_fc." + name.removeprefix("head.")
    name = name.removeprefix("backbone.")
    owner, entry, parameter = name.partition(".entry.")
    if entry:
        prefix = next(prefix for prefix in ACTION_NAMES if parameter.startswith(prefix))
        name = f"{owner}.conv1.{ACTION_NAMES[prefix]}{parameter.removeprefix(prefix)}"
    return "module.base_model." + name


def wrapped(name: str) -> str:
    """Return by_action()'s name, with the convolution inside a shift or ACTION."""
    return re.sub(r"(layer\d+\.\d+\.conv1)\.weight$", r"\1.net.weight", by_action(name))


def by_tpn(name: str) -> str:
    name = re.sub(r"^head\.", "cls_head.fc_cls.", name)
    if name.startswith("backbone.neck."):
        return "necks." + weights.neck_by_tpn(name.removeprefix("backbone.neck."))
    return name


def by_hara(name: str) -> str:
    return "module." + name.removeprefix("backbone.").replace("head.", "fc.")


def as_convolutions(name: str, value: Tensor) -> Tensor:
    """Return ACTION's linear layers as the 1x1 convolutions of the released files."""
    kernel = {"paths.ce.squeeze": 2, "paths.ce.expand": 2, "paths.me.expand": 2}
    more = next((more for layer, more in kernel.items() if layer in name), 0)
    return value.reshape([*value.shape, *[1] * more])


RELEASES: dict[str, tuple[str, str, str, int, Any]] = {
    "tsn": ("resnet", "tiny", "none", 8, by_action),
    "tsm": ("resnet", "tiny", "tsm", 8, wrapped),
    "action": ("resnet", "tiny", "action", 8, wrapped),
    "tpn": ("resnet", "tiny", "tpn", 8, by_tpn),
    "tpn-slowonly": ("slowonly", "tiny", "tpn", 8, by_tpn),
    "hara": ("resnet3d", "tiny", "none", 16, by_hara),
    "hara-resnext": ("resnext3d", "tiny", "none", 16, by_hara),
}


def net(release: str, classes: int = 7, seed: int = 0, path: Path | None = None) -> video.VideoNet:
    backbone, variant, attention, frames, _ = RELEASES[release]
    torch.manual_seed(seed)
    return video.build(backbone, variant, attention, frames, classes, weights=path)


def released(release: str, of: video.VideoNet, path: Path) -> Written:
    """Write this network's weights in the format of a release."""
    rename = RELEASES[release][4]
    state = {rename(name): as_convolutions(name, value) for name, value in of.state_dict().items()}
    torch.save({"epoch": 50, "arch": release, "state_dict": state, "optimizer": {"state": {}}}, path)
    return state


def by_cadene(name: str) -> str:
    return name.removeprefix("backbone.").replace("head.", "last_linear.")


WHOLE = [
    ("full_tsn_resnet50_83cls", by_action),
    ("full_hara_resnet3d50_51cls", by_hara),
    ("full_bninception_83cls", by_cadene),
]
