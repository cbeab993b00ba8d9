"""L-BFGS on the discrete path energy, every problem with its own history, step and stop.

`torch.optim.LBFGS` sees one vector: one history, one step length and one stop for the whole batch.
"""

from dataclasses import dataclass

import torch

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.curves.curve import Curve
from geodesics.curves.elements import make_elements
from geodesics.matrix_free.quasi_newton import (
    Memory,
    inverse_stiffness,
    nothing,
    quasi_newton_direction,
    remember,
)
from geodesics.metrics.metric import Metric
from geodesics.solvers.certificate import certified_result
from geodesics.solvers.descent import DescentState, descend, equal_arc_nodes, line_search, path_objective
from geodesics.solvers.solution import GeodesicResult

# No node moves more than this share of the curve's own latent length in one step.
_MAX_STEP_SHARE = 0.05


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
        even = torch.ones_like(elements.weights).expand(self.num_segments, -1)
        precondition = inverse_stiffness(elements, even).matmul
        tol = self.tol or torch.finfo(points.dtype).eps ** 0.375

        def step(state: DescentState) -> DescentState:
            memory: Memory = state.memory  # type: ignore[assignment]
            points, derivative = state.points.clone(), state.at.derivative.clone()
            latent = points.diff(dim=1).norm(dim=-1).sum(1)
            fresh = (memory.weight == 0).all(1)
            # Before any pair: the mean stiffness of the metric along the curve, per element.
            mean = latent.square() / (2 * self.num_segments * state.at.energy)
            memory = memory._replace(scale=torch.where(fresh, mean, memory.scale))
            direction = quasi_newton_direction(derivative, memory, precondition)
            room = (_MAX_STEP_SHARE * latent / direction.norm(dim=-1).amax(1)).clamp(max=1)
            state, accepted = line_search(objective, state, direction, room)
            memory = remember(memory, state.points - points, state.at.derivative - derivative, precondition)
            # A failed step is tried once more with the history forgotten.
            weight = torch.where(accepted[:, None], memory.weight, 0.0)
            return state._replace(memory=memory._replace(weight=weight), stalled=~accepted & fresh)

        memory = nothing(points, self.history)
        ended = descend(objective, step, points, memory, spent, tol, self.max_iter)
        return certified_result(metric, ended, self.degree, len(starts[0]), tol, self.length_tol)
