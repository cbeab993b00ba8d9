"""Links: the scalar functions phi between a last affine map and an output, with in-place derivatives.

Every output of a generator here is F = phi(u), u = A h(z) + b. A link says how phi, phi' and phi'' are
computed. The in-place forms work on a cache-sized block: at D = 784 the elementwise passes cost as much as
the matrix products, so each pass counts, and a fresh temporary costs more than the arithmetic.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae.autoencoder.activations import SOFTPLUS_THRESHOLD, Activation, differentiate


class Link(NamedTuple):
    """One scalar output function phi.

    Attributes:
        value: u -> phi(u), out of place and differentiable.
        first_order: (u, value) -> None; writes phi(u) into `value` and overwrites u with phi'(u).
        second_order: (u, value, scratch) -> (phi'(u), phi''(u)); writes phi(u) into `value` and may put its
            results into the memory of u and of scratch.
    """

    value: Callable[[Tensor], Tensor]
    first_order: Callable[[Tensor, Tensor], None]
    second_order: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def mean_link(activation: Activation) -> Link:
    """Link of a mean head, phi = activation; the sigmoid of images has a form of its own, for speed."""
    if activation is Activation.IDENTITY:
        return IDENTITY
    if activation is Activation.SIGMOID:
        return Link(torch.sigmoid, _sigmoid_first, _sigmoid_second)

    def first_order(u: Tensor, value: Tensor) -> None:
        y, slope, _ = differentiate(activation, u)
        value.copy_(y)
        u.copy_(slope)

    def second_order(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
        y, slope, curvature = differentiate(activation, u)
        value.copy_(y)
        return slope, curvature

    return Link(lambda u: differentiate(activation, u).value, first_order, second_order)


def deviation_link(activation: Activation) -> Link:
    r"""Link of a log-variance head to the standard deviation, phi(u) = exp(psi(u) / 2), psi the head's
    activation.

    With softplus this is sqrt(1 + exp(u)), one exponential and one root; with a linear head it is exp(u / 2).
    """
    if activation is Activation.SOFTPLUS:
        return Link(_softplus_value, _softplus_first, _softplus_second)
    if activation is Activation.IDENTITY:
        return Link(lambda u: torch.exp(u / 2), _exponential_first, _exponential_second)

    def first_order(u: Tensor, value: Tensor) -> None:
        y, slope, _ = differentiate(activation, u)
        torch.exp(y / 2, out=value)
        torch.mul(slope / 2, value, out=u)

    def second_order(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
        y, slope, curvature = differentiate(activation, u)
        deviation = torch.exp(y / 2, out=value)
        return deviation * slope / 2, deviation * (curvature / 2 + slope * slope / 4)

    return Link(lambda u: torch.exp(differentiate(activation, u).value / 2), first_order, second_order)


def _sigmoid_first(u: Tensor, value: Tensor) -> None:
    torch.sigmoid(u, out=value)
    torch.addcmul(value, value, value, value=-1, out=u)


def _sigmoid_second(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    torch.sigmoid(u, out=value)
    slope = torch.addcmul(value, value, value, value=-1, out=scratch)
    return slope, torch.addcmul(slope, value, slope, value=-2, out=u)


def _softplus_value(u: Tensor) -> Tensor:
    return torch.exp(torch.nn.functional.softplus(u, threshold=SOFTPLUS_THRESHOLD) / 2)


def _softplus_first(u: Tensor, value: Tensor) -> None:
    # exp(u) overflows in float32 from u = 88: a log variance no data have; the safe forms cost a third pass
    # of exp or log.
    u.exp_()
    torch.add(u, 1, out=value).sqrt_()
    u.div_(value).mul_(0.5)


def _softplus_second(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    # sigma = sqrt(1 + e), sigma' = e / (2 sigma), sigma'' = sigma' - sigma'^2 / sigma.
    u.exp_()
    torch.add(u, 1, out=value).sqrt_()
    slope = u.div_(value).mul_(0.5)
    ratio = torch.div(slope, value, out=scratch)
    return slope, torch.addcmul(slope, slope, ratio, value=-1, out=scratch)


def _exponential_first(u: Tensor, value: Tensor) -> None:
    torch.exp(u.mul_(0.5), out=value)
    torch.mul(value, 0.5, out=u)


def _exponential_second(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    torch.exp(u.mul_(0.5), out=value)
    return torch.mul(value, 0.5, out=u), torch.mul(value, 0.25, out=scratch)


def _identity_first(u: Tensor, value: Tensor) -> None:
    value.copy_(u)
    u.fill_(1)


def _identity_second(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    value.copy_(u)
    return u.fill_(1), scratch.zero_()


def _inverse_root_first(u: Tensor, value: Tensor) -> None:
    # sigma' = -1/2 sigma^3: in float64 two products cost half as much as one division.
    torch.rsqrt(u, out=value)
    torch.mul(value, value, out=u)
    torch.addcmul(_zero(u), value, u, value=-0.5, out=u)


def _inverse_root_second(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    # sigma'' = 3/4 sigma^5 = -3/2 sigma' sigma^2.
    torch.rsqrt(u, out=value)
    torch.mul(value, value, out=u)
    slope = torch.addcmul(_zero(u), value, u, value=-0.5, out=scratch)
    return slope, torch.addcmul(_zero(u), slope, u, value=-1.5, out=u)


def _zero(like: Tensor) -> Tensor:
    """The summand that makes of `addcmul` a product with a constant, in one pass."""
    return like.new_zeros(())


IDENTITY = Link(lambda u: u, _identity_first, _identity_second)
"""Link of a mean without activation: the outputs are affine in the features, see `AffinePart.reduced`."""

INVERSE_SQUARE_ROOT = Link(torch.rsqrt, _inverse_root_first, _inverse_root_second)
"""Link of a precision to the standard deviation, phi(beta) = beta^(-1/2)."""


def log_precision_link(xi: float) -> Link:
    r"""Link of a log precision to the standard deviation, phi(u) = (exp(u) + xi)^(-1/2), at most xi^(-1/2)."""

    def first_order(u: Tensor, value: Tensor) -> None:
        # With e = exp(u): sigma' = -1/2 e sigma^3.
        u.exp_()
        torch.rsqrt(u + xi, out=value)
        u.mul_(value).mul_(value).mul_(value).mul_(-0.5)

    def second_order(u: Tensor, value: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
        # sigma'' = sigma' (1 - 3/2 e sigma^2).
        u.exp_()
        torch.rsqrt(u + xi, out=value)
        share = u.mul_(value).mul_(value)
        slope = torch.mul(share, value, out=scratch).mul_(-0.5)
        return slope, share.mul_(-1.5).add_(1).mul_(slope)

    return Link(lambda u: torch.rsqrt(torch.exp(u) + xi), first_order, second_order)
