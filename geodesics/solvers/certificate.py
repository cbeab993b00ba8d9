"""From the last iterates of a solver to an answer that can be trusted: lengths, statuses, winners.

What a solver says of its own discrete energy is never reported as it is. The gradient is measured with the
exact Hessian, which also tells minima from saddles; the length comes from an independent quadrature.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.curves.elements import elevate, make_elements
from geodesics.metrics.lengths import KRONROD_POINTS, element_lengths
from geodesics.metrics.metric import Metric
from geodesics.minimization.newton import newton_decrement
from geodesics.solvers.solution import GeodesicResult, Status

# What all further degrees would save, over what the next one does, if each saves a third of the one before. Measured on
# decoders of 16 latents, curves that were continued fell by up to 1.2 times what the next degree would save.
_DEGREES = 1.5


class Ended(NamedTuple):
    """Curves as a solver leaves them: R = S B rows, the B problems of the first start first.

    Attributes:
        points: nodes.
        length: the solver's own discrete length.
        gradient: scale-free gradient of its discrete energy, see `newton_decrement`.
        minimum: whether the exact Hessian of that energy is positive definite.
        stalled: whether the solver gave up before its limit.
        iterations: steps tried.
        jacobians: points at which the generator's value and derivatives were computed.
        values: points at which only its value was computed.
    """

    points: Float[Tensor, "r n d"]
    length: Float[Tensor, " r"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]
    iterations: Int[Tensor, " r"]
    jacobians: Int[Tensor, " r"]
    values: Int[Tensor, " r"]


class Certificate(NamedTuple):
    """What an independent quadrature says of R curves.

    Attributes:
        length: Riemannian length, ``(R,)``.
        error: estimate of its distance from the length of the exact geodesic near the curve, ``(R,)``.
        element_length: length of every element, ``(R, N)``.
        knots: times of the element ends at constant speed, ``(R, N + 1)``.
        jacobians: points at which the generator was differentiated, per curve.
    """

    length: Float[Tensor, " r"]
    error: Float[Tensor, " r"]
    element_length: Float[Tensor, "r s"]
    knots: Float[Tensor, "r k"]
    jacobians: int


def certify(
    metric: Metric, points: Float[Tensor, "r n d"], degree: int, num_samples: int, discrete: Float[Tensor, " r"]
) -> Certificate:
    """Measure curves without the help of the solver that made them.

    The error estimate adds up the quadrature's own error, the distance to the solver's discrete length, and the length
    that one Newton step with elements of one degree more would save, half as much again for all further degrees. Cost:
    15 norms per element and one linearization of the richer elements.

    Args:
        metric: the Riemannian metric.
        points: nodes of the curves.
        degree: degree of the elements.
        num_samples: samples of the metric or generator per richer element, more than the degree.
        discrete: the solver's own lengths.
    """
    measured = element_lengths(metric, Curve(points, None, degree))
    length = measured.length.sum(1)
    rounding = 8 * torch.finfo(length.dtype).eps * length
    richer = make_elements(degree + 1, num_samples, points)
    energy = metric.path_energy(richer)
    saving = torch.full_like(length, torch.inf)
    rows = (length.isfinite() & discrete.isfinite()).nonzero()[:, 0]
    if rows.numel():
        decrement, _ = newton_decrement(energy, elevate(points[rows], degree), None)
        # Far from the minimum the quadratic model is short by about its own relative size, as in the bound
        # -x - log(1 - x) = x^2 / 2 + x^3 / 3 + ... of self-concordant functions.
        saving[rows] = _DEGREES * decrement.square() / 2 * (1 + decrement)
    times = measured.length.cumsum(1) / length[:, None]
    knots = torch.cat([torch.zeros_like(times[:, :1]), times[:, :-1], torch.ones_like(times[:, :1])], dim=1)
    count = measured.length.shape[1]
    return Certificate(
        length,
        measured.error.sum(1) + (length - discrete).abs() + saving * length + rounding,
        measured.length,
        knots,
        KRONROD_POINTS * count + energy.samples(count),
    )


def certified_result(
    metric: Metric,
    ended: Ended,
    degree: int,
    num_problems: int,
    tol: float | Float[Tensor, " r"],
    length_tol: float,
) -> GeodesicResult:
    """`certify` all rows; of every problem's rows the shortest wins.

    Args:
        metric: the Riemannian metric.
        ended: S B rows.
        degree: degree of the elements.
        num_problems: B.
        tol: tolerance on the scale-free gradient.
        length_tol: tolerance on the length error estimate, relative to the length.

    Returns:
        The answer; the work of all starts of a problem is added up.
    """
    checked = certify(metric, ended.points, degree, degree + 1, ended.length)
    length, error = checked.length, checked.error
    status = _status(ended, length, error, tol, length_tol)
    failed = (status == Status.FAILED)[:, None]
    length, error = length.masked_fill(failed[:, 0], torch.nan), error.masked_fill(failed[:, 0], torch.nan)
    # An error that is not finite ranks a curve by its length alone, before those of no length.
    upper = torch.where(length.isfinite(), length + error.nan_to_num(0.0, 0.0), torch.inf)
    start = upper.view(-1, num_problems).argmin(0)
    chosen = start * num_problems + torch.arange(num_problems, device=start.device)

    def total(counts: Tensor) -> Tensor:
        return counts.view(-1, num_problems).sum(0)

    curve = Curve.unchecked(
        ended.points.masked_fill(failed[..., None], torch.nan), checked.knots.masked_fill(failed, torch.nan), degree
    )
    return GeodesicResult(
        curve[chosen],
        length[chosen],
        error[chosen],
        length[chosen].square() / 2,
        status[chosen],
        ended.gradient[chosen],
        ended.minimum[chosen],
        total(ended.iterations),
        total(ended.jacobians + checked.jacobians),
        total(ended.values),
        start,
    )


def _status(ended: Ended, length: Tensor, error: Tensor, tol: float | Tensor, length_tol: float) -> Int[Tensor, " r"]:
    still = ended.gradient <= tol
    status = torch.full_like(ended.iterations, int(Status.CONVERGED))
    verdicts = (
        (~(error <= length_tol * length), Status.UNRESOLVED),
        (~still, Status.MAX_ITER),
        (~still & ended.stalled, Status.STALLED),
        (still & ~ended.minimum, Status.NOT_MINIMUM),
        (~(length.isfinite() & ended.length.isfinite()), Status.FAILED),
    )
    for holds, verdict in verdicts:
        status = torch.where(holds, int(verdict), status)
    return status
