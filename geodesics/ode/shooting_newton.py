"""Newton for multiple shooting: gaps between the segments of many curves, closed problem by problem."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import take, write
from geodesics.metrics.metric import Metric
from geodesics.ode.block_bidiagonal import solve_two_point
from geodesics.ode.runge_kutta import STAGES, step, step_derivative

_ARMIJO = 0.1
_BACKTRACK = 0.4
_LINE_SEARCH = 8
# Segments, or segments times tangents, that are computed at a time; a bound on memory that changes no result.
_COLUMNS = 2**13


class ShootingState(NamedTuple):
    """All that Newton knows of its problems at one number of segments, leading axis B throughout.

    Attributes:
        nodes: (z_k, v_k), velocities per unit of time, ``(B, K + 1, 2 d)``.
        steps: duration of the segments, ``(B, K)``.
        length: of the starting curve, the unit of the residuals.
        gaps: ``Phi(nodes_k) - nodes_{k+1}``, ``(B, K, 2 d)``.
        errors: estimated errors of Phi, same shape.
        residual: scaled norm of the gaps.
        step_error: scaled norm of the errors.
        correction: scaled norm of the last full Newton correction; infinite before the first.
        stalled: whether no step decreases the residual.
        iterations: steps tried.
        evaluations: accelerations computed.
    """

    nodes: Float[Tensor, "b k m"]
    steps: Float[Tensor, "b s"]
    length: Float[Tensor, " b"]
    gaps: Float[Tensor, "b s m"]
    errors: Float[Tensor, "b s m"]
    residual: Float[Tensor, " b"]
    step_error: Float[Tensor, " b"]
    correction: Float[Tensor, " b"]
    stalled: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    evaluations: Int[Tensor, " b"]


def is_closed(state: ShootingState, tol: float) -> Bool[Tensor, " b"]:
    """Whether the gaps are; from a last correction under this, quadratic convergence leaves an error far below."""
    return (state.residual <= tol) & (state.correction <= tol ** (2 / 3))


def close_gaps(metric: Metric, state: ShootingState, worth: Tensor, tol: float, max_iter: int) -> ShootingState:
    """Damped Newton steps until the gaps are closed; rows that are done, stalled or not finite rest."""
    for _ in range(max_iter):
        active = (worth & state.residual.isfinite() & ~is_closed(state, tol) & ~state.stalled).nonzero()[:, 0]
        if active.numel() == 0:
            break
        part = take(state, active)
        write(state, active, _newton_step(metric, part))
    return state


def _newton_step(metric: Metric, state: ShootingState) -> ShootingState:
    """One Newton step of every row, backtracked until the residual decreases enough."""
    count, m = state.gaps.shape[1:]
    direction = solve_two_point(_transitions(metric, state), -state.gaps)
    best = state._replace(
        correction=_scaled_norm(metric, state, direction[:, 1:]),
        stalled=torch.ones_like(state.stalled),
        iterations=state.iterations + 1,
        evaluations=state.evaluations + count * m * (STAGES - 1),
    )
    share = torch.ones_like(state.length)
    rows = best.correction.isfinite().nonzero()[:, 0]
    for _ in range(_LINE_SEARCH):
        if rows.numel() == 0:
            break
        nodes = state.nodes[rows] + share[rows, None, None] * direction[rows]
        trial = measured(metric, take(best, rows)._replace(nodes=nodes))
        good = trial.residual <= (1 - _ARMIJO * share[rows]) * state.residual[rows]
        best.evaluations[rows] = trial.evaluations
        write(best, rows[good], take(trial._replace(stalled=~good), good))
        rows = rows[~good]
        share[rows] *= _BACKTRACK
    return best


def _field(metric: Metric, y: Tensor) -> Tensor:
    """The geodesic ODE of first order, on states (z, v)."""
    z, v = y.chunk(2, dim=-1)
    return torch.cat([v, metric.acceleration(z, v)], dim=-1)


def measured(metric: Metric, state: ShootingState) -> ShootingState:
    """The state with gaps, errors and their norms at its nodes."""
    parts = [step(lambda y: _field(metric, y), *part) for part in _segments(state, _COLUMNS)]
    new, errors = (torch.cat(part).view_as(state.gaps) for part in zip(*parts, strict=True))
    gaps = new - state.nodes[:, 1:]
    return state._replace(
        gaps=gaps,
        errors=errors,
        residual=_scaled_norm(metric, state, gaps),
        step_error=_scaled_norm(metric, state, errors),
        evaluations=state.evaluations + state.steps.shape[1] * STAGES,
    )


def _segments(state: ShootingState, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Beginnings and durations of all segments of all rows, so many at a time."""
    y, h = state.nodes[:, :-1].flatten(0, 1), state.steps.flatten()
    return zip(y.split(count), h.split(count), strict=True)


def _scaled_norm(metric: Metric, state: ShootingState, r: Tensor) -> Tensor:
    """Norm over all segments of `segment_norms`."""
    return torch.linalg.vector_norm(segment_norms(metric, state, r), dim=1)


def segment_norms(metric: Metric, state: ShootingState, r: Tensor) -> Tensor:
    """``sqrt(|r_z|^2 + h_k^2 |r_v|^2) / L``, in the metric at the right ends of the segments, ``(B, K)``."""
    z = state.nodes[:, 1:].chunk(2, dim=-1)[0].flatten(0, 1)
    in_z, in_v = r.flatten(0, 1).chunk(2, dim=-1)
    h, unit = state.steps.flatten(), torch.where(state.length == 0, 1.0, state.length)
    norm = torch.hypot(metric.norm(z, in_z), h * metric.norm(z, in_v))
    return norm.view_as(state.steps) / unit[:, None]


def _transitions(metric: Metric, state: ShootingState) -> Tensor:
    """Derivatives of the segments' ends in their beginnings, ``(B, K, 2 d, 2 d)``."""
    count = max(1, _COLUMNS // state.nodes.shape[-1])
    parts = [step_derivative(lambda y: _field(metric, y), *part) for part in _segments(state, count)]
    return torch.cat(parts).unflatten(0, state.steps.shape)
