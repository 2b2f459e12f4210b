"""Stages' work without Ray: each task in this process, in turn."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from cluster import fit, score


def local(patch: pytest.MonkeyPatch) -> None:
    """Make fit() and score() work in this process."""

    def train(todo: Sequence[fit.Training], watch: Callable[[], None]) -> None:
        for training in todo:
            fit.train_run(training)

    def fan_out(function: Callable[..., Any], items: Sequence[tuple], *_: Any, **__: Any) -> Iterator[Any]:
        for at, item in enumerate(items):
            yield at, function(*item)

    patch.setattr(fit, "train_all", train)
    patch.setattr(score, "fan_out", fan_out)
