"""Fan-out of independent tasks on Ray, with progress shown."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.errors import UserError

AHEAD = 4  # tasks submitted to Ray beyond its capacity, for each CPU


def fan_out(
    function: Callable[..., Any], items: Sequence[tuple], what: str, retries: int = 3, cpus: float = 1, gpus: float = 0
) -> Iterator[tuple[int, Any]]:
    """Yield (position, function(*items[position])) in the order of completion.

    A task whose process dies is tried again, `retries` times. An exception of the function is not retried: it ends the
    fan-out, a UserError unchanged.
    """
    remote = ray.remote(_call).options(num_cpus=cpus, num_gpus=gpus, max_retries=retries)
    ahead = max(AHEAD, int(AHEAD * ray.cluster_resources().get("CPU", 1)))
    waiting: dict[Any, int] = {}
    following = 0
    with progress(what, len(items)) as advance:
        while following < len(items) or waiting:
            while following < len(items) and len(waiting) < ahead:
                waiting[remote.remote(function, *items[following])] = following
                following += 1
            ready, _ = ray.wait(list(waiting), timeout=1.0)
            for reference in ready:
                position = waiting.pop(reference)
                try:
                    value = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError | OSError):
                        raise error.cause from None
                    if line := lost(what, error.cause):
                        raise line from None
                    raise
                except ray.exceptions.RayError as error:
                    raise lost(what, error) or error from None
                yield position, value
                advance(1)
            if not ready:
                advance(0)


def lost(what: str, error: BaseException | None) -> UserError | None:
    """Return the error for a lost process or memory shortage; None for other errors."""
    if error is None:
        return None
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        remedy = "lower micro_batch, batch or cluster.workers, or use a machine with more memory"
        return UserError(f"{what}: out of memory ({_first(error)}); {remedy}")
    if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
        remedy = "memory may be short (`dmesg` lists killed processes); the same command resumes"
        return UserError(f"{what}: a process died ({_first(error)}); {remedy}")
    return None


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)  # Ray takes no functools.partial


@contextmanager
def progress(what: str, total: int, every: float = 20.0) -> Iterator[Callable[[float], None]]:
    """Yield a function that advances a progress bar, or prints lines into a log.

    Both show rate and time left.
    """
    console = Console(file=sys.stderr)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)
        return
    begin = shown = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done, shown
        done += amount
        now = time.monotonic()
        if now - shown >= every:
            shown, rate = now, done / (now - begin)
            left = f"{(total - done) / rate:.0f} s left" if rate else "no rate yet"
            print(f"{what}: {done:.0f} of {total}, {rate:.2f}/s, {left}", file=sys.stderr, flush=True)

    yield advance
    if done:
        print(f"{what}: {done:.0f} of {total} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
