"""What every solver answers, problem by problem."""

from enum import IntEnum
from numbers import Integral
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_positive
from geodesics.curves.curve import Curve


class Status(IntEnum):
    """How a problem ended; `describe` puts it into words.

    The length of a CONVERGED or SETTLED problem is resolved: its error estimate is within the solver's ``length_tol``.
    That of an UNRESOLVED, FAILED or INVALID one is not. The others have a curve that could be shorter, and their length
    is resolved if its error estimate says so. `distance` and all that is built on distances use resolved lengths alone,
    see `GeodesicResult.resolved`.
    """

    CONVERGED = 0
    SETTLED = 1
    MAX_ITER = 2
    STALLED = 3
    NOT_MINIMUM = 4
    UNRESOLVED = 5
    FAILED = 6
    INVALID = 7


_SENTENCES = {
    Status.CONVERGED: "stationary to tolerance, a certified local minimum, and its length is resolved to tolerance",
    Status.SETTLED: "its length is resolved to tolerance and no small step gains more, but its gradient is not",
    Status.MAX_ITER: "the iteration limit came before the gradient tolerance; the curve is the best found",
    Status.STALLED: "no step decreases the energy although the gradient is above its tolerance",
    Status.NOT_MINIMUM: "stationary, but a conjugate point lies inside: some nearby curve is shorter",
    Status.UNRESOLVED: "stationary, but the length error estimate is above its tolerance: more segments are needed",
    Status.FAILED: (
        "the metric was not finite or not positive definite along every curve tried, "
        "or the length is below the distance of the ends' outputs"
    ),
    Status.INVALID: "an end point is not finite",
}


def describe(status: int | Status | Tensor) -> str:
    """One sentence on a status code.

    Raises:
        ValueError: when it is none.
    """
    code: Any = status
    one = isinstance(code, Tensor) and code.numel() == 1 and code.dtype == torch.long
    if not (one or isinstance(code, Integral)) or int(code) not in list(Status):
        raise ValueError(f"status must be a code of Status, 0 to {max(Status).value}; got {status!r}")
    return _SENTENCES[Status(int(status))]


class GeodesicResult(NamedTuple):
    """Geodesics of a batch of B problems; no field of a row depends on another row.

    Attributes:
        curve: the curves found, at nearly constant Riemannian speed, from z0 at t = 0 to z1 at t = 1; NaN where
            FAILED or INVALID. A length below ``||F(z1) - F(z0)||``, the chord in the output space of a pullback
            metric, is FAILED too: no curve is so short, and the decoder has dropped its derivatives.
        length: certified Riemannian length of ``curve``, by a quadrature independent of the solver's own, ``(B,)``.
        length_error: estimate of ``|length - d|``, d the length of the exact geodesic near the curve: quadrature error,
            the distance between the certified length and the solver's own discrete one, what richer elements would
            save, and what an unfinished minimization may still gain, ``(B,)``.
        energy: ``1/2 int c'^T M c' dt`` of the geodesic at constant speed, ``length^2 / 2``, ``(B,)``.
        status: `Status` codes, ``(B,)``.
        gradient: scale-free gradient at the last step, ``sqrt(g^T H^{-1} g / 2E)``: half its square is the relative
            length that the step was to gain; for shooting the relative residual of the boundary-value problem,
            ``(B,)``.
        minimum: whether the discrete energy's Hessian, exact or of geometry, was positive definite: a strict local
            minimum, ``(B,)``.
        iterations: steps taken, all starts and meshes together, ``(B,)``.
        jacobians: points at which the generator's value and first or second derivatives were computed, ``(B,)``.
        values: further points at which only its value was computed, the two of the chord among them, ``(B,)``.
        starts: index of the initial curve that most of the answer comes from, ``(B,)``.
    """

    curve: Curve
    length: Float[Tensor, " b"]
    length_error: Float[Tensor, " b"]
    energy: Float[Tensor, " b"]
    status: Int[Tensor, " b"]
    gradient: Float[Tensor, " b"]
    minimum: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    jacobians: Int[Tensor, " b"]
    values: Int[Tensor, " b"]
    starts: Int[Tensor, " b"]

    @property
    def converged(self) -> Bool[Tensor, " b"]:
        """Whether the status is CONVERGED, ``(B,)``."""
        return self.status == Status.CONVERGED

    def resolved(self, length_tol: float) -> Bool[Tensor, " b"]:
        """Whether the length is known: ``length_error`` is at most ``length_tol`` times the length, ``(B,)``.

        With the solver's own ``length_tol``, whether `distance` uses it.
        """
        check_positive("length_tol", length_tol)
        return self.length_error <= length_tol * self.length

    def summary(self) -> str:
        """Counts of the statuses, in words, for people."""
        codes, counts = torch.unique(self.status, return_counts=True)
        return "\n".join(
            f"{int(n):6d}  {Status(int(code)).name}: {describe(int(code))}"
            for code, n in zip(codes, counts, strict=True)
        )
