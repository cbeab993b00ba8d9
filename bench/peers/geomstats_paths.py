"""geomstats: path straightening and the geodesic boundary-value problem, one pair at a time, with their defaults."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.contest.time_limit import TimedMetric
from bench.problems.problem_set import ProblemSet

# Points at which the solution of the boundary-value problem is read off.
_POINTS = 1025


def straightened(problems: ProblemSet, metric: TimedMetric) -> tuple[Tensor, Tensor]:
    """`PathStraightening`: L-BFGS on the energy of a polyline of 100 nodes; norms by one tangent each.

    Returns:
        Points ``(B, n, d)``, and whether it says that it has converged, ``(B,)``.
    """
    space = _space(metric, problems.z0.shape[1])
    from geomstats.numerics.geodesic import PathStraightening  # type: ignore[import-not-found]

    solver = PathStraightening(space)
    solver.optimizer.save_result = True

    def one(z0: Tensor, z1: Tensor) -> tuple[Tensor, bool]:
        points = solver.discrete_geodesic_bvp(z1, z0)
        return points, bool(solver.optimizer.result_.success)

    return _each(one, problems)


def boundary_value(problems: ProblemSet, metric: TimedMetric) -> tuple[Tensor, Tensor]:
    """`LogODESolver`: SciPy's ``solve_bvp`` on the geodesic ODE, Christoffel symbols by automatic differentiation.

    Its own Jacobian of the ODE asks the metric for derivatives that geomstats does not have: left to SciPy.

    Returns:
        Points ``(B, n, d)``, and whether it says that it has converged, ``(B,)``.
    """
    space = _space(metric, problems.z0.shape[1])
    from geomstats.numerics.bvp import ScipySolveBVP  # type: ignore[import-not-found]
    from geomstats.numerics.geodesic import LogODESolver  # type: ignore[import-not-found]

    solver = LogODESolver(space, integrator=ScipySolveBVP(save_result=True), use_jac=False)
    t = torch.linspace(0, 1, _POINTS, dtype=problems.z0.dtype)

    def one(z0: Tensor, z1: Tensor) -> tuple[Tensor, bool]:
        points = solver.geodesic_bvp(z1, z0)(t)
        return points, bool(solver.integrator.result_.success)

    return _each(one, problems)


def _each(one: Callable[[Tensor, Tensor], tuple[Tensor, bool]], problems: ProblemSet) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        found = [one(z0, z1) for z0, z1 in zip(problems.z0, problems.z1, strict=True)]
    points = torch.stack([points.detach() for points, _ in found])
    # Both ends as they were asked for: the length is to be that of a curve between them.
    points = torch.cat([problems.z0[:, None], points[:, 1:-1], problems.z1[:, None]], dim=1)
    return points, torch.tensor([converged for _, converged in found])


def _space(metric: TimedMetric, dim: int) -> Any:
    """R^d under our metric, as geomstats sees it."""
    os.environ.setdefault("GEOMSTATS_BACKEND", "pytorch")  # it is chosen at the first import
    from geomstats.geometry.euclidean import Euclidean  # type: ignore[import-not-found]
    from geomstats.geometry.riemannian_metric import RiemannianMetric  # type: ignore[import-not-found]

    class Bench(RiemannianMetric):
        def metric_matrix(self, base_point: Tensor) -> Tensor:
            return metric.tensor(base_point.reshape(-1, dim)).reshape(*base_point.shape, dim)

        def squared_norm(self, vector: Tensor, base_point: Tensor) -> Tensor:
            z, v = base_point.reshape(-1, dim), vector.reshape(-1, dim)
            return metric.norm(z, v).square().reshape(vector.shape[:-1])

    space = Euclidean(dim, equip=False)
    space.equip_with_metric(Bench)
    return space
