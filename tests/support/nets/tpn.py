"""A small TPN neck with given weights."""

import torch
from torch import nn


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Norms and the rest far from where they start, so that nothing hides behind zeros and ones."""
    torch.manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(std=0.3)
    return module
