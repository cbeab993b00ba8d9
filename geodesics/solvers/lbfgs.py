"""L-BFGS on the discrete path energy, every problem with its own history, step and stop.

`torch.optim.LBFGS` sees one vector: one history, one step length and one stop for the whole batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements, make_elements
from geodesics.metrics.metric import Metric
from geodesics.solvers.certificate import certified_result
from geodesics.solvers.descent import DescentState, descend, equal_arc_nodes, line_search, path_objective
from geodesics.solvers.solution import GeodesicResult

# No node moves more than this share of the curve's own latent length in one step.
_MAX_STEP_SHARE = 0.05
# Pairs of less curvature than this, relative to their own length, are not remembered.
_CURVATURE = 1e-10


@dataclass(frozen=True)
class LBFGSSolver:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with a backtracking line search per problem.

    Minimizes ``1/2 int c'^T M c' dt`` over piecewise polynomials of a fixed mesh, from the energy and its
    gradient only. The first guess of the inverse Hessian is that of the Euclidean energy, ``gamma K^{-1}``
    with K the elements' stiffness matrix, so that the iterations do not grow with the mesh.

    The length is of order ``N^(-2 p)`` on smooth metrics. Cost: ``N m`` generator values and gradients per
    iteration and trial.

    Args:
        num_segments: N, elements per curve.
        degree: p, as in `EnergySolver`.
        num_samples: m, as in `EnergySolver`.
        history: pairs remembered.
        max_iter: iterations per problem.
        tol: as in `EnergySolver`.
        length_tol: as in `EnergySolver`.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 16
    degree: int = 3
    num_samples: int = 6
    history: int = 10
    max_iter: int = 500
    tol: float | None = None
    length_tol: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, "num_segments", "degree", "history", "max_iter")
        check_not_below(self, "num_samples", "degree")
        check_sizes(self, "tol", "length_tol")

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimize from all starts; the shortest certified curve of every problem wins."""
        points, spent = equal_arc_nodes(metric, starts, self.degree, self.num_segments)
        elements = make_elements(self.degree, self.num_samples, points)
        objective = path_objective(metric, elements, self.num_segments)
        inverse = _inverse_stiffness(elements, self.num_segments)
        tol = self.tol or torch.finfo(points.dtype).eps ** 0.375

        def step(state: DescentState) -> DescentState:
            memory: _Memory = state.memory  # type: ignore[assignment]
            points, derivative = state.points.clone(), state.at.derivative.clone()
            latent = points.diff(dim=1).norm(dim=-1).sum(1)
            fresh = (memory.weight == 0).all(1)
            # Before any pair: the mean stiffness of the metric along the curve, per element.
            mean = latent.square() / (2 * self.num_segments * state.at.energy)
            memory = memory._replace(scale=torch.where(fresh, mean, memory.scale))
            direction = _direction(derivative, memory, inverse)
            room = (_MAX_STEP_SHARE * latent / direction.norm(dim=-1).amax(1)).clamp(max=1)
            state, accepted = line_search(objective, state, direction, room)
            memory = _remember(memory, state.points - points, state.at.derivative - derivative, inverse)
            # A failed step is tried once more with the history forgotten.
            weight = torch.where(accepted[:, None], memory.weight, 0.0)
            return state._replace(memory=memory._replace(weight=weight), stalled=~accepted & fresh)

        memory = _nothing(points, self.history)
        ended = descend(objective, step, points, memory, spent, tol, self.max_iter)
        return certified_result(metric, ended, self.degree, len(starts[0]), tol, self.length_tol)


class _Memory(NamedTuple):
    """The last m pairs of rows of points, oldest first.

    Attributes:
        step: s, the change of the points, ``(R, m, n, d)``.
        change: y, that of the derivative.
        weight: ``1 / <s, y>``, zero where there is no pair, ``(R, m)``.
        scale: gamma, factor of the first guess, ``(R,)``.
    """

    step: Float[Tensor, "r m n d"]
    change: Float[Tensor, "r m n d"]
    weight: Float[Tensor, "r m"]
    scale: Float[Tensor, " r"]


def _nothing(points: Tensor, history: int) -> _Memory:
    pairs = points.new_zeros(len(points), history, *points.shape[1:])
    return _Memory(pairs, pairs.clone(), pairs[:, :, 0, 0].clone(), points.new_ones(len(points)))


def _remember(memory: _Memory, step: Tensor, change: Tensor, inverse: Tensor) -> _Memory:
    """Drop the oldest pair for a new one; one of no curvature takes a place and has no effect."""
    curvature = (step * change).sum((1, 2))
    curved = curvature > _CURVATURE * step.flatten(1).norm(dim=1) * change.flatten(1).norm(dim=1)
    scale = curvature / (change * (inverse @ change)).sum((1, 2))
    return _Memory(
        torch.cat([memory.step[:, 1:], step[:, None]], dim=1),
        torch.cat([memory.change[:, 1:], change[:, None]], dim=1),
        torch.cat([memory.weight[:, 1:], torch.where(curved, 1 / curvature, 0.0)[:, None]], dim=1),
        torch.where(curved, scale, memory.scale),
    )


def _direction(derivative: Tensor, memory: _Memory, inverse: Tensor) -> Tensor:
    """The two-loop recursion, all rows at once; its loops run over the history."""
    q, used = derivative, []
    for i in reversed(range(memory.weight.shape[1])):
        s, y, weight = memory.step[:, i], memory.change[:, i], memory.weight[:, i]
        share = (weight * (s * q).sum((1, 2)))[:, None, None]
        q = q - share * y
        used.append(share)
    r = memory.scale[:, None, None] * (inverse @ q)
    for i, share in enumerate(reversed(used)):
        s, y, weight = memory.step[:, i], memory.change[:, i], memory.weight[:, i]
        r = r + s * (share - (weight * (y * r).sum((1, 2)))[:, None, None])
    return -r


def _inverse_stiffness(elements: Elements, num_segments: int) -> Tensor:
    """Inverse of the stiffness matrix ``int phi_i' phi_j' du``, zero at the two ends, ``(n, n)``."""
    slopes, degree = elements.quadrature_slopes, elements.degree
    local = slopes.mT @ (elements.weights[:, None] * slopes)
    size = num_segments * degree + 1
    stiffness = slopes.new_zeros(size, size)
    for i in range(num_segments):
        at = slice(i * degree, (i + 1) * degree + 1)
        stiffness[at, at] += local
    inverse = torch.zeros_like(stiffness)
    inverse[1:-1, 1:-1] = torch.linalg.inv(stiffness[1:-1, 1:-1])
    return inverse
