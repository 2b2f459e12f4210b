"""Speed and memory of rows' nets on this device: `actionbench models --measure`."""

import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Params, Recipe
from pipeline.errors import UserError, unknown
from stages import DATA
from stages.commands.trial import Row, memory, passes, row_of, timed
from stages.terminal import amount, show_json, show_table

if TYPE_CHECKING:
    import torch

TURNS = 5


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Measured:
    """Measurements of a row's net, on clips of noise that wait in memory.

    Attributes:
        device: The name; for a CPU the number of threads.
        precision: Of both passes, "fp32" or "bf16".
        forward: Clips/s in evaluation; batch and clip size are the protocol's.
        training: Clips/s of steps of one micro batch of the recipe: forward, loss, backward, SGD.
        latency: ms of a forward pass of one clip.
        forward_bytes, training_bytes: Peak memory with the net's weights, of a batch forward and of a training step. On
            a CPU it is the process's RAM beyond that before it built the net.
    """

    row: str
    device: str = ""
    precision: str = ""
    forward: Spread | None = None
    training: Spread | None = None
    latency: Spread | None = None
    forward_bytes: int | None = None
    training_bytes: int | None = None
    error: str = ""


def show_rows(names: Sequence[str], json_: bool) -> None:
    """Measure rows of params.yaml, by default all, and print a table or JSON."""
    from pipeline.config.load import load

    rows = measure(load(), DATA, names)
    if json_:
        show_json([asdict(row) for row in rows])
        return
    show_table(
        ["row", "forward, clips/s", "training, clips/s", "one clip, ms", "memory forward", "memory training", ""],
        (
            [
                row.row,
                *map(_range, (row.forward, row.training, row.latency)),
                *("–" if size is None else amount(size) for size in (row.forward_bytes, row.training_bytes)),
                row.error or f"{row.precision}",
            ]
            for row in rows
        ),
    )
    if device := next((row.device for row in rows if row.device), ""):
        print(f"\n{device}; medians of {TURNS} turns, least to most in brackets; clips of noise in memory")


def measure(params: Params, data: Path, names: Sequence[str], turns: int = TURNS) -> list[Measured]:
    """Measure rows in turns; medians count.

    A net that can't be built or exceeds memory has an error.

    Raises:
        UserError: A row does not exist.
    """
    import torch

    for name in names:
        if name not in params.experiments:
            raise unknown("row", name, params.experiments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = [row_of(params, name, data) for name in names or params.experiments]
    held: dict[str, tuple[int, int]] = {}
    actors: dict[str, dict[str, Callable[[], Any]]] = {}
    errors: dict[str, str] = {}
    for row in rows:
        try:
            held[row.name] = memory(row, device) if device.type == "cuda" else memory_apart(row)
            actors[row.name] = passes(row, device)
        except (ValueError, UserError, torch.OutOfMemoryError) as error:
            errors[row.name] = str(error).partition("\n")[0]
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(turns + 1):
        for row_name, actor in actors.items():
            for name, do in actor.items():
                do()  # fills the caches
                taken = timed(do, device)
                if turn:
                    seconds.setdefault((row_name, name), []).append(taken)
    return [
        Measured(row.name, error=errors[row.name])
        if row.name in errors
        else Measured(
            row.name,
            _name(device),
            "bf16" if _bf16(row.recipe, device) else "fp32",
            _spread([row.clips("forward")[0] / taken for taken in seconds[row.name, "forward"]]),
            _spread([row.clips("training")[0] / taken for taken in seconds[row.name, "training"]]),
            _spread([1000 * taken for taken in seconds[row.name, "latency"]]),
            *held[row.name],
        )
        for row in rows
    ]


def _range(spread: Spread | None) -> str:
    return f"{spread.median:.3g} ({spread.least:.3g} to {spread.most:.3g})" if spread else "–"


def memory_apart(row: Row) -> tuple[int, int]:
    """Return the bytes of a forward pass and a training step, from a separate process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_memory_on_cpu, row).result()


def _memory_on_cpu(row: Row) -> tuple[int, int]:
    import torch

    return memory(row, torch.device("cpu"))


def _bf16(recipe: Recipe, device: "torch.device") -> bool:
    import torch

    from pipeline.train.numerics import autocast

    with autocast(recipe, device):
        return torch.is_autocast_enabled(device.type)


def _name(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
