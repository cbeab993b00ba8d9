"""Boundary-value collocation through SciPy, as in the paper: one problem at a time, a reference."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_bvp
from torch import Tensor

from geodesics.batches.arguments import check_count, check_counts, check_sizes
from geodesics.curves.curve import Curve
from geodesics.curves.elements import make_elements
from geodesics.curves.quintics import QUINTIC, hermite
from geodesics.generators.derivatives import derivative_of_map
from geodesics.metrics.metric import Metric
from geodesics.minimization.newton import newton_decrement
from geodesics.solvers.certificate import Ended, certified_result
from geodesics.solvers.descent import equal_arc_nodes
from geodesics.solvers.solution import GeodesicResult

# SciPy's statuses, and one for a problem on which it raises.
_SOLVED, _TOO_MANY_NODES, _LOST = 0, 1, 3


@dataclass(frozen=True)
class CollocationSolver:
    """SciPy's ``solve_bvp`` on ``c'' = a(c, c')``, as in Arvanitidis, Hansen and Hauberg (2018).

    Fourth-order collocation on a mesh that SciPy adapts (Kierzenka and Shampine 2001), with exact Jacobians
    of the ODE. The answer is the piecewise quintic through positions, velocities and accelerations at SciPy's
    nodes. Only a solution whose energy is stationary and minimal counts as converged: the ODE of a ReLU
    decoder has straight solutions that are not geodesics.

    SciPy works in double precision on the CPU, one problem after another: a reference, not for batches. In
    float32 ask for a tol of 1e-3. Cost per node and iteration of SciPy's Newton: ``2 d`` tangents of
    accelerations for the Jacobian and some accelerations for the residuals, all counted in ``jacobians``.

    Args:
        num_segments: elements of the first mesh.
        max_nodes: most nodes that SciPy's mesh may have; a problem that asks for more ends as MAX_ITER.
        tol: SciPy's tolerance, on the relative residual of the ODE.
        gradient_tol: tolerance on the scale-free gradient of the path energy of the answer.
        length_tol: as in `EnergySolver`.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 16
    max_nodes: int = 1000
    tol: float = 1e-6
    gradient_tol: float = 1e-5
    length_tol: float = 1e-3

    def __post_init__(self) -> None:
        check_counts(self, "num_segments")
        check_count("max_nodes", self.max_nodes, self.num_segments + 1)
        check_sizes(self, "tol", "gradient_tol", "length_tol")

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Solve from all starts, one by one; the shortest certified curve of every problem wins."""
        nodes, spent = equal_arc_nodes(metric, starts, 1, self.num_segments)
        found = [_solve_one(metric, row, self) for row in nodes]
        count = max(one.curve.num_segments for one in found)
        curves = [one.curve.with_segments(count) for one in found]
        points = torch.cat([curve.points for curve in curves])
        elements = make_elements(QUINTIC, QUINTIC + 1, points)
        energy = metric.path_energy(elements)
        _, speed = energy.value(points, None)
        gradient = torch.full_like(points[:, 0, 0], torch.inf)
        minimum = gradient < 0
        rows = speed.isfinite().all(2).all(1).nonzero()[:, 0]
        if rows.numel():
            gradient[rows], minimum[rows] = newton_decrement(energy, points[rows], None)

        def column(values: list) -> Tensor:
            return torch.tensor(values, device=points.device)

        code = column([one.code for one in found])
        ended = Ended(
            points,
            (speed @ elements.weights).sum(1),
            gradient,
            minimum,
            code != _TOO_MANY_NODES,
            column([one.iterations for one in found]),
            spent + column([one.accelerations for one in found]) + energy.samples(count),
            torch.full_like(code, energy.samples(count)),
        )
        # What SciPy gave up is not converged, whatever its gradient.
        tol = torch.where(code == _SOLVED, self.gradient_tol, -1.0)
        return certified_result(metric, ended, QUINTIC, len(starts[0]), tol, self.length_tol)


class _Found(NamedTuple):
    """One solved problem: its curve, SciPy's status, iterations, accelerations computed."""

    curve: Curve
    code: int
    iterations: int
    accelerations: int


def _solve_one(metric: Metric, nodes: Tensor, options: CollocationSolver) -> _Found:
    """One problem from the nodes ``(n, d)`` of its starting curve; that curve itself where SciPy raises."""
    ode = _GeodesicODE(metric, nodes)
    z = nodes.double().cpu().numpy()
    ends = _Ends(z[0], z[-1])
    t = np.linspace(0, 1, len(z))
    state = np.concatenate([z, np.gradient(z, t, axis=0)], axis=1).T
    code, iterations = _LOST, 0
    try:
        with np.errstate(all="ignore"):
            solution = solve_bvp(
                ode,
                ends,
                t,
                state,
                fun_jac=ode.jacobian,
                bc_jac=ends.jacobian,
                tol=options.tol,
                max_nodes=options.max_nodes,
            )
        code, iterations, t, state = solution.status, solution.niter, solution.x, solution.y
    except FloatingPointError:
        pass
    points, v = torch.as_tensor(state.T).to(nodes).chunk(2, dim=1)
    points = torch.cat([nodes[:1], points[1:-1], nodes[-1:]])
    a = metric.acceleration(points, v)
    curve = hermite(points[None], v[None], a[None], torch.as_tensor(np.diff(t)).to(nodes)[None])
    return _Found(curve, code, iterations, ode.accelerations + len(points))


class _GeodesicODE:
    """The first-order ODE on columns ``(z, v)`` ``(2 d, m)``, as SciPy calls it; counts accelerations."""

    def __init__(self, metric: Metric, like: Tensor) -> None:
        self.metric, self.like, self.accelerations = metric, like, 0

    def __call__(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        state = self._state(y)
        self.accelerations += len(state)
        return self._field(state).mT.double().cpu().numpy()

    def jacobian(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Derivatives ``(2 d, 2 d, m)``, by vmapped forward mode; finite differences would drown in float32.

        SciPy asks for them at accepted iterates only, and would go on with NaN to its last node.
        """
        state = self._state(y)
        self.accelerations += state.numel()
        derivatives = derivative_of_map(self._field, state).permute(2, 0, 1).detach().double().cpu().numpy()
        if not np.isfinite(derivatives).all():
            raise FloatingPointError("the geodesic ODE is not finite here")
        return derivatives

    def _state(self, y: np.ndarray) -> Tensor:
        return torch.as_tensor(y.T).to(self.like)

    def _field(self, state: Tensor) -> Tensor:
        z, v = state.chunk(2, dim=1)
        return torch.cat([v, self.metric.acceleration(z, v)], dim=1)


class _Ends:
    """Boundary conditions ``z(0) = z0`` and ``z(1) = z1``."""

    def __init__(self, z0: np.ndarray, z1: np.ndarray) -> None:
        self.ends = z0, z1

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        d = len(self.ends[0])
        return np.concatenate([left[:d] - self.ends[0], right[:d] - self.ends[1]])

    def jacobian(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Constant derivatives in the states at both ends."""
        one, zero = np.eye(len(left)), np.zeros((len(left), len(left)))
        d = len(left) // 2
        zero_left, zero_right = zero.copy(), zero.copy()
        zero_left[:d], zero_right[d:] = one[:d], one[:d]
        return zero_left, zero_right
