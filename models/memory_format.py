"""Memory order of convolutions: channels-last, except for large weights.

A weight is large if it has more elements than its maps. On a CPU, oneDNN gives a weight's gradient in blocks. torch
copies it to a contiguous tensor and, for channels-last weights, copies that again. This costs time and memory in
proportion to the weight, while channels-last gains time in proportion to the maps. In a net's last stages maps are
small, and kernels over time have millions of weights. So a layer that asks outweighs() runs such maps as contiguous
copies, and channels_last() leaves its weights as they are.
"""

import torch
from torch import Tensor, nn

LARGE = 2**20  # weights with this many elements keep torch's default order
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def large(weight: Tensor) -> bool:
    """Return true if a weight of a module that asks outweighs() keeps torch's order."""
    return weight.device.type == "cpu" and weight.numel() >= LARGE


def outweighs(weight: Tensor, maps: Tensor) -> bool:
    """Return true if maps, of any layout, should be convolved in torch's order."""
    return large(weight) and weight.numel() > maps.numel()


def channels_last(net: nn.Module) -> None:
    """Set convolution weights to the memory order of fast kernels.

    A module with `weighs = True` asks outweighs(): its large weights keep their order.
    """
    for module in net.modules():
        weighs = getattr(module, "weighs", False)
        for parameter in module.parameters(recurse=False):
            if parameter.dim() in LAST and not (weighs and large(parameter)):
                parameter.data = parameter.data.contiguous(memory_format=LAST[parameter.dim()])
