"""What descent methods on a fixed mesh share: starting nodes, loop over iterations, line search, stop.

A method is a function from state to state. A row is done when its scale-free gradient, measured with the
exact Hessian, is under the tolerance. That costs a linearization, so it is measured only when the method's
own cheap estimate says that it is due, and again each time the estimate has fallen further. Finished rows
leave the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import grad

from geodesics.batches.rows import take, write
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements
from geodesics.curves.mesh import equal_mixed_nodes
from geodesics.metrics.lengths import element_speeds
from geodesics.metrics.metric import Metric
from geodesics.metrics.path_energy import PathEnergy
from geodesics.minimization.newton import newton_decrement
from geodesics.solvers.certificate import Ended

_ARMIJO = 1e-4
_BACKTRACK = 0.5
_LINE_SEARCH = 20
# By how much the estimate must fall before the gradient is measured again.
_FALL = 0.5
# Cells per element over which the speed of a starting curve is taken as constant.
_CELLS = 4


class Evaluation(NamedTuple):
    """The discrete energy at some nodes.

    Attributes:
        energy: ``(R,)``.
        derivative: in the nodes, zero at both ends.
        extra: what else a method keeps of an evaluation, a NamedTuple of tensors or ().
    """

    energy: Float[Tensor, " r"]
    derivative: Float[Tensor, "r n d"]
    extra: tuple


class Objective(NamedTuple):
    """What is minimized: a discrete energy on a fixed mesh.

    Attributes:
        energy: the energy, for its exact Hessian.
        evaluate: its value and derivative, row by row, by cheaper means.
        profile: the reference profile of constant speed, 1 / N everywhere.
        samples: points at which either is evaluated, per row.
    """

    energy: PathEnergy
    evaluate: Callable[[Tensor], Evaluation]
    profile: Float[Tensor, "s g"]
    samples: int


class DescentState(NamedTuple):
    """All that a method knows of its rows, leading axis R throughout.

    Attributes:
        points: nodes.
        at: the energy there.
        memory: what the method remembers of earlier steps, a NamedTuple of tensors or ().
        estimate: the method's own estimate of the scale-free gradient.
        threshold: estimate under which the gradient is measured.
        gradient: scale-free gradient as last measured; infinite before.
        minimum: whether the exact Hessian was positive definite then.
        stalled: whether no step decreases the energy, or it is not finite.
        iterations: steps tried.
        jacobians: points at which the generator's value and derivatives were computed.
    """

    points: Float[Tensor, "r n d"]
    at: Evaluation
    memory: tuple
    estimate: Float[Tensor, " r"]
    threshold: Float[Tensor, " r"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]
    iterations: Int[Tensor, " r"]
    jacobians: Int[Tensor, " r"]


def equal_arc_nodes(
    metric: Metric, starts: list[Curve], degree: int, num_segments: int
) -> tuple[Float[Tensor, "r n d"], Int[Tensor, " r"]]:
    """Nodes of elements of equal Riemannian length on all starting curves, ``(S B, N p + 1, d)``.

    The second answer is the cost: 4 norms per element of a starting curve, cut to N elements or more.
    """
    parts, costs = [], []
    for curve in starts:
        curve = curve.with_segments(num_segments)
        cells = element_speeds(metric, curve, (np.arange(_CELLS) + 0.5) / _CELLS)[0].flatten(1)
        cells = torch.where(cells.sum(1, keepdim=True) > 0, cells, torch.ones_like(cells))
        arc = torch.cat([torch.zeros_like(cells[:, :1]), cells.cumsum(1)], dim=1)
        inner = torch.arange(_CELLS, dtype=arc.dtype, device=arc.device) / _CELLS
        width = curve.knots[:, 1:] - curve.knots[:, :-1]
        times = torch.cat([(curve.knots[:, :-1, None] + width[..., None] * inner).flatten(1), curve.knots[:, -1:]], 1)
        parts.append(equal_mixed_nodes(curve, arc / arc[:, -1:], times, degree, num_segments))
        costs.append(torch.full_like(parts[-1][:, 0, 0], cells.shape[1], dtype=torch.long))
    return torch.cat(parts), torch.cat(costs)


def path_objective(metric: Metric, elements: Elements, num_segments: int) -> Objective:
    """The unweighted path energy, with its derivative by one reverse-mode pass for all rows."""
    energy = metric.path_energy(elements)

    def value(points: Tensor) -> tuple[Tensor, Tensor]:
        rows, _ = energy.value(points, None)
        return rows.sum(), rows  # the sum couples nothing: its derivative in a row is that of the row

    def evaluate(points: Tensor) -> Evaluation:
        derivative, rows = grad(value, has_aux=True)(points)
        return Evaluation(rows, fixed_ends(derivative[:, 1:-1]), ())

    even = torch.full_like(elements.weights.expand(num_segments, -1), 1 / num_segments)
    return Objective(energy, evaluate, even, energy.samples(num_segments))


def fixed_ends(inner: Float[Tensor, "r m d"]) -> Float[Tensor, "r n d"]:
    """Values at the interior nodes, with zeros added for the two ends, which stay."""
    return torch.nn.functional.pad(inner, (0, 0, 1, 1))


def descend(
    objective: Objective,
    step: Callable[[DescentState], DescentState],
    points: Float[Tensor, "r n d"],
    memory: tuple,
    spent: Int[Tensor, " r"],
    tol: float,
    max_iter: int,
) -> Ended:
    """Iterate ``step`` on every row until its own stop.

    Args:
        objective: the discrete energy.
        step: one iteration of all rows that it is given.
        points: start ``(R, N p + 1, d)``.
        memory: what the method starts with, leading axis R.
        spent: points at which derivatives were computed before.
        tol: tolerance on the scale-free gradient.
        max_iter: iterations per row.

    Returns:
        The rows as they end; no row depends on another.
    """
    state = _start(objective, points, memory, spent, tol)
    # A start that is stationary already is left as it is.
    _measure(objective, state, (~state.stalled).nonzero()[:, 0])
    for _ in range(max_iter):
        rows = (~((state.gradient <= tol) | state.stalled)).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        write(state, rows, step(take(state, rows)))
        _measure(objective, state, rows[state.estimate[rows] <= state.threshold[rows]])
    _measure(objective, state, (~(state.gradient <= tol) & state.at.energy.isfinite()).nonzero()[:, 0])
    return Ended(
        state.points,
        (2 * state.at.energy).sqrt(),
        state.gradient,
        state.minimum,
        state.stalled,
        state.iterations,
        state.jacobians,
        torch.zeros_like(state.iterations),
    )


def _start(objective: Objective, points: Tensor, memory: tuple, spent: Tensor, tol: float) -> DescentState:
    at = objective.evaluate(points)
    infinite = torch.full_like(at.energy, torch.inf)
    lost = ~(at.energy.isfinite() & at.derivative.isfinite().all(2).all(1))
    count = torch.zeros_like(lost, dtype=torch.long)
    return DescentState(
        points.clone(),
        at,
        memory,
        infinite,
        torch.full_like(infinite, tol),
        infinite.clone(),
        torch.zeros_like(lost),
        lost,
        count,
        spent + objective.samples,
    )


def _measure(objective: Objective, state: DescentState, rows: Tensor) -> None:
    """Measure the scale-free gradient of some rows, in place; it waits then for their estimate to fall."""
    if rows.numel() == 0:
        return
    points = state.points[rows]
    profile = objective.profile.repeat(len(points), 1, 1)
    state.gradient[rows], state.minimum[rows] = newton_decrement(objective.energy, points, profile)
    state.threshold[rows] = torch.minimum(state.threshold[rows], _FALL * state.estimate[rows])
    state.jacobians[rows] += objective.samples


def line_search(
    objective: Objective, state: DescentState, direction: Float[Tensor, "r n d"], scale: Float[Tensor, " r"]
) -> tuple[DescentState, Bool[Tensor, " r"]]:
    """Backtrack from ``scale`` times the direction to sufficient decrease (Armijo), row by row.

    Returns:
        The state with the accepted points and the energy there, the estimate ``sqrt(-g^T direction / 2 E)``
        taken before the step, and the work counted; and whether a step was accepted.
    """
    slope = (state.at.derivative * direction).sum((1, 2))
    rounding = 4 * torch.finfo(slope.dtype).eps * state.at.energy
    accepted = torch.zeros_like(state.stalled)
    state = state._replace(
        estimate=(-slope / (2 * state.at.energy)).clamp(min=0).sqrt(), iterations=state.iterations + 1
    )
    rows = (slope <= 0).nonzero()[:, 0]
    for _ in range(_LINE_SEARCH):
        if rows.numel() == 0:
            break
        points = state.points[rows] + scale[rows, None, None] * direction[rows]
        trial = objective.evaluate(points)
        bound = state.at.energy[rows] + _ARMIJO * scale[rows] * slope[rows] + rounding[rows]
        good = (trial.energy <= bound) & trial.derivative.isfinite().all(2).all(1)
        state.jacobians[rows] += objective.samples
        state.points[rows[good]] = points[good]
        write(state.at, rows[good], take(trial, good.nonzero()[:, 0]))
        accepted[rows] = good
        rows = rows[~good]
        scale = scale.index_copy(0, rows, _BACKTRACK * scale[rows])
    return state, accepted
