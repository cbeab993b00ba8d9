"""Who competes: every solver of the library from every start, and the peers that are installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from bench.clock import TimedMetric
from bench.peers import stochman_geodesics
from bench.problem_set import ProblemSet
from geodesics import (
    AdamSolver,
    CollocationSolver,
    Curve,
    EnergySolver,
    GeorceSolver,
    InitialCurves,
    LBFGSSolver,
    Metric,
    ShootingSolver,
    Solver,
    Status,
    Straight,
    geodesic,
)


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
        from_graph: whether it starts from the graph of the data, and so needs one.
    """

    name: str
    solve: Callable[[ProblemSet, TimedMetric], Answer]
    from_graph: bool

    def applies(self, problems: ProblemSet) -> bool:
        """Whether it can be run on a set."""
        return not self.from_graph or problems.graph is not None


def contestants() -> dict[str, Contestant]:
    """All that can be run here: ``solver/straight`` everywhere, ``solver/graph`` where there is data."""
    solvers: dict[str, Solver] = {
        "energy": EnergySolver(),
        "shooting": ShootingSolver(),
        "georce": GeorceSolver(),
        "lbfgs": LBFGSSolver(),
        "adam": AdamSolver(),
        "collocation": CollocationSolver(),
    }
    found = [_ours(name, solver, graph) for name, solver in solvers.items() for graph in (False, True)]
    if find_spec("stochman") is not None:
        found.append(Contestant("stochman/straight", _stochman, from_graph=False))
    return {contestant.name: contestant for contestant in found}


def _ours(name: str, solver: Solver, from_graph: bool) -> Contestant:
    def solve(problems: ProblemSet, metric: TimedMetric) -> Answer:
        initial: InitialCurves = Straight()
        if from_graph:
            assert problems.graph is not None
            initial = problems.graph()
        return _answer(metric, problems, solver, initial)

    return Contestant(f"{name}/{'graph' if from_graph else 'straight'}", solve, from_graph)


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


def _stochman(problems: ProblemSet, metric: TimedMetric) -> Answer:
    points, converged = stochman_geodesics(problems, metric)
    unknown = torch.full_like(problems.best, torch.nan)
    words = ["converged" if yes else "not converged" for yes in converged.tolist()]
    return Answer(Curve(points), unknown, unknown, converged, words, None, None)
