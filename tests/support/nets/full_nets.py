"""Full networks of the golden data: which network a file means, and our names of its parameters."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import video, weights
from models.registry import known

# What a file's name says of the backbone -> ours, and its variant where the name does not say.
BACKBONES = [
    (r"(?:hara_)?resne?xt3?d?_?(101)", "resnext3d", ""),
    (r"inception_?resnet_?v2", "inception_resnet_v2", "cadene"),
    (r"bn_?inception", "bn_inception", "cadene"),
    (r"mobilenet_?v2", "mobilenet_v2", "1.0"),
    (r"vgg_?(16)", "vgg", ""),
    (r"res2net_?(50)", "res2net", ""),
    (r"slowonly_?(?:resnet|r)?_?(50|101)", "slowonly", ""),
    (r"slowfast_?(?:resnet|r)?_?(50|101)", "slowfast", {"50": "8x8", "101": "101-8x8"}),
    (r"r2plus1d_?(34)", "r2plus1d", ""),
    (r"i3d_?(?:resnet|r)?_?(50|101)", "i3d", ""),
    (r"c3d", "c3d", "sports1m"),
    (r"(?:hara_)?resnet3d_?(\d+)|hara_r(?:esnet)?_?(\d+)", "resnet3d", ""),
    (r"resnet_?(18|34|50|101|152)", "resnet", ""),
]
# What is left of it, words in any order -> attention and knobs. TPN on TSM is TPN; on a plain net it says so.
SYSTEMS: dict[frozenset[str], tuple[str, dict[str, Any]]] = {
    **{frozenset(words.split()): ("none", {}) for words in ("", "tsn", "hara", "none")},
    **{frozenset([path]): ("action", {"paths": [path]}) for path in ("ste", "ce", "me")},
    **{frozenset([name]): (name, {}) for name in known("attention")},
    **{frozenset(["tpn", below]): ("tpn", {"shift": below == "tsm"}) for below in ("tsm", "tsn")},
    **{frozenset(["maagn", below]): ("maagn", {"shift": below == "tsm"}) for below in ("tsm", "tsn")},
    frozenset(["istpa", "tsm"]): ("istpa", {"shift": True}),
}
STAGED = ("se", "eca", "cbam")  # on Hara's nets they stand where EAM does
CLASSIFIERS = (
    "cls_head.fc_cls",
    "fc_cls",
    "new_fc",
    "fc",
    "last_linear",
    "classifier.6",
    "classifier.1",
    "classifier",
    "head",
)
PREFIXES = ("base_model.", "b.", "backbone.", "module.", "net.", "necks.", "neck.")


def parsed(stem: str) -> tuple[str, str, str, dict[str, Any]]:
    """full_tsm_resnet50_83cls -> backbone, variant, attention, knobs; ValueError if it means no network here."""
    name = re.sub(r"^full_|_?\d+cls\w*$|_(?:cadene|imagenet|slim|\d+(?:f|seg|px))(?=_|$)", "", stem)
    for pattern, backbone, variant in BACKBONES:
        if match := re.search(rf"(?<![a-z]){pattern}", name):
            rest = name[: match.start()] + " " + name[match.end() :]
            for attention in sorted(known("attention"), key=len, reverse=True):  # names of two words stay together
                rest = re.sub(rf"(?<![a-z]){attention.replace('_', '_?')}(?![a-z])", attention.replace("_", "-"), rest)
            words = frozenset(word.replace("-", "_") for word in re.split(r"[_ ]+", rest) if word) - {"hara"}
            if words in SYSTEMS:
                attention, knobs = SYSTEMS[words]
                size = next(filter(None, match.groups()), "")
                if isinstance(variant, dict):
                    variant = variant[size]
                if backbone in ("resnet3d", "resnext3d") and attention in STAGED:
                    knobs = {"placement": "stage"}
                return backbone, variant or size, attention, knobs
    raise ValueError(f"{stem} names no net that is known here")


def generated(kind: str, k: int, shape: Iterable[int]) -> np.ndarray:
    """Return entry k of a manifest by the golden data's recipe: w weight, g and b of a norm, rm and rv statistics."""
    v = np.random.RandomState(1000 + k).standard_normal(tuple(shape))
    values = {"g": 1 + 0.1 * v, "b": 0.1 * v, "rm": 0.1 * v, "rv": 1 + 0.5 * np.abs(v)}
    return (v * np.sqrt(1 / np.prod(v.shape[1:])) if kind == "w" else values[kind]).astype(np.float32)


def plain(name: str, firsts: dict[str, str]) -> str:
    """Return a manifest's name without wrappers; modules that share a convolution get its unwrapped name.

    `firsts` are the names of blocks' first convolutions by that of the ACTION before them.
    """
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    owner, _, last = name.rpartition(".")
    if owner in CLASSIFIERS:
        return f"head.{last}"
    owner, inner, last = name.partition(".net.")
    return firsts.get(owner, owner) + ("." + last if inner else "")


def translated(name: str) -> str:
    """Return the authors' name of our parameter, in plain()'s form."""
    name = name.removeprefix("backbone.")
    return weights.neck_by_tpn(name.removeprefix("neck.")) if name.startswith("neck.") else name


def fill(net: video.VideoNet, manifest: list[tuple[str, list[int], str]], names: dict[str, str]) -> None:
    """Generate the weights of a manifest; `names` maps prefixes of ACTION's parameters, ours -> the authors'.

    Match by name if the backbone has the authors' names, otherwise by order; a later entry for a tensor replaces an
    earlier one.
    """
    entries = list(enumerate(manifest))
    blocks = dict(net.backbone.blocks())
    filled = [name for name, block in blocks.items() if any(True for _ in block.entry.parameters())]
    firsts = {}
    for name in filled:
        if hasattr(blocks[name], "units"):  # an inception block: shift_3a, after block 3a, wraps a convolution of 3b
            before = list(blocks)[list(blocks).index(name) - 1].replace("conv2", "inception_2")
            firsts[before.replace("inception_", "shift_")] = next(iter(blocks[name].units()))

    inner: dict[str, dict[str, int]] = {}  # authors' ACTION -> its parameter -> entry
    outer: dict[str, int] = {}
    for k, (name, _, _) in entries:
        owner, mark, parameter = name.partition("action_")
        if mark:
            inner.setdefault(owner, {})[mark + parameter] = k
        else:
            outer[plain(name, firsts)] = k
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    shallow = {name: translated(name) for name in state if ".entry." not in name}
    if set(shallow.values()) == set(outer):
        actual = {ours: outer[theirs] for ours, theirs in shallow.items()}
    else:
        heads = [name for name in outer if name.startswith("head.")]
        actual = dict(
            zip(shallow, [outer[name] for name in [*(n for n in outer if n not in heads), *heads]], strict=True)
        )
    for name, parameters in zip(filled, inner.values(), strict=True):
        start = f"backbone.{name}.entry."
        for own in [own for own in state if own.startswith(start)]:
            prefix = next(prefix for prefix in names if own.removeprefix(start).startswith(prefix))
            actual[own] = parameters.pop(names[prefix] + own.removeprefix(start + prefix))
        assert not parameters, f"{name} has no {list(parameters)}"
    assert set(actual) == set(state)
    for name, value in state.items():
        _, shape, kind = manifest[actual[name]]
        assert value.numel() == np.prod(shape), f"{name} {tuple(value.shape)} is no {manifest[actual[name]]}"
        if kind != "keep":
            value.copy_(torch.from_numpy(generated(kind, actual[name], shape)).reshape(value.shape))


def manifest(data: np.lib.npyio.NpzFile) -> list[tuple[str, list[int], str]]:
    """Return the file's parameters: name, shape and kind."""
    return json.loads(str(data["manifest"]))


def clip_of(data: np.lib.npyio.NpzFile) -> torch.Tensor:
    """Return the file's input as a clip (N, T, C, H, W)."""
    shape = [
        int(size) for size in re.search(r"\((\d+(?:, \d+)+)\)", json.loads(str(data["meta"]))["input"])[1].split(", ")
    ]
    clip = torch.from_numpy(np.random.RandomState(7).standard_normal(shape).astype(np.float32))
    if clip.ndim == 4:  # (N*T, C, H, W)
        return clip.unflatten(0, (len(data["logits"]), -1))
    return clip.transpose(1, 2) if clip.shape[1] == 3 else clip  # (N, C, T, H, W), or (N, T, C, H, W)


def check(path: Path, names: dict[str, str]) -> None:
    """Check that the file's network gives its logits and maps, to 1e-3 of their standard deviation."""
    data = np.load(path)
    backbone, variant, attention, knobs = parsed(path.stem)
    clip, classes = clip_of(data), data["logits"].shape[1]
    net = video.build(backbone, variant, attention, frames=clip.shape[1], classes=classes, knobs=knobs).eval()
    assert sum(value.numel() for value in net.parameters()) == json.loads(str(data["meta"]))["params"]
    fill(net, manifest(data), names)

    maps = {}
    stages = {key.removeprefix("shape/") for key in data.files if key.startswith("shape/")}
    parts = dict(net.backbone.named_modules())
    for stage in stages & set(parts):
        parts[stage].register_forward_hook(lambda m, i, out, stage=stage: maps.update({stage: out.clone()}))
    if "maxpool" in stages:
        net.backbone.layer1.register_forward_pre_hook(lambda m, i: maps.update(maxpool=i[0].clone()))
    with torch.no_grad():
        logits = net(clip).numpy()
    if backbone.startswith("res") and attention not in ("tpn", "maagn"):  # whose necks have other parts
        assert stages <= set(maps)
    for stage, features in maps.items():
        assert tuple(features.shape) == tuple(data[f"shape/{stage}"])
        flat = features.flatten().double().numpy()
        ours = [flat.mean(), flat.std(), flat.min(), flat.max(), *flat[:: max(1, flat.size // 64)][:64]]
        np.testing.assert_allclose(ours, data[f"stage/{stage}"], rtol=0, atol=1e-3 * flat.std())
    np.testing.assert_allclose(logits, data["logits"], rtol=0, atol=1e-3 * data["logits"].std())
