"""A time limit that a solver cannot miss: the metric itself looks at the clock."""

import time
from typing import Any

from torch import Tensor

from geodesics import Metric


class TimeLimit(Exception):
    """The time of a cell of the table is over."""


class TimedMetric:
    """A metric that raises `TimeLimit` once a deadline has passed, and is otherwise the same.

    Whatever a solver does, it asks the metric again and again: the limit needs no signal and no process of
    its own, and strikes where Python code of ours is running.

    Args:
        metric: the Riemannian metric.
        deadline: in the time of ``time.perf_counter``, seconds.
    """

    def __init__(self, metric: Metric, deadline: float) -> None:
        self.metric, self.deadline = metric, deadline

    def tensor(self, z: Tensor) -> Tensor:
        self.look()
        return self.metric.tensor(z)

    def norm(self, z: Tensor, v: Tensor) -> Tensor:
        self.look()
        return self.metric.norm(z, v)

    def acceleration(self, z: Tensor, v: Tensor) -> Tensor:
        self.look()
        return self.metric.acceleration(z, v)

    def path_energy(self, elements: Any) -> "TimedPathEnergy":
        return TimedPathEnergy(self.metric.path_energy(elements), self.look)

    def look(self) -> None:
        """Raise `TimeLimit` when the deadline has passed."""
        if time.perf_counter() > self.deadline:
            raise TimeLimit


class TimedPathEnergy:
    """The discrete energy of a timed metric."""

    def __init__(self, energy: Any, look: Any) -> None:
        self.energy, self.look = energy, look

    def samples(self, num_segments: int) -> int:
        return int(self.energy.samples(num_segments))

    def value(self, points: Tensor, profile: Tensor | None) -> Any:
        self.look()
        return self.energy.value(points, profile)

    def linearize(self, points: Tensor, profile: Tensor | None) -> Any:
        self.look()
        return self.energy.linearize(points, profile)

    def displacement(self, step: Tensor) -> Any:
        return self.energy.displacement(step)
