"""Clustering by Riemannian distances: k-means with Fréchet means, and k-medoids of any distance matrix."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.initial import InitialCurves
from geodesics.means import descend
from geodesics.metrics import Metric
from geodesics.moving_ends import MovingEnds, check_points
from geodesics.solve import Solver

# Entries of the largest temporary tensor of k-medoids: bounds memory, and fits a processor's cache.
_ENTRIES = 2**18
# Steps of the means between two assignments.
_MEAN_STEPS = 5


class KMeans(NamedTuple):
    """What `riemannian_k_means` answers.

    Attributes:
        labels: cluster of each point, ``(n,)``; -1 where every geodesic of the point failed.
        centers: Fréchet means of the clusters, ``(K, d)``.
        distances: from each point to its own center, ``(n,)``; NaN where the label is -1.
        inertia: sum of their squares over the points that have one, ``()``.
        iterations: assignments after the first.
        converged: whether no label changed and every center was a Fréchet mean to tolerance.
        geodesics: connecting geodesics solved.
    """

    labels: Int[Tensor, " n"]
    centers: Float[Tensor, "k d"]
    distances: Float[Tensor, " n"]
    inertia: Float[Tensor, ""]
    iterations: int
    converged: bool
    geodesics: int


def riemannian_k_means(
    metric: Metric,
    z: Tensor,
    num_clusters: int,
    *,
    start: Tensor | None = None,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
    tol: float = 1e-3,
    max_iter: int = 30,
    generator: torch.Generator | None = None,
) -> KMeans:
    """Lloyd's algorithm with Riemannian distances and Fréchet means.

    Minimises ``sum_i min_k d(m_k, z_i)^2`` by turns over labels and centers. Starts from k-means++ (Arthur and
    Vassilvitskii 2007) with Riemannian distances. Distances that cannot decide a label are not computed: when a center
    has moved by s its distance to a point has fallen by s at most (Elkan 2003).

    A geodesic that fails decides nothing: its center does not compete for the point, and the point does not pull at the
    center; it is tried again at the next assignment. A cluster that loses all points keeps its center.

    Args:
        metric: the Riemannian metric.
        z: points ``(n, d)``.
        num_clusters: K.
        start: first centers ``(K, d)``; None for k-means++.
        solver: as in `geodesic`.
        initial: as in `geodesic`; on a learned metric `GraphPaths`. A pair whose center has moved little starts from
            its own last geodesic instead.
        chunk_size: as in `geodesic`.
        tol: on the means, as in `frechet_mean`.
        max_iter: assignments after the first.
        generator: of k-means++, on z's device; None for torch's own.

    Returns:
        Labels, centers and distances.

    Raises:
        ValueError: when shapes do not fit, num_clusters is not between 1 and the number of finite points, tol <= 0, or
            max_iter < 1.
        TypeError: when z is not a floating-point tensor.
    """
    check_points("z", z)
    finite = z.isfinite().all(1)
    if not 1 <= num_clusters <= int(finite.sum()):
        raise ValueError(f"num_clusters must be from 1 to the {int(finite.sum())} finite points; got {num_clusters}")
    if start is not None and start.shape != (num_clusters, z.shape[1]):
        raise ValueError(f"start must be (K, d) = {(num_clusters, z.shape[1])}; got {tuple(start.shape)}")
    if tol <= 0 or max_iter < 1:
        raise ValueError(f"tol must be positive and max_iter at least 1; got {tol} and {max_iter}")
    ends = MovingEnds(metric, num_clusters * len(z), z, solver, initial, chunk_size)
    with torch.no_grad():
        given = None if start is None else start.to(z)
        centers, bounds = _first_distances(z, num_clusters, given, ends, generator)
        return _lloyd(metric, z, centers, bounds, ends, tol, max_iter)


def _first_distances(
    z: Tensor, count: int, start: Tensor | None, ends: MovingEnds, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Centers, given or by k-means++, and distances ``(n, K)``, infinite where unknown."""
    n = len(z)
    points = torch.arange(n, device=z.device)
    centers = z.new_empty(count, z.shape[1])
    distances = z.new_empty(n, count)
    chance = z.isfinite().all(1).to(z)
    for k in range(count):
        centers[k] = z[torch.multinomial(chance, 1, generator=generator)[0]] if start is None else start[k]
        found = ends.logarithms(k * n + points, centers[k].expand(n, -1), z).lengths
        distances[:, k] = found.nan_to_num(torch.inf)
        nearest = distances[:, : k + 1].amin(1)
        known = torch.where(nearest.isfinite(), nearest, 0.0).square()
        # Fewer distinct points than centers: any point will do.
        chance = torch.where(known.sum() > 0, known, chance)
    return centers, distances


def _lloyd(
    metric: Metric, z: Tensor, centers: Tensor, bounds: Tensor, ends: MovingEnds, tol: float, max_iter: int
) -> KMeans:
    """Turns of means and labels; ``bounds`` are lower bounds ``(n, K)`` of the distances, exact at first."""
    n, count = bounds.shape
    own, labels = bounds.min(1)
    bounds = torch.where(bounds.isfinite(), bounds, 0.0)
    clusters = torch.arange(count, device=z.device)
    converged, iterations = False, 0
    while iterations < max_iter and not converged:
        iterations += 1
        members = (labels == clusters[:, None]) & own.isfinite()
        means = descend(metric, z, members.to(z), centers, ends, tol, _MEAN_STEPS)
        empty = means.mean.isnan().any(1)
        centers = torch.where(empty[:, None], centers, means.mean)
        bounds = (bounds - means.travelled).clamp(min=0)
        own = means.distances.T.gather(1, labels[:, None])[:, 0].nan_to_num(torch.inf)
        bounds.scatter_(1, labels[:, None], torch.where(own.isfinite(), own, 0.0)[:, None])
        other = (clusters != labels[:, None]) | own.isinf()[:, None]
        i, k = ((bounds < own[:, None]) & other).nonzero(as_tuple=True)
        found = ends.logarithms(k * n + i, centers[k], z[i]).lengths
        bounds[i, k] = torch.where(found.isnan(), bounds[i, k], found)
        known = torch.full_like(bounds, torch.inf)
        known.scatter_(1, labels[:, None], own[:, None])
        known[i, k] = found.nan_to_num(torch.inf)
        own, new = known.min(1)
        new = torch.where(own.isfinite(), new, labels)
        converged = bool((new == labels).all() & (means.converged | empty).all())
        labels = new
    lost = own.isinf()
    distances = own.masked_fill(lost, torch.nan)
    inertia = own.masked_fill(lost, 0.0).square().sum()
    return KMeans(labels.masked_fill(lost, -1), centers, distances, inertia, iterations, converged, ends.solved)


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
    if not isinstance(distances, Tensor) or not distances.is_floating_point():
        got = getattr(distances, "dtype", type(distances).__name__)
        raise TypeError(f"distances must be a floating-point tensor; got {got}")
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be (n, n); got {tuple(distances.shape)}")
    if bool((distances < 0).any()):
        raise ValueError("distances must not be negative")
    if num_starts < 1 or max_iter < 1:
        raise ValueError(f"num_starts and max_iter must be at least 1; got {num_starts} and {max_iter}")
    kept = _known_points(distances)
    if not 1 <= num_clusters <= len(kept):
        raise ValueError(f"num_clusters must be from 1 to the {len(kept)} points with distances; got {num_clusters}")
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
