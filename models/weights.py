"""Weight files: the names of authors' releases, mapped to a VideoNet's.

These load, with their classifier where its classes are the net's:
- A VideoNet's state dict (backbone.*, head.*), and torchvision's and Cadene's image nets, by the backbones' names.
- Hara's 3D nets: `module.layer1.0.conv1.weight`, `module.fc.weight`.
- TSN's, TSM's and ACTION-Net's nets: `module.base_model.layer1.0.conv1.net.weight` is the convolution that a shift or
  ACTION wraps, `...conv1.action_shift.weight` and others are ACTION's, `module.new_fc.weight` the classifier's.
- TPN's: `backbone.layer1.0.conv1.weight`, `necks.level_fusion_op.ops.0.conv.weight`, `cls_head.fc_cls.weight`.

A state dict may stand alone or under "state_dict", where releases also keep an epoch and an optimizer. Only tensors
are read: torch.load(weights_only=True).
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from models.backbone import Backbone

FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
COUNTS = frozenset((torch.int32, torch.int64))
NECK = "backbone.neck."
AUXILIARY = NECK + "aux.fc."  # the classifier of TPN's auxiliary head
CLASSIFIERS = ("new_fc.", "cls_head.fc_cls.", "fc_cls.")  # in addition to the backbone's

# ACTION-Net's names of a module's parameters -> ours, behind a block's `entry`.
ACTION = {
    "action_shift.": "shift.",
    "action_p1_conv1.": "paths.ste.conv.",
    "action_p2_squeeze.": "paths.ce.squeeze.",
    "action_p2_conv1.": "paths.ce.conv.",
    "action_p2_expand.": "paths.ce.expand.",
    "action_p3_squeeze.": "paths.me.squeeze.",
    "action_p3_bn1.": "paths.me.norm.",
    "action_p3_conv1.": "paths.me.conv.",
    "action_p3_expand.": "paths.me.expand.",
}
# Our names of TPN's neck -> TPN's.
TPN = [
    (r"pyramid\.spatial\.(\d+)\.(\d+)\.0\.", r"spatial_modulation.spatial_modulation.\1.\2.conv."),
    (r"pyramid\.spatial\.(\d+)\.(\d+)\.1\.", r"spatial_modulation.spatial_modulation.\1.\2.bn."),
    (r"pyramid\.temporal\.(\d+)\.conv\.", r"temporal_modulation_ops.\1.conv."),
    (r"pyramid\.up\.(\d+)\.", r"downsampling_ops.\1.conv."),
    (r"pyramid\.top_down\.", "level_fusion_op2."),
    (r"pyramid\.bottom_up\.", "level_fusion_op."),
    (r"\.levels\.(\d+)\.0\.", r".ops.\1.conv."),
    (r"\.levels\.(\d+)\.1\.", r".ops.\1.norm."),
    (r"^(level_\w+)\.fuse\.", r"\1.fusion_conv."),
    (r"pyramid\.fuse\.", "pyramid_fusion_op."),
    (r"aux\.conv\.0\.", "aux_head.convs.conv."),
    (r"aux\.conv\.1\.", "aux_head.convs.bn."),
    (r"aux\.fc\.", "aux_head.fc."),
]


class Net(Protocol):
    """The net that weights are loaded into: models/video.py's VideoNet."""

    backbone: Backbone
    head: nn.Linear

    def state_dict(self) -> dict[str, Tensor]: ...


def read(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by their names, without `module.`.

    Raises:
        ValueError: The file is absent or not a file of weights.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch's, about a file that it then refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"no weights at {path}") from None
    except Exception as error:  # a damaged or foreign file may raise nearly anything
        raise ValueError(f"{path} is no file of weights: {type(error).__name__}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is no file of weights: it holds no dict of tensors")
    if unfit := next((f"{name} {why}" for name, value in state.items() if (why := _unfit(name, value))), ""):
        raise ValueError(f"{path} can't be used: {' '.join(unfit.split())[:200]}")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _unfit(name: object, value: Tensor) -> str:
    """Return the reason that a tensor is no weight or count, or ""."""
    if value.layout is not torch.strided or value.device.type != "cpu":
        return "is no dense tensor"
    if str(name).endswith("num_batches_tracked"):
        return "" if value.dtype in COUNTS else f"is {value.dtype}, but a count is a whole number"
    if value.dtype not in FLOATS:
        return f"is {value.dtype}; weights are float16, bfloat16, float32 or float64 (a quantized net is no such file)"
    return "" if value.float().isfinite().all() else "holds NaN, infinity or a number beyond float32"


def ours(net: Net, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by the net's names, backbone.* and head.*, if known."""
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    necks = {neck_by_tpn(name.removeprefix(NECK)): name for name in shapes if name.startswith(NECK)}
    heads = (*CLASSIFIERS, net.backbone.classifier + ".")
    renamed: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.removeprefix("base_model.")
        if neck := re.match(r"necks?\.", name):
            renamed[necks.get(name[neck.end() :], name)] = value
        elif head := next((head for head in heads if name.startswith(head)), ""):
            renamed["head." + name.removeprefix(head)] = value
        elif name.startswith(("backbone.", "head.")):
            renamed[_unwrapped(name)] = value
        else:
            plain[_unwrapped(name)] = value
    renamed |= {"backbone." + name: value for name, value in (net.backbone.fitted(plain).items() if plain else ())}
    return {name: _shaped(value, shapes.get(name)) for name, value in renamed.items()}


def neck_by_tpn(name: str) -> str:
    """Return TPN's name of a neck parameter, given ours behind `backbone.neck.`."""
    for mine, theirs in TPN:
        name = re.sub(mine, theirs, name)
    return name


def _unwrapped(name: str) -> str:
    """Rename parameters of a shift or ACTION around a convolution to `entry`'s."""
    name = name.replace(".net.", ".")
    owner, mark, parameter = name.partition(".action_")
    theirs = next((theirs for theirs in ACTION if mark and ("action_" + parameter).startswith(theirs)), "")
    if not theirs:
        return name
    return f"{owner.rpartition('.')[0]}.entry.{ACTION[theirs]}{('action_' + parameter).removeprefix(theirs)}"


def _shaped(value: Tensor, shape: torch.Size | None) -> Tensor:
    """Reshape a 1x1 convolution's kernel to a matrix if the net has a linear layer."""
    same = shape is not None and value.shape != shape and value.shape == (*shape, *[1] * (value.ndim - len(shape)))
    return value.reshape(shape) if same and shape is not None else value


def misfit(net: Net, state: Mapping[str, Tensor]) -> str:
    """Return the mismatch of a state's backbone and the net's in one line, or ""."""
    expected = {name: value.shape for name, value in net.state_dict().items() if not name.startswith("head.")}
    actual = {name: value.shape for name, value in state.items() if not name.startswith("head.")}
    # Files from before torch 0.4.1 do not count batches.
    missing = [name for name in expected if name not in actual and not name.endswith("num_batches_tracked")]
    surplus = [name for name in actual if name not in expected]
    shapes = [
        f"{name} {tuple(shape)} for {tuple(expected[name])}"
        for name, shape in actual.items()
        if shape != expected.get(name, shape) and not name.startswith(AUXILIARY)
    ]
    problems = {"lacks": missing, "has the unknown": surplus, "has other shapes:": shapes}
    return "; ".join(f"it {what} {', '.join(_first(names))}" for what, names in problems.items() if names)


def fill(net: Net, state: Mapping[str, Tensor]) -> bool:
    """Load a state whose backbone fits; return true if its classifier fits too."""
    fresh_head = net.head.state_dict()
    head = {name: state["head." + name] for name in fresh_head if "head." + name in state}
    fits = {name: value.shape for name, value in head.items()} == {
        name: value.shape for name, value in fresh_head.items()
    }
    if fits:
        net.head.load_state_dict(head)
    inner = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    fresh = net.backbone.state_dict()
    others = {name for name in inner if inner[name].shape != fresh[name].shape}  # an auxiliary classifier's
    net.backbone.load_state_dict({**inner, **{name: fresh[name] for name in others}})
    return fits


def _first(names: Iterable[str]) -> list[str]:
    """Return up to three names, and the number of the others."""
    names = list(names)
    shown = [name.removeprefix("backbone.") for name in names[:3]]
    return [*shown, f"and {len(names) - 3} more"] if len(names) > 3 else shown
