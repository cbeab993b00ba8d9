"""Derivatives of generators, for all rows at once and without a D x D object.

How they are had is chosen once per generator: a generator's own, forward mode, reverse mode or differences; see
`geodesics.generators.routes`. A decoder whose derivatives contradict its values is refused.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import plain
from geodesics.batches.threads import forward_mode
from geodesics.generators.differences import DifferencesOfFirst, derivative_along
from geodesics.generators.modes import Forward, basis_tangents
from geodesics.generators.protocols import (
    DirectionalGenerator,
    FlatField,
    Generator,
    HessianGenerator,
    JacobianGenerator,
    SecondOrderGenerator,
)
from geodesics.generators.routes import callable_of, first_way, second_way, transposed_way
from geodesics.generators.torch_repairs import ByFormula


def value(generator: Generator, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
    """F(z); a generator that writes into its argument is given a copy."""
    (z,) = plain(z)
    return callable_of(generator, z)(z)


def value_and_jacobian(
    generator: Generator, z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "d b D"]]:
    """F(z) and its Jacobian, tangent axis first: ``J[k, i] = dF(z_i)/dz_k``.

    d forward-mode passes, vmapped over the basis tangents of the whole batch, so batched modules (convolutions,
    ``view(z.shape[0], ...)``) work as they are; a generator's own ``value_and_jacobian`` is used where it has one.
    Forward mode costs about d + 1 evaluations. Where torch has none, reverse mode twice costs some 3 d, reverse mode
    over the outputs 2 D, and differences 12 d.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.

    Returns:
        F ``(B, D)`` and J ``(d, B, D)``.

    Raises:
        ValueError: when derivatives contradict the generator's values, as behind ``.detach()`` or rounding.
    """
    with ByFormula():  # whoever differentiates J differentiates forward twice
        (z,) = plain(z)
        if isinstance(generator, JacobianGenerator):
            return generator.value_and_jacobian(z)
        way = first_way(generator, z)
        return way.jacobian(callable_of(generator, z), z, basis_tangents(z))


def directional_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b D"]:
    """J(z) v, one forward-mode pass; a generator's own ``directional_derivative`` is used where it has one.

    Raises:
        ValueError: as `value_and_jacobian`.
    """
    with ByFormula():
        z, v = plain(z, v)
        if isinstance(generator, DirectionalGenerator):
            return generator.directional_derivative(z, v)
        way = first_way(generator, z)
        return way.along(callable_of(generator, z), z, v)


def transposed_derivative(
    generator: Generator, z: Float[Tensor, "b d"], w: Float[Tensor, "b D"]
) -> Float[Tensor, "b d"]:
    """J(z)^T w, one backward pass; by the Jacobian where reverse mode does not run or drops derivatives.

    Raises:
        ValueError: as `value_and_jacobian`.
    """
    with ByFormula():
        z, w = plain(z, w)
        way = transposed_way(generator, z)
        return way(callable_of(generator, z), z, w)


def directional_second_derivative(
    generator: Generator, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b D"], Float[Tensor, "b D"]]:
    """J(z) v and F''(z)[v, v] for all D outputs at once; no Christoffel tensor is formed.

    Forward over reverse mode, some six evaluations; nested forward mode, reverse over reverse mode or differences of
    first derivatives where that does not run or drops derivatives.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.
        v: directions ``(B, d)``.

    Returns:
        J v and F''[v, v], both ``(B, D)``.

    Raises:
        ValueError: as `value_and_jacobian`.
    """
    with ByFormula():
        z, v = plain(z, v)
        way = second_way(generator, z)
        return way.along(callable_of(generator, z), z, v, v)


def mixed_second_derivative(
    generator: Generator, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, "b D"]:
    """F''(z)[u, v], ``(B, D)``; as `directional_second_derivative`, which it is for u = v."""
    with ByFormula():
        z, u, v = plain(z, u, v)
        way = second_way(generator, z)
        return way.along(callable_of(generator, z), z, u, v)[1]


def contracted_hessian(
    generator: Generator, z: Float[Tensor, "b d"], w: Float[Tensor, "b D"]
) -> Float[Tensor, "b d d"]:
    """The Hessian of ``<w, F(z)>`` in z for constant weights w, row by row.

    d forward-mode passes through one reverse-mode gradient; a generator's own ``contracted_hessian`` is used where
    it has one, and where they do not run or drop derivatives, what `directional_second_derivative` uses.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        z: latent points ``(B, d)``.
        w: weights ``(B, D)``.

    Returns:
        ``sum_o w_o d^2 F_o / dz dz``, ``(B, d, d)``.

    Raises:
        ValueError: as `value_and_jacobian`.
    """
    with ByFormula():
        z, w = plain(z, w)
        if isinstance(generator, HessianGenerator):
            return generator.contracted_hessian(z, w)
        way = second_way(generator, z)
        H = way.contracted(callable_of(generator, z), z, w, basis_tangents(z)).movedim(0, -1)
        return (H + H.mT) / 2 if isinstance(way, DifferencesOfFirst) else H


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


def field_and_derivative(
    field: Callable[[Tensor], Tensor], z: Float[Tensor, "b d"]
) -> tuple[Float[Tensor, "b d d"], Float[Tensor, "d b d d"]]:
    """A tensor field G(z) and its derivatives ``dG[k] = dG/dz_k``."""
    G, dG = value_and_jacobian(FlatField(field), z)
    shape = z.shape[-1], z.shape[-1]
    return G.unflatten(-1, shape), dG.unflatten(-1, shape)


def derivative_of_map(function: Callable[[Tensor], Tensor], y: Float[Tensor, "b m"]) -> Float[Tensor, "m b n"]:
    """The derivatives of a row-wise map ``(B, m) -> (B, n)`` that may contain derivatives of a generator.

    Forward mode; differences where what the map contains cannot itself be differentiated.
    """
    # With gradients switched off, torch has no forward derivative of a forward derivative through SiLU and Mish.
    with torch.enable_grad(), forward_mode():
        try:
            return Forward().jacobian(function, y, basis_tangents(y))[1]
        except (NotImplementedError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise

    def in_blocks(points: Tensor) -> Tensor:  # the map may hold something of its own for every row
        return torch.cat([function(block) for block in points.split(len(y))])

    return torch.stack([derivative_along(in_blocks, y, tangent)[0] for tangent in basis_tangents(y)])
