"""Cost of a net: parameters and multiply-accumulates."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(net: nn.Module) -> int:
    """Count the parameters, trained or not, without running statistics."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs(net: nn.Module, clips_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of one forward pass in eval mode.

    torch counts convolutions (zero padding included), linear layers, matrix products and attention. Biases, norms,
    activations, pooling and element-wise products count nothing; ptflops and thop, whose numbers papers print, count
    some. A module's published() is counted instead of its forward(), so that a net costs as much as in its paper. The
    pass runs on the meta device: nothing is computed, and the net stays as it is.

    Args:
        net: takes clips.
        clips_shape: (N, T, C, H, W).
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        published(net)(torch.empty(clips_shape, device="meta"))
    return counter.get_total_flops() // 2


def published(net: nn.Module) -> nn.Module:
    """Return a copy on the meta device, in eval mode, that computes as published."""
    shadow = copy.deepcopy(net).to("meta").eval()
    for module in shadow.modules():
        module.forward = getattr(module, "published", module.forward)
    return shadow
