"""Connecting geodesics whose ends move a little from call to call: means, clusters and densities are fitted so.

The geodesic found last, with its ends moved along, is a start from which a minimizer has little left to do, and it lies
in a valley already known: lengths change smoothly while a center moves. A pair whose ends have come far starts afresh.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.connecting.geodesic import Solver, solve_pairs, unresolved
from geodesics.connecting.logarithm import initial_velocity
from geodesics.curves.curve import Curve
from geodesics.curves.initial import InitialCurves
from geodesics.curves.mesh import interpolate
from geodesics.metrics.metric import Metric
from geodesics.solvers.solution import GeodesicResult

# A pair starts afresh once its ends have moved this share of its length, in the metric.
_FAR = 0.25
# Vertices of a remembered geodesic, equal steps of its mesh.
_VERTICES = 129


class Logarithms(NamedTuple):
    """Logarithms of R pairs of points; NaN where the geodesic failed or its length is not resolved.

    Attributes:
        vectors: initial velocities at z0, as long in the metric as the geodesic, ``(R, d)``.
        lengths: certified lengths, ``(R,)``.
        errors: estimates of the lengths' errors, ``(R,)``.
    """

    vectors: Float[Tensor, "r d"]
    lengths: Float[Tensor, " r"]
    errors: Float[Tensor, " r"]


class MovingEnds:
    """A fixed number of pairs of points, with the last geodesic of each.

    Args:
        metric: the Riemannian metric.
        count: P, pairs in all.
        like: a tensor of the points' dimension, dtype and device, ``(n, d)``.
        solver: as in `geodesic`.
        initial: how a pair starts afresh, as in `geodesic`.
        chunk_size: as in `geodesic`.

    Attributes:
        solved: geodesics solved so far.
    """

    def __init__(
        self,
        metric: Metric,
        count: int,
        like: Float[Tensor, "n d"],
        solver: Solver | None,
        initial: InitialCurves | None,
        chunk_size: int | None,
    ) -> None:
        self._metric, self._solver, self._initial, self._chunk_size = metric, solver, initial, chunk_size
        d = like.shape[1]
        self._paths = like.new_full((count, _VERTICES, d), torch.nan)
        self._fresh_ends = like.new_full((count, 2, d), torch.nan)
        self._lengths = like.new_full((count,), torch.nan)
        self.solved = 0

    def logarithms(self, pairs: Int[Tensor, " r"], z0: Float[Tensor, "r d"], z1: Float[Tensor, "r d"]) -> Logarithms:
        """Logarithms at z0 of z1, their ends now, of some of the pairs, none named twice."""
        found = Logarithms(*(torch.full_like(x, torch.nan) for x in (z0, z0[:, 0], z0[:, 0])))
        start, end = (z - self._fresh_ends[pairs, side] for side, z in enumerate((z0, z1)))
        moved = self._metric.norm(z0, start) + self._metric.norm(z1, end)
        near = (moved <= _FAR * self._lengths[pairs]) & (z0 != z1).any(1)
        rows = near.nonzero()[:, 0]
        if rows.numel():
            moved_along = _Remembered(self._paths[pairs[rows]])
            self._solve(found, rows, pairs[rows], z0[rows], z1[rows], moved_along)
        rows = found.lengths.isnan().nonzero()[:, 0]
        if rows.numel():
            self._fresh_ends[pairs[rows]] = torch.stack([z0[rows], z1[rows]], dim=1)
            self._solve(found, rows, pairs[rows], z0[rows], z1[rows], self._initial)
        return found

    def _solve(
        self, into: Logarithms, rows: Tensor, pairs: Tensor, z0: Tensor, z1: Tensor, initial: InitialCurves | None
    ) -> None:
        result = solve_pairs(self._metric, z0, z1, self._solver, initial, self._chunk_size)
        self.solved += len(rows)
        # A pair without a length starts afresh next time.
        length = result.length.masked_fill(unresolved(result, self._solver), torch.nan)
        self._paths[pairs] = _vertices(result)
        self._lengths[pairs] = length
        velocity = initial_velocity(self._metric, result.curve, length)
        into.vectors[rows] = velocity.masked_fill(length.isnan()[:, None], torch.nan)
        into.lengths[rows] = length
        into.errors[rows] = torch.where(length.isnan(), length, result.length_error)


class _Remembered:
    """Given paths as initial curves, moved to the ends; asked for them in order, chunk after chunk."""

    def __init__(self, paths: Float[Tensor, "r v d"]) -> None:
        self._paths, self._position = paths, 0

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        paths = self._paths[self._position : self._position + len(z0)]
        self._position += len(z0)
        t = torch.linspace(0, 1, paths.shape[1], dtype=z0.dtype, device=z0.device)[:, None]
        start, end = z0 - paths[:, 0], z1 - paths[:, -1]
        return [Curve(paths + (1 - t) * start[:, None] + t * end[:, None])]


def _vertices(result: GeodesicResult) -> Float[Tensor, "r v d"]:
    """Points at equal steps of the curve's own mesh: where it bends or climbs there are many."""
    knots = result.curve.knots
    b, count = len(knots), knots.shape[1]
    mesh = torch.linspace(0, 1, count, dtype=knots.dtype, device=knots.device).expand(b, -1)
    steps = torch.linspace(0, 1, _VERTICES, dtype=knots.dtype, device=knots.device).expand(b, -1)
    return result.curve.evaluate(interpolate(steps, mesh, knots))
