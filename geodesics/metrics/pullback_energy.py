"""Discrete energy of a pullback metric: the energy of the generator's polynomial interpolant along the curve.

In an element the generator is sampled at the m + 1 Lobatto points of the latent polynomial of degree p <= m, and the
energy is that of the polynomial of degree m through the values, in data space. For p = m = 1 this is the chord energy.
Only values enter the energy, so its gradient needs J and its exact Hessian F'' contracted with one vector per sample:
no third derivative, and no derivative at all is asked of a decoder's kinks. Order h^(2 p) in the length where the
decoder is smooth. Taking m well above p is what makes walls visible: with samples only at the free nodes, the nodes
slide to both sides of a wall of high uncertainty and the curve tunnels through it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.rows import rows_in_memory
from geodesics.batches.small_matrices import negative_part, solve_positive
from geodesics.curves.elements import Elements, gather, join, lagrange_slopes, scatter_add
from geodesics.generators.derivatives import second_order, value
from geodesics.generators.protocols import Generator
from geodesics.metrics.path_energy import Linearization, mean_metric, speed_profile, tangential_stiffness


class PullbackPathEnergy:
    """`PathEnergy` of the pullback metric of a generator.

    Args:
        generator: row-wise callable ``(B, d) -> (B, D)``.
        elements: the kind of element.
    """

    def __init__(self, generator: Generator, elements: Elements) -> None:
        self.generator, self.elements = generator, elements

    def samples(self, num_segments: int) -> int:
        return num_segments * self.elements.num_samples + 1

    def value(
        self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b s g"]]:
        chunk = rows_in_memory(points, 2 * self._data_size(points))
        speed = torch.cat([self._speed(part) for part in points.split(chunk)])
        return self._energy(speed, profile), speed

    def linearize(self, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None) -> Linearization:
        """With q_g the velocity at quadrature point g, ``E = 1/2 sum_g c_g |q_g|^2``, c_g = weight / profile.

        All that is D wide is done on chunks of rows that stay in cache; what is d wide is left to one batch.
        """
        z = self._samples(points)
        chunk = rows_in_memory(points, (4 * points.shape[-1] + 8) * self._data_size(points))
        parts = z.split(chunk)
        profiles = [None] * len(parts) if profile is None else profile.split(chunk)
        pulled = [self._pull_back(*part) for part in zip(parts, profiles, strict=True)]
        profile, speed, gradient, W, along, gram = (torch.cat(field) for field in zip(*pulled, strict=True))
        M, c = join(gram.diagonal(dim1=2, dim2=4).movedim(-1, 2)), self.elements.weights / profile
        stiffness = scatter_add(c @ self.elements.sample_slopes.square())
        return Linearization(
            profile,
            self._energy(speed, profile),
            speed,
            scatter_add(self.elements.to_samples.mT @ gradient),
            self._gauss_newton(gram, c) + self._diagonal(W + self._floor(M, stiffness)),
            self._diagonal(-along),
            self._diagonal(negative_part(W - along, M)),
            self._diagonal(self._sliding(z, M, stiffness)),
            M,
        )

    def displacement(self, step: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        return self._samples(step)

    def _data_size(self, points: Tensor) -> int:
        with torch.no_grad():
            data_dimension = value(self.generator, points[:1, 0]).shape[-1]
        return data_dimension * self.samples((points.shape[1] - 1) // self.elements.degree)

    def _samples(self, points: Tensor) -> Tensor:
        nodes = gather(points, self.elements.degree)
        return join(torch.einsum("sj,bnjd->bnsd", self.elements.to_samples, nodes))

    def _velocity(self, F: Tensor) -> Tensor:
        """Data-space velocity at the quadrature points, ``(B, N, g, D)``."""
        return self.elements.sample_slopes @ gather(F, self.elements.num_samples)

    def _speed(self, points: Tensor) -> Tensor:
        z = self._samples(points)
        F = value(self.generator, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return self._velocity(F).norm(dim=-1)

    def _energy(self, speed: Tensor, profile: Tensor | None) -> Tensor:
        weighted = speed.square() * speed.shape[1] if profile is None else speed.square() / profile
        return (weighted @ self.elements.weights).sum(1) / 2

    def _pull_back(self, z: Tensor, profile: Tensor | None) -> tuple[Tensor, ...]:
        """What is left of the generator at the samples z ``(B, n, d)`` once its outputs are summed over.

        Returns:
            The profile and the speeds, ``(B, N, g)`` both, the derivative of every element's energy in its samples
            ``(B, N, m + 1, d)``, the Hessian of ``<w, F>`` at the samples ``(B, n, d, d)`` with w the derivative of the
            energy in F, the same with the part of w that is tangential to the image, and the Gram matrices of all
            Jacobians of an element ``(B, N, m + 1, d, m + 1, d)``.
        """
        elements, shape = self.elements, z.shape
        F, J, contract = second_order(self.generator, z.flatten(0, 1))
        velocity = self._velocity(F.unflatten(0, shape[:2]))
        speed = velocity.norm(dim=-1)
        if profile is None:
            profile = speed_profile(speed, elements.weights)
        pull = velocity.mul_((elements.weights / profile)[..., None])
        w = scatter_add(elements.sample_slopes.mT @ pull).flatten(0, 1)
        W, along_image = (contract(x).unflatten(0, shape[:2]) for x in (w, tangential_part(J, w)))
        local = gather(J.movedim(0, 1).unflatten(0, shape[:2]), elements.num_samples).flatten(2, 3)
        gram = (local @ local.mT).unflatten(3, (-1, shape[2])).unflatten(2, (-1, shape[2]))
        along = (local @ pull.mT).unflatten(2, (-1, shape[2]))
        gradient = torch.einsum("gs,bnsdg->bnsd", elements.sample_slopes, along)
        return profile, speed, gradient, W, along_image, gram

    def _floor(self, M: Tensor, stiffness: Tensor) -> Tensor:
        """Stiffness along directions that the generator does not see, ``(B, n, d, d)``: there nodes would drift.

        It is eps^(2/3), 4e-11 in float64, of that along an axis in the curve's mean metric, so that the unit of an axis
        does not matter; and eps^2 of the largest along axes that no point of the curve sees.
        """
        mean = mean_metric(M).diagonal(dim1=1, dim2=2)
        eps = torch.finfo(M.dtype).eps
        axes = eps ** (2 / 3) * mean + eps**2 * mean.amax(1, keepdim=True)
        return stiffness[..., None, None] * torch.diag_embed(axes)[:, None]

    def _sliding(self, z: Tensor, M: Tensor, stiffness: Tensor) -> Tensor:
        """Stiffness against sliding along the curve at every sample, ``(B, n, d, d)``; see `tangential_stiffness`."""
        elements = self.elements
        slopes = lagrange_slopes(elements.num_samples, z)
        tangent = join(slopes @ gather(z, elements.num_samples))
        return tangential_stiffness(tangent, M, stiffness)

    def _gauss_newton(self, gram: Tensor, c: Tensor) -> Tensor:
        """Element matrices ``sum_g c_g B_g^T B_g`` with B_g the derivative of q_g in the element's nodes."""
        elements = self.elements
        stiffness = torch.einsum("gs,gt,bng->bnst", elements.sample_slopes, elements.sample_slopes, c)
        weighted = (gram * stiffness[:, :, :, None, :, None]).flatten(-2).flatten(-3, -2)
        to_samples = torch.kron(elements.to_samples, torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
        return to_samples.mT @ weighted @ to_samples

    def _once(self, samples: Tensor) -> Tensor:
        """Sample values element by element, a shared sample in its left element only."""
        local = gather(samples, self.elements.num_samples).clone()
        local[:, 1:, 0] = 0
        return local

    def _diagonal(self, W: Tensor) -> Tensor:
        """Element matrices of the point-wise d x d blocks W ``(B, n, d, d)`` at the samples."""
        basis = self.elements.to_samples
        blocks = torch.einsum("si,sj,bnskl->bnikjl", basis, basis, self._once(W))
        return blocks.flatten(-2).flatten(-3, -2)


def tangential_part(J: Float[Tensor, "d b D"], w: Float[Tensor, "b D"]) -> Float[Tensor, "b D"]:
    """The part ``J M^+ J^T w`` of vectors in data space that is tangential to the image, ``M = J^T J``.

    The diagonal of M is lifted by a share of itself, in no unit of an axis, so that no part is taken along directions
    that the generator does not see.
    """
    rows = J.movedim(0, 1)
    M = rows @ rows.mT
    limits = torch.finfo(w.dtype)
    diagonal = M.diagonal(dim1=1, dim2=2)
    lift = limits.eps**0.5 * diagonal + limits.tiny + limits.eps**2 * diagonal.amax(-1, keepdim=True)
    coefficients, _ = solve_positive(M + torch.diag_embed(lift), rows @ w[..., None])
    return (rows.mT @ coefficients)[..., 0]
