"""The exponential map: shoot a geodesic from a point with a velocity."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import (
    check_alike,
    check_count,
    check_fits,
    check_floating,
    check_metric,
    check_positive,
)
from geodesics.metrics.metric import Metric
from geodesics.ode.flow import Flow, integrate


def exp_map(
    metric: Metric,
    z: Tensor,
    v: Tensor,
    *,
    tol: float | None = None,
    max_steps: int = 1000,
) -> Float[Tensor, "b d"]:
    """End points of geodesics, ``exp_z(v) = c(1)`` with ``c'' = a(c, c')``, c(0) = z, c'(0) = v.

    The geodesic ODE of Arvanitidis, Hansen and Hauberg (2018, appendix), integrated by torchdiffeq's dopri8
    with every row's error under the tolerance; see `geodesic_flow` for curves, velocities and the error of
    each row. Not differentiated through.

    Args:
        metric: the Riemannian metric. The acceleration of a pullback metric needs second derivatives of the
            generator, which ReLU networks do not have: there the result is ``z + v``; see `check_generator`.
        z: starts ``(B, d)``, latent units.
        v: initial velocities ``(B, d)``, latent units per unit of time; the geodesic's length is ``||v||`` in
            the metric.
        tol: local error per step, relative to the row's own displacement and velocity; None for about 1e-9 in
            float64 and 2e-5 in float32.
        max_steps: steps that a row may need; each costs 13 accelerations.

    Returns:
        ``(B, d)``; NaN in the rows that failed (see `geodesic_flow`), with one warning that counts them.

    Raises:
        ValueError: when the shapes, dtypes or devices of z and v do not fit, or an option is out of range.
        TypeError: when z or v is not a floating-point tensor.
    """
    _check_tangents(metric, z, v, tol, max_steps)
    times = torch.linspace(0, 1, 2, dtype=z.dtype, device=z.device)
    return _warned(integrate(metric, z, v, times, tol, max_steps)).points[:, -1]


def geodesic_flow(
    metric: Metric,
    z: Tensor,
    v: Tensor,
    times: Tensor,
    *,
    tol: float | None = None,
    max_steps: int = 1000,
) -> Flow:
    """Geodesics ``c(t) = exp_z(t v)`` with their velocities at given times, and the error of each row.

    Args:
        metric: the Riemannian metric.
        z: starts ``(B, d)``.
        v: initial velocities ``(B, d)``.
        times: ``(T,)``, increasing from 0, T >= 2, of z's dtype and device.
        tol: as in `exp_map`.
        max_steps: as in `exp_map`.

    Returns:
        A `Flow`: points and velocities ``(B, T, d)``, drift of the speed and failures ``(B,)``. A row fails
        when its acceleration stops being finite, when it needs too many or too short steps, or when its speed
        drifts by more than the square root of the tolerance; it is NaN then, one warning counts such rows,
        and no other row changes.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit, times do not increase from 0, or an option is out
            of range.
        TypeError: when z or v is not a floating-point tensor.
    """
    _check_tangents(metric, z, v, tol, max_steps)
    check_floating("times", times)
    if times.ndim != 1 or len(times) < 2 or times.dtype != z.dtype or times.device != z.device:
        raise ValueError(
            f"times must be (T,) with T >= 2, {z.dtype} on {z.device}; "
            f"got {tuple(times.shape)}, {times.dtype} on {times.device}"
        )
    if not bool((times[0] == 0) & (times.diff() > 0).all() & times.isfinite().all()):
        raise ValueError("times must increase from 0 and be finite")
    return _warned(integrate(metric, z, v, times, tol, max_steps))


def _check_tangents(metric: Metric, z: Tensor, v: Tensor, tol: float | None, max_steps: int) -> None:
    check_metric(metric)
    check_alike({"z": z, "v": v})
    if tol is not None:
        check_positive("tol", tol)
        if tol >= 1:
            raise ValueError(f"tol must be below 1; got {tol}")
    check_count("max_steps", max_steps)
    check_fits(metric, z)


def _warned(flow: Flow) -> Flow:
    failed = int(flow.failed.sum())
    if failed:
        warnings.warn(f"{failed} of {len(flow.failed)} geodesics could not be integrated", stacklevel=3)
    return flow
