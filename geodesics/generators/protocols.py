"""What the core asks of a decoder: a row-wise map from latent points to data space."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodesics.batches.arguments import check_callable
from geodesics.batches.outputs import Rows


@runtime_checkable
class Generator(Protocol):
    """A row-wise torch callable from latent points ``(B, d)`` to data ``(B, D)``.

    Row-wise means that output row i depends on input row i alone: an ``nn.Module`` in eval mode, a function, a
    closure. It must be written in differentiable torch operations. Four optional methods make it faster:
    see `JacobianGenerator`, `DirectionalGenerator`, `HessianGenerator` and `SecondOrderGenerator`.
    """

    def __call__(self, z: Tensor, /) -> Tensor: ...


@runtime_checkable
class JacobianGenerator(Protocol):
    """A generator with its own Jacobian, used instead of automatic differentiation."""

    def value_and_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return F(z) as ``(B, D)`` and J as ``(d, B, D)`` with ``J[k] = dF/dz_k`` (tangent axis first)."""


@runtime_checkable
class DirectionalGenerator(Protocol):
    """A generator with its own directional derivative, used instead of automatic differentiation."""

    def directional_derivative(self, z: Tensor, v: Tensor) -> Tensor:
        """Return ``J(z) v`` as ``(B, D)`` for directions v ``(B, d)``."""


@runtime_checkable
class HessianGenerator(Protocol):
    """A generator with its own contracted second derivative, used instead of automatic differentiation."""

    def contracted_hessian(self, z: Tensor, w: Tensor) -> Tensor:
        """Return ``sum_o w_o d^2 F_o / dz dz`` as ``(B, d, d)`` for constant weights w ``(B, D)``."""


@runtime_checkable
class SecondOrderGenerator(Protocol):
    """A generator that shares the work of its first and second derivatives."""

    def second_order(self, z: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Return F and J as `JacobianGenerator` does, and ``w -> contracted_hessian(z, w)``, for weights that depend on
        F. What is returned need not be differentiable.
        """


class Stack(nn.Module):
    """Concatenate the outputs of several generators: F(z) = (F_1(z), ..., F_n(z)).

    The expected metric of a stochastic generator ``mu(z) + sigma(z) * eps`` is ``J_mu^T J_mu + J_sigma^T J_sigma``
    (Arvanitidis, Hansen and Hauberg 2018, theorem 1), the pullback metric of ``Stack(mu, sigma)`` with sigma the
    standard deviation. An ensemble of n decoders is ``Stack(f_1, ..., f_n)``, whose metric is n times the mean.

    Args:
        generators: row-wise callables ``(B, d) -> (B, D_i)``; images and `torch.distributions.Normal` as in
            `PullbackMetric`.
    """

    def __init__(self, *generators: Generator) -> None:
        super().__init__()
        if not generators:
            raise ValueError("Stack needs at least one generator; got none")
        for i, generator in enumerate(generators):
            check_callable(f"generator {i}", generator, "(B, d) -> (B, D)")
        self.generators = generators
        self.modules_held = nn.ModuleList(g for g in generators if isinstance(g, nn.Module))

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        return torch.cat([Rows(generator)(z) for generator in self.generators], dim=-1)


@dataclass(frozen=True, eq=False)
class FlatField:
    """A tensor field ``(B, d) -> (B, d, d)`` as a generator ``(B, d) -> (B, d^2)``."""

    field: Callable[[Tensor], Tensor]

    def __call__(self, z: Tensor) -> Tensor:
        return self.field(z).flatten(1)


@dataclass(frozen=True, eq=False)
class Copying:
    """A generator that is given copies of the points, because it writes into them."""

    generator: Generator

    def __call__(self, z: Tensor) -> Tensor:
        return self.generator(z.clone())
