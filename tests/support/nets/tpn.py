"""A small TPN neck with known weights."""

import torch
from torch import nn


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Set norms and other parameters far from their initial values, so that no zero or one hides an error."""
    torch.manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            value.normal_(std=0.3)
    return module
