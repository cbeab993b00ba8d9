"""Time on any device: events where the device works on its own, the wall clock where it does not."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch


class Stopwatch:
    """Times functions on one device, and knows when a run must end.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
        limit: seconds after which `left` is zero.
        rounds: timed calls at most.
    """

    def __init__(self, device: str, limit: float, rounds: int = 5) -> None:
        self.on_gpu, self.rounds = torch.device(device).type == "cuda", rounds
        self.end = time.perf_counter() + limit

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return max(0.0, self.end - time.perf_counter())

    def seconds(self, function: Callable[[], Any]) -> float:
        """Median time of a call after a warm-up, in as many rounds as a tenth of the time left allows."""
        stop = time.perf_counter() + self.left / 10
        first = self.once(function)
        times = []
        while len(times) < self.rounds and (not times or time.perf_counter() + first < stop):
            times.append(self.once(function))
        return median(times)

    def once(self, function: Callable[[], Any]) -> float:
        """Time of one call, until the device has done all of it."""
        if not self.on_gpu:
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    def peak_memory(self, function: Callable[[], Any]) -> float | None:
        """MiB that a call allocates on the GPU at most, above what was there; None on a CPU."""
        if not self.on_gpu:
            function()
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
