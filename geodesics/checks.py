"""Is this callable a generator the core can trust? Run once on your own decoder."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.calculus import directional_second_derivative, value_and_jacobian
from geodesics.generators import Generator


class GeneratorReport(NamedTuple):
    """What `check_generator` saw.

    Attributes:
        latent_dimension: d.
        data_dimension: D.
        rows_independent: whether a row's output is the same alone, in a batch and in another order.
        finite: whether values and Jacobians are finite.
        full_rank: whether the Jacobian has numerical rank d at every point.
        smooth: whether second derivatives are not zero everywhere. False for ReLU decoders: they are piecewise linear,
            the geodesic ODE then returns straight lines; energy minimisation still works.
        messages: one sentence per finding, empty when all is well.
    """

    latent_dimension: int
    data_dimension: int
    rows_independent: bool
    finite: bool
    full_rank: bool
    smooth: bool
    messages: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.messages


def check_generator(generator: Generator, z: Float[Tensor, "b d"]) -> GeneratorReport:
    """Check a decoder at some latent points: shapes, coupled rows, finite values, rank, second derivatives.

    Args:
        generator: the callable ``(B, d) -> (B, D)`` to check.
        z: latent points to check at ``(B, d)``, B >= 2; encoded data are best.

    Returns:
        The findings, each with a sentence on what it means and what to do.

    Raises:
        ValueError: when z is not ``(B, d)`` with B >= 2, or the output is not ``(B, D)`` of z's dtype and device.
    """
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"z must be (B, d) with B >= 2; got {tuple(z.shape)}")
    with torch.no_grad():
        F = generator(z)
        if F.ndim != 2 or len(F) != len(z):
            raise ValueError(f"generator must map (B, d) to (B, D); got {tuple(z.shape)} -> {tuple(F.shape)}")
        if F.dtype != z.dtype or F.device != z.device:
            raise ValueError(
                f"generator must keep dtype and device; got {z.dtype} on {z.device} -> {F.dtype} on {F.device}"
            )
        tolerance = 100 * torch.finfo(z.dtype).eps * (1 + F.abs().max())
        rows_independent = bool(
            ((generator(z.flip(0)).flip(0) - F).abs() <= tolerance).all()
            and ((generator(z[:1]) - F[:1]).abs() <= tolerance).all()
        )
        _, J = value_and_jacobian(generator, z)
        finite = bool(F.isfinite().all() and J.isfinite().all())
        singular = torch.linalg.svdvals(J.movedim(0, 1).nan_to_num())
        full_rank = bool((singular[:, -1] > 10 * torch.finfo(z.dtype).eps * singular[:, 0]).all())
        first, second = directional_second_derivative(generator, z, torch.ones_like(z))
        smooth = bool((second.abs().amax() > 10 * torch.finfo(z.dtype).eps * first.abs().amax()).item())
    findings = (
        (rows_independent, "rows are coupled: use eval mode (batch normalisation and dropout off)"),
        (finite, "values or derivatives are not finite at some points"),
        (full_rank, "the Jacobian is rank deficient somewhere: the metric is singular there"),
        (smooth, "second derivatives vanish (ReLU, or linear): the geodesic ODE sees straight lines; minimise energy"),
    )
    messages = tuple(sentence for fine, sentence in findings if not fine)
    return GeneratorReport(z.shape[1], F.shape[1], rows_independent, finite, full_rank, smooth, messages)
