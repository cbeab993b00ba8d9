"""An even cover of the data's region of a latent space."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor


def cover(
    latents: Float[Tensor, "n d"],
    num_nodes: int,
    seed: int,
    part: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "m d"]:
    """About ``num_nodes`` points that cover the region of the data evenly, or those of a part of it.

    Candidates are the data and random points on lines between data points, half of them near and half anywhere, a
    little beyond their ends too; they are thinned in random order to a minimal distance.

    Args:
        latents: the data.
        num_nodes: points wanted in the whole region.
        seed: of the random points.
        part: whether candidates ``(n, d)`` belong to the part, ``(n,)``.
    """
    generator = torch.Generator().manual_seed(seed)
    count, device = len(latents), latents.device
    per_point = -(-2 * num_nodes // count)
    positions = latents.cpu().numpy()
    near = NearestNeighbors(n_neighbors=min(200, count)).fit(positions).kneighbors(positions, return_distance=False)
    local = torch.as_tensor(near).gather(1, torch.randint(0, near.shape[1], (count, per_point), generator=generator))
    anywhere = torch.randint(0, count, (count, per_point), generator=generator)
    partners = torch.cat([local, anywhere], dim=1).to(device)
    t = torch.rand(*partners.shape, 1, generator=generator, dtype=latents.dtype).to(device) * 1.6 - 0.3
    free = latents[:, None] + t * (latents[partners] - latents[:, None])
    candidates = torch.cat([latents, free.flatten(0, 1)])
    candidates = candidates[torch.randperm(len(candidates), generator=generator).to(device)]
    if part is None:
        return _thin(candidates, num_nodes)
    inside = candidates[part(candidates)]
    return _thin(inside, -(-num_nodes * len(inside) // len(candidates)))


def _thin(points: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m d"]:
    """Drop points too near to an earlier one; the least distance grows until at most about ``count`` are left."""
    if len(points) <= count:
        return points
    positions = points.cpu().numpy()
    distances, _ = NearestNeighbors(n_neighbors=max(2, len(points) // count)).fit(positions).kneighbors(positions)
    radius = float(np.median(distances[:, -1]))
    kept = np.arange(len(points))
    while len(kept) > count:
        close = NearestNeighbors(radius=radius).fit(positions[kept]).radius_neighbors(return_distance=False)
        covered = np.zeros(len(kept), dtype=bool)
        for i, neighbors in enumerate(close):
            if not covered[i]:
                covered[neighbors[neighbors > i]] = True
        kept = kept[~covered]
        radius *= 1.15
    return points[torch.as_tensor(kept, device=points.device)]
