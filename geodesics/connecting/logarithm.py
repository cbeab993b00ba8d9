"""The logarithmic map: the velocity whose geodesic reaches a given point."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_ends, check_fits, check_metric, check_solving
from geodesics.connecting.default_solver import default_solver
from geodesics.connecting.geodesic import Solver, solve_pairs
from geodesics.curves.curve import Curve
from geodesics.curves.initial import InitialCurves
from geodesics.metrics.metric import Metric
from geodesics.solvers.energy import EnergySolver
from geodesics.solvers.matrix_free import MatrixFreeSolver
from geodesics.solvers.shooting import ShootingSolver
from geodesics.solvers.solution import Status


def log_map(
    metric: Metric,
    z0: Tensor,
    z1: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
) -> Float[Tensor, "b d"]:
    """Initial velocities of connecting geodesics: ``exp_z0(v) = z1`` and ``||v|| = d(z0, z1)`` in the metric.

    The connecting geodesic is found through `geodesic`; v is its direction at z0, scaled to its certified
    length. With a `ShootingSolver` v solves the geodesic ODE to the solver's tolerance; with an
    `EnergySolver` it is as exact as the slope of the curve's first element (order ``h^p``), at lower cost and
    on metrics too stiff for shooting.

    Args:
        metric: the Riemannian metric.
        z0: starts ``(B, d)``.
        z1: ends ``(B, d)``, of the same dtype and device.
        solver: as in `geodesic`; None for ``ShootingSolver()``, or for ``MatrixFreeSolver(tol=1e-4, length_tol=5e-4,
            max_iter=1000)`` where `geodesic` takes that solver.
        initial: as in `geodesic`.

    Returns:
        ``(B, d)``, without gradients; zero where z0 == z1; NaN in the rows that did not converge, with one warning that
        counts them. Curves of a `MatrixFreeSolver` may also be SETTLED.

    Raises:
        ValueError: as `geodesic`.
        TypeError: as `geodesic`.
    """
    check_metric(metric)
    check_ends(z0, z1)
    check_solving(solver, initial, None)
    usable = z0[z0.isfinite().all(1)]
    if solver is None and len(usable):
        check_fits(metric, usable)
        solver = _default_solver(metric, usable[:1])
    result = solve_pairs(metric, z0, z1, solver, initial, None)
    with torch.no_grad():
        v = initial_velocity(metric, result.curve, result.length)
    settled = isinstance(solver, MatrixFreeSolver) & (result.status == Status.SETTLED)
    lost = ~(result.converged | settled)
    count = int(lost.sum())
    if count:
        warnings.warn(f"{count} of {len(z0)} geodesics did not converge; their logarithms are NaN", stacklevel=2)
    return v.masked_fill(lost[:, None], torch.nan)


def _default_solver(metric: Metric, z: Tensor) -> ShootingSolver | MatrixFreeSolver:
    """`ShootingSolver` where `geodesic` takes `EnergySolver`, and `MatrixFreeSolver` with tighter tolerances elsewhere.

    The velocity at an end is of the order of the gradient that is left, and not of its square.
    """
    small = isinstance(default_solver(metric, z), EnergySolver)
    return ShootingSolver() if small else MatrixFreeSolver(tol=1e-4, length_tol=5e-4, max_iter=1000)


def initial_velocity(metric: Metric, curve: Curve, length: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """Velocity at t = 0 of the same curves at constant Riemannian speed: c'(0) scaled to norm ``length``."""
    start = curve.points[:, 0]
    slope = curve.derivative(torch.zeros(1, dtype=start.dtype, device=start.device))[:, 0]
    speed = metric.norm(start, slope)
    return slope * torch.where(speed == 0, 0.0, length / speed)[:, None]
