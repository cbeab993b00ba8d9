"""Random walks in the latent space: the scheme of "Latent Space Oddity", and Brownian motion on the manifold.

Both take steps that are normal in the metric; they differ by a drift. A step ``z <- z + s v`` follows the straight line
of the chart, a step of Brownian motion the geodesic: to second order ``exp_z(v) = z + v + a(z, v) / 2`` with a the
geodesic acceleration, and the mean of the last term over the directions does not vanish. Without it the walk depends
on the chart, and is no diffusion of the manifold.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_fits,
    check_metric,
    check_points,
    check_positive,
    check_random,
    plain,
)
from geodesics.metrics.metric import Metric


def random_walk(
    metric: Metric,
    z0: Tensor,
    num_steps: int,
    step_size: float,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b t d"]:
    """Walkers that take long steps where the metric is small and short steps where it is large.

    ``z <- z + s v`` with ``v ~ N(0, M(z)^-1)`` (Arvanitidis, Hansen and Hauberg 2018, section 4.4). The paper draws
    ``v = U L^(-1/2) eps`` from the eigenvectors of ``M = U L U^T``; here ``v = R^-T eps`` with the Cholesky factor of
    ``M = R R^T``, which has the same distribution. One metric tensor per step and walker.

    Args:
        metric: the Riemannian metric. A Euclidean walk is the one in a `FunctionMetric` that returns the identity.
        z0: starts of the walkers ``(B, d)``.
        num_steps: T.
        step_size: s, in the metric's unit of length: a step is ``s sqrt(d)`` long, root mean square.
        generator: source of randomness, on z0's device; None for torch's own.

    Returns:
        Positions ``(B, T + 1, d)``, z0 first. A walker that cannot go on, because M is not finite or not positive
        definite where it stands, is NaN from there on; one warning counts such walkers, and no other changes.

    Raises:
        ValueError: when z0 is not ``(B, d)``, num_steps < 1, or step_size is not positive.
        TypeError: when z0 is not a floating-point tensor.
    """
    _check_walk(metric, z0, num_steps, "step_size", step_size, generator)
    return _walk(metric, z0, num_steps, step_size, 0.0, generator)


def brownian_motion(
    metric: Metric,
    z0: Tensor,
    num_steps: int,
    time_step: float,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b t d"]:
    """Brownian motion of the manifold, the diffusion of half its Laplace-Beltrami operator.

    In coordinates the Itô equation ``dz = b(z) dt + M(z)^(-1/2) dW`` with the drift of `brownian_drift` (Hsu 2002,
    "Stochastic Analysis on Manifolds", section 3.3), by the Euler-Maruyama method, of weak order 1 in the time step.
    The law of the path does not depend on the chart. Compare with `random_walk` at ``time_step = step_size^2``.

    Args:
        metric: the Riemannian metric; each step costs one metric tensor and d accelerations per walker.
        z0: starts of the walkers ``(B, d)``.
        num_steps: T.
        time_step: h, in the metric's unit of length squared: mean squared displacement is ``d h`` per step.
        generator: source of randomness, on z0's device; None for torch's own.

    Returns:
        Positions ``(B, T + 1, d)`` at the times 0, h, ..., T h; NaN as in `random_walk`.

    Raises:
        ValueError: when z0 is not ``(B, d)``, num_steps < 1, or time_step is not positive.
        TypeError: when z0 is not a floating-point tensor.
    """
    _check_walk(metric, z0, num_steps, "time_step", time_step, generator)
    return _walk(metric, z0, num_steps, time_step**0.5, time_step, generator)


def brownian_drift(metric: Metric, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Itô drift of Brownian motion, ``b^i = -1/2 sum_jk M^jk Gamma^i_jk``.

    Computed as ``1/2 sum_a a(z, e_a)``: the mean geodesic acceleration over an orthonormal frame e_1, ..., e_d of the
    metric, ``-1/2 M^-1 J^T sum_a F''[e_a, e_a]`` for a pullback metric; no Christoffel symbol is formed. A generator
    without second derivatives (ReLU) has none here either: see `check_generator`.

    Args:
        metric: the Riemannian metric.
        z: points ``(B, d)``.

    Returns:
        ``(B, d)``, latent units per unit of time; NaN where M is not finite or not positive definite.

    Raises:
        ValueError: when z is not ``(B, d)``.
        TypeError: when the metric is none, or z is not a floating-point tensor.
    """
    check_metric(metric)
    check_points("z", z, "B")
    (z,) = plain(z)
    check_fits(metric, z)
    return _drift(metric, z, orthonormal_frame(metric.tensor(z)))


def orthonormal_frame(M: Float[Tensor, "b d d"]) -> Float[Tensor, "b d d"]:
    """``E = R^-T`` of ``M = R R^T``: ``E^T M E = I`` and ``E E^T = M^-1``; NaN where M is not positive definite."""
    R, info = torch.linalg.cholesky_ex(M)
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device).expand_as(M)
    frame = torch.linalg.solve_triangular(R.mT, eye, upper=True)
    return torch.where((info == 0)[:, None, None], frame, torch.nan)


def _drift(metric: Metric, z: Tensor, frame: Tensor) -> Tensor:
    b, d = z.shape
    vectors = frame.movedim(-1, 0)  # (d, B, d): the a-th vector of every row
    return metric.acceleration(z.repeat(d, 1), vectors.reshape(d * b, d)).view(d, b, d).sum(0) / 2


def _walk(
    metric: Metric, z0: Tensor, num_steps: int, scale: float, drift_time: float, generator: torch.Generator | None
) -> Tensor:
    positions = z0.new_empty(len(z0), num_steps + 1, z0.shape[1])
    positions[:, 0] = z = z0.detach()
    with torch.no_grad():
        for step in range(num_steps):
            noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
            frame = orthonormal_frame(metric.tensor(z))
            move = scale * torch.einsum("bij,bj->bi", frame, noise)
            if drift_time:
                move = move + drift_time * _drift(metric, z, frame)
            # An infinite position is one that no metric can go on from.
            moved = z + move
            z = torch.where(moved.isfinite().all(1, keepdim=True), moved, torch.nan)
            positions[:, step + 1] = z
    lost = int(z.isnan().any(1).sum())
    if lost:
        warnings.warn(f"{lost} of {len(z)} walkers could not go on; they are NaN from there", stacklevel=3)
    return positions


def _check_walk(
    metric: Metric, z0: Tensor, num_steps: int, name: str, size: float, generator: torch.Generator | None
) -> None:
    check_metric(metric)
    check_points("z0", z0, "B")
    check_count("num_steps", num_steps)
    check_positive(name, size)
    check_random(generator, z0.device)
    check_fits(metric, z0)
