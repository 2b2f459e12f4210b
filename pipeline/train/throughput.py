"""A training run's throughput, share of time waiting for clips, peak memory."""

import contextlib
import resource
import time
from collections.abc import Iterator

import torch


class Meter:
    """Sums over a window of steps, and over all windows; they change no result."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()
        self.done: list[tuple[int, float, float]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin

    def add(self, clips_done: int) -> None:
        self.clips += clips_done

    def window(self) -> dict[str, float]:
        """Measure the steps since the last window; the device must have finished them."""
        self.done.append((self.clips, time.perf_counter() - self.began, self.waited))
        self.clips, self.waited, self.began = 0, 0.0, time.perf_counter()
        return self._means([self.done[-1]])

    def total(self) -> dict[str, float]:
        return self._means(self.done)

    def _means(self, windows: list[tuple[int, float, float]]) -> dict[str, float]:
        clips, seconds, waited = (sum(window[at] for window in windows) for at in (0, 1, 2))
        cuda = self.device.type == "cuda"
        memory = (
            torch.cuda.max_memory_allocated(self.device)
            if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        return {
            "seconds": round(seconds, 3),
            "clips_per_second": round(clips / seconds, 2),
            "data_wait": round(waited / seconds, 4),
            "memory_mb": round(memory / 2**20, 1),
        }
