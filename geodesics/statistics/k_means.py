"""Clusters around Fréchet means: k-means by Riemannian distances."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_count_of,
    check_fits,
    check_floating,
    check_metric,
    check_points,
    check_positive,
    check_random,
    check_shape,
    check_solving,
)
from geodesics.connecting.geodesic import Solver
from geodesics.connecting.moving_ends import MovingEnds
from geodesics.curves.initial import InitialCurves
from geodesics.metrics.metric import Metric
from geodesics.statistics.means import descend

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

    Minimizes ``sum_i min_k d(m_k, z_i)^2`` by turns over labels and centers. Starts from k-means++ (Arthur and
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
    check_metric(metric)
    check_points("z", z)
    finite = z.isfinite().all(1)
    check_count_of("num_clusters", num_clusters, int(finite.sum()), "finite points")
    if start is not None:
        check_shape("start", start, "(K, d)", (num_clusters, z.shape[1]))
        check_floating("start", start)
    check_positive("tol", tol)
    check_count("max_iter", max_iter)
    check_solving(solver, initial, chunk_size)
    check_random(generator, z.device)
    check_fits(metric, z)
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


class _State(NamedTuple):
    """Clusters on their way; distances to the own center, infinite where unknown."""

    labels: Tensor
    centers: Tensor
    own: Tensor


def _better_of(old: _State, new: _State) -> _State:
    """The one with fewer unknown distances, and of two with as many that of lower inertia; the later one of equals."""
    lost = [int(state.own.isinf().sum()) for state in (old, new)]
    inertia = [float(torch.where(state.own.isinf(), 0.0, state.own).square().sum()) for state in (old, new)]
    return new if (lost[1], inertia[1]) <= (lost[0], inertia[0]) else old


def _lloyd(
    metric: Metric, z: Tensor, centers: Tensor, bounds: Tensor, ends: MovingEnds, tol: float, max_iter: int
) -> KMeans:
    """Turns of means and labels; ``bounds`` are lower bounds ``(n, K)`` of the distances, exact at first."""
    n, count = bounds.shape
    own, labels = bounds.min(1)
    bounds = torch.where(bounds.isfinite(), bounds, 0.0)
    clusters = torch.arange(count, device=z.device)
    converged, iterations = False, 0
    best = _State(labels, centers, own)
    while iterations < max_iter and not converged:
        iterations += 1
        members = (labels == clusters[:, None]) & own.isfinite()
        means = descend(metric, z, members.to(z), centers, ends, tol, _MEAN_STEPS)
        empty = means.mean.isnan().any(1)
        centers = torch.where(empty[:, None], centers, means.mean)
        bounds = (bounds - means.traveled).clamp(min=0)
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
        best = _better_of(best, _State(labels, centers, own))
    labels, centers, own = best
    lost = own.isinf()
    distances = own.masked_fill(lost, torch.nan)
    inertia = own.masked_fill(lost, 0.0).square().sum()
    return KMeans(labels.masked_fill(lost, -1), centers, distances, inertia, iterations, converged, ends.solved)
