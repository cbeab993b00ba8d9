"""Polynomial elements on [0, 1]: nodes, bases, quadrature, and the bookkeeping of shared end nodes.

A curve of N elements of degree p has ``N * p + 1`` nodes; neighboring elements share their end node. Inside an
element the nodes are the Gauss-Lobatto-Legendre points, the stable choice for interpolation.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import legendre
from torch import Tensor


@lru_cache
def lobatto_nodes(degree: int) -> np.ndarray:
    """The ``degree + 1`` Gauss-Lobatto-Legendre points on [0, 1], ends included."""
    interior = np.sort(legendre.legroots(legendre.legder([0.0] * degree + [1.0])).real)
    return (np.concatenate([[-1.0], interior, [1.0]]) + 1) / 2


@lru_cache
def gauss_rule(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], exact for degree ``2 * count - 1``."""
    nodes, weights = legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def lagrange_basis(nodes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and first derivatives of the Lagrange basis on ``nodes`` at the points ``at``; each ``(len(at), n)``."""
    degree = len(nodes) - 1
    to_legendre = np.linalg.inv(legendre.legvander(2 * nodes - 1, degree))
    derivative = legendre.legder(to_legendre, scl=2.0) if degree else np.zeros((1, 1))
    values = legendre.legvander(2 * at - 1, degree) @ to_legendre
    slopes = legendre.legvander(2 * at - 1, max(degree - 1, 0)) @ derivative
    return values, slopes


def basis_at(degree: int, at: Tensor) -> tuple[Tensor, Tensor]:
    """Values and derivatives of the Lobatto-Lagrange basis at a tensor of points in [0, 1], each ``(..., p + 1)``."""
    coefficients = torch.as_tensor(_monomials(degree)).to(at)
    powers = torch.arange(degree + 1, dtype=at.dtype, device=at.device)
    x = (2 * at - 1)[..., None]
    slopes = 2 * powers * x ** (powers - 1).clamp(min=0)
    return x**powers @ coefficients, slopes @ coefficients


@lru_cache
def _monomials(degree: int) -> np.ndarray:
    """Coefficients of the Lobatto-Lagrange basis in powers of x on [-1, 1], ``(p + 1, p + 1)``."""
    return np.linalg.inv(np.vander(2 * lobatto_nodes(degree) - 1, increasing=True))


class Elements(NamedTuple):
    """The matrices of one kind of element: free latent nodes, generator samples, quadrature points.

    Attributes:
        degree: p, the degree of the latent polynomial.
        num_samples: m, the degree to which the generator is sampled inside an element (m >= p); the samples are the
            m + 1 Lobatto points.
        to_samples: latent nodes to sample points, ``(m + 1, p + 1)``.
        sample_slopes: values at the samples to derivatives at the quadrature points, ``(g, m + 1)``.
        to_quadrature: latent nodes to quadrature points, ``(g, p + 1)``.
        quadrature_slopes: latent nodes to latent derivatives at the quadrature points, ``(g, p + 1)``.
        weights: Gauss weights on [0, 1], ``(g,)`` with g = m.
    """

    degree: int
    num_samples: int
    to_samples: Tensor
    sample_slopes: Tensor
    to_quadrature: Tensor
    quadrature_slopes: Tensor
    weights: Tensor


def make_elements(degree: int, num_samples: int, like: Tensor) -> Elements:
    """Build `Elements` with the dtype and device of ``like``."""
    nodes, samples = lobatto_nodes(degree), lobatto_nodes(num_samples)
    points, weights = gauss_rule(num_samples)
    to_quadrature, quadrature_slopes = lagrange_basis(nodes, points)
    matrices = (
        lagrange_basis(nodes, samples)[0],
        lagrange_basis(samples, points)[1],
        to_quadrature,
        quadrature_slopes,
        weights,
    )
    return Elements(degree, num_samples, *(torch.as_tensor(m).to(like) for m in matrices))


def lagrange_slopes(degree: int, like: Tensor) -> Tensor:
    """Nodal values to derivatives at the same Lobatto nodes, ``(p + 1, p + 1)``."""
    nodes = lobatto_nodes(degree)
    return torch.as_tensor(lagrange_basis(nodes, nodes)[1]).to(like)


def gather(nodal: Float[Tensor, "b n ..."], degree: int) -> Float[Tensor, "b s k ..."]:
    """View nodal values ``(B, N p + 1, ...)`` element by element, ``(B, N, p + 1, ...)``, shared nodes repeated."""
    unfolded = nodal.unfold(1, degree + 1, degree)
    return unfolded.movedim(-1, 2)


def scatter_add(local: Float[Tensor, "b s k ..."]) -> Float[Tensor, "b n ..."]:
    """Transpose of `gather`: add element contributions ``(B, N, p + 1, ...)`` into nodal values."""
    b, s, k = local.shape[:3]
    nodal = local.new_zeros(b, s * (k - 1) + 1, *local.shape[3:])
    nodal[:, :-1] = local[:, :, :-1].flatten(1, 2)
    nodal[:, k - 1 :: k - 1] += local[:, :, -1]
    return nodal


def join(local: Float[Tensor, "b s k ..."]) -> Float[Tensor, "b n ..."]:
    """Nodal values from element values that agree at shared nodes (the left inverse of `gather`)."""
    return torch.cat([local[:, :, :-1].flatten(1, 2), local[:, -1:, -1]], dim=1)


def elevate(nodal: Float[Tensor, "b n d"], degree: int) -> Float[Tensor, "b n1 d"]:
    """The same piecewise polynomials with one degree more."""
    values, _ = lagrange_basis(lobatto_nodes(degree), lobatto_nodes(degree + 1))
    return join(torch.as_tensor(values).to(nodal) @ gather(nodal, degree))
