"""The nets in a reader's first implementation, for comparison in bench/models.py."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.attention.action import Action
from models.layers.residual3d import Conv3d
from models.layers.shift import TemporalShift
from models.layers.st_attention import TimeConv
from models.layers.tpn import ShiftedShortcut


def straighten(net: nn.Module) -> None:
    """Replace every module's forward() by its published order or STRAIGHT's."""
    for module in net.modules():
        how = STRAIGHT.get(type(module), getattr(type(module), "published", None))
        if how:
            module.forward = MethodType(how, module)


class NothingInPlace(TorchFunctionMode):
    """Make ReLUs and additions return new tensors."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("__iadd__", "add_"):
            return args[0] + args[1]
        if func.__name__ in ("relu", "relu6", "hardtanh"):
            kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
        return func(*args, **kwargs)


def shifted(x: Tensor, frames: int, width: int) -> Tensor:
    """TSM's shift of (N*T, C, H, W), as slices."""
    clips = x.unflatten(0, (-1, frames))
    out = torch.zeros_like(clips)
    out[:, :-1, :width] = clips[:, 1:, :width]
    out[:, 1:, width : 2 * width] = clips[:, :-1, width : 2 * width]
    out[:, :, 2 * width :] = clips[:, :, 2 * width :]
    return out.flatten(0, 1)


def shift(self: TemporalShift, x: Tensor) -> Tensor:
    return shifted(x, self.frames, x.shape[1] // self.fold)


def shortcut(self: ShiftedShortcut, x: Tensor) -> Tensor:
    return nn.Sequential.forward(self, shifted(x, self.frames, x.shape[1] // self.fold))


def action(self: Action, x: Tensor) -> Tensor:
    """ACTION of (N*T, C, H, W), path by path.

    The shift is on (N*H*W, C, T); then the paths' x + x*mask are summed.
    """
    (_, c, h, w), frames = x.shape, self.shift.frames
    pixels = x.unflatten(0, (-1, frames)).permute(0, 3, 4, 2, 1).flatten(0, 2)
    moved = F.conv1d(pixels, self.shift.weight, padding=1, groups=c)
    x = moved.unflatten(0, (-1, h, w)).permute(0, 4, 3, 1, 2).flatten(0, 1).contiguous()
    return torch.stack([x + x * path(x) for path in self.paths.values()]).sum(0)


def time_conv(self: TimeConv, x: Tensor) -> Tensor:
    return F.conv3d(x, self.weight.unsqueeze(4), padding=(1, 0, 0), groups=self.groups)


STRAIGHT: dict[type, Callable[..., Tensor]] = {
    TemporalShift: shift,
    ShiftedShortcut: shortcut,
    Action: action,
    TimeConv: time_conv,
    Conv3d: nn.Conv3d.forward,
}
