"""Does an error estimate hold? Continue the curve on a mesh twice as fine, and see by how much its length falls."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from geodesics import Curve, EnergySolver, GeodesicResult, LBFGSSolver, Metric, Solver, geodesic

# Newton steps first, then another method's iterations for what is still open: no solver is its own judge. L-BFGS knows
# no Hessian, bounds no step by the cheapest axis, and goes on where Newton's decrement is small for no good reason.
_NEWTON, _NUDGED, _ITERATIONS = 24, 40, 400
# A fall by more than so many times the estimate is far out.
FAR = 3.0
# A curve that is no minimum is continued from both sides of itself, moved by this share of its latent length.
_NUDGE = 1e-3
_SAME = 1e-9
# Where a length's own rounding and quadrature end, relative.
_RESOLUTION = 1e-9


class Prepared:
    """Initial curves of any degree that are given, as one of `geodesic`'s ``initial``.

    Args:
        curves: one batch of curves for each start.
    """

    def __init__(self, *curves: Curve) -> None:
        self.curves = curves

    def __call__(self, z0: Tensor, z1: Tensor) -> list[Curve]:
        """The curves, whatever the ends."""
        return list(self.curves)


class Continued(NamedTuple):
    """What became of B curves.

    Attributes:
        curve: the continued curves, one each.
        length: the shortest certified length reached, at most that of the curve itself ``(B,)``.
        segments: elements that each curve was made of ``(B,)``.
        checked: whether the curve had a finite length and a finite error estimate ``(B,)``.
        holds: whether its length fell by no more than the estimate ``(B,)``.
        far: whether it fell by more than three times the estimate ``(B,)``.
    """

    curve: list[Curve]
    length: Tensor
    segments: Tensor
    checked: Tensor
    holds: Tensor
    far: Tensor


def continued(metric: Metric, result: GeodesicResult) -> Continued:
    """Continue every curve whose length and error estimate are finite.

    Args:
        metric: the metric that it was found for.
        result: answers of any solver.
    """
    checked = result.length.isfinite() & result.length_error.isfinite()
    segments = torch.zeros_like(result.status)
    curves = [result.curve[i : i + 1] for i in range(len(checked))]
    for i in checked.nonzero()[:, 0].tolist():
        segments[i] = own_segments(curves[i])
        curves[i] = coarsened(curves[i], int(segments[i]))
    allowed = result.length_error + _RESOLUTION * result.length
    length = result.length.clone()
    for count in segments[checked].unique().tolist():
        rows = (checked & (segments == count)).nonzero()[:, 0]
        found, reached = _continue(metric, [curves[i] for i in rows.tolist()], length[rows], FAR * allowed[rows])
        length[rows] = reached
        for i, curve in zip(rows.tolist(), found, strict=True):
            curves[i] = curve
    fall = result.length - length
    return Continued(curves, length, segments, checked, checked & (fall <= allowed), checked & (fall > FAR * allowed))


def _continue(metric: Metric, curves: list[Curve], lengths: Tensor, enough: Tensor) -> tuple[list[Curve], Tensor]:
    """The best that each of some curves on one mesh becomes on twice as many elements, and its length.

    Args:
        metric: the Riemannian metric.
        curves: single curves of equally many elements.
        lengths: theirs ``(R,)``.
        enough: falls beyond which nothing more is to be learned ``(R,)``.
    """
    best, reached, degree, count = list(curves), lengths.clone(), curves[0].degree, 2 * curves[0].num_segments
    done, minimum = torch.zeros_like(lengths, dtype=torch.bool), torch.zeros_like(lengths, dtype=torch.bool)

    def attempt(rows: Tensor, points: Tensor, solver: Solver) -> GeodesicResult:
        result = _descend(metric, Curve(points, None, degree), solver)
        for k, i in enumerate(rows.tolist()):
            if result.length[k] < reached[i]:
                best[i], reached[i] = result.curve[k : k + 1], result.length[k]
        return result

    for solver in (_newton(count, degree, _NEWTON), LBFGSSolver(count, degree, 2 * degree, max_iter=_ITERATIONS)):
        rows = (~done & (lengths - reached <= enough)).nonzero()[:, 0]
        if rows.numel():
            finest = [best[i].with_segments(count) for i in rows.tolist()]
            result = attempt(rows, torch.cat([curve.points for curve in finest]), solver)
            done[rows], minimum[rows] = result.converged, result.minimum
    rows = (~minimum & (lengths - reached <= enough)).nonzero()[:, 0]
    if rows.numel():
        points = torch.cat([best[i].with_segments(count).points for i in rows.tolist()])
        for sign in (-1, 1):
            attempt(rows, points + sign * _nudges(points), _newton(count, degree, _NUDGED))
    return best, reached


def _newton(count: int, degree: int, steps: int) -> EnergySolver:
    # What is asked of the length decides when a curve counts as settled: here nothing is to count.
    return EnergySolver(
        num_segments=count,
        max_segments=count,
        degree=degree,
        num_samples=2 * degree,
        length_tol=1e-8,
        max_iter=steps,
        max_meshes=max(1, count // 64),
    )


def _descend(metric: Metric, curve: Curve, solver: Solver) -> GeodesicResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a curve that cannot be continued keeps its length
        return geodesic(metric, curve.points[:, 0], curve.points[:, -1], solver=solver, initial=Prepared(curve))


def _nudges(points: Tensor) -> Tensor:
    """A smooth sideways movement of every curve, in a direction of its own, zero at both ends."""
    rng = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, points.shape[1], dtype=points.dtype)[:, None]
    size = points.diff(dim=1).norm(dim=-1).sum(1)[:, None, None]
    waves = [torch.sin(k * torch.pi * t) * torch.randn(points.shape[-1], generator=rng).to(t) for k in (1, 2)]
    return _NUDGE * size * (waves[0] + waves[1])


def own_segments(curve: Curve) -> int:
    """Elements that a single curve was made of, before it was cut to the mesh of its batch's finest curve."""
    size = curve.points.diff(dim=1).norm(dim=-1).sum()
    for count in range(1, curve.num_segments):
        again = coarsened(curve, count).with_segments(curve.num_segments)
        if bool(((again.points - curve.points).abs() <= _SAME * size).all()):
            return count
    return curve.num_segments


def coarsened(curve: Curve, count: int) -> Curve:
    """The curve through its own points on ``count`` elements, of which `Curve.with_segments` would make the present."""
    degree = curve.degree
    inner = np.sort(legendre.legroots(legendre.legder([0.0] * degree + [1.0])).real)
    nodes = (torch.as_tensor(np.concatenate([[-1.0], inner, [1.0]])).to(curve.points) + 1) / 2
    ends = (torch.arange(count + 1) * curve.num_segments // count).to(nodes)
    inside = ends[:-1, None] + ends.diff()[:, None] * nodes[:-1]
    times = torch.cat([inside.flatten(), ends[-1:]]) / curve.num_segments
    return Curve(Curve(curve.points, None, degree).evaluate(times), None, degree)
