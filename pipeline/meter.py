"""What a training run measures of itself: loss, throughput, share of time spent waiting for clips, peak memory."""

import contextlib
import itertools
import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor


class Meter:
    """Sums over a window of steps, and over the windows since it was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.losses: list[Tensor] = []
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()
        self.done: list[tuple[list[float], int, float, float]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin

    def add(self, loss: Tensor, clips_done: int) -> None:
        self.losses.append(loss)
        self.clips += clips_done

    def window(self) -> dict[str, float]:
        losses = torch.stack(self.losses).tolist()  # the one place that waits for the device
        seconds = time.perf_counter() - self.began
        self.done.append((losses, self.clips, seconds, self.waited))
        self.losses, self.clips, self.waited, self.began = [], 0, 0.0, time.perf_counter()
        return self._means([self.done[-1]])

    def total(self) -> dict[str, float]:
        return self._means(self.done)

    def _means(self, windows: list[tuple[list[float], int, float, float]]) -> dict[str, float]:
        losses = list(itertools.chain.from_iterable(window[0] for window in windows))
        seconds = sum(window[2] for window in windows)
        cuda = self.device.type == "cuda"
        memory = (
            torch.cuda.max_memory_allocated(self.device)
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        return {
            "loss": sum(losses) / len(losses),
            "seconds": round(seconds, 3),
            "clips_per_second": round(sum(window[1] for window in windows) / seconds, 2),
            "data_wait": round(sum(window[3] for window in windows) / seconds, 4),
            "memory_mb": round(memory / 2**20, 1),
        }
