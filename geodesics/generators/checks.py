"""Is this callable a generator the core can trust? Run once on your own decoder."""

import copy
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from geodesics.batches.arguments import check_callable, check_points
from geodesics.batches.outputs import Rows, as_rows, is_rows
from geodesics.batches.threads import forward_mode
from geodesics.batches.trial import refusal
from geodesics.generators.derivatives import (
    contracted_hessian,
    directional_derivative,
    directional_second_derivative,
    value_and_jacobian,
)
from geodesics.generators.modes import Forward
from geodesics.generators.protocols import DirectionalGenerator, Generator, HessianGenerator, JacobianGenerator
from geodesics.generators.routes import first_way, reverse_dropped, second_way


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
        differentiable: whether derivatives are those of the values, in forward and in reverse mode. False where
            something drops them: ``.detach()``, ``torch.no_grad``, rounding; public functions refuse such a generator,
            or warn where only reverse mode is dropped.
        argument_kept: whether the points that it is called with stay as they are. False for one that writes into them;
            public functions then call it with copies.
        first_derivatives: how they are had: "its own", "forward mode", "reverse mode, twice", "differences", ...
        second_derivatives: how they are had.
        messages: one sentence per finding, and one where D <= d, which is no fault but worth knowing.
    """

    latent_dimension: int
    data_dimension: int
    rows_independent: bool
    finite: bool
    full_rank: bool
    smooth: bool
    consistent: bool
    differentiable: bool
    argument_kept: bool
    first_derivatives: str
    second_derivatives: str
    messages: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        # With fewer outputs than latents no rank is full, which is told and is no fault.
        ranked = self.full_rank or self.data_dimension < self.latent_dimension
        whole = self.rows_independent and self.finite and ranked and self.smooth
        return whole and self.consistent and self.differentiable and self.argument_kept


def check_generator(generator: Generator, z: Float[Tensor, "b d"]) -> GeneratorReport:
    """Check a decoder at some latent points: shapes, coupled rows, finite values, rank, derivatives against each other.

    A fault of the decoder is reported and does not raise. The decoder and the points stay as they are.

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
    z = z.detach()
    if isinstance(generator, nn.Module):
        generator = copy.deepcopy(generator)  # running statistics of training mode stay as they are
    with torch.no_grad():
        points = z.clone()
        try:
            output = generator(points)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(refusal("generator", generator, z, error)) from error
        F = as_rows(z, output)
        if not is_rows(z, output):
            generator = Rows(generator)
        kept = torch.equal(points.nan_to_num(), z.nan_to_num())
        rows_independent, finite = _rows_independent(generator, z, F.clone()), bool(F.isfinite().all())
    seen = _Derivatives()
    if rows_independent and finite:
        seen = _derivatives(generator, z)
    findings = (
        (rows_independent, "rows are coupled: use eval mode (batch normalization and dropout off)"),
        (finite and seen.finite, "values or derivatives are not finite at some points"),
        (seen.full_rank, "the Jacobian is rank deficient somewhere: the metric is singular there"),
        (
            seen.smooth,
            "second derivatives vanish (ReLU, linear): the geodesic ODE sees straight lines; minimize energy",
        ),
        (seen.consistent, "derivatives contradict each other: wrong ones of its own, or of torch (torch.jit has some)"),
        (not seen.trouble, seen.trouble),
        (kept, "it writes into its argument, and is called with copies: clone the points at its front"),
        (
            F.shape[1] > z.shape[1],
            f"D = {F.shape[1]} is no more than d = {z.shape[1]}: an invertible decoder has a flat metric, and its "
            "geodesics decode to chords, straight lines in data space",
        ),
    )
    messages = tuple(sentence for fine, sentence in findings if not fine)
    return GeneratorReport(
        z.shape[1],
        F.shape[1],
        rows_independent,
        finite and seen.finite,
        seen.full_rank,
        seen.smooth,
        seen.consistent,
        not seen.trouble,
        kept,
        seen.first_words,
        seen.second_words,
        messages,
    )


class _Derivatives(NamedTuple):
    """What was seen of derivatives; nothing wrong, where they were not looked at."""

    finite: bool = True
    full_rank: bool = True
    smooth: bool = True
    consistent: bool = True
    trouble: str = ""
    first_words: str = "not asked for"
    second_words: str = "not asked for"


def _rows_independent(generator: Generator, z: Tensor, F: Tensor) -> bool:
    """Whether outputs F are the same in another order, and for a row with itself for company.

    That gives away batch statistics and dropout; so does a decoder that fails with another number of rows.
    """
    try:
        alone = torch.cat([generator(row.repeat(2, 1))[:1] for row in z[:4].split(1)])
        return _same(generator(z.flip(0)).flip(0), F) and _same(alone, F[:4])
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False


def _same(a: Tensor, b: Tensor) -> bool:
    tolerance = 100 * torch.finfo(a.dtype).eps * (1 + b.nan_to_num(posinf=0, neginf=0).abs().max())
    return bool(torch.isclose(a, b, rtol=0, atol=float(tolerance), equal_nan=True).all())


def _derivatives(generator: Generator, z: Tensor) -> _Derivatives:
    """Whether derivatives are finite, Jacobians of full rank, second derivatives there, and all routes in agreement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is in the report
        try:
            return _compare(generator, z)._replace(trouble=reverse_dropped(generator, z))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            return _Derivatives(trouble=str(error).partition("\n")[0] or type(error).__name__)


def _compare(generator: Generator, z: Tensor) -> _Derivatives:
    rounding = 10 * torch.finfo(z.dtype).eps
    _, J = value_and_jacobian(generator, z)
    v = torch.ones_like(z)
    first, second = directional_second_derivative(generator, z, v)
    first_words = "its own" if isinstance(generator, JacobianGenerator) else first_way(generator, z).words
    second_words = "its own" if isinstance(generator, HessianGenerator) else second_way(generator, z).words
    if not bool(J.isfinite().all() & second.isfinite().all()):
        return _Derivatives(finite=False, first_words=first_words, second_words=second_words)
    singular = torch.linalg.svdvals(J.movedim(0, 1))
    full_rank = J.shape[-1] >= J.shape[0] and bool((singular[:, -1] > rounding * singular[:, 0]).all())
    smooth = bool(second.abs().amax() > rounding * first.abs().amax())
    consistent = _consistent(generator, z, v, J, first, second)
    return _Derivatives(True, full_rank, smooth, consistent, "", first_words, second_words)


def _consistent(generator: Generator, z: Tensor, v: Tensor, J: Tensor, first: Tensor, second: Tensor) -> bool:
    """Whether J v, and F''[v, v] by two other routes, are what they were, to half of the digits."""
    if isinstance(generator, nn.Module) and any(isinstance(m, torch.jit.ScriptModule) for m in generator.modules()):
        return False
    nested = _nested(generator, z, v, second)
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


def _nested(generator: Generator, z: Tensor, v: Tensor, otherwise: Tensor) -> Tensor:
    """F''[v, v] by nested forward mode; where first derivatives are had in another way it says nothing."""
    own = isinstance(generator, DirectionalGenerator)
    if not own and not isinstance(first_way(generator, z), Forward):
        return otherwise
    with torch.enable_grad(), forward_mode():  # torch's second forward derivative of SiLU and Mish asks for it
        nested: Tensor = jvp(lambda point: directional_derivative(generator, point, v), (z,), (v,))[1]
    return nested
