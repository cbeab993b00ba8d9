"""The Levi-Civita connection: Christoffel symbols and the acceleration of geodesics.

Two independent forms of the geodesic ODE c'' = a(c, c'): the general one of the appendix of Arvanitidis, Hansen and
Hauberg (2018), for any metric, and the one of a pullback metric, where one directional second derivative replaces every
derivative of the metric tensor. On a pullback metric they agree to rounding.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.generators.derivatives import (
    directional_derivative,
    directional_second_derivative,
    field_and_derivative,
    transposed_derivative,
    value_and_jacobian,
)
from geodesics.generators.protocols import Generator

# Latent dimension above which Jacobians are not formed.
MANY_AXES = 64
# Iterations of conjugate gradients at most.
_MOST_PRODUCTS = 500

TensorField = Callable[[Tensor], Tensor]


def solve_metric(M: Float[Tensor, "b d d"], rhs: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """M^{-1} rhs by Cholesky; NaN in the rows where M is not positive definite."""
    L, info = torch.linalg.cholesky_ex(M)
    x = torch.cholesky_solve(rhs[..., None], L)[..., 0]
    return torch.where((info == 0)[:, None], x, torch.full_like(x, torch.nan))


def tensor_derivative(
    tensor: TensorField, z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b d d"], Float[Tensor, "d b d d"]]:
    """G(z) and its derivatives ``dG[k] = dG/dz_k``, by d vmapped forward-mode passes."""
    # With gradients switched off, torch has no forward derivative of a forward derivative through SiLU and Mish.
    with torch.enable_grad():
        return field_and_derivative(tensor, z)


def christoffel_symbols(tensor: TensorField, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d d"]:
    """The symbols of `geodesics.metrics.doors.christoffel_symbols`, of points and a field that are known to fit."""
    G, dG = tensor_derivative(tensor, z)
    first_kind = (torch.einsum("iblj->blij", dG) + torch.einsum("jbli->blij", dG) - torch.einsum("lbij->blij", dG)) / 2
    b, d = z.shape
    columns = first_kind.reshape(b, d, d * d).movedim(-1, 0)
    return torch.stack([solve_metric(G, column) for column in columns], dim=-1).reshape(b, d, d, d)


def general_acceleration(tensor: TensorField, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """The acceleration of `geodesics.metrics.doors.general_acceleration`, of arguments that are known to fit."""
    M, dM = tensor_derivative(tensor, z)
    along = torch.einsum("kbij,bk,bj->bi", dM, v, v)
    gradient = torch.einsum("kbij,bi,bj->bk", dM, v, v)
    return -solve_metric(M, 2 * along - gradient) / 2


def pullback_acceleration(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """The acceleration of `geodesics.metrics.doors.pullback_acceleration`, of arguments that are known to fit."""
    _, J = value_and_jacobian(generator, z)
    _, second = directional_second_derivative(generator, z, v)
    if J.shape[-1] < z.shape[1]:
        return -torch.einsum("ibo,bo->bi", J, solve_metric(torch.einsum("ibo,ibp->bop", J, J), second))
    M = torch.einsum("ibo,jbo->bij", J, J)
    return -solve_metric(M, torch.einsum("ibo,bo->bi", J, second))


def acceleration_by_products(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """`pullback_acceleration` without a Jacobian: the least-squares solution of ``J a = -F''[v, v]``.

    Conjugate gradients on the normal equations (CGLS, Hestenes and Stiefel 1952), each row until its residual
    ``J^T r`` has fallen by ``eps^(5/8)``, 2e-10 in float64, or for 500 iterations. Where J has not full rank, the
    solution of least norm. Cost: one directional second derivative, then a ``J v`` and a ``J^T w`` per iteration, of
    which there are about as many as the condition number of J, and at most d.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: points ``(B, d)``.
        v: velocities ``(B, d)``.

    Returns:
        ``(B, d)``; not finite in the rows where the generator is not.
    """
    z = z.contiguous()
    _, second = directional_second_derivative(generator, z, v)
    a, r = torch.zeros_like(z), -second
    s = transposed_derivative(generator, z, r)
    p, size = s.clone(), s.square().sum(1)
    target = torch.finfo(z.dtype).eps ** 1.25 * size
    for _ in range(_MOST_PRODUCTS):
        active = size > target
        if not bool(active.any()):
            break
        q = directional_derivative(generator, z, p)
        step = torch.where(active, size / q.square().sum(1), 0.0)[:, None]
        a, r = a + step * p, r - step * q
        s = transposed_derivative(generator, z, r)
        after = s.square().sum(1)
        p = s + torch.where(active, after / size, 0.0)[:, None] * p
        size = torch.where(active, after, size)
    return torch.where(s.isfinite(), a, torch.nan)
