"""Geodesics by direct minimization of the curve energy: adaptive meshes around damped Newton.

One level of resolution is one batch. A problem starts at the coarsest level that sees what lies along its initial
curve, is minimized there, gets its nodes moved where the curve needs them, and is measured by an independent
quadrature; it is done when the gradient and the length error are under their tolerances, and gets more elements where
they are needed otherwise. Of several starts of one problem the best pieces are put together first.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_counts, check_not_below, check_sizes
from geodesics.batches.rows import take
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements
from geodesics.metrics.metric import Metric
from geodesics.minimization.exploration import Explored, explore
from geodesics.minimization.levels import (
    Bursts,
    Discretization,
    Limits,
    Trials,
    discretize,
    element_counts,
    minimize_level,
    place_starts,
    refine,
)
from geodesics.minimization.newton import NewtonState
from geodesics.solvers.certificate import certify
from geodesics.solvers.solution import GeodesicResult, Status


@dataclass(frozen=True)
class EnergySolver:
    """Options of the energy minimizer.

    Args:
        num_segments: N of the coarsest mesh, elements per curve.
        max_segments: N of the finest mesh that may be used.
        degree: polynomial degree p of an element; the length is accurate to order ``N^(-2 p)`` on smooth metrics.
        num_samples: generator samples per element, m >= p. Twice the degree keeps walls visible (docs, how it works).
        tol: tolerance on the scale-free gradient; None for ``eps^(3/8)``, 1.4e-6 in float64: the
            relative length still to be gained is then under 1e-12.
        length_tol: tolerance on the length error estimate, relative to the length.
        max_iter: Newton steps per burst.
        max_meshes: bursts per level, each with a renewed profile, and with moved nodes where the mesh is distorted;
            more as long as they gain.

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
        check_counts(self, "num_segments", "degree", "max_iter", "max_meshes")
        check_not_below(self, "max_segments", "num_segments")
        check_not_below(self, "num_samples", "degree")
        check_sizes(self, "tol", "length_tol")

    def limits(self, dtype: torch.dtype) -> Limits:
        """What a level aims at, in a floating-point type."""
        tol = self.tol if self.tol is not None else torch.finfo(dtype).eps ** 0.375
        return Limits(tol, self.length_tol, self.max_iter, self.max_meshes)

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimize from the best pieces of all starts."""
        discretization = discretize(metric, self.degree, self.num_samples, starts[0].points)
        levels = element_counts(self.num_segments, self.max_segments)
        limits = self.limits(starts[0].points.dtype)
        explored = explore(metric, discretization, starts, levels, limits)
        finished = minimize_energy(metric, discretization, explored, levels, limits)
        return _collect(finished, explored, self)


class Minimized(NamedTuple):
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


def minimize_energy(
    metric: Metric, discretization: Discretization, explored: Explored, levels: list[int], limits: Limits
) -> list[Minimized]:
    """Minimize the energy from one start per problem.

    Args:
        metric: the Riemannian metric.
        discretization: what curves are made of.
        explored: starts.
        levels: numbers of elements of the levels of resolution.
        limits: what each level aims at.

    Returns:
        Finished curves, one entry per level of resolution, coarsest first, every problem in one of them.
    """
    elements, _, finer, _ = discretization
    waiting, placing = place_starts(discretization, [explored.curve], levels)
    finished: list[Minimized] = []
    for count in levels:
        if not waiting[count]:
            continue
        trials = Trials(*(torch.cat(field) for field in zip(*waiting[count], strict=True)))
        last = count == levels[-1]
        burst = minimize_level(discretization, trials, limits, last)
        measured = burst.speed @ finer.weights
        mismatch = (measured - burst.state.model.speed @ elements.weights).abs()
        length, error = measured.sum(1), mismatch.sum(1)
        # Only what looks resolved by twice as many samples is worth a certificate. A finer mesh answers an error of the
        # quadrature, never slow progress.
        promising = error <= limits.length_tol / 2 * length
        promising |= ~length.isfinite() | last
        rows, rest = promising.nonzero()[:, 0], (~promising).nonzero()[:, 0]
        if rest.numel():
            following = levels[levels.index(count) + 1]
            left = take(burst, rest)
            waiting[following].append(refine(elements, left.trials, left.state.model.speed, mismatch[rest], following))
        if rows.numel() == 0:
            continue
        done = _measure(metric, elements, take(burst, rows), limits)
        final = _resolved(done, limits) | ~(done.converged | done.settled) | ~done.length.isfinite() | last
        rows, rest = final.nonzero()[:, 0], (~final).nonzero()[:, 0]
        if rest.numel():
            following, more = levels[levels.index(count) + 1], take(done, rest)
            waiting[following].append(refine(elements, more.trials, more.speed, more.mismatch, following))
        finished.append(take(done, rows))
    for done in finished:
        done.trials.values.add_(placing[done.trials.problem])
    return finished


def _resolved(done: Minimized, limits: Limits) -> Tensor:
    return (done.converged | done.settled) & (done.length_error <= limits.length_tol * done.length)


def _measure(metric: Metric, elements: Elements, burst: Bursts, limits: Limits) -> Minimized:
    """Certify the lengths, and note where the certified ones differ from those in the discrete energy."""
    trials, state, _ = burst
    num_samples = max(elements.num_samples, elements.degree + 1)
    checked = certify(metric, trials.points, elements.degree, num_samples, (2 * state.model.energy).sqrt())
    spent = trials._replace(jacobians=trials.jacobians + checked.jacobians)
    return Minimized(
        spent,
        state.model.speed,
        (checked.element_length - state.model.speed @ elements.weights).abs(),
        checked.knots,
        checked.length,
        checked.error + _left_to_gain(state) * checked.length,
        state.decrement,
        state.minimum,
        state.converged,
        state.stalled,
        ~state.converged & (_left_to_gain(state) <= limits.length_tol),
    )


def _left_to_gain(state: NewtonState) -> Tensor:
    """Relative length that steps may still gain where they have not converged; more than the quadratic model says.

    Damped steps know only of what damping lets them see: measured on curves that were continued to the end, ten times
    the model's gain, or twenty steps like the last ones, cover what was left.
    """
    ahead = (5 * state.decrement.square()).maximum(20 * state.gain())
    return torch.where(state.converged, 0.0, ahead)


def status_of(done: Minimized, options: EnergySolver) -> Int[Tensor, " r"]:
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


def _collect(finished: list[Minimized], explored: Explored, options: EnergySolver) -> GeodesicResult:
    """The finished curves in the order of the problems, all on the finest mesh used, with the work of exploring."""
    order = torch.cat([done.trials.problem for done in finished]).argsort()
    finest = max(done.knots.shape[1] - 1 for done in finished)
    curves = [
        Curve.unchecked(done.trials.points, done.knots, options.degree).with_segments(finest) for done in finished
    ]

    def pick(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[order]

    length = pick([done.length for done in finished])
    return GeodesicResult(
        Curve.unchecked(
            pick([curve.points for curve in curves]), pick([curve.knots for curve in curves]), options.degree
        ),
        length,
        pick([done.length_error for done in finished]),
        length.square() / 2,
        pick([status_of(done, options) for done in finished]),
        pick([done.gradient for done in finished]),
        pick([done.minimum for done in finished]),
        explored.iterations + pick([done.trials.iterations for done in finished]),
        explored.jacobians + pick([done.trials.jacobians for done in finished]),
        explored.values + pick([done.trials.values for done in finished]),
        explored.start,
    )
