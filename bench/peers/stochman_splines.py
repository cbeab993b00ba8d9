"""StochMan: Adam on the energy of cubic splines, the whole batch under one stop."""

from typing import Any

import torch
from torch import Tensor

from bench.contest.time_limit import TimedMetric
from bench.problems.problem_set import ProblemSet

# Points at which the smooth curves are read off.
_POINTS = 1025


def stochman_geodesics(problems: ProblemSet, metric: TimedMetric) -> tuple[Tensor, Tensor]:
    """StochMan 0.3 with its defaults.

    Returns:
        Points ``(B, n, d)``, and whether it says that it has converged, one answer for the batch, ``(B,)``.
    """
    from stochman.manifold import EmbeddedManifold, Manifold  # type: ignore[import-not-found]

    class Embedded(EmbeddedManifold):
        def embed(self, points: Tensor, jacobian: bool = False) -> Tensor:
            metric.look()
            assert problems.embedding is not None
            return problems.embedding(points.flatten(0, -2)).unflatten(0, points.shape[:-1])

    class Field(Manifold):
        def metric(self, points: Tensor) -> Tensor:
            return metric.tensor(points)

    manifold: Any = Field() if problems.embedding is None else Embedded()
    with torch.enable_grad():
        curve, success = manifold.connecting_geodesic(problems.z0, problems.z1)
    with torch.no_grad():
        points = curve(torch.linspace(0, 1, _POINTS, dtype=problems.z0.dtype))
    return points.reshape(len(problems), _POINTS, -1), torch.full((len(problems),), bool(success))
