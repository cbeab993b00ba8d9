"""L-BFGS for curves: the inverse Hessian from the last steps, on top of that of a chain of springs.

The Hessian of a curve's energy is nearly the Kronecker product of the elements' stiffness matrix and the metric. The
first factor has one row per node and is inverted; what is left to learn is the metric, whatever the number of nodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.curves.elements import Elements

# Pairs of less curvature than this, relative to their own length, are not remembered.
_CURVATURE = 1e-10

Preconditioner = Callable[[Tensor], Tensor]


class Memory(NamedTuple):
    """The last m pairs of rows of points, oldest first.

    Attributes:
        step: s, the change of the points, ``(R, m, n, d)``.
        change: y, that of the derivative.
        weight: ``1 / <s, y>``, zero where there is no pair, ``(R, m)``.
        scale: gamma, factor of the first guess, ``(R,)``.
    """

    step: Float[Tensor, "r m n d"]
    change: Float[Tensor, "r m n d"]
    weight: Float[Tensor, "r m"]
    scale: Float[Tensor, " r"]


def nothing(points: Float[Tensor, "r n d"], history: int) -> Memory:
    """A memory of no pairs."""
    pairs = points.new_zeros(len(points), history, *points.shape[1:])
    return Memory(pairs, pairs.clone(), pairs[:, :, 0, 0].clone(), points.new_ones(len(points)))


def remember(memory: Memory, step: Tensor, change: Tensor, precondition: Preconditioner) -> Memory:
    """Drop the oldest pair for a new one; one of no curvature takes a place and has no effect."""
    curvature = (step * change).sum((1, 2))
    curved = curvature > _CURVATURE * step.flatten(1).norm(dim=1) * change.flatten(1).norm(dim=1)
    scale = curvature / (change * precondition(change)).sum((1, 2))
    return Memory(
        torch.cat([memory.step[:, 1:], step[:, None]], dim=1),
        torch.cat([memory.change[:, 1:], change[:, None]], dim=1),
        torch.cat([memory.weight[:, 1:], torch.where(curved, 1 / curvature, 0.0)[:, None]], dim=1),
        torch.where(curved, scale, memory.scale),
    )


def quasi_newton_direction(derivative: Tensor, memory: Memory, precondition: Preconditioner) -> Tensor:
    """The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4), all rows at once; loops run over the history."""
    q, used = derivative, []
    for i in reversed(range(memory.weight.shape[1])):
        s, y, weight = memory.step[:, i], memory.change[:, i], memory.weight[:, i]
        share = (weight * (s * q).sum((1, 2)))[:, None, None]
        q = q - share * y
        used.append(share)
    r = memory.scale[:, None, None] * precondition(q)
    for i, share in enumerate(reversed(used)):
        s, y, weight = memory.step[:, i], memory.change[:, i], memory.weight[:, i]
        r = r + s * (share - (weight * (y * r).sum((1, 2)))[:, None, None])
    return -r


def inverse_stiffness(elements: Elements, profile: Float[Tensor, "*r s g"]) -> Float[Tensor, "*r n n"]:
    """Inverse of the stiffness matrices ``int phi_i' phi_j' / rho du``, zero at the two ends."""
    slopes, degree, count = elements.quadrature_slopes, elements.degree, profile.shape[-2]
    local = slopes.mT @ ((elements.weights / profile)[..., None] * slopes)
    size = count * degree + 1
    stiffness = local.new_zeros(*profile.shape[:-2], size, size)
    for i in range(count):
        at = slice(i * degree, (i + 1) * degree + 1)
        stiffness[..., at, at] += local[..., i, :, :]
    inverse = torch.zeros_like(stiffness)
    # One matrix that is not finite must not fail the others in LAPACK.
    inner = stiffness[..., 1:-1, 1:-1]
    usable = inner.isfinite().all(-1).all(-1)[..., None, None]
    eye = torch.eye(size - 2, dtype=local.dtype, device=local.device)
    inverted = torch.linalg.inv_ex(torch.where(usable, inner, eye))[0]
    inverse[..., 1:-1, 1:-1] = torch.where(usable, inverted, torch.nan)
    return inverse
