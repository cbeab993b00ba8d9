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

# Share of a node's own stiffness that holds it in place along the curve while steps are damped.
_SLIDING = 1.0
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
        hessian: exact second derivative, element by element, ``(B, N, (p + 1) d, (p + 1) d)``.
        shift: positive semi-definite, same shape; ``hessian + shift`` is positive semi-definite in every element. It
            also holds the nodes in place along the curve, see `tangential_stiffness`.
    """

    profile: Tensor
    energy: Tensor
    speed: Tensor
    gradient: Tensor
    hessian: Tensor
    shift: Tensor


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


def tangential_stiffness(
    tangent: Float[Tensor, "*b d"], M: Float[Tensor, "*b d d"], stiffness: Float[Tensor, "*b"]
) -> Float[Tensor, "*b d d"]:
    """Blocks ``k (t^T M t) t t^T``, t the unit latent tangent: what keeps damped steps from tunnelling.

    Far from the minimum a discrete energy falls fastest where its nodes slide off the top of a wall to both sides,
    until one element jumps across. Sliding changes no curve, so damped steps are held along the tangent; the mesh is
    renewed between minimizations instead. Exact Newton steps (theta = 0) do not feel it.
    """
    t = torch.nn.functional.normalize(tangent, dim=-1)
    strength = _SLIDING * stiffness * torch.einsum("...i,...ij,...j->...", t, M, t)
    return strength[..., None, None] * t[..., :, None] * t[..., None, :]
