"""Derivatives of generators, for all rows at once and without a D x D object."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vmap

from geodesics.generators import Generator, HessianGenerator, JacobianGenerator, SecondOrderGenerator


def basis_tangents(z: Float[Tensor, "b d"]) -> Float[Tensor, "d b d"]:
    """The d constant tangent fields e_1, ..., e_d on the rows of z."""
    d = z.shape[-1]
    return torch.eye(d, dtype=z.dtype, device=z.device)[:, None, :].expand(d, *z.shape)


def value_and_jacobian(
    generator: Generator, z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "d b D"]]:
    """F(z) and its Jacobian, tangent axis first: ``J[k, i] = dF(z_i)/dz_k``.

    d forward-mode passes, vmapped over the basis tangents of the whole batch, so batched modules (convolutions,
    ``view(z.shape[0], ...)``) work as they are; a generator's own ``value_and_jacobian`` is used where it has one.
    Forward mode costs about d + 1 evaluations, reverse mode D.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.

    Returns:
        F ``(B, D)`` and J ``(d, B, D)``.
    """
    if isinstance(generator, JacobianGenerator):
        return generator.value_and_jacobian(z)
    # torch's annotation of out_dims leaves out None, which its documentation allows
    along = vmap(lambda tangent: jvp(generator, (z,), (tangent,)), out_dims=(None, 0))  # type: ignore[arg-type]
    F, J = along(basis_tangents(z))[:2]
    return F, J


def directional_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b D"]:
    """J(z) v, one forward-mode pass."""
    # Dual numbers cannot be written over expanded rows.
    return jvp(generator, (z.contiguous(),), (v.contiguous(),))[1]


def directional_second_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "b D"]]:
    """J(z) v and F''(z)[v, v] by two nested forward-mode passes; no Christoffel tensor is formed.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.
        v: directions ``(B, d)``.

    Returns:
        J v and F''[v, v], both ``(B, D)``.
    """
    z, v = z.contiguous(), v.contiguous()  # as above
    # With gradients switched off, torch has no second forward derivative of SiLU and Mish.
    with torch.enable_grad():
        first, second = jvp(lambda point: jvp(generator, (point,), (v,))[1], (z,), (v,))[:2]
    return first, second


def contracted_hessian(
    generator: Generator, z: Float[Tensor, "b d"], w: Float[Tensor, "b D"]
) -> Float[Tensor, "b d d"]:
    """The Hessian of ``<w, F(z)>`` in z for constant weights w, row by row.

    d forward-mode passes through one reverse-mode gradient; a generator's own ``contracted_hessian`` is used where
    it has one.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.
        w: weights ``(B, D)``.

    Returns:
        ``sum_o w_o d^2 F_o / dz dz``, ``(B, d, d)``.
    """
    if isinstance(generator, HessianGenerator):
        return generator.contracted_hessian(z, w)
    gradient = grad(lambda point: (generator(point) * w).sum())
    columns = vmap(lambda tangent: jvp(gradient, (z,), (tangent,))[1])(basis_tangents(z))
    return columns.movedim(0, -1)


def second_order(
    generator: Generator, z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "d b D"], Callable[[Tensor], Tensor]]:
    """F(z), its Jacobian, and the function ``w -> contracted_hessian(generator, z, w)``.

    For weights that depend on F. A generator's own ``second_order`` is used where it has one, which does the work that
    the three have in common once.
    """
    if isinstance(generator, SecondOrderGenerator):
        return generator.second_order(z)
    F, J = value_and_jacobian(generator, z)
    return F, J, lambda w: contracted_hessian(generator, z, w)
