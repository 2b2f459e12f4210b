"""Optimizer settings of a recipe: parameters, rates, decays, batch norm modes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.video import VideoNet
from pipeline.config.schema import Recipe
from pipeline.errors import UserError


def learning_rate(recipe: Recipe, epoch: int, share: float = 1.0) -> float:
    """Return the learning rate of a step after which `share` of its epoch is done.

    It rises linearly to recipe.lr over the warm-up, then is multiplied by recipe.factor for each of recipe.steps
    passed.
    """
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + share) / recipe.warmup_epochs
    return recipe.lr * recipe.factor ** sum(epoch >= at for at in recipe.steps)


def sgd(net: VideoNet, recipe: Recipe) -> torch.optim.SGD:
    """Return the optimizer of a net after freeze(); groups keep rate multipliers."""
    return torch.optim.SGD(
        groups(net, recipe), recipe.lr, recipe.momentum, dampening=recipe.dampening, nesterov=recipe.nesterov
    )


def groups(net: VideoNet, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the trained parameters by the first of recipe.groups that fits."""
    rules: dict[str, tuple[float, float]] = {}
    for group in recipe.groups:
        rules.setdefault(group.kind, (group.lr, group.decay))
    gathered: dict[tuple[float, float], list[nn.Parameter]] = {}
    for kind, parameter in kinds(net):
        if parameter.requires_grad:
            gathered.setdefault(rules.get(kind, (1.0, 1.0)), []).append(parameter)
    return [
        {"params": members, "lr": recipe.lr * lr, "multiplier": lr, "weight_decay": recipe.weight_decay * decay}
        for (lr, decay), members in sorted(gathered.items(), key=lambda item: item[0])
    ]


def kinds(net: VideoNet) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (kind, parameter) in a fixed order; kinds are those of schema.Group."""
    norms = {
        id(p)
        for m in net.modules()
        if isinstance(m, _BatchNorm | nn.GroupNorm | nn.LayerNorm)
        for p in m.parameters(False)
    }
    for name, parameter in net.named_parameters():
        if name in ("head.weight", "head.bias"):
            yield name, parameter
        elif id(parameter) in norms:
            yield "norm", parameter
        elif name in net.attention_parameters:
            yield "attention", parameter
        else:
            yield ("bias" if name.endswith("bias") else "weight"), parameter


def freeze(net: VideoNet, recipe: Recipe) -> None:
    """Freeze recipe.frozen stages, except for attention modules inside them.

    Raises:
        UserError: The backbone has no such stage.
    """
    for stage in recipe.frozen:
        if stage not in net.backbone.stages:
            raise UserError(f"recipe freezes {stage!r}; the backbone's stages: {', '.join(net.backbone.stages)}")
        for module in stage_modules(net, stage):
            module.requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name in net.attention_parameters:
            parameter.requires_grad_(True)


def train_mode(net: VideoNet, recipe: Recipe) -> None:
    """Set training mode, with exceptions for frozen stages and partial batch norm.

    Frozen stages' batch norms stay in eval mode if that is their mode. Partial batch norm leaves only a stream's first
    batch norm in training mode.
    """
    net.train()
    for stage in recipe.frozen if recipe.frozen_norms == "eval" else ():
        for root in stage_modules(net, stage):
            for module in root.modules():
                if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
                    module.eval()
    if recipe.partial_bn:
        for stream in net.backbone.streams():
            norms = [module for module in stream.modules() if isinstance(module, _BatchNorm)]
            for module in norms[1:]:
                module.eval()


def stage_modules(net: VideoNet, stage: str) -> list[nn.Module]:
    """Return the backbone's modules that make up one of its stages."""
    return [net.backbone.get_submodule(name) for name in net.backbone.parts[stage]]
