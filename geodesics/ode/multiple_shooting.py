"""Connecting geodesics by multiple shooting: the geodesic ODE as a boundary-value problem, solved by Newton.

A curve near a geodesic gives K + 1 nodes with velocities (z_k, v_k). Every segment is one Runge-Kutta step of
order 8, all segments of all problems in one batch, and Newton closes the gaps ``r_k = Phi(z_k, v_k) -
(z_{k+1}, v_{k+1})`` with both ends fixed. A single shot over a learned metric multiplies errors of the
velocity by many decades; a short segment does not. Where the steps are too long for the tolerance, or Newton
fails, a problem gets twice the segments.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.curves.curve import Curve
from geodesics.curves.elements import basis_at, gather
from geodesics.curves.quintics import QUINTIC, hermite, raised, subdivided
from geodesics.metrics.lengths import element_lengths
from geodesics.metrics.metric import Metric
from geodesics.ode.flow import default_tolerance
from geodesics.ode.shooting_newton import ShootingState, close_gaps, is_closed, measured, segment_norms

# Newton starts once the steps' errors, relative to the length, are under this.
_COARSE = 1e-2


@dataclass(frozen=True)
class ShootingOptions:
    """Options of multiple shooting.

    Args:
        num_segments: least number of segments K; a starting curve with more elements keeps them.
        max_segments: most segments that a problem may get by doubling.
        tol: tolerance on the gaps at the nodes and on the error of the steps, both in the metric and relative
            to the length; None for about 1e-9 in float64 and 2e-5 in float32.
        max_iter: Newton steps per number of segments.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 8
    max_segments: int = 256
    tol: float | None = None
    max_iter: int = 20

    def __post_init__(self) -> None:
        check_counts(self, "num_segments", "max_iter")
        check_not_below(self, "max_segments", "num_segments")
        check_sizes(self, "tol")


class ShootingResult(NamedTuple):
    """What `shoot` answers, row by row.

    Attributes:
        curve: the geodesics, piecewise quintic with continuous velocity and acceleration; the starting curve
            in the rows that did not converge.
        velocity0: c'(0), whose exponential is the other end, ``(B, d)``; NaN in the rows that did not
            converge.
        residual: norm of all gaps, in the metric and relative to the length, ``(B,)``.
        step_error: the same norm of the estimated errors of the Runge-Kutta steps, ``(B,)``.
        converged: residual and step error are both under the tolerance, and the last Newton correction under
            its power 2/3, from where quadratic convergence leaves an error far below, ``(B,)``.
        failed: the ODE was not finite, or not positive definite, on the starting curve, ``(B,)``.
        iterations: Newton steps, ``(B,)``.
        evaluations: accelerations, each tangent of the variational equations counted as one, ``(B,)``.
    """

    curve: Curve
    velocity0: Float[Tensor, "b d"]
    residual: Float[Tensor, " b"]
    step_error: Float[Tensor, " b"]
    converged: Bool[Tensor, " b"]
    failed: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    evaluations: Int[Tensor, " b"]


def shoot(metric: Metric, curve: Curve, options: ShootingOptions) -> ShootingResult:
    """Solve ``c'' = a(c, c')`` between the ends of the given curves, starting from them.

    Multiple shooting (Stoer and Bulirsch, Introduction to Numerical Analysis, 7.3.5) with one step of order 8
    per segment, exact derivatives of the steps, and a Newton iteration damped problem by problem.
    Cost per iteration and segment: ``13 + 24 d`` accelerations, and 13 more for each backtracking.

    Args:
        metric: the Riemannian metric. A pullback metric needs a generator with second derivatives, which a
            ReLU network does not have: its shots are straight lines, see `check_generator`.
        curve: B curves, near geodesics; their elements, cut until there are enough, become the segments.
            Their own speed does not matter.
        options: number of segments, tolerance, limit.

    Returns:
        A `ShootingResult`; no row depends on another. Rows of zero length answer themselves, with velocity
        zero.
    """
    tol = default_tolerance(curve.points.dtype) if options.tol is None else options.tol
    curve = start = raised(curve.with_segments(options.num_segments))
    rows = torch.arange(len(curve), device=curve.points.device)
    result = _unsolved(start)
    finished = []
    with torch.no_grad():
        while len(rows):
            last = 2 * curve.num_segments > options.max_segments
            state = _start(metric, curve)
            # Steps that leap over whole walls are shortened before Newton is tried.
            worth = (state.step_error <= _COARSE) | last
            state = close_gaps(metric, state, worth, tol, options.max_iter)
            closed = is_closed(state, tol)
            good = closed & (state.step_error <= tol)
            _record(result, rows, state, good)
            solved = _solved(metric, state)
            finished.append((rows[good], solved[good]))
            if last:
                break
            points = torch.where(closed[:, None, None], solved.points, curve.points)
            knots = torch.where(closed[:, None], solved.knots, curve.knots)
            pieces = _pieces(segment_norms(metric, state, state.errors), tol)
            rows, curve = rows[~good], subdivided(Curve.unchecked(points, knots, QUINTIC)[~good], pieces[~good])
    return result._replace(curve=_assemble(start, finished))


def _start(metric: Metric, curve: Curve) -> ShootingState:
    """Nodes at the ends of the elements, timed and with velocities as at constant Riemannian speed."""
    b, _, d = curve.points.shape
    lengths = element_lengths(metric, curve).length
    total = lengths.sum(1)
    moving = total != 0
    steps = torch.where(moving[:, None], lengths / total[:, None], 1 / lengths.shape[1])
    z = curve.points[:, :: curve.degree]
    nodes = gather(curve.points, curve.degree)
    ends = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
    slopes = torch.einsum("ek,bskd->bsed", basis_at(curve.degree, ends)[1], nodes)
    # Per unit of Riemannian length, then averaged where two elements meet.
    at = torch.stack([z[:, :-1], z[:, 1:]], dim=2)
    speed = metric.norm(at.flatten(0, 2), slopes.flatten(0, 2)).unflatten(0, slopes.shape[:3])
    unit = slopes / torch.where(speed == 0, 1.0, speed)[..., None]
    inner = (unit[:, :-1, 1] + unit[:, 1:, 0]) / 2
    v = total[:, None, None] * torch.cat([unit[:, :1, 0], inner, unit[:, -1:, 1]], dim=1)
    gaps = z.new_zeros(b, steps.shape[1], 2 * d)
    number, whole = z.new_zeros(b), torch.zeros(b, dtype=torch.long, device=z.device)
    # A curve of zero length needs no correction.
    correction = torch.where(moving, torch.inf, 0.0).to(z)
    state = ShootingState(
        torch.cat([z, v], dim=-1),
        steps,
        total,
        gaps,
        gaps,
        number,
        number,
        correction,
        whole > 0,
        whole,
        whole,
    )
    return measured(metric, state)


def _pieces(errors: Tensor, tol: float) -> Tensor:
    """In how many pieces to cut the segments, ``(B, K)`` counts with sum 2 K, from their relative errors.

    The error of a step is of order h^9. On a learned metric the errors of equal steps range over ten decades,
    and all the pieces are needed at the walls.
    """
    count = errors.shape[1]
    wanted = (errors.nan_to_num(1.0, 1.0).clamp(max=1) * count**0.5 / tol) ** (1 / 9)
    extra = (wanted - 1).clamp(min=1e-2)
    total = (count * extra.cumsum(1) / extra.sum(1, keepdim=True)).round().long()
    return 1 + total.diff(dim=1, prepend=torch.zeros_like(total[:, :1]))


def _solved(metric: Metric, state: ShootingState) -> Curve:
    """Quintic curves through the nodes, with their velocities and accelerations."""
    z, v = state.nodes.chunk(2, dim=-1)
    a = metric.acceleration(z.flatten(0, 1), v.flatten(0, 1)).view_as(z)
    return hermite(z, v, a, state.steps)


def _unsolved(start: Curve) -> ShootingResult:
    """The answer before any work; its fields are filled in place."""
    z = start.points[:, 0]
    unknown = torch.full_like(z[:, 0], torch.nan)
    no = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    none = torch.zeros_like(no, dtype=torch.long)
    velocity = torch.full_like(z, torch.nan)
    return ShootingResult(start, velocity, unknown, unknown.clone(), no, no.clone(), none, none.clone())


def _record(result: ShootingResult, rows: Tensor, state: ShootingState, good: Tensor) -> None:
    velocity = state.nodes[:, 0].chunk(2, dim=-1)[1]
    result.velocity0[rows] = torch.where(good[:, None], velocity, torch.nan)
    result.residual[rows] = state.residual
    result.step_error[rows] = state.step_error
    result.converged[rows] = good
    result.failed[rows] = ~state.residual.isfinite()
    result.iterations[rows] += state.iterations
    result.evaluations[rows] += state.evaluations


def _assemble(start: Curve, finished: list[tuple[Tensor, Curve]]) -> Curve:
    """All rows on the finest mesh used by any, the starting curve where nothing is finished."""
    finest = max([start.num_segments, *(curve.num_segments for rows, curve in finished if len(rows))])
    start = start.with_segments(finest)
    points, knots = start.points.clone(), start.knots.clone()
    for rows, curve in finished:
        if not len(rows):
            continue
        curve = curve.with_segments(finest)
        points[rows], knots[rows] = curve.points, curve.knots
    return Curve.unchecked(points, knots, QUINTIC)
