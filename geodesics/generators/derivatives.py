"""Derivatives of generators, for all rows at once and without a D x D object."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from geodesics.generators.protocols import (
    DirectionalGenerator,
    Generator,
    HessianGenerator,
    JacobianGenerator,
    SecondOrderGenerator,
)
from geodesics.generators.threads import forward_mode
from geodesics.generators.torch_repairs import ByFormula


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
    with ByFormula():  # whoever differentiates J differentiates forward twice
        if isinstance(generator, JacobianGenerator):
            return generator.value_and_jacobian(z)
        # torch's annotation of out_dims leaves out None, which its documentation allows
        along = vmap(lambda tangent: jvp(generator, (z,), (tangent,)), out_dims=(None, 0))  # type: ignore[arg-type]
        F, J = along(basis_tangents(z))[:2]
        return F, J


def directional_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b D"]:
    """J(z) v, one forward-mode pass; a generator's own ``directional_derivative`` is used where it has one."""
    # Dual numbers cannot be written over expanded rows.
    with ByFormula():
        if isinstance(generator, DirectionalGenerator):
            return generator.directional_derivative(z, v)
        return jvp(generator, (z.contiguous(),), (v.contiguous(),))[1]


def directional_second_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "b D"]]:
    """J(z) v and F''(z)[v, v] for all D outputs at once; no Christoffel tensor is formed.

    The Hessian H(w) of ``<w, F(z)>`` is linear in w, and ``<w, F''[v, v]> = v^T H(w) v``: so F''[v, v] is what the
    transpose of ``w -> H(w) v`` makes of v. H(w) v is a forward-mode pass through a reverse-mode gradient, and its
    transpose one more reverse pass; w is any constant, since only the dependence on it is asked for.

    Two nested forward-mode passes would be shorter, but torch's are silently wrong for some operations (see
    `geodesics.generators.torch_repairs`). The cost is much the same, that of some six evaluations.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.
        v: directions ``(B, d)``.

    Returns:
        J v and F''[v, v], both ``(B, D)``.
    """
    z, v = z.contiguous(), v.contiguous()  # as above

    def gradient(point: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        F, pull = vjp(generator, point)[:2]
        return pull(w)[0], F

    def hessian_times_v(w: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(lambda point: gradient(point, w), (z,), (v,))[1]  # of F too: that is J v

    # With gradients switched off, torch has no batched second derivative of Mish.
    with torch.enable_grad(), ByFormula():
        transpose, first = vjp(hessian_times_v, torch.zeros_like(generator(z)), has_aux=True)[1:]  # type: ignore[misc]
        return first, transpose(v)[0]


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
    with ByFormula():
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
        with forward_mode():
            own_F, own_J, contraction = generator.second_order(z)

        def contracted(w: Tensor) -> Tensor:
            with forward_mode():
                return contraction(w)

        return own_F, own_J, contracted
    F, J = value_and_jacobian(generator, z)
    return F, J, lambda w: contracted_hessian(generator, z, w)
