"""Adam on the discrete path energy: the baseline that most people use."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.batches.rows import write
from geodesics.curves.curve import Curve
from geodesics.curves.elements import make_elements
from geodesics.metrics.metric import Metric
from geodesics.solvers.certificate import certified_result
from geodesics.solvers.descent import DescentState, descend, equal_arc_nodes, path_objective
from geodesics.solvers.solution import GeodesicResult

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Iterations between two measurements of the scale-free gradient: Adam has no cheap estimate of its own.
_CHECK = 50


@dataclass(frozen=True)
class AdamSolver:
    """Adam (Kingma and Ba 2015, algorithm 1) with a fixed learning rate, stopped problem by problem.

    Minimizes ``1/2 int c'^T M c' dt`` over piecewise polynomials of a fixed mesh; by default the chord energy
    of a polyline, ``N / 2 sum ||F(z_{i+1}) - F(z_i)||^2``. Adam works on each coordinate by itself, so
    problems do not mix. A baseline to compare with: it reaches the tolerance in hundreds to thousands of
    iterations where the rate suits the problem, and not at all where it does not; the chord energy can jump a
    wall between two nodes, which the certified length then shows.

    The length is of order ``N^(-2 p)`` on smooth metrics. Cost: ``N m`` generator values and gradients per
    iteration.

    Args:
        num_segments: N, elements per curve.
        degree: p, as in `EnergySolver`.
        num_samples: m, as in `EnergySolver`.
        learning_rate: in latent units; about the distance that a node moves in one iteration.
        max_iter: iterations per problem.
        tol: as in `EnergySolver`.
        length_tol: as in `EnergySolver`.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 64
    degree: int = 1
    num_samples: int = 1
    learning_rate: float = 1e-3
    max_iter: int = 2000
    tol: float = 1e-3
    length_tol: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, "num_segments", "degree", "max_iter")
        check_not_below(self, "num_samples", "degree")
        check_sizes(self, "learning_rate", "tol", "length_tol")

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimize from all starts; the shortest certified curve of every problem wins."""
        points, spent = equal_arc_nodes(metric, starts, self.degree, self.num_segments)
        elements = make_elements(self.degree, self.num_samples, points)
        objective = path_objective(metric, elements, self.num_segments)

        def step(state: DescentState) -> DescentState:
            state, points = _adam(state, self.learning_rate)
            at = objective.evaluate(points)
            usable = at.energy.isfinite() & at.derivative.isfinite().all(2).all(1)
            rows = usable.nonzero()[:, 0]
            state.points[rows] = points[rows]
            write(state.at, rows, type(at)(at.energy[rows], at.derivative[rows], ()))
            due = state.iterations % _CHECK == 0
            return state._replace(
                estimate=torch.where(due, 0.0, torch.inf).to(at.energy),
                stalled=~usable,
                jacobians=state.jacobians + objective.samples,
            )

        memory = _Moments(torch.zeros_like(points), torch.zeros_like(points))
        ended = descend(objective, step, points, memory, spent, self.tol, self.max_iter)
        return certified_result(metric, ended, self.degree, len(starts[0]), self.tol, self.length_tol)


class _Moments(NamedTuple):
    """Running means of the derivative and of its square, ``(R, n, d)``."""

    first: Tensor
    second: Tensor


def _adam(state: DescentState, learning_rate: float) -> tuple[DescentState, Tensor]:
    """The state with new moments, and the next points."""
    g, (m, v) = state.at.derivative, state.memory
    m, v = _BETA1 * m + (1 - _BETA1) * g, _BETA2 * v + (1 - _BETA2) * g.square()
    count = state.iterations + 1
    bias1, bias2 = (1 - torch.pow(beta, count.to(g))[:, None, None] for beta in (_BETA1, _BETA2))
    points = state.points - learning_rate * (m / bias1) / ((v / bias2).sqrt() + _EPSILON)
    return state._replace(memory=_Moments(m, v), iterations=count), points
