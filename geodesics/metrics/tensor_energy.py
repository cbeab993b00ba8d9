"""Discrete energy of any metric tensor field: Gauss quadrature of ``1/2 c'^T G(c) c'`` in every element.

For metrics with no embedding. With latent polynomials of degree p and m >= p Gauss points per element the length is
accurate to order h^(2 p). The Hessian needs second derivatives of G.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.rows import rows_in_memory
from geodesics.batches.small_matrices import negative_part
from geodesics.curves.elements import Elements, gather, scatter_add
from geodesics.generators.derivatives import contracted_hessian
from geodesics.generators.protocols import FlatField
from geodesics.metrics.connection import TensorField, tensor_derivative
from geodesics.metrics.path_energy import Linearization, speed_profile, tangential_stiffness


class GeneralPathEnergy:
    """`PathEnergy` of a metric given as a function.

    Args:
        function: tensor field ``(B, d) -> (B, d, d)``.
        elements: the kind of element.
    """

    def __init__(self, function: TensorField, elements: Elements) -> None:
        self.function, self.elements = function, elements

    def samples(self, num_segments: int) -> int:
        return num_segments * self.elements.num_samples

    def value(
        self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b s g"]]:
        c, v = self._positions(points)
        G = self.function(c.flatten(0, 2)).unflatten(0, c.shape[:3])
        squared = torch.einsum("bngi,bngij,bngj->bng", v, G, v)
        return self._energy(squared, profile), squared.sqrt()

    def linearize(self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None) -> Linearization:
        d = points.shape[-1]
        chunk = rows_in_memory(points, 4 * d**3 * self.samples((points.shape[1] - 1) // self.elements.degree))
        parts = points.split(chunk)
        profiles = [None] * len(parts) if profile is None else profile.split(chunk)
        models = [self._linearize(*part) for part in zip(parts, profiles, strict=True)]
        return Linearization(*(torch.cat(field) for field in zip(*models, strict=True)))

    def _positions(self, points: Tensor) -> tuple[Tensor, Tensor]:
        nodes = gather(points, self.elements.degree)
        return self.elements.to_quadrature @ nodes, self.elements.quadrature_slopes @ nodes

    def displacement(self, step: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return (self.elements.to_quadrature @ gather(step, self.elements.degree)).flatten(1, 2)

    def _energy(self, squared: Tensor, profile: Tensor | None) -> Tensor:
        weighted = squared * squared.shape[1] if profile is None else squared / profile
        return (weighted @ self.elements.weights).sum(1) / 2

    def _linearize(self, points: Tensor, profile: Tensor | None) -> Linearization:
        """One chunk of rows, from the derivatives of ``e(c, v) = 1/2 v^T G(c) v`` at the quadrature points."""
        c, v = self._positions(points)
        shape = c.shape[:3]
        position, velocity = c.flatten(0, 2), v.flatten(0, 2)
        G, dG = tensor_derivative(self.function, position)
        Gv = (G @ velocity[..., None])[..., 0]
        dGv = torch.einsum("kbij,bj->bki", dG, velocity)  # derivative of G v, position axis first
        e_c = torch.einsum("bki,bi->bk", dGv, velocity) / 2
        outer = velocity[:, :, None] * velocity[:, None, :] / 2
        e_cc = contracted_hessian(FlatField(self.function), position, outer.flatten(1))
        squared = (velocity * Gv).sum(-1).unflatten(0, shape)
        # e is convex in (c, v) iff its Schur complement on c is positive semi-definite.
        L, info = torch.linalg.cholesky_ex(G)
        half = torch.linalg.solve_triangular(L, dGv.mT, upper=False)
        shift = negative_part(e_cc - half.mT @ half, G)
        shift = torch.where((info == 0)[:, None, None], shift, torch.full_like(shift, torch.nan))
        if profile is None:
            profile = speed_profile(squared.sqrt(), self.elements.weights)
        weight = self.elements.weights / profile
        stiffness = self.elements.degree**2 * torch.ones_like(weight)
        sliding = tangential_stiffness(v, G.unflatten(0, shape), stiffness).flatten(0, 2)
        basis, slopes = self.elements.to_quadrature, self.elements.quadrature_slopes

        def assemble(left: Tensor, right: Tensor, blocks: Tensor) -> Tensor:
            local = torch.einsum("gi,gj,bng,bngkl->bnikjl", left, right, weight, blocks.unflatten(0, shape))
            return local.flatten(-2).flatten(-3, -2)

        mixed = assemble(basis, slopes, dGv)
        gradient = torch.einsum("gi,bng,bngk->bnik", slopes, weight, Gv.unflatten(0, shape))
        gradient = gradient + torch.einsum("gi,bng,bngk->bnik", basis, weight, e_c.unflatten(0, shape))
        return Linearization(
            profile,
            self._energy(squared, profile),
            squared.sqrt(),
            scatter_add(gradient),
            assemble(slopes, slopes, G) + mixed + mixed.mT + assemble(basis, basis, e_cc),
            torch.zeros_like(mixed),
            assemble(basis, basis, shift),
            assemble(basis, basis, sliding),
            G.unflatten(0, shape).flatten(1, 2),
        )
