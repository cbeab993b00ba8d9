"""From the last iterates of a solver to an answer that can be trusted: lengths, statuses, winners.

What a solver says of its own discrete energy is never reported as it is. The gradient is measured with the
exact Hessian, which also tells minima from saddles; the length comes from an independent quadrature.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.block_cholesky import solve_chain
from geodesics.curves import Curve
from geodesics.elements import elevate, make_elements
from geodesics.mesh import speed_profile
from geodesics.metrics import Metric
from geodesics.path_energy import PathEnergy
from geodesics.quadrature import KRONROD_POINTS, element_lengths
from geodesics.solution import GeodesicResult, Status


class Ended(NamedTuple):
    """Curves as a solver leaves them: R = S B rows, the B problems of the first start first.

    Attributes:
        points: nodes.
        length: the solver's own discrete length.
        gradient: scale-free gradient of its discrete energy, see `stationarity`.
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


def stationarity(
    energy: PathEnergy, points: Float[Tensor, "r n d"], profile: Float[Tensor, "r s g"]
) -> tuple[Float[Tensor, " r"], Bool[Tensor, " r"]]:
    """Scale-free gradient ``sqrt(g^T H^{-1} g / 2 E)``, and whether the exact Hessian H is positive definite.

    Half the square of the first is the relative length still to be gained. Where H is indefinite its shifted,
    positive semi-definite neighbour takes its place; infinite where nothing can be factorised. Cost: the
    energy's ``samples(N)`` values with Jacobians and contracted Hessians.
    """
    model = energy.linearize(points, profile)
    direction, minimum = solve_chain(model.hessian, -model.gradient)
    shifted, factored = solve_chain(model.hessian + 1.5 * model.shift, -model.gradient)
    direction = torch.where(minimum[:, None, None], direction, shifted)
    slope = (model.gradient * direction).sum((1, 2))
    gradient = (-slope / (2 * model.energy)).clamp(min=0).sqrt()
    known = (minimum | factored) & gradient.isfinite()
    return torch.where(known, gradient, torch.inf), minimum & known


def certified_result(
    metric: Metric,
    ended: Ended,
    degree: int,
    num_problems: int,
    tol: float | Float[Tensor, " r"],
    length_tol: float,
) -> GeodesicResult:
    """Measure all rows by the independent quadrature; of every problem's rows the shortest wins.

    The error estimate of a length adds up the quadrature's own error, the distance to the solver's discrete
    length, and the length that one Newton step with elements of one degree more would save.
    Cost: 15 norms per element, and one linearization of the richer elements.

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
    measured = element_lengths(metric, Curve(ended.points, None, degree))
    length = measured.length.sum(1)
    rounding = 8 * torch.finfo(length.dtype).eps * length
    saving, spent = _saving(metric, ended, degree)
    error = measured.error.sum(1) + (length - ended.length).abs() + saving * length + rounding
    spent += KRONROD_POINTS * measured.length.shape[1]
    status = _status(ended, length, error, tol, length_tol)
    failed = (status == Status.FAILED)[:, None]
    length, error = length.masked_fill(failed[:, 0], torch.nan), error.masked_fill(failed[:, 0], torch.nan)
    times = measured.length.cumsum(1) / length[:, None]
    knots = torch.cat([torch.zeros_like(times[:, :1]), times[:, :-1], torch.ones_like(times[:, :1])], dim=1)
    # An error that is not finite ranks a curve by its length alone, before those of no length.
    upper = torch.where(length.isfinite(), length + error.nan_to_num(0.0, 0.0), torch.inf)
    start = upper.view(-1, num_problems).argmin(0)
    chosen = start * num_problems + torch.arange(num_problems, device=start.device)

    def total(counts: Tensor) -> Tensor:
        return counts.view(-1, num_problems).sum(0)

    curve = Curve(
        ended.points.masked_fill(failed[..., None], torch.nan), knots.masked_fill(failed, torch.nan), degree
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
        total(ended.jacobians + spent),
        total(ended.values),
        start,
    )


def _saving(metric: Metric, ended: Ended, degree: int) -> tuple[Tensor, int]:
    """Relative length that elements of one degree more would save, or infinity; the points it took."""
    richer = make_elements(degree + 1, degree + 1, ended.points)
    energy = metric.path_energy(richer)
    saving = torch.full_like(ended.length, torch.inf)
    rows = ended.length.isfinite().nonzero()[:, 0]
    if rows.numel():
        elevated = elevate(ended.points[rows], degree)
        _, speed = energy.value(elevated, None)
        decrement, _ = stationarity(energy, elevated, speed_profile(speed, richer.weights))
        # Far from the minimum the quadratic model is short by about its own relative size, as in the bound
        # -x - log(1 - x) = x^2 / 2 + x^3 / 3 + ... of self-concordant functions.
        saving[rows] = decrement.square() / 2 * (1 + decrement)
    return saving, 2 * energy.samples((ended.points.shape[1] - 1) // degree)


def _status(
    ended: Ended, length: Tensor, error: Tensor, tol: float | Tensor, length_tol: float
) -> Int[Tensor, " r"]:
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
