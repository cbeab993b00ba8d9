"""Which points begin in which component: given labels, or those of Euclidean k-means."""

import torch
from jaxtyping import Bool, Int
from sklearn.cluster import KMeans as EuclideanKMeans
from torch import Tensor

from geodesics.batches.arguments import check_shape


def euclidean_labels(z: Tensor, finite: Tensor, count: int, generator: torch.Generator | None) -> Int[Tensor, " n"]:
    device = None if generator is None else generator.device
    seed = int(torch.randint(2**31, (1,), generator=generator, device=device))
    points = z[finite].detach().cpu().numpy()
    found = EuclideanKMeans(count, n_init=10, random_state=seed).fit_predict(points)
    labels = torch.full(z.shape[:1], -1, dtype=torch.long, device=z.device)
    labels[finite] = torch.as_tensor(found, dtype=torch.long, device=z.device)
    return labels


def members(labels: Tensor, finite: Bool[Tensor, " n"], num_components: int) -> Bool[Tensor, "k n"]:
    """Which points begin in which component."""
    check_shape("labels", labels, "(n,)", finite.shape)
    if labels.is_floating_point() or labels.is_complex() or labels.device != finite.device:
        raise ValueError(f"labels must be integers on {finite.device}; got {labels.dtype} on {labels.device}")
    member = (labels == torch.arange(num_components, device=finite.device)[:, None]) & finite
    if not bool(member.any(1).all()):
        raise ValueError(f"labels must name every component from 0 to {num_components - 1}")
    return member
