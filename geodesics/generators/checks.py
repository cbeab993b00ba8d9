"""Is this callable a generator the core can trust? Run once on your own decoder."""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from geodesics.batches.arguments import check_callable, check_kept, check_output, check_points
from geodesics.generators.derivatives import (
    contracted_hessian,
    directional_derivative,
    directional_second_derivative,
    value_and_jacobian,
)
from geodesics.generators.protocols import Generator
from geodesics.generators.threads import forward_mode


class GeneratorReport(NamedTuple):
    """What `check_generator` saw.

    Attributes:
        latent_dimension: d.
        data_dimension: D.
        rows_independent: whether a row's output is the same alone, in a batch and in another order.
        finite: whether values and Jacobians are finite.
        full_rank: whether the Jacobian has numerical rank d at every point.
        smooth: whether second derivatives are not zero everywhere. False for ReLU decoders: they are piecewise linear,
            the geodesic ODE then returns straight lines; energy minimization still works.
        consistent: whether the routes to each derivative agree: Jacobian and directional derivative; contracted
            Hessian, directional second derivative and nested forward mode. False for wrong derivatives of the
            generator's own, for a ``torch.autograd.Function`` whose forward rule cannot be differentiated, and for
            every ``torch.jit`` module: scripted ones lose derivatives from the second call on, traced ones keep
            torch's wrong rules (see `geodesics.generators.torch_repairs`).
        messages: one sentence per finding, empty when all is well.
    """

    latent_dimension: int
    data_dimension: int
    rows_independent: bool
    finite: bool
    full_rank: bool
    smooth: bool
    consistent: bool
    messages: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.messages


def check_generator(generator: Generator, z: Float[Tensor, "b d"]) -> GeneratorReport:
    """Check a decoder at some latent points: shapes, coupled rows, finite values, rank, derivatives against each other.

    Args:
        generator: the callable ``(B, d) -> (B, D)`` to check.
        z: latent points to check at ``(B, d)``, B >= 2; encoded data are best.

    Returns:
        The findings, each with a sentence on what it means and what to do.

    Raises:
        ValueError: when z is not ``(B, d)`` with B >= 2, or the output is not ``(B, D)`` of z's dtype and device.
        TypeError: when z is not a floating-point tensor, the generator cannot be called, or its output is no tensor.
    """
    check_callable("generator", generator, "(B, d) -> (B, D)")
    check_points("z", z, "B", least=2)
    if isinstance(generator, nn.Module):
        generator = copy.deepcopy(generator)  # running statistics of training mode stay as they are
    with torch.no_grad():
        F = generator(z)
        check_output("generator", z, F, "(B, d) to (B, D)")
        check_kept("generator", z, F)
        # A row with itself for company: batch statistics and dropout give it away.
        alone = torch.cat([generator(row.expand(2, -1))[:1] for row in z[:4].split(1)])
        rows_independent = _same(generator(z.flip(0)).flip(0), F) and _same(alone, F[:4])
        finite, full_rank, smooth, consistent = bool(F.isfinite().all()), True, True, True
        if rows_independent and finite:
            finite, full_rank, smooth, consistent = _derivatives(generator, z)
    findings = (
        (rows_independent, "rows are coupled: use eval mode (batch normalization and dropout off)"),
        (finite, "values or derivatives are not finite at some points"),
        (full_rank, "the Jacobian is rank deficient somewhere: the metric is singular there"),
        (smooth, "second derivatives vanish (ReLU, or linear): the geodesic ODE sees straight lines; minimize energy"),
        (consistent, "derivatives contradict each other: wrong ones of its own, or of torch (torch.jit has some)"),
    )
    messages = tuple(sentence for fine, sentence in findings if not fine)
    return GeneratorReport(z.shape[1], F.shape[1], rows_independent, finite, full_rank, smooth, consistent, messages)


def _same(a: Tensor, b: Tensor) -> bool:
    tolerance = 100 * torch.finfo(a.dtype).eps * (1 + b.nan_to_num(posinf=0, neginf=0).abs().max())
    return bool(torch.isclose(a, b, rtol=0, atol=float(tolerance), equal_nan=True).all())


def _derivatives(generator: Generator, z: Tensor) -> tuple[bool, bool, bool, bool]:
    """Whether derivatives are finite, Jacobians of full rank, second derivatives there, and all routes in agreement."""
    rounding = 10 * torch.finfo(z.dtype).eps
    _, J = value_and_jacobian(generator, z)
    v = torch.ones_like(z)
    first, second = directional_second_derivative(generator, z, v)
    if not bool(J.isfinite().all() & second.isfinite().all()):
        return False, True, True, True
    singular = torch.linalg.svdvals(J.movedim(0, 1))
    full_rank = J.shape[-1] >= J.shape[0] and bool((singular[:, -1] > rounding * singular[:, 0]).all())
    smooth = bool(second.abs().amax() > rounding * first.abs().amax())
    return True, full_rank, smooth, _consistent(generator, z, v, J, first, second)


def _consistent(generator: Generator, z: Tensor, v: Tensor, J: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether J v, and F''[v, v] by two other routes, are what they were, to half of the digits."""
    if isinstance(generator, nn.Module) and any(isinstance(m, torch.jit.ScriptModule) for m in generator.modules()):
        return False
    with torch.enable_grad(), forward_mode():  # torch's second forward derivative of SiLU and Mish asks for it
        nested: Tensor = jvp(lambda point: directional_derivative(generator, point, v), (z,), (v,))[1]
    # Weights without a pattern that the outputs could share.
    w = torch.arange(1, 1 + first.shape[1], dtype=z.dtype, device=z.device).cos().expand_as(first)
    form = torch.einsum("bij,bi,bj->b", contracted_hessian(generator, z, w), v, v)
    scale = first.abs() + second.abs()
    digits = torch.finfo(z.dtype).eps ** 0.5
    return all(
        bool((difference.abs() <= digits * size.amax()).all())
        for difference, size in (
            (torch.einsum("kbo,bk->bo", J, v) - first, scale),
            (nested - second, scale),
            (form - (w * second).sum(1), (w.abs() * scale).sum(1)),
        )
    )
