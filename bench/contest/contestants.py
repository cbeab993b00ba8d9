"""Who competes: every solver of the library from every start, and the peers that are installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from bench.contest.time_limit import TimedMetric
from bench.peers.geomstats_paths import boundary_value, straightened
from bench.peers.stochman_splines import stochman_geodesics
from bench.problems.closed_forms import closed_forms
from bench.problems.problem_set import QUICK_SOLVER, ProblemSet
from geodesics import (
    AdamSolver,
    CollocationSolver,
    Curve,
    EnergySolver,
    GeorceSolver,
    GraphPaths,
    InitialCurves,
    LBFGSSolver,
    Metric,
    ShootingSolver,
    Solver,
    Status,
    Straight,
    geodesic,
)

if find_spec("jax") is not None:
    from bench.peers.georce_jax import PORTED, georce_geodesics


class Answer(NamedTuple):
    """What a contestant says of B problems.

    Attributes:
        curve: the curves.
        length: their lengths as reported, NaN where it reports none, ``(B,)``.
        length_error: the reported error estimates, NaN where it reports none, ``(B,)``.
        converged: whether it claims convergence, ``(B,)``.
        status: one word per problem.
        jacobians: generator values with derivatives, ``(B,)``; None where they are not counted.
        values: generator values alone, ``(B,)``; None where they are not counted.
    """

    curve: Curve
    length: Tensor
    length_error: Tensor
    converged: Tensor
    status: list[str]
    jacobians: Tensor | None
    values: Tensor | None


class Contestant(NamedTuple):
    """A solver from a start.

    Attributes:
        name: for the table.
        solve: answers a set of problems, asking the metric given with it: the set's own with a clock on it.
        graph: the graph of the data that it starts from, built when first asked for; None where it needs none.
        one_by_one: whether it solves a batch problem after problem, so that its rate is that of a part.
        problems: names of the sets that it can be run on; None for all.
    """

    name: str
    solve: Callable[[ProblemSet, TimedMetric], Answer]
    graph: Callable[[ProblemSet], GraphPaths] | None = None
    one_by_one: bool = False
    problems: frozenset[str] | None = None

    def applies(self, problems: ProblemSet) -> bool:
        """Whether it can be run on a set."""
        known = self.problems is None or problems.name in self.problems
        return known and (self.graph is None or problems.graph is not None)


# Points of the curves that a peer found, and which of them it says have converged.
PeerSolver = Callable[[ProblemSet, TimedMetric], tuple[Tensor, Tensor]]


def contestants() -> dict[str, Contestant]:
    """All that can be run here: ``solver/straight`` everywhere, ``solver/graph`` where there is data."""
    solvers: dict[str, Solver] = {
        "energy": EnergySolver(),
        "energy-4": EnergySolver(num_segments=4),
        "shooting": ShootingSolver(),
        "georce": GeorceSolver(),
        "lbfgs": LBFGSSolver(),
        "adam": AdamSolver(),
        "collocation": CollocationSolver(),
    }
    starts = (None, _graph)
    found = [_ours(name, solver, graph) for name, solver in solvers.items() for graph in starts]
    # Many lengths, to a percent or two on learned metrics, to a hundredth on smooth ones: docs, many pairs.
    found.append(_ours("energy-quick", QUICK_SOLVER, _quick_graph))
    smooth = EnergySolver(num_segments=1, degree=5, num_samples=8, length_tol=1e-4, tol=1e-3)
    found.append(_ours("energy-quick", smooth, None)._replace(problems=frozenset(closed_forms())))
    found += peers()
    return {contestant.name: contestant for contestant in found}


def peers() -> list[Contestant]:
    """The peers that are installed, each from straight lines."""
    found = []
    if find_spec("stochman") is not None:
        found.append(_peer("stochman", stochman_geodesics))
    if find_spec("jax") is not None:
        found.append(_peer("georce-jax", georce_geodesics, problems=PORTED))
    if find_spec("geomstats") is not None:
        found.append(_peer("geomstats-straightening", straightened, one_by_one=True))
        found.append(_peer("geomstats-bvp", boundary_value, one_by_one=True))
    return found


def missing_peers() -> list[str]:
    """Packages of peers that are not installed."""
    return [name for name in ("stochman", "jax", "geomstats") if find_spec(name) is None]


def _graph(problems: ProblemSet) -> GraphPaths:
    assert problems.graph is not None
    return problems.graph()


def _quick_graph(problems: ProblemSet) -> GraphPaths:
    assert problems.quick_graph is not None
    return problems.quick_graph()


def _ours(name: str, solver: Solver, graph: Callable[[ProblemSet], GraphPaths] | None) -> Contestant:
    def solve(problems: ProblemSet, metric: TimedMetric) -> Answer:
        return _answer(metric, problems, solver, Straight() if graph is None else graph(problems))

    one_by_one = isinstance(solver, CollocationSolver)
    return Contestant(f"{name}/{'straight' if graph is None else 'graph'}", solve, graph, one_by_one)


def _answer(metric: Metric, problems: ProblemSet, solver: Solver, initial: InitialCurves) -> Answer:
    result = geodesic(metric, problems.z0, problems.z1, solver=solver, initial=initial)
    return Answer(
        result.curve,
        result.length,
        result.length_error,
        result.converged,
        [Status(code).name for code in result.status.tolist()],
        result.jacobians,
        result.values,
    )


def _peer(name: str, solve: PeerSolver, one_by_one: bool = False, problems: frozenset[str] | None = None) -> Contestant:
    def answer(part: ProblemSet, metric: TimedMetric) -> Answer:
        points, converged = solve(part, metric)
        unknown = torch.full_like(part.best, torch.nan)
        words = ["converged" if yes else "not converged" for yes in converged.tolist()]
        return Answer(Curve(points), unknown, unknown, converged, words, None, None)

    return Contestant(f"{name}/straight", answer, None, one_by_one, problems)
