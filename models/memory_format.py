"""Which order of memory a convolution runs in: channels-last, but for weights that outweigh their maps.

On a CPU, oneDNN gives a weight's gradient in blocks, of which torch makes a contiguous tensor, and of that, for
channels-last weights, one more. This costs time and memory by the weight, while what channels-last gains goes by the
maps: in the last stages of a net maps are small, and kernels over time have millions of weights. So a layer that asks
outweighs() runs such maps as contiguous copies, and channels_last() leaves its weights as they are.
"""

import torch
from torch import Tensor, nn

LARGE = 2**20  # elements from which on a weight keeps torch's own order
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def large(weight: Tensor) -> bool:
    """Whether a weight keeps torch's own order, in a module that asks outweighs()."""
    return weight.device.type == "cpu" and weight.numel() >= LARGE


def outweighs(weight: Tensor, maps: Tensor) -> bool:
    """Whether a convolution of these maps, in any order of dimensions, is to run in torch's own order."""
    return large(weight) and weight.numel() > maps.numel()


def channels_last(net: nn.Module) -> None:
    """Convolution weights in the memory order that CPUs' and GPUs' fast kernels read.

    A module with `weighs = True` asks outweighs(): its large weights stay.
    """
    for module in net.modules():
        weighs = getattr(module, "weighs", False)
        for parameter in module.parameters(recurse=False):
            if parameter.dim() in LAST and not (weighs and large(parameter)):
                parameter.data = parameter.data.contiguous(memory_format=LAST[parameter.dim()])
