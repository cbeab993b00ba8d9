"""Streamlines of the cheapest direction: curves along which the metric stretches least.

Where a decoder's uncertainty rules the metric, its level sets are cheap to travel along and dear to cross, by ratios of
ten to a hundred, and geodesics follow them round their bends. A straight edge between two points of one level set cuts
the bend and pays for it; a streamline does not.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Streamlines(NamedTuple):
    """Lines through seeds, their vertices from one end to the other, the seed in the middle.

    Attributes:
        points: ``(n, 2 k + 1, d)``.
        tensors: the metric there, ``(n, 2 k + 1, d, d)``.
        known: where the metric is finite, and was all the way from the seed, ``(n, 2 k + 1)``.
    """

    points: Float[Tensor, "n v d"]
    tensors: Float[Tensor, "n v d d"]
    known: Bool[Tensor, "n v"]


def trace(
    tensor: Callable[[Tensor], Tensor],
    seeds: Float[Tensor, "n d"],
    seed_tensors: Float[Tensor, "n d d"],
    step: float,
    count: int,
) -> Streamlines:
    """Follow the eigenvector of the metric's smallest eigenvalue from seeds, both ways.

    Steps by the midpoint rule, two metric tensors per vertex. A two-step method with one of them drifts further off the
    level sets in their bends, and paths on such lines are longer.

    Args:
        tensor: metric tensors of points, ``(n, d)`` to ``(n, d, d)``.
        seeds: ``(n, d)``.
        seed_tensors: the metric at the seeds.
        step: Euclidean length between vertices.
        count: vertices on either side of the seed.
    """
    both = torch.cat([seed_tensors, seed_tensors])
    known = _is_finite(both)
    way = _cheapest(both, known, torch.ones_like(both[:, 0]))
    way[len(seeds) :] *= -1
    z = torch.cat([seeds, seeds])
    points, tensors, alive = [], [], []
    for _ in range(count):
        halfway = tensor(z + step / 2 * way)
        known = known & _is_finite(halfway)
        z = z + step * _cheapest(halfway, known, way)
        M = tensor(z)
        known = known & _is_finite(M)
        way = _cheapest(M, known, way)
        points.append(z)
        tensors.append(M)
        alive.append(known)
    return Streamlines(_joined(points, seeds), _joined(tensors, seed_tensors), _joined(alive, _is_finite(seed_tensors)))


def _is_finite(M: Float[Tensor, "n d d"]) -> Bool[Tensor, " n"]:
    return M.isfinite().flatten(1).all(1)


def _cheapest(M: Float[Tensor, "n d d"], known: Bool[Tensor, " n"], toward: Float[Tensor, "n d"]) -> Tensor:
    """Unit eigenvectors of the smallest eigenvalues, on the side of given vectors; those where M is not known."""
    unit = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    v = torch.linalg.eigh(torch.where(known[:, None, None], M, unit)).eigenvectors[..., 0]
    v = torch.where((v * toward).sum(-1, keepdim=True) < 0, -v, v)
    return torch.where(known[:, None], v, toward)


def _joined(steps: list[Tensor], middle: Tensor) -> Tensor:
    """Vertices of both ways, the second reversed and first, and the seeds between them."""
    ahead, back = torch.stack(steps, dim=1).chunk(2)
    return torch.cat([back.flip(1), middle[:, None], ahead], dim=1)
