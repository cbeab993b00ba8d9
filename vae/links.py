"""Links: the scalar functions phi between a last affine map and an output, with in-place derivatives.

Every output of a generator here is F = phi(u), u = A h(z) + b. A link says how phi, phi' and phi'' are
computed. The in-place forms work on a cache-sized block: at D = 784 the elementwise passes cost as much as
the matrix products, so each pass counts, and a fresh temporary costs more than the arithmetic.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vae.activations import SOFTPLUS_THRESHOLD, Activation, differentiate


class Link(NamedTuple):
    """One scalar output function phi.

    Attributes:
        value: u -> phi(u), out of place and differentiable.
        first_order: (u, value) -> None; writes phi(u) into `value` and overwrites u with phi'(u).
        second_order: (u, scratch) -> (phi'(u), phi''(u)), which may reuse the memory of u and of scratch.
    """

    value: Callable[[Tensor], Tensor]
    first_order: Callable[[Tensor, Tensor], None]
    second_order: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mean_link(activation: Activation) -> Link:
    """Link of a mean head, phi = activation; the sigmoid of images has a form of its own, for speed."""
    if activation is Activation.SIGMOID:
        return Link(torch.sigmoid, _sigmoid_first, _sigmoid_second)

    def first_order(u: Tensor, value: Tensor) -> None:
        y, slope, _ = differentiate(activation, u)
        value.copy_(y)
        u.copy_(slope)

    def second_order(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
        _, slope, curvature = differentiate(activation, u)
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

    def second_order(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
        y, slope, curvature = differentiate(activation, u)
        deviation = torch.exp(y / 2)
        return deviation * slope / 2, deviation * (curvature / 2 + slope * slope / 4)

    return Link(lambda u: torch.exp(differentiate(activation, u).value / 2), first_order, second_order)


def _sigmoid_first(u: Tensor, value: Tensor) -> None:
    torch.sigmoid(u, out=value)
    torch.addcmul(value, value, value, value=-1, out=u)


def _sigmoid_second(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    y = u.sigmoid_()
    slope = torch.addcmul(y, y, y, value=-1, out=scratch)
    return slope, torch.addcmul(slope, y, slope, value=-2, out=u)


def _softplus_value(u: Tensor) -> Tensor:
    return torch.exp(torch.nn.functional.softplus(u, threshold=SOFTPLUS_THRESHOLD) / 2)


def _softplus_first(u: Tensor, value: Tensor) -> None:
    # exp(u) overflows in float32 from u = 88: a log variance no data have; the safe forms cost a third pass
    # of exp or log.
    u.exp_()
    torch.add(u, 1, out=value).sqrt_()
    u.div_(value).mul_(0.5)


def _softplus_second(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    # sigma = sqrt(1 + e), sigma' = e / (2 sigma), sigma'' = sigma' - sigma'^2 / sigma.
    u.exp_()
    sigma = torch.add(u, 1, out=scratch).sqrt_()
    slope = u.div_(sigma).mul_(0.5)
    ratio = torch.div(slope, sigma, out=scratch)
    return slope, torch.addcmul(slope, slope, ratio, value=-1, out=scratch)


def _exponential_first(u: Tensor, value: Tensor) -> None:
    torch.exp(u.mul_(0.5), out=value)
    torch.mul(value, 0.5, out=u)


def _exponential_second(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    slope = u.mul_(0.5).add_(-math.log(2)).exp_()
    return slope, torch.mul(slope, 0.5, out=scratch)


def _inverse_root_first(u: Tensor, value: Tensor) -> None:
    torch.rsqrt(u, out=value)
    torch.div(value, u, out=u).mul_(-0.5)


def _inverse_root_second(u: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    # sigma' = -1/2 beta^(-3/2), sigma'' = 3/4 beta^(-5/2) = -3/2 sigma' / beta.
    slope = torch.rsqrt(u, out=scratch).div_(u).mul_(-0.5)
    return slope, torch.div(slope, u, out=u).mul_(-1.5)


INVERSE_SQUARE_ROOT = Link(torch.rsqrt, _inverse_root_first, _inverse_root_second)
"""Link of a precision to the standard deviation, phi(beta) = beta^(-1/2)."""
