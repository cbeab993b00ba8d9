"""Clusters around some of the points: k-medoids of any distance matrix."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_count, check_count_of, check_floating, check_random

# Entries of the largest temporary tensor: bounds memory, and fits a processor's cache.
_ENTRIES = 2**18


class KMedoids(NamedTuple):
    """What `k_medoids` answers: the best of its starts.

    Attributes:
        labels: cluster of each point, ``(n,)``; -1 for a point without any known distance.
        medoids: indices of the points that the clusters stand around, ``(K,)``.
        inertia: sum of the distances to the own medoid, ``()``.
        iterations: rounds of swaps of the start that won.
        converged: whether no swap of a medoid and another point lowers the inertia.
    """

    labels: Int[Tensor, " n"]
    medoids: Int[Tensor, " k"]
    inertia: Float[Tensor, ""]
    iterations: int
    converged: bool


def k_medoids(
    distances: Tensor,
    num_clusters: int,
    *,
    num_starts: int = 10,
    max_iter: int = 100,
    generator: torch.Generator | None = None,
) -> KMedoids:
    """Partition around medoids: K of the points, with the least sum of distances from every point to the nearest.

    The swap phase of PAM (Kaufman and Rousseeuw 1990): of all n K exchanges of a medoid and another point, those that
    lower the sum, until none does. All exchanges of all starts are computed at once, and the best of every medoid is
    made if it still helps after the others (FastPAM, Schubert and Rousseeuw 2019). Starts are drawn as in k-means++.

    NaN, the distance of a pair whose geodesic failed, decides nothing. It is replaced by the shortest detour over one
    other point, the bound that the triangle inequality gives, and by the largest known distance where there is no
    detour. A point that has no known distance to any other is left out.

    Args:
        distances: not negative, ``(n, n)``, as from `distance_matrix`; entry (i, j) is the cost of point i at medoid j.
        num_clusters: K.
        num_starts: random starts, of which the best counts.
        max_iter: rounds of swaps per start.
        generator: of the starts, on the device of the distances; None for torch's own.

    Returns:
        Labels, medoids and their sum of distances.

    Raises:
        ValueError: when distances is not square or has a negative entry, num_clusters is not between 1 and the number
            of points that have a known distance, or another number is below 1.
        TypeError: when distances is not a floating-point tensor.
    """
    check_floating("distances", distances)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be (n, n); got {tuple(distances.shape)}")
    if bool((distances < 0).any()):
        raise ValueError("distances must not be negative")
    check_count("num_starts", num_starts)
    check_count("max_iter", max_iter)
    check_random(generator, distances.device)
    kept = _known_points(distances)
    check_count_of("num_clusters", num_clusters, len(kept), "points with distances")
    with torch.no_grad():
        D = _completed(distances[kept][:, kept])
        medoids = _first_medoids(D, num_clusters, num_starts, generator)
        medoids, iterations, converged = _swap(D, medoids, max_iter)
        nearest, labels = D[:, medoids].min(-1)  # (n, S)
        best = nearest.sum(0).argmin()
        all_labels = torch.full_like(distances[:, 0], -1, dtype=torch.long)
        all_labels[kept] = labels[:, best]
    return KMedoids(
        all_labels, kept[medoids[best]], nearest[:, best].sum(), int(iterations[best]), bool(converged[best])
    )


def _known_points(distances: Tensor) -> Tensor:
    """Indices of the points with a known distance to another one; a single point needs none."""
    known = distances.isfinite()
    others = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    linked = ((known | known.T) & others).any(1)
    return (linked | (len(distances) == 1)).nonzero()[:, 0]


def _completed(distances: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Distances with the unknown ones replaced by upper bounds."""
    n = len(distances)
    D = distances.clone().fill_diagonal_(0)
    unknown = ~D.isfinite()
    D[unknown] = torch.inf
    i, j = unknown.nonzero(as_tuple=True)
    bounds = [(D[a] + D.T[b]).amin(1) for a, b in zip(i.split(_ENTRIES // n), j.split(_ENTRIES // n), strict=True)]
    largest = torch.where(D.isinf(), 0.0, D).amax()
    if bounds:
        D[i, j] = torch.cat(bounds)
    return torch.where(D.isinf(), largest, D)


def _first_medoids(D: Tensor, count: int, num_starts: int, generator: torch.Generator | None) -> Tensor:
    """``(S, K)`` distinct points, each drawn by its squared distance to those before it."""
    chance = torch.ones_like(D[:1]).repeat(num_starts, 1)
    nearest = torch.full_like(chance, torch.inf)
    free = torch.ones_like(chance, dtype=torch.bool)
    chosen: list[Tensor] = []
    for _ in range(count):
        chosen.append(torch.multinomial(chance, 1, generator=generator))
        free.scatter_(1, chosen[-1], False)
        nearest = torch.minimum(nearest, D.T[chosen[-1][:, 0]])
        chance = nearest.square() * free
        # Where all others coincide with a medoid, any of them will do.
        chance = torch.where(chance.sum(1, keepdim=True) > 0, chance, free.to(D))
    return torch.cat(chosen, dim=1)


def _swap(D: Tensor, medoids: Int[Tensor, "s k"], max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """Swap until nothing helps, start by start: medoids, number of rounds, and whether the start has come to rest."""
    medoids = medoids.clone()
    iterations = torch.zeros_like(medoids[:, 0])
    rest = torch.zeros_like(iterations, dtype=torch.bool)
    for _ in range(max_iter):
        rows = (~rest).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        current, before = medoids[rows], _sums(D, medoids[rows])
        change, taker = _best_takers(D, current)
        total = before
        order = change.argsort(1)
        for rank in range(medoids.shape[1]):
            place = order[:, rank : rank + 1]
            trial = current.scatter(1, place, taker.gather(1, place))
            sums = _sums(D, trial)
            # A gain within rounding could be taken back by the next swap.
            helps = sums < total * (1 - 16 * torch.finfo(D.dtype).eps)
            current, total = torch.where(helps[:, None], trial, current), torch.where(helps, sums, total)
        medoids[rows] = current
        rest[rows] = total == before
        iterations[rows] += (total < before).long()
    return medoids, iterations, rest


def _sums(D: Tensor, medoids: Tensor) -> Float[Tensor, " s"]:
    return D[:, medoids].amin(-1).sum(0)


def _best_takers(D: Tensor, medoids: Int[Tensor, "s k"]) -> tuple[Tensor, Tensor]:
    """For every medoid the point that best takes its place, and the change of the sum then; each ``(S, K)``."""
    n, (starts, count) = len(D), medoids.shape
    two = D[:, medoids].topk(min(2, count), dim=-1, largest=False)  # (n, S, 1 or 2)
    nearest = two.values[..., 0].T[:, :, None]
    second = two.values[..., 1].T[:, :, None] if count > 1 else torch.full_like(nearest, torch.inf)
    member = torch.nn.functional.one_hot(two.indices[..., 0].T, count).to(D)  # (S, n, K)
    best, taker = torch.full_like(medoids, 0, dtype=D.dtype) + torch.inf, medoids
    for columns in torch.arange(n, device=D.device).split(max(1, _ENTRIES // (n * starts))):
        to_new = D[:, columns].expand(starts, -1, -1)
        gain = (to_new - nearest).clamp(max=0)  # of points that the new medoid takes whoever leaves
        loss = torch.minimum(to_new, second) - nearest - gain  # further, of points whose medoid leaves
        change, index = (gain.sum(1)[:, None] + member.mT @ loss).min(-1)
        taker = torch.where(change < best, columns[index], taker)
        best = torch.minimum(change, best)
    return best, taker
