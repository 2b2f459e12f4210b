"""FLOPs as two tools that papers use count them: ptflops 0.6.4 and thop 0.0.31.

Neither counts multiply-accumulates only (costs.macs does), and newer releases of both count differently. Their rules,
as the counts of 55 nets show (tests/models/test_costs.py):

| layer | ptflops | thop |
|---|---|---|
| convolution | multiply-accumulates, and 1 per output for the bias | the same |
| linear | multiply-accumulates, and the bias once, for any batch | multiply-accumulates |
| batch norm | 2 per input | 2 per input |
| ReLU | 1 per input | 0 |
| maximum pooling | 1 per input | 0 |
| average pooling in windows | 1 per input | 1 per output |
| average pooling to a fixed size, "adaptive", usually 1 | 1 per input | 1 per input and 1 per output |
| sigmoid, softmax, element-wise, matrix products, other averages | 0 | 0 |

The tools hook modules. This counts function calls, so it also sees computation without a module. A mean or maximum over
the last dimensions is a pooling. A module's published() is counted instead of its forward(). In it, a sum stands for a
pooling that the published code has outside of modules, and that the tools miss.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models.costs import published

_LAYERS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "convolution"),
    "linear": "linear",
    "batch_norm": "norm",
    **dict.fromkeys(("relu", "relu_", "hardtanh", "hardtanh_"), "relu"),  # ReLU6 is a hardtanh
    **dict.fromkeys(("amax", "max_pool1d", "max_pool2d", "max_pool3d"), "maximum"),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), "windows"),
    **dict.fromkeys(("mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), "average"),
}


class Layer(NamedTuple):
    """One call: its kind, elements in and out, multiply-accumulates and bias."""

    kind: str
    inputs: int
    outputs: int
    macs: int = 0
    bias: int = 0


def ptflops(layer: Layer) -> int:
    """Return ptflops 0.6.4's count of a layer."""
    match layer.kind:
        case "convolution":
            return layer.macs + (layer.outputs if layer.bias else 0)
        case "linear":
            return layer.macs + layer.bias
        case "norm":
            return 2 * layer.inputs
        case _:
            return layer.inputs


def thop(layer: Layer) -> int:
    """Return thop 0.0.31's count of a layer."""
    match layer.kind:
        case "convolution":
            return layer.macs + (layer.outputs if layer.bias else 0)
        case "linear":
            return layer.macs
        case "norm":
            return 2 * layer.inputs
        case "average":
            return layer.inputs + layer.outputs
        case "windows":
            return layer.outputs
        case _:
            return 0


def layers(net: nn.Module, clips_shape: tuple[int, ...]) -> list[Layer]:
    """List the layers that the tools see in one forward pass in eval mode.

    The pass runs on the meta device: nothing is computed, and the net stays as it is.

    Args:
        net: takes clips.
        clips_shape: (N, T, C, H, W).
    """
    with torch.no_grad(), _Recorder() as recorder:
        published(net)(torch.empty(clips_shape, device="meta"))
    return recorder.layers


class _Recorder(TorchFunctionMode):
    """Record every call that is a layer, without the calls inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Layer] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        layer = _layer(func.__name__, args, kwargs or {}, out)
        if layer is not None:
            self.layers.append(layer)
        return out


def _layer(name: str, args: tuple, kwargs: dict, out: Any) -> Layer | None:
    """Return a torch function's call, with its output, as a layer, or None."""
    if name not in _LAYERS or (name in ("mean", "amax") and not _pools(args, kwargs)):
        return None
    kind, inputs = _LAYERS[name], args[0].numel()
    if kind in ("convolution", "linear"):
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        macs = out.numel() * args[1][0].numel()  # weight (out, in per group, ...)
        return Layer(kind, inputs, out.numel(), macs, 0 if bias is None else bias.numel())
    return Layer(kind, inputs, out.numel())


def _pools(args: tuple, kwargs: dict) -> bool:
    """Return true if a mean or maximum is over the last dimensions, but not all."""
    ndim, dim = args[0].ndim, args[1] if len(args) > 1 else kwargs.get("dim")
    over = {at % ndim for at in ((dim,) if isinstance(dim, int) else dim or ())}
    return 0 < len(over) < ndim and over == set(range(ndim - len(over), ndim))
