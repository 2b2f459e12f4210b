"""A run's throughput, waiting time for clips and memory, window by window."""

import resource
import time

import pytest
import torch

from pipeline.train import throughput


def test_windows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 1.5, 2.0, 2.0, 4.0, 4.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    meter = throughput.Meter(torch.device("cpu"))
    with meter.waiting():  # from 1.0 to 1.5
        pass
    meter.add(8)
    first = meter.window()  # at 2.0
    meter.add(4)
    meter.window()  # at 4.0
    total = meter.total()
    assert (first["seconds"], first["clips_per_second"], first["data_wait"]) == (2.0, 4.0, 0.25)
    assert (total["seconds"], total["clips_per_second"], total["data_wait"]) == (4.0, 3.0, 0.125)


def test_memory_on_a_cpu_is_the_process_peak() -> None:
    meter = throughput.Meter(torch.device("cpu"))
    meter.add(1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert meter.window()["memory_mb"] == pytest.approx(peak, abs=64)
