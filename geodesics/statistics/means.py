"""Fréchet means: the points with the least mean squared distance to weighted data."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_fits,
    check_floating,
    check_metric,
    check_points,
    check_positive,
    check_shape,
    check_solving,
)
from geodesics.batches.rows import take, write
from geodesics.connecting.geodesic import Solver
from geodesics.connecting.moving_ends import MovingEnds
from geodesics.curves.initial import InitialCurves
from geodesics.metrics.metric import Metric
from geodesics.ode.runge_kutta import step as runge_kutta_step

_ARMIJO = 0.1
_BACKTRACK = 0.5
# Share of a distance that its error may excuse.
_NOISE = 0.01


class FrechetMean(NamedTuple):
    """K Fréchet means of the same n points; no field of a mean depends on the others.

    Attributes:
        mean: ``(K, d)``; NaN where no geodesic from the start succeeded, or all weights are zero.
        variance: weighted mean of the squared distances, in the metric's unit squared, ``(K,)``.
        gradient: norm of the mean logarithm over the square root of the variance, scale-free, ``(K,)``.
        converged: whether the gradient is under its tolerance: a local minimum of the variance, ``(K,)``.
        iterations: steps tried, ``(K,)``.
        failed: points of positive weight whose geodesic from the mean failed, ``(K,)``.
        distances: to the points, ``(K, n)``; NaN where the weight is zero or the geodesic failed.
        logarithms: of the points at the mean, ``(K, n, d)``; NaN likewise.
        traveled: length of the way from the start to the mean, ``(K,)``.
    """

    mean: Float[Tensor, "k d"]
    variance: Float[Tensor, " k"]
    gradient: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    iterations: Int[Tensor, " k"]
    failed: Int[Tensor, " k"]
    distances: Float[Tensor, "k n"]
    logarithms: Float[Tensor, "k n d"]
    traveled: Float[Tensor, " k"]


def frechet_mean(
    metric: Metric,
    z: Tensor,
    weights: Tensor | None = None,
    *,
    start: Tensor | None = None,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
    tol: float = 1e-3,
    max_iter: int = 50,
) -> FrechetMean:
    """Weighted Fréchet means, K at once.

    Minimizes ``V(m) = sum_i w_i d(m, z_i)^2 / sum_i w_i`` by gradient descent on the manifold,
    ``m <- exp_m(s g)`` with ``g = sum_i w_i log_m(z_i) / sum_i w_i = -grad V / 2`` (Pennec 2006, "Intrinsic Statistics
    on Riemannian Manifolds"), s = 1 at first and halved, mean by mean, where V does not fall. On a curved space V may
    have several local minima; the start decides. A point whose geodesic fails, or whose distance is not resolved (see
    `distance`), counts neither in g nor in a comparison of two variances; it is counted in ``failed``, and one warning
    counts all of them.

    Args:
        metric: the Riemannian metric.
        z: points ``(n, d)``.
        weights: not negative, ``(K, n)``, one row per mean; None for one mean of equal weights. The mean of a row of
            zeros is NaN. Geodesics are solved for positive weights only, so K clusters of n points in all cost n
            geodesics per step.
        start: ``(K, d)``; None for the point of positive weight that is nearest to the Euclidean mean.
        solver: as in `geodesic`.
        initial: as in `geodesic`, for pairs that start afresh; others start from their geodesic of the last step.
        chunk_size: as in `geodesic`.
        tol: on the scale-free gradient: to first order the distance to the mean, relative to the standard deviation.
        max_iter: steps tried per mean; each costs a geodesic per point of positive weight.

    Returns:
        The means, with distances and logarithms of the points, for tangent-space statistics.

    Raises:
        ValueError: when shapes do not fit, weights are negative or not finite, tol <= 0, or max_iter < 0.
        TypeError: when z is not a floating-point tensor.
    """
    check_metric(metric)
    check_points("z", z, least=1)
    if weights is None:
        weights = z.new_ones(1, len(z))
    check_floating("weights", weights)
    if weights.ndim != 2 or weights.shape[1] != len(z):
        raise ValueError(f"weights must be (K, n) with n = {len(z)}; got {tuple(weights.shape)}")
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError("weights must be finite and not negative")
    weights = weights.to(z)
    check_positive("tol", tol)
    check_count("max_iter", max_iter, 0)
    check_solving(solver, initial, chunk_size)
    check_fits(metric, z)
    if start is None:
        start = central_points(z, weights)
    check_shape("start", start, "(K, d)", (len(weights), z.shape[1]))
    check_floating("start", start)
    ends = MovingEnds(metric, weights.numel(), z, solver, initial, chunk_size)
    with torch.no_grad():
        means = descend(metric, z, weights, start.to(z), ends, tol, max_iter)
    if lost := int(means.failed.sum()):
        pairs = int((weights > 0).sum())
        warnings.warn(
            f"{lost} of {pairs} geodesics from the means failed or are not resolved; they do not count", stacklevel=2
        )
    return means


def central_points(z: Float[Tensor, "n d"], weights: Float[Tensor, "k n"]) -> Float[Tensor, "k d"]:
    """Of the points of positive weight the one nearest to their weighted Euclidean mean."""
    usable = (weights > 0) & z.isfinite().all(1)
    w = torch.where(usable, weights, 0.0)
    mean = w @ z.nan_to_num(0.0, 0.0, 0.0) / w.sum(1, keepdim=True)
    distance = (mean[:, None] - z).norm(dim=-1)
    index = torch.where(usable, distance.nan_to_num(torch.inf), torch.inf).argmin(1)
    return torch.where(usable.any(1, keepdim=True), z[index], torch.nan)


def one_step(metric: Metric, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """The exponential of v at z by a single Runge-Kutta step of order 8.

    Where a descent comes to rest does not depend on how exactly it steps, and a bad step is found out and taken back:
    an adaptive integrator would spend ten times as many accelerations.
    """

    def field(state: Tensor) -> Tensor:
        point, velocity = state.chunk(2, dim=-1)
        return torch.cat([velocity, metric.acceleration(point, velocity)], dim=-1)

    state, _ = runge_kutta_step(field, torch.cat([z, v], dim=-1), torch.ones_like(z[:, 0]))
    return state[:, : z.shape[1]]


class _Place(NamedTuple):
    """A mean on its way, leading axis K: logarithms and distances (NaN where unknown), and length errors."""

    mean: Tensor
    logarithms: Tensor
    distances: Tensor
    errors: Tensor


class _Progress(NamedTuple):
    """What decides over the next step of a mean, leading axis K."""

    step: Tensor
    done: Tensor
    iterations: Tensor
    traveled: Tensor


def descend(
    metric: Metric,
    z: Float[Tensor, "n d"],
    weights: Float[Tensor, "k n"],
    start: Float[Tensor, "k d"],
    ends: MovingEnds,
    tol: float,
    max_iter: int,
) -> FrechetMean:
    """`frechet_mean` on pairs ``k n + i`` whose geodesics may be known from before."""
    rows = torch.arange(len(weights), device=z.device)
    place = _look(z, weights, rows, start, ends)
    whole = torch.zeros_like(rows)
    progress = _Progress(torch.ones_like(start[:, 0]), whole.bool(), whole.clone(), torch.zeros_like(start[:, 0]))
    gradient = torch.full_like(start[:, 0], torch.nan)
    for iteration in range(max_iter + 1):
        direction, gradient = _gradient(metric, weights, place)
        # A mean without any distance has no gradient: NaN stops it too.
        progress = progress._replace(done=progress.done | ~(gradient > tol))
        rows = (~progress.done).nonzero()[:, 0]
        if iteration == max_iter or rows.numel() == 0:
            break
        old, state, v = take(place, rows), take(progress, rows), direction[rows]
        move = state.step[:, None] * v
        new = _look(z, weights, rows, one_step(metric, old.mean, move), ends)
        better = _is_better(metric, weights[rows], old, new, v, state.step)
        write(place, rows, _choose(better, new, old))
        distance = metric.norm(old.mean, move)
        write(
            progress,
            rows,
            _Progress(
                torch.where(better, state.step, _BACKTRACK * state.step),
                state.done,
                state.iterations + 1,
                torch.where(better, state.traveled + distance, state.traveled),
            ),
        )
    variance = _variance(weights, place.distances)
    wanted = weights > 0
    failed = (wanted & place.distances.isnan()).sum(1)
    lost = variance.isnan()
    mean = place.mean.masked_fill(lost[:, None], torch.nan)
    converged = (gradient <= tol) & ~lost
    return FrechetMean(
        mean,
        variance,
        gradient,
        converged,
        progress.iterations,
        failed,
        place.distances,
        place.logarithms,
        progress.traveled,
    )


def _look(z: Tensor, weights: Tensor, rows: Tensor, mean: Tensor, ends: MovingEnds) -> _Place:
    """Logarithms at new places of some of the means."""
    k, i = (weights[rows] > 0).nonzero(as_tuple=True)
    found = ends.logarithms(rows[k] * len(z) + i, mean[k], z[i])
    place = _Place(
        mean.clone(),
        mean.new_full((len(rows), *z.shape), torch.nan),
        mean.new_full((len(rows), len(z)), torch.nan),
        mean.new_full((len(rows), len(z)), torch.nan),
    )
    place.logarithms[k, i], place.distances[k, i], place.errors[k, i] = found.vectors, found.lengths, found.errors
    return place


def _variance(weights: Tensor, distances: Tensor) -> Tensor:
    """Weighted mean of the squares of the known distances; NaN where none is known."""
    w = torch.where(distances.isnan(), 0.0, weights)
    return (w * distances.nan_to_num().square()).sum(1) / w.sum(1)


def _gradient(metric: Metric, weights: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
    """The mean logarithm, and its norm relative to the standard deviation: 0 where all points are one."""
    w = torch.where(place.distances.isnan(), 0.0, weights)
    direction = torch.einsum("kn,knd->kd", w, place.logarithms.nan_to_num()) / w.sum(1, keepdim=True)
    deviation = _variance(weights, place.distances).sqrt()
    relative = metric.norm(place.mean, direction) / torch.where(deviation == 0, 1.0, deviation)
    return direction, relative


def _is_better(metric: Metric, weights: Tensor, old: _Place, new: _Place, v: Tensor, step: Tensor) -> Tensor:
    """Whether the variance falls as the gradient promises, or by no less than its own error can tell."""
    both = ~(old.distances.isnan() | new.distances.isnan())
    w = torch.where(both, weights, 0.0)
    w = w / w.sum(1, keepdim=True)
    before, after = ((w * place.distances.nan_to_num().square()).sum(1) for place in (old, new))
    # A length that is not known to a hundredth excuses nothing: far off the data a step too long would pass for noise.
    errors = (place.errors.minimum(_NOISE * place.distances) for place in (old, new))
    noise = sum(
        (w * 2 * (place.distances * error).nan_to_num()).sum(1) for place, error in zip((old, new), errors, strict=True)
    )
    promised = 2 * _ARMIJO * step * metric.norm(old.mean, v).square()
    # A step that loses a distance hides what it costs. Where every distance is lost w is NaN, and so the answer is no.
    kept = ~((weights > 0) & new.distances.isnan() & ~old.distances.isnan()).any(1)
    return (after <= before - promised + noise) & kept


def _choose(better: Tensor, new: _Place, old: _Place) -> _Place:
    return _Place(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)))
