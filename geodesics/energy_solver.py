"""Geodesics by direct minimisation of the curve energy: adaptive meshes around damped Newton.

One level of resolution is one batch. A problem starts at the coarsest level that sees what lies along its initial
curve, is minimised there, gets its nodes moved where the curve needs them, and is measured by an independent
quadrature; it is done when the gradient and the length error are under their tolerances, and gets more elements where
they are needed otherwise. Several starts of one problem compete: what is clearly longer than the best is dropped early.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.certify import certify
from geodesics.curves import Curve
from geodesics.elements import Elements, make_elements
from geodesics.energy_levels import (
    Limits,
    Trials,
    element_counts,
    minimise_level,
    place_starts,
    refine,
    settled,
)
from geodesics.metrics import Metric
from geodesics.newton import NewtonState
from geodesics.options import require_at_least_one, require_not_below, require_positive
from geodesics.rows import take
from geodesics.solution import GeodesicResult, Status

# A start is dropped when this many times its error estimate below its length is still longer than the best.
_DOUBT = 2.0


@dataclass(frozen=True)
class EnergySolver:
    """Options of the energy minimiser.

    Args:
        num_segments: N of the coarsest mesh, elements per curve.
        max_segments: N of the finest mesh that may be used.
        degree: polynomial degree p of an element; the length is accurate to order ``N^(-2 p)`` on smooth metrics.
        num_samples: generator samples per element, m >= p. Twice the degree keeps walls visible (docs, how it works).
        tol: tolerance on the scale-free gradient; None for ``eps^(3/8)``, 1.4e-6 in float64: the
            relative length still to be gained is then under 1e-12.
        length_tol: tolerance on the length error estimate, relative to the length.
        max_iter: Newton steps per mesh.
        max_meshes: meshes tried per level.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 8
    max_segments: int = 128
    degree: int = 3
    num_samples: int = 6
    tol: float | None = None
    length_tol: float = 2e-3
    max_iter: int = 6
    max_meshes: int = 3

    def __post_init__(self) -> None:
        require_at_least_one(self, "num_segments", "degree", "max_iter", "max_meshes")
        require_not_below(self, "max_segments", "num_segments")
        require_not_below(self, "num_samples", "degree")
        require_positive(self, "tol", "length_tol")

    def limits(self, dtype: torch.dtype) -> Limits:
        """What a level aims at, in a floating-point type."""
        tol = self.tol if self.tol is not None else torch.finfo(dtype).eps ** 0.375
        return Limits(tol, self.length_tol, self.max_iter, self.max_meshes)

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimise from all starts; the shortest certified curve of every problem wins."""
        finished, placing = minimise_energy(metric, starts, self)
        return best_of(finished, placing, self)


class Minimised(NamedTuple):
    """Curves at the end of one level, measured."""

    trials: Trials
    speed: Float[Tensor, "r s g"]
    mismatch: Float[Tensor, "r s"]
    knots: Float[Tensor, "r k"]
    length: Float[Tensor, " r"]
    length_error: Float[Tensor, " r"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    converged: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]
    settled: Bool[Tensor, " r"]


def minimise_energy(
    metric: Metric, starts: list[Curve], options: EnergySolver
) -> tuple[list[Minimised], Int[Tensor, " b"]]:
    """Minimise the energy from every start of every problem.

    Args:
        metric: the Riemannian metric.
        starts: S batches of B initial curves.
        options: the solver.

    Returns:
        Finished curves, one entry per level of resolution, coarsest first, every problem in at least one of them;
        and the points at which the generator's value was computed to place the starts, per problem.
    """
    elements = make_elements(options.degree, options.num_samples, starts[0].points)
    path_energy = metric.path_energy(elements)
    levels = element_counts(options.num_segments, options.max_segments)
    limits = options.limits(starts[0].points.dtype)
    waiting, placing = place_starts(path_energy, elements, starts, levels)
    shortest = torch.full_like(starts[0].points[:, 0, 0], torch.inf)
    finished: list[Minimised] = []
    for count in sorted(waiting):
        if not waiting[count]:
            continue
        trials = Trials(*(torch.cat(field) for field in zip(*waiting[count], strict=True)))
        finest = count == levels[-1]
        trials, state, dropped = minimise_level(path_energy, elements, trials, limits, finest, shortest)
        done = _measure(metric, elements, trials, state, limits)
        upper = torch.where(done.length.isfinite(), done.length + done.length_error, torch.inf)
        shortest = shortest.scatter_reduce(0, trials.problem, upper, "amin")
        hopeless = done.length - _DOUBT * done.length_error > shortest[trials.problem]
        final = _resolved(done, options) | dropped | hopeless | ~done.length.isfinite()
        if not finest:
            rows = (~final).nonzero()[:, 0]
            if rows.numel():
                finer, left = levels[levels.index(count) + 1], take(done, rows)
                waiting[finer].append(refine(elements, left.trials, left.speed, left.mismatch, finer))
            done = take(done, final.nonzero()[:, 0])
        finished.append(done)
    return finished, placing


def _resolved(done: Minimised, options: EnergySolver) -> Tensor:
    return (done.converged | done.settled) & (done.length_error <= options.length_tol * done.length)


def _measure(
    metric: Metric, elements: Elements, trials: Trials, state: NewtonState, limits: Limits
) -> Minimised:
    """Certify the lengths, and note where the certified ones differ from those in the discrete energy."""
    num_samples = max(elements.num_samples, elements.degree + 1)
    checked = certify(metric, trials.points, elements.degree, num_samples, (2 * state.model.energy).sqrt())
    spent = trials._replace(
        jacobians=trials.jacobians + checked.jacobians, values=trials.values + checked.values
    )
    return Minimised(
        spent,
        state.model.speed,
        (checked.element_length - state.model.speed @ elements.weights).abs(),
        checked.knots,
        checked.length,
        checked.error,
        state.decrement,
        state.minimum,
        state.converged,
        state.stalled,
        settled(state, limits),
    )


def status_of(done: Minimised, options: EnergySolver) -> Int[Tensor, " r"]:
    """The `Status` of finished curves."""
    tol = options.limits(done.length.dtype).tol
    status = torch.full_like(done.trials.problem, int(Status.CONVERGED))
    verdicts = (
        (done.length_error > options.length_tol * done.length, Status.UNRESOLVED),
        (~done.converged, Status.MAX_ITER),
        (~done.converged & done.stalled, Status.STALLED),
        (done.settled & (done.length_error <= options.length_tol * done.length), Status.SETTLED),
        (~done.converged & ~done.minimum & (done.gradient <= 10 * tol), Status.NOT_MINIMUM),
        (~done.length.isfinite(), Status.FAILED),
    )
    for holds, verdict in verdicts:
        status = torch.where(holds, int(verdict), status)
    return status


def best_of(finished: list[Minimised], placing: Int[Tensor, " b"], options: EnergySolver) -> GeodesicResult:
    """The shortest finished curve of every problem, all on the finest mesh used, with the work of all its starts.

    Of curves as long as the shortest, which is where starts have met, one that has converged is taken.
    """
    num_problems = len(placing)
    lengths = torch.cat([done.length + done.length_error for done in finished]).nan_to_num(torch.inf)
    problem = torch.cat([done.trials.problem for done in finished])
    shortest = lengths.new_full((num_problems,), torch.inf).scatter_reduce(0, problem, lengths, "amin")
    equal = lengths <= (1 + options.limits(lengths.dtype).tol) * shortest[problem]
    converged = torch.cat([done.converged for done in finished])
    order = torch.argsort(torch.where(equal & converged, 0.0, lengths), stable=True)
    winner = torch.full((num_problems,), len(order), device=order.device)
    winner = winner.scatter_reduce(0, problem[order], torch.arange(len(order), device=order.device), "amin")
    chosen = order[winner]
    finest = max(done.knots.shape[1] - 1 for done in finished)
    curves = [Curve(done.trials.points, done.knots, options.degree).with_segments(finest) for done in finished]
    points = torch.cat([curve.points for curve in curves])[chosen]
    knots = torch.cat([curve.knots for curve in curves])[chosen]

    def total(name: str) -> Tensor:
        spent = torch.cat([getattr(done.trials, name) for done in finished])
        return torch.zeros(num_problems, dtype=spent.dtype, device=spent.device).scatter_add(0, problem, spent)

    def pick(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[chosen]

    length = pick([done.length for done in finished])
    return GeodesicResult(
        Curve(points, knots, options.degree),
        length,
        pick([done.length_error for done in finished]),
        length.square() / 2,
        pick([status_of(done, options) for done in finished]),
        pick([done.gradient for done in finished]),
        pick([done.minimum for done in finished]),
        total("iterations"),
        total("jacobians"),
        total("values") + placing,
        pick([done.trials.start for done in finished]),
    )
