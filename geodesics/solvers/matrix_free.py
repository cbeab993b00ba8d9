"""Geodesics in any dimension: nothing of size d x d or D x d is formed.

L-BFGS minimizes the same weighted energy of the same elements as `EnergySolver`, from values of the decoder and
``J^T w``. The chain of springs that the elements are is inverted exactly, and steps learn the metric.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.batches.memory import check_memory
from geodesics.batches.rows import take
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements, make_elements
from geodesics.curves.mesh import allot_pieces, cell_arcs, equal_mixed_nodes, mixed_arc
from geodesics.matrix_free.descent import Goal, descend_level
from geodesics.matrix_free.streamed import StreamedEnergy, block_in_memory, mean_axes
from geodesics.metrics.lengths import KRONROD_POINTS, element_lengths, element_speeds
from geodesics.metrics.metric import Metric
from geodesics.solvers.solution import GeodesicResult, Status

# Bytes of the histories of the problems that are solved at a time.
_GROUP = 2**27
# Cells of a start over which the speed is taken as constant.
_CELLS = 8
# A doubling of the elements saves at most this share of what the one before saved.
_FALL = 0.5


@dataclass(frozen=True)
class MatrixFreeSolver:
    """L-BFGS on the weighted energy, from coarse to fine meshes, without Jacobians.

    The energy, the elements and the statuses are those of `EnergySolver`. A step costs one value and one reverse pass
    per sample, ``N m`` of them; the memory is that of the decoder's intermediate results for one element, and of
    ``2 history`` curves. `geodesic` takes this solver by itself where Jacobians would be too many or too large.

    The length error adds up the quadrature's own error, what all further doublings of the elements would save (judged
    by what the last ones did), and what is left to gain: twice the gain that the quadratic model foretells where the
    gradient is under its tolerance, and else ten times that, or two hundred steps like the last. At least two meshes
    are so used. ``minimum`` says that conjugate gradients on differences of the gradient met no direction of negative
    curvature, from the gradient and from a random direction: evidence, where `EnergySolver` has the proof of a
    factorization. It is False where the gradient is above its tolerance: there nobody looks.

    Args:
        num_segments: N of the coarsest mesh, elements per curve; each next has twice as many.
        max_segments: N of the finest mesh that may be used.
        degree: p, as in `EnergySolver`.
        num_samples: m, as in `EnergySolver`.
        history: steps remembered.
        max_iter: steps per mesh.
        tol: tolerance on the scale-free gradient; half its square is the relative length still to be gained.
        length_tol: as in `EnergySolver`.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 2
    max_segments: int = 64
    degree: int = 3
    num_samples: int = 6
    history: int = 10
    max_iter: int = 300
    tol: float = 1e-3
    length_tol: float = 2e-3

    def __post_init__(self) -> None:
        check_counts(self, "num_segments", "degree", "history", "max_iter")
        check_not_below(self, "max_segments", "num_segments")
        check_not_below(self, "num_samples", "degree")
        check_sizes(self, "tol", "length_tol")

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimize from the shortest start of every problem, some problems at a time.

        Raises:
            ValueError: when the decoder's intermediate results for one element, or one problem's history, do not fit
                into memory.
        """
        like = starts[0].points
        b, d = len(like), like.shape[-1]
        per_row = 4 * self.history * d * like.element_size() * (8 * self.num_segments * self.degree + 1)
        group = max(1, min(b, _GROUP // per_row))
        check_memory(group * per_row, like, "The history of one geodesic", "Pass a smaller MatrixFreeSolver(history=).")
        groups = torch.arange(b, device=like.device).split(group)
        return _joined([self._solve(metric, [curve[rows] for curve in starts]) for rows in groups])

    def _solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        like = starts[0].points
        elements, dense = (make_elements(self.degree, m, like) for m in (self.num_samples, 2 * self.num_samples))
        block = block_in_memory(metric, like[:1, 0], self.num_samples)
        streamed = StreamedEnergy(metric.path_energy(elements), elements, block)
        finer = StreamedEnergy(metric.path_energy(dense), dense, max(1, block // 2))
        waiting = _placed(metric, streamed, starts, self.num_segments)
        finished: list[_Level] = []
        count = self.num_segments
        while True:
            last = 2 * count > self.max_segments
            goal = Goal(self.tol, self.length_tol, self.max_iter, self.history, count > self.num_segments or last, last)
            level = _level(metric, streamed, finer, waiting, goal)
            final = level.error <= self.length_tol * level.curves.length
            final |= last | ~level.curves.length.isfinite()
            finished.append(take(level, final.nonzero()[:, 0]))
            rest = (~final).nonzero()[:, 0]
            if rest.numel() == 0:
                return _collect(finished, self)
            count *= 2
            waiting = _refined(elements, take(level, rest), count)


class _Curves(NamedTuple):
    """Curves that come to a level, with what is known of them.

    Attributes:
        problem: which they belong to.
        start: index of the start.
        points: nodes.
        length: measured at the last level; infinite before.
        saved: what the last level changed the length by; infinite before.
        iterations: steps so far.
        jacobians: points with reverse or directional derivatives so far.
        values: points with values alone so far.
    """

    problem: Int[Tensor, " r"]
    start: Int[Tensor, " r"]
    points: Float[Tensor, "r n d"]
    length: Float[Tensor, " r"]
    saved: Float[Tensor, " r"]
    iterations: Int[Tensor, " r"]
    jacobians: Int[Tensor, " r"]
    values: Int[Tensor, " r"]


class _Level(NamedTuple):
    """Curves as a level leaves them: speeds, what its samples do not see of every element, and the verdict."""

    curves: _Curves
    error: Float[Tensor, " r"]
    knots: Float[Tensor, "r k"]
    speed: Float[Tensor, "r s g"]
    mismatch: Float[Tensor, "r s"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]


def _level(metric: Metric, streamed: StreamedEnergy, finer: StreamedEnergy, curves: _Curves, goal: Goal) -> _Level:
    """Descend on one mesh, and certify what looks resolved."""
    axes = mean_axes(metric, curves.points, streamed.block * streamed.elements.num_samples)
    state = descend_level(streamed, finer, curves.points, axes, goal)
    count = state.at.speed.shape[1]
    measured = element_lengths(metric, Curve(state.points, None, streamed.elements.degree))
    length = measured.length.sum(1)
    saved = (curves.length - length).abs()
    ratio = torch.where(curves.saved.isfinite(), (saved / curves.saved).clamp(max=_FALL), _FALL)
    rounding = 8 * torch.finfo(length.dtype).eps * length
    error = measured.error.sum(1) + saved * ratio / (1 - ratio) + state.left_to_gain(goal.tol) * length + rounding
    times = measured.length.cumsum(1) / length[:, None]
    even = torch.linspace(0, 1, count + 1, dtype=length.dtype, device=length.device).repeat(len(length), 1)
    knots = torch.cat([even[:, :1], times[:, :-1], even[:, -1:]], dim=1)
    knots = torch.where((knots.diff(dim=1) > 0).all(1, keepdim=True), knots, even)
    mismatch = (measured.length - state.at.speed @ streamed.elements.weights).abs()
    jacobians = state.evaluations * streamed.samples(state.points) + KRONROD_POINTS * count + curves.points.shape[1]
    after = _Curves(
        curves.problem,
        curves.start,
        state.points,
        length,
        saved,
        curves.iterations + state.iterations,
        curves.jacobians + jacobians,
        curves.values + state.looks * finer.samples(state.points),
    )
    return _Level(after, error, knots, state.at.speed, mismatch, state.gradient, state.minimum, state.stalled)


def _placed(metric: Metric, streamed: StreamedEnergy, starts: list[Curve], count: int) -> _Curves:
    """Elements of equal mixed arc length on the start of every problem that is the shortest by its speeds."""
    found = []
    for index, curve in enumerate(starts):
        curve = curve.with_segments(count)
        cells, latent = element_speeds(metric, curve, (np.arange(_CELLS) + 0.5) / _CELLS)
        arc = mixed_arc(cells.flatten(1), latent.flatten(1))
        inner = torch.arange(_CELLS, dtype=arc.dtype, device=arc.device) / _CELLS
        times = (curve.knots[:, :-1, None] + curve.knots.diff(dim=1)[..., None] * inner).flatten(1)
        times = torch.cat([times, curve.knots[:, -1:]], dim=1)
        points = equal_mixed_nodes(curve, arc.nan_to_num(0.0), times, streamed.elements.degree, count)
        rows = torch.arange(len(curve), device=arc.device)
        length = cells.flatten(1).mean(1) * curve.num_segments
        unknown, zero = torch.full_like(length, torch.inf), torch.zeros_like(rows)
        spent = torch.full_like(rows, cells[0].numel())
        found.append(_Curves(rows, zero + index, points, length, unknown, zero, spent, zero))
    lengths = torch.stack([each.length.nan_to_num(torch.inf) for each in found])
    best = lengths.argmin(0)
    chosen = _Curves(*(torch.stack(field)[best, torch.arange(len(best))] for field in zip(*found, strict=True)))
    spent = torch.stack([each.jacobians for each in found]).sum(0)
    return chosen._replace(length=torch.full_like(chosen.length, torch.inf), jacobians=spent)


def _refined(elements: Elements, level: _Level, count: int) -> _Curves:
    """The same curves on ``count`` elements, those cut first whose length the samples do not see."""
    points, speed = level.curves.points, level.speed
    arc, _ = cell_arcs(points, speed, elements)
    each = (arc.shape[1] - 1) // speed.shape[1]
    share = arc[:, each::each] - arc[:, :-1:each]
    pieces = allot_pieces(share, speed @ elements.weights, level.mismatch, count)
    return level.curves._replace(points=Curve(points, None, elements.degree).subdivide(pieces, count).points)


def _collect(finished: list[_Level], options: MatrixFreeSolver) -> GeodesicResult:
    """The finished curves in the order of the problems, all on the finest mesh used."""
    order = torch.cat([level.curves.problem for level in finished]).argsort()
    finest = max(level.speed.shape[1] for level in finished)
    curves = [Curve(level.curves.points, level.knots, options.degree).with_segments(finest) for level in finished]

    def pick(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[order]

    length = pick([level.curves.length for level in finished])
    return GeodesicResult(
        Curve(pick([curve.points for curve in curves]), pick([curve.knots for curve in curves]), options.degree),
        length,
        pick([level.error for level in finished]),
        length.square() / 2,
        pick([_status(level, options) for level in finished]),
        pick([level.gradient for level in finished]),
        pick([level.minimum for level in finished]),
        pick([level.curves.iterations for level in finished]),
        pick([level.curves.jacobians for level in finished]),
        pick([level.curves.values for level in finished]),
        pick([level.curves.start for level in finished]),
    )


def _status(level: _Level, options: MatrixFreeSolver) -> Int[Tensor, " r"]:
    """The `Status` of finished curves."""
    length, resolved = level.curves.length, level.error <= options.length_tol * level.curves.length
    still = level.gradient <= options.tol
    status = torch.full_like(level.curves.problem, int(Status.CONVERGED))
    verdicts = (
        (~resolved, Status.UNRESOLVED),
        (~still, Status.MAX_ITER),
        (~still & level.stalled, Status.STALLED),
        (~still & resolved, Status.SETTLED),
        (still & ~level.minimum, Status.NOT_MINIMUM),
        (~length.isfinite(), Status.FAILED),
    )
    for holds, verdict in verdicts:
        status = torch.where(holds, int(verdict), status)
    return status


def _joined(parts: list[GeodesicResult]) -> GeodesicResult:
    """Groups of problems as one answer, on the finest mesh of all."""
    finest = max(part.curve.num_segments for part in parts)
    curves = [part.curve.with_segments(finest) for part in parts]
    curve = Curve(torch.cat([one.points for one in curves]), torch.cat([one.knots for one in curves]), curves[0].degree)
    return GeodesicResult(curve, *(torch.cat(field) for field in zip(*(part[1:] for part in parts), strict=True)))
