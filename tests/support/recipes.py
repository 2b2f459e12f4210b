"""A small recipe as params.yaml has it and as a dataclass, for tests and measurements."""

from typing import Any

from pipeline.config.schema import Augment, Recipe

RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch": 4,
    "micro_batch": 2,
    "frames": 2,
    "sampling": "segments",
    "size": 32,
    "augment": {"crop": "random"},
    "lr": 0.05,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "dropout": 0.5,
}


def recipe(augment: Augment, **changes: Any) -> Recipe:
    return Recipe(**{**RECIPE, "augment": augment, **changes})
