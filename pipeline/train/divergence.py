"""Divergence: a loss or gradient that isn't finite ends and marks a training."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.storage import notes

if TYPE_CHECKING:  # for aggregate, which reads marks, but no net
    from pipeline.train.run import Run


class Diverged(UserError):
    """A loss or a gradient norm that isn't finite.

    Attributes:
        epoch: From 1.
        step: Of the epoch, from 1.
    """

    def __init__(self, line: str, epoch: int, step: int) -> None:
        super().__init__(line, epoch, step)
        self.epoch, self.step = epoch, step

    def __str__(self) -> str:
        return str(self.args[0])


def check(run: "Run", epoch: int, step: int, lr: float, loss: float, norm: float) -> None:
    """Raise Diverged if a loss or gradient norm isn't finite; counts are from 0."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    recipe, name = run.recipe, f"recipes.{run.experiment.recipe}"
    remedies = [
        f"a lower {name}.lr",
        f"{name}.warmup_epochs" if not recipe.warmup_epochs else f"more {name}.warmup_epochs",
        f"{name}.clip_grad" if recipe.clip_grad is None else f"a lower {name}.clip_grad",
        *([f"{name}.precision fp32"] if recipe.precision != "fp32" else []),
    ]
    line = (
        f"experiments.{run.row}, {run.name}: diverged at epoch {epoch + 1} of {recipe.epochs}, step {step + 1}: loss "
        f"{loss:g}, gradient norm {norm:g}, learning rate {lr:g}; try {', '.join(remedies[:-1])} or {remedies[-1]}"
    )
    raise Diverged(line, epoch + 1, step + 1)


def mark(run: "Run", epoch: int, step: int) -> None:
    """Leave a mark of a run's divergence in data/tracking."""
    notes.write(_place(run.data, run.row, run.name), {"epoch": epoch, "step": step})


def unmark(run: "Run") -> None:
    """Remove the mark of an earlier training."""
    _place(run.data, run.row, run.name).unlink(missing_ok=True)


def reason(data: Path, row: str, runs: Iterable[str]) -> str:
    """Return where the first of a row's runs diverged, in words; empty if none did.

    A run that has weights has been trained since, or DVC restored an earlier training.
    """
    for run in runs:
        place = _place(data, row, run)
        if not (data / "runs" / row / f"{run}.pt").exists() and (note := notes.read(place)):
            return f"diverged at epoch {note['epoch']}, step {note['step']} ({run})"
    return ""


def _place(data: Path, row: str, run: str) -> Path:
    return data / "tracking" / row / f"{run}.diverged.json"
