"""GEORCE: geodesics as discrete optimal control, for any metric, with no chain of equations to solve."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from geodesics.batches.arguments import check_counts, check_sizes
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements
from geodesics.metrics.metric import Metric
from geodesics.metrics.tensor_energy import GeneralPathEnergy
from geodesics.solvers.certificate import certified_result
from geodesics.solvers.descent import (
    DescentState,
    Evaluation,
    Objective,
    descend,
    equal_arc_nodes,
    fixed_ends,
    line_search,
)
from geodesics.solvers.solution import GeodesicResult


@dataclass(frozen=True)
class GeorceSolver:
    """GEORCE (Rygaard and Hauberg 2025, arXiv 2505.05961), every problem with its own line search and stop.

    Minimizes ``E = sum_t u_t^T G(x_t) u_t`` over points x_0, ..., x_T with ``u_t = x_{t+1} - x_t``. With
    ``nu_t = grad_x [u_t^T G(x) u_t](x_t)`` one iteration is ``u_new = -1/2 G_t^{-1} mu_t``,
    ``mu_t = mu_{T-1} + sum_{j>t} nu_j``, mu_{T-1} such that the u_new reach the end, and a backtracking line
    search from u to u_new. Needs only ``metric.tensor`` and its gradient.

    The metric is taken at the left end of each element: points and energy are of order 1/T, the length of the
    curve found of order 1/T^2. The error estimate holds the distance to E's own length, of order 1/T.
    Cost: T metric tensors and gradients per iteration and trial.

    Args:
        num_segments: T.
        max_iter: iterations per problem.
        tol: as in `EnergySolver`, on the gradient of E.
        length_tol: as in `EnergySolver`.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 100
    max_iter: int = 500
    tol: float | None = None
    length_tol: float = 1e-2

    def __post_init__(self) -> None:
        check_counts(self, "num_segments", "max_iter")
        check_sizes(self, "tol", "length_tol")

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Iterate from all starts; the shortest certified curve of every problem wins."""
        points, spent = equal_arc_nodes(metric, starts, 1, self.num_segments)
        objective = _objective(metric, points)
        tol = self.tol or torch.finfo(points.dtype).eps ** 0.375

        def step(state: DescentState) -> DescentState:
            state, accepted = line_search(objective, state, _direction(state), torch.ones_like(state.estimate))
            return state._replace(stalled=~accepted)

        ended = descend(objective, step, points, (), spent, tol, self.max_iter)
        return certified_result(metric, ended, 1, len(starts[0]), tol, self.length_tol)


class _Controls(NamedTuple):
    """G_t ``(R, T, d, d)`` and nu_t ``(R, T, d)``."""

    tensor: Tensor
    pull: Tensor


def _objective(metric: Metric, points: Tensor) -> Objective:
    """The left-point energy times T / 2, which makes it a quadrature of ``1/2 int c'^T G c' dt``."""
    count = points.shape[1] - 1
    left = points.new_tensor([[1.0, 0.0]])
    slope = points.new_tensor([[-1.0, 1.0]])
    elements = Elements(1, 1, torch.eye(2).to(points), slope, left, slope, points.new_ones(1))

    def evaluate(points: Tensor) -> Evaluation:
        u = points.diff(dim=1)

        def energy(x: Tensor) -> tuple[Tensor, Tensor]:
            G = metric.tensor(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return torch.einsum("rti,rtij,rtj->", u, G, u), G

        nu, G = grad(energy, has_aux=True)(points[:, :-1])
        Gu = torch.einsum("rtij,rtj->rti", G, u)
        inner = nu[:, 1:] - 2 * Gu.diff(dim=1)
        scale = count / 2
        return Evaluation(scale * (u * Gu).sum((1, 2)), scale * fixed_ends(inner), _Controls(G, nu))

    even = points.new_full((count, 1), 1 / count)
    return Objective(GeneralPathEnergy(metric.tensor, elements), evaluate, even, count)


def _direction(state: DescentState) -> Tensor:
    """From the points to those of the new controls; NaN where some G_t is not positive definite."""
    controls: _Controls = state.at.extra  # type: ignore[assignment]
    L, info = torch.linalg.cholesky_ex(controls.tensor)
    usable = (info == 0).all(1)[:, None, None]
    # One factor with a zero on its diagonal raises for all.
    unit = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    inverse = torch.cholesky_inverse(torch.where(usable[..., None], L, unit))
    later = controls.pull.flip(1).cumsum(1).flip(1) - controls.pull
    chord = state.points[:, -1] - state.points[:, 0]
    load = 2 * chord + torch.einsum("rtij,rtj->ri", inverse, later)
    mu = later - torch.linalg.solve_ex(inverse.sum(1), load)[0][:, None]
    u = -torch.einsum("rtij,rtj->rti", inverse, mu) / 2
    direction = (u - state.points.diff(dim=1)).cumsum(1)
    return fixed_ends(torch.where(usable, direction[:, :-1], torch.nan))
