"""The one door to connecting geodesics: any metric, any solver, thousands of problems a call."""

import warnings
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from geodesics.batches.arguments import check_ends, check_fits, check_is, check_metric, check_solving
from geodesics.connecting.default_solver import check_solver_fits, default_solver
from geodesics.curves.curve import Curve
from geodesics.curves.initial import InitialCurves, Straight
from geodesics.metrics.chords import CHORD_VALUES, Embedded, is_rounding, is_too_short, step_size, underflows
from geodesics.metrics.metric import Metric
from geodesics.solvers.energy import EnergySolver
from geodesics.solvers.matrix_free import MatrixFreeSolver
from geodesics.solvers.solution import GeodesicResult, Status


@runtime_checkable
class Solver(Protocol):
    """An algorithm for connecting geodesics, with its options.

    Its attribute ``length_tol``, where it has one, is the tolerance on the length error estimate, relative to the
    length, above which `distance` and the statistics do not use a length; without it that of `EnergySolver` holds.
    """

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Solve B problems from S initial curves each; all ends are finite and distinct."""


@runtime_checkable
class _Tolerant(Protocol):
    """A solver with a tolerance on lengths."""

    @property
    def length_tol(self) -> float: ...


def geodesic(
    metric: Metric,
    z0: Tensor,
    z1: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
) -> GeodesicResult:
    """Shortest paths between pairs of points, all pairs at once.

    Minimizes the energy ``E = 1/2 int_0^1 c'^T M(c) c' dt`` over curves from z0 to z1 (Arvanitidis, Hansen and Hauberg
    2018, section 3). A problem's answer does not depend on its batch, and a problem that fails does not raise: it gets
    its status, NaN, and one warning per call that counts such problems.

    Args:
        metric: the Riemannian metric.
        z0: starts ``(B, d)``.
        z1: ends ``(B, d)``, of the same dtype and device.
        solver: the algorithm and its options; None for ``EnergySolver()``, or for ``MatrixFreeSolver()`` above 64
            latent dimensions, or where Jacobians along a curve need more than half of the free memory.
        initial: where to start; None for `Straight`. On a learned metric with walls use `GraphPaths` on encoded data.
        chunk_size: problems solved at a time, a bound on memory; None for all.

    Returns:
        Curves, certified lengths with error estimates, and a status per problem. They carry no gradients; for those of
        lengths see ``distance(..., differentiable=True)``.

    Raises:
        ValueError: when the shapes, dtypes or devices of z0 and z1 do not fit, when the metric's generator or
            function returns a wrong shape, chunk_size < 1, or when the solver needs more memory than is free.
        TypeError: when z0 or z1 is not a floating-point tensor.
    """
    result = solve_pairs(metric, z0, z1, solver, initial, chunk_size)
    failed = int((result.status >= Status.FAILED).sum())
    if failed:
        warnings.warn(f"{failed} of {len(z0)} geodesics failed; see the status field", stacklevel=2)
    return result


def solve_pairs(
    metric: Metric,
    z0: Tensor,
    z1: Tensor,
    solver: Solver | None,
    initial: InitialCurves | None,
    chunk_size: int | None,
) -> GeodesicResult:
    """`geodesic` without its warning, for callers that count failures themselves."""
    check_metric(metric)
    check_ends(z0, z1)
    check_solving(solver, initial, chunk_size)
    z0, z1 = z0.detach(), z1.detach()
    initial = Straight() if initial is None else initial
    finite = (z0.isfinite() & z1.isfinite()).all(1)
    distinct = (z0 != z1).any(1)
    rows = (finite & distinct).nonzero()[:, 0]
    check_fits(metric, z0[rows] if rows.numel() else z0)
    if rows.numel() == 0:
        return _combine([], rows, z0, z1, finite)
    with torch.no_grad():
        solver = default_solver(metric, z0[rows[:1]]) if solver is None else solver
        check_solver_fits(solver, metric, z0[rows[:1]])
        if not isinstance(solver, MatrixFreeSolver):
            metric.tensor(z0[rows[:1]].expand(3, -1))  # a generator or function of the wrong shape is told so here
        parts = []
        for part in rows.split(int(chunk_size or len(rows))):
            starts = _starts(initial, z0[part], z1[part])
            result = solver.solve(metric, starts)
            check_is("solver", result, GeodesicResult, "what its method solve gives")
            parts.append(_checked(metric, z0[part], z1[part], result))
    return _combine(parts, rows, z0, z1, finite)


def _starts(initial: InitialCurves, z0: Tensor, z1: Tensor) -> list[Curve]:
    """The initial curves, at least one per problem, with their ends where they must be."""
    given: object = initial(z0, z1)
    curves = [given] if isinstance(given, Curve) else list(given) if isinstance(given, list | tuple) else []
    if not curves or not all(isinstance(curve, Curve) for curve in curves):
        got = [type(curve).__name__ for curve in curves] if curves else f"{type(given).__name__} without any"
        raise ValueError(f"initial must give a list of one or more Curve objects; got {got}")
    return [_pinned(curve, z0, z1) for curve in curves]


def unresolved(result: GeodesicResult, solver: Solver | None) -> Tensor:
    """Whose lengths must not be used: the error is above the solver's tolerance, or not known, ``(B,)``."""
    tolerance = solver.length_tol if isinstance(solver, _Tolerant) else EnergySolver().length_tol
    return ~result.resolved(tolerance)


def _checked(metric: Metric, z0: Tensor, z1: Tensor, result: GeodesicResult) -> GeodesicResult:
    """A solver's answer, FAILED where its length cannot be right.

    That is where it is below the chord in the output space, and where the metric is zero in every direction. A length
    of zero along an axis that the generator does not use is right: nothing is shorter.
    """
    length, error, status = (field.clone() for field in (result.length, result.length_error, result.status))
    failed = is_too_short(metric, z0, z1, length, error)
    # An error of the length's own size: perhaps there is nothing but rounding.
    doubtful = (status < Status.FAILED) & (underflows(length) | ~(error < length))
    rows = doubtful.nonzero()[:, 0]
    if rows.numel():
        size = step_size(metric, z0[rows], z1[rows])
        dead, zero = underflows(size), is_rounding(length[rows], size)
        failed[rows] |= dead
        rows = rows[zero & ~dead]
        length[rows], error[rows], status[rows] = 0.0, 0.0, int(Status.SETTLED)
    return result._replace(
        length=length,
        length_error=error,
        energy=length.square() / 2,
        status=torch.where(failed & (status < Status.FAILED), int(Status.FAILED), status),
        values=result.values + (CHORD_VALUES if isinstance(metric, Embedded) else 0),
    )


def _pinned(curve: Curve, z0: Tensor, z1: Tensor) -> Curve:
    """An initial curve with its ends where they must be."""
    if len(curve) != len(z0) or curve.points.shape[-1] != z0.shape[-1]:
        raise ValueError(f"initial curves must join {tuple(z0.shape)} ends; got points {tuple(curve.points.shape)}")
    if curve.points.dtype != z0.dtype or curve.points.device != z0.device:
        got = f"{curve.points.dtype} on {curve.points.device}"
        raise ValueError(f"initial curves must be {z0.dtype} on {z0.device} as the ends; got {got}")
    points = torch.cat([z0[:, None], curve.points[:, 1:-1], z1[:, None]], dim=1)
    return Curve.unchecked(points, curve.knots, curve.degree)


def _combine(parts: list[GeodesicResult], rows: Tensor, z0: Tensor, z1: Tensor, finite: Tensor) -> GeodesicResult:
    """The answers of the solved rows, trivial answers for z0 == z1, and INVALID for ends that are not finite."""
    count = max((part.curve.num_segments for part in parts), default=1)
    degree = parts[0].curve.degree if parts else 1
    t = torch.linspace(0, 1, count * degree + 1, dtype=z0.dtype, device=z0.device)
    points = (z0[:, None] + 0 * (z1 - z0)[:, None] * t[:, None]).clone()
    points[~finite] = torch.nan
    knots = torch.linspace(0, 1, count + 1, dtype=z0.dtype, device=z0.device).repeat(len(z0), 1)
    number = torch.where(finite, 0.0, torch.nan).to(z0)
    whole = torch.zeros_like(number, dtype=torch.long)
    status = torch.where(finite, int(Status.CONVERGED), int(Status.INVALID))
    fields = [number, number.clone(), number.clone(), status, number.clone(), finite.clone()]
    fields += [whole.clone() for _ in range(4)]
    start = 0
    for part in parts:
        into = rows[start : start + len(part.curve)]
        start += len(part.curve)
        curve = part.curve.with_segments(count)
        points[into], knots[into] = curve.points, curve.knots
        for field, solved in zip(fields, part[1:], strict=True):
            field[into] = solved
    failed = fields[3] >= Status.FAILED
    points[failed] = torch.nan
    for field in (*fields[:3], fields[4]):
        field[failed] = torch.nan
    return GeodesicResult(Curve.unchecked(points, knots, degree), *fields)
