"""The discrete energy of a curve made of polynomial elements: what the minimizers minimize.

For a reference speed profile rho > 0 with ``sum_elements int rho du = 1`` (u an element's own coordinate on [0, 1]) the
weighted energy ``1/2 sum int ||c'(u)||^2 / rho(u) du`` is at least ``L^2 / 2``, with equality iff the speed is
proportional to rho (Cauchy-Schwarz). So its minimum over curves is that of the ordinary energy for ANY
profile, and the mesh is free: nodes can stand where the curve needs them, not only where constant speed puts them.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

# Least profile, as a share of the mean speed.
_PROFILE_FLOOR = 1e-3
# Largest over smallest speed in an element above which its profile follows the speed.
_VARYING = 2.0


class Linearization(NamedTuple):
    """Second-order model of the discrete energy at some nodes, leading axis B.

    Attributes:
        profile: reference speed profile ``(B, N, g)``.
        energy: weighted energy ``(B,)``.
        speed: Riemannian speed per unit of u at the quadrature points ``(B, N, g)``.
        gradient: derivative in the nodes ``(B, N p + 1, d)``.
        hessian: exact second derivative, element by element, ``(B, N, (p + 1) d, (p + 1) d)``, but for a floor at
            rounding along directions that the metric does not see.
        connection: ``hessian + connection`` is the second variation of geometry, the same in every chart: the second
            derivative along the image, which the chart makes, is taken out. Zero at a geodesic, up to the error of the
            elements; zero for metrics without an embedding. Same shape.
        shift: positive semi-definite, same shape; ``hessian + connection + shift`` is positive semi-definite in every
            element.
        sliding: positive semi-definite, same shape: holds the nodes in place along the curve, see
            `tangential_stiffness`.
        metric: the metric at the points where it was evaluated, ``(B, n, d, d)``.
    """

    profile: Tensor
    energy: Tensor
    speed: Tensor
    gradient: Tensor
    hessian: Tensor
    connection: Tensor
    shift: Tensor
    sliding: Tensor
    metric: Tensor


@runtime_checkable
class PathEnergy(Protocol):
    """Discrete energy of curves of one kind of element, under one metric; rows are independent."""

    def samples(self, num_segments: int) -> int:
        """Points at which the metric or generator is evaluated, per curve and call."""

    def value(
        self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b s g"]]:
        """Weighted energy and speeds; a profile of None stands for 1 / N everywhere."""

    def linearize(self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None) -> Linearization:
        """Energy, speeds, gradient, exact Hessian and its shift; a profile of None stands for that of the curve's own
        speed, `speed_profile`.
        """

    def displacement(self, step: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """A move of the nodes at the points where `linearize` evaluates the metric."""


def speed_profile(speed: Float[Tensor, "b s g"], weights: Float[Tensor, " g"]) -> Float[Tensor, "b s g"]:
    """Reference profile: the current speed, no less than a small floor, with unit integral.

    Where the speed hardly varies inside an element the profile is constant there: copying the speed would copy the
    kinks of the mesh, and cost smooth problems their order. Where it varies much the profile follows, which is what
    lets few elements resolve the passes of a learned metric.
    """
    shares = speed @ weights
    varying = speed.amax(-1) > _VARYING * speed.amin(-1)
    followed = torch.where(varying[..., None], speed, shares[..., None])
    mean = shares.mean(1)[:, None, None]
    lifted = torch.where(mean > 0, followed.maximum(_PROFILE_FLOOR * mean), torch.ones_like(speed))
    return lifted / (lifted @ weights).sum(1)[:, None, None]


def mean_metric(metric: Float[Tensor, "b n d d"]) -> Float[Tensor, "b d d"]:
    """The metric's mean along a curve: what stands for the Euclidean norm of the latent space, whatever its units.

    It changes with a linear change of coordinates as the metric does. Where the metric vanishes it does not, and
    directions that are cheap everywhere stay cheap.
    """
    return metric.mean(1)


def tangential_stiffness(
    tangent: Float[Tensor, "b *c d"], M: Float[Tensor, "b *c d d"], stiffness: Float[Tensor, " b *c"]
) -> Float[Tensor, "b *c d d"]:
    """Blocks ``k (t^T M t) y y^T / (y^T t)^2``, t the latent tangent, ``y = G t`` with G the `mean_metric`.

    Far from the minimum a discrete energy falls fastest where its nodes slide off the top of a wall to both sides,
    until one element jumps across. Sliding changes no curve, so damped steps are held along the tangent; the mesh is
    renewed between minimizations instead. Exact Newton steps do not feel it. Moves that are normal to the tangent in G
    are free: in the metric itself normals become tangents where it is nearly singular, and in Euclid's they depend on
    the unit of every axis.
    """
    G = mean_metric(M.flatten(1, -3)).view(len(M), *[1] * (M.ndim - 3), *M.shape[-2:])
    y = (G @ tangent[..., None])[..., 0]
    speed = torch.einsum("...i,...ij,...j->...", tangent, M, tangent)
    scale = (tangent * y).sum(-1).square().clamp(min=torch.finfo(M.dtype).tiny)
    return (stiffness * speed / scale)[..., None, None] * y[..., :, None] * y[..., None, :]
