"""The geodesic ODE as an initial-value problem: c'' = a(c, c'), integrated for all rows in one call.

torchdiffeq takes one step for the whole batch. Left alone it controls the mean error over the batch, lets a
row of NaN spoil every step, and raises when one row needs steps below rounding. Here the error norm is the
largest over rows, so that every row keeps its own tolerance, and a row that cannot be integrated is frozen:
its derivative becomes zero, it leaves the norm, and the others go on.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchdiffeq import odeint

from geodesics.metrics.metric import Metric

_METHOD, _ORDER = "dopri8", 8
# Steps in units of the whole time: the first and longest, and the shortest before a row is given up.
_FIRST_STEP, _LONGEST_STEP, _SHORTEST_STEP = 1 / 64, 1 / 8, 1e-8
# Error ratios below this say nothing about the step that a row would want: rounding, or a neighbor's short
# steps.
_TELLING_RATIO = 1e-3


class Flow(NamedTuple):
    """Solutions of the geodesic ODE at given times; NaN in the rows that failed.

    Attributes:
        points: c(t), ``(B, T, d)``, latent units.
        velocities: c'(t), ``(B, T, d)``, latent units per unit of time.
        drift: largest relative change of the Riemannian speed over the given times, ``(B,)``. The speed of a
            geodesic is constant, so this is an error that needs no reference.
        failed: ``(B,)``: the metric was not finite or not positive definite on the way, the row needed too
            many or too short steps (a wall, the edge of the chart), or its speed was not conserved.
    """

    points: Float[Tensor, "b t d"]
    velocities: Float[Tensor, "b t d"]
    drift: Float[Tensor, " b"]
    failed: Bool[Tensor, " b"]


def default_tolerance(dtype: torch.dtype) -> float:
    """Relative tolerance of integration and shooting: about 1e-9 in float64, 2e-5 in float32."""
    return float(torch.finfo(dtype).eps ** 0.5 / 16)


def integrate(
    metric: Metric,
    z: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    times: Float[Tensor, " t"],
    tol: float | None,
    max_steps: int,
) -> Flow:
    """Integrate ``c'' = a(c, c')`` from c(0) = z, c'(0) = v with torchdiffeq's dopri8.

    The state is ``(c - z, c')`` and the tolerance of a row relative to its own state and initial velocity, so
    neither the place nor the speed of a curve changes how exactly it is computed. The steps are shared: a row
    alone and in a batch agree to the tolerance, not to rounding, and a batch takes the steps of its hardest
    row.

    Args:
        metric: the Riemannian metric; its ``acceleration`` is called 13 times a step.
        z: starts ``(B, d)``.
        v: initial velocities ``(B, d)``.
        times: ``(T,)``, increasing from 0.
        tol: local error per step, relative; None for `default_tolerance`.
        max_steps: steps that a row may need, counted as if it were alone.

    Returns:
        Points and velocities at the times, with drift and failures per row.
    """
    tol = default_tolerance(z.dtype) if tol is None else tol
    span = times[-1]
    with torch.no_grad():
        field = _GuardedField(metric, z, v, times, max_steps)
        scale = torch.linalg.vector_norm(v, dim=1, keepdim=True).nan_to_num(1.0)
        smallest = torch.finfo(z.dtype).tiny / tol
        states = odeint(
            field,
            torch.cat([torch.zeros_like(z), v.nan_to_num(0.0, 0.0, 0.0)], dim=1),
            times,
            rtol=tol,
            atol=tol * scale.clamp(min=smallest, max=1 / smallest),
            method=_METHOD,
            options={
                "norm": field.norm,
                "first_step": _FIRST_STEP * span,
                "max_step": _LONGEST_STEP * span,
                "min_step": _SHORTEST_STEP * span,
                # Steps end exactly on the times: the interpolation between is of lower order than the method.
                "step_t": times[1:],
            },
        ).movedim(0, 1)
        displacement, velocities = states.chunk(2, dim=-1)
        points = z[:, None] + displacement
        drift = _speed_drift(metric, points, velocities)
        failed = field.frozen | ~(drift <= tol**0.5)
        lost = failed[:, None, None]
        return Flow(points.masked_fill(lost, torch.nan), velocities.masked_fill(lost, torch.nan), drift, failed)


def _speed_drift(metric: Metric, points: Tensor, velocities: Tensor) -> Tensor:
    speed = metric.norm(points.flatten(0, 1), velocities.flatten(0, 1)).unflatten(0, points.shape[:2])
    start = speed[:, :1]
    change = (speed - start).abs() / torch.where(start == 0, 1.0, start)
    return change.amax(1)


class _GuardedField:
    """Right-hand side and error norm of the batch, with the rows that have been given up.

    A stage of a trial step may land where the metric is not finite although the solution never goes there.
    Such a row only rejects the step; it is frozen when the step is already the shortest, or when it has spent
    its steps. The count estimates the steps of the row alone from its own error ratios: ``ratio^(1 / order)``
    of a step each.
    """

    def __init__(self, metric: Metric, z: Tensor, v: Tensor, times: Tensor, max_steps: int) -> None:
        self.metric, self.start, self.times, self.max_steps = metric, z, times, max_steps
        self.frozen = ~_finite(metric.acceleration(z, v), z, v)
        self.missing = torch.zeros_like(self.frozen)
        self.steps = torch.zeros_like(z[:, 0])
        self.step = times[-1]

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        displacement, v = state.chunk(2, dim=-1)
        z = self.start + displacement
        a = self.metric.acceleration(z, v)
        usable = _finite(a, z, v)
        self.missing = self.missing | ~usable
        moving = (usable & ~self.frozen)[:, None]
        return torch.where(moving, torch.cat([v, a], dim=1), torch.zeros_like(state))

    def callback_step(self, t: Tensor, state: Tensor, step: Tensor) -> None:
        """Called by torchdiffeq before every trial step."""
        left = torch.where(self.times > t, self.times - t, torch.inf).amin()
        self.step = torch.minimum(step, left.to(step))
        self.missing = torch.zeros_like(self.frozen)

    def norm(self, ratio: Tensor) -> Tensor:
        """The largest root-mean-square error ratio of the rows still moving; called once per trial step."""
        row = ratio.square().mean(1).sqrt()
        row = torch.where(self.missing | ~row.isfinite(), torch.finfo(row.dtype).max ** 0.5, row)
        share = row.clamp(max=1) ** (1 / _ORDER)
        self.steps = self.steps + torch.where(row > _TELLING_RATIO, share, 0.0)
        shortest = self.step <= _SHORTEST_STEP * self.times[-1]
        self.frozen = self.frozen | ((row > 1) & shortest) | (self.steps > self.max_steps)
        # The zero is for an empty batch.
        return torch.cat([torch.where(self.frozen, 0.0, row), row.new_zeros(1)]).amax()


def _finite(a: Tensor, z: Tensor, v: Tensor) -> Tensor:
    """Rows that can be stepped: finite, and no overflow when squared."""
    largest = torch.finfo(a.dtype).max ** 0.25
    return (torch.cat([a, z, v], dim=1).abs() < largest).all(1)
