"""Precision and CPU threads of a process that computes."""

import contextlib

import torch

from pipeline.config.schema import Recipe


def autocast(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager:
    """Return the recipe's precision on a device; "auto" is bf16 on GPUs that have it."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported()
    bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and able)
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
