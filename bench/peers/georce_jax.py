"""GEORCE (Rygaard and Hauberg 2025, arXiv 2505.05961) in JAX, jitted and vmapped over pairs: a baseline.

Written from the published update, with the published defaults. With ``u_t = x_{t+1} - x_t`` and ``nu_t = grad_x
[u_t^T G(x) u_t](x_t)`` it minimizes ``E = sum_t u_t^T G(x_t) u_t`` by ``u_new = -1/2 G_t^{-1} mu_t``, ``mu_t = mu_{T-1}
+ sum_{j>t} nu_j``, ``mu_{T-1} = -(sum_t G_t^{-1})^{-1} [2 (x_T - x_0) + sum_t G_t^{-1} sum_{j>t} nu_j]``, and a
backtracking line search from u to u_new. Every pair has its own line search and stop; the batch runs until the
last has stopped.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bench.contest.time_limit import TimedMetric
from bench.peers.jax_metrics import PORTED, JaxMetric, jax_metric
from bench.problems.problem_set import ProblemSet

__all__ = ["PORTED", "georce_geodesics"]

SEGMENTS = 100
TOL = 1e-4
MAX_ITER = 1000
BACKTRACK = 0.5
MAX_BACKTRACKS = 30
# Iterations between two looks at the clock.
BURST = 10


class State(NamedTuple):
    """One pair: points ``(T + 1, d)``, norm of the energy's gradient in the interior points, iterations."""

    points: jax.Array
    gradient: jax.Array
    iterations: jax.Array


def georce_geodesics(problems: ProblemSet, metric: TimedMetric) -> tuple[Tensor, Tensor]:
    """All pairs from straight lines.

    Returns:
        Points ``(B, T + 1, d)``, and whether the gradient fell under its tolerance, ``(B,)``.
    """
    burst = _compiled(problems.name)
    z0, z1 = (jnp.asarray(z.numpy()) for z in (problems.z0, problems.z1))
    t = jnp.linspace(0, 1, SEGMENTS + 1)[:, None]
    count = len(problems)
    state = State(z0[:, None] + t * (z1 - z0)[:, None], jnp.full(count, jnp.inf), jnp.zeros(count, int))
    for _ in range(MAX_ITER // BURST):
        metric.look()
        state = burst(state)
        if bool(jnp.all(_stopped(state))):
            break
    return torch.from_numpy(np.array(state.points)), torch.from_numpy(np.array(state.gradient <= TOL))


@lru_cache
def _compiled(name: str) -> Callable[[State], State]:
    """`BURST` iterations on a metric, compiled anew for every size of batch."""
    metric = jax_metric(name)

    def burst(state: State) -> State:
        last = state.iterations + BURST

        def unfinished(now: State) -> jax.Array:
            return ~_stopped(now) & (now.iterations < last)

        return jax.lax.while_loop(unfinished, lambda now: _iterate(metric, now), state)

    return jax.jit(jax.vmap(burst))


def _stopped(state: State) -> jax.Array:
    return (state.gradient <= TOL) | jnp.isnan(state.gradient)


def _iterate(metric: JaxMetric, state: State) -> State:
    x = state.points
    u = jnp.diff(x, axis=0)
    G = jax.vmap(metric.tensor)(x[:-1])
    nu = jax.vmap(jax.grad(metric.form))(x[:-1], u)
    inverse = _inverse(G)
    later = jnp.cumsum(nu[::-1], axis=0)[::-1] - nu
    load = 2 * (x[-1] - x[0]) + jnp.einsum("tij,tj->i", inverse, later)
    mu = later - jnp.linalg.solve(jnp.sum(inverse, axis=0), load)
    step = -jnp.einsum("tij,tj->ti", inverse, mu) / 2 - u
    moved = _line_search(metric, x, u, step)
    gradient = jnp.linalg.norm(_gradient(metric, moved))
    return State(moved, gradient, state.iterations + 1)


def _inverse(G: jax.Array) -> jax.Array:
    """Closed form for d = 2, where LAPACK's calls would take most of the time."""
    if G.shape[-1] != 2:
        return jnp.linalg.inv(G)
    (a, b), (c, d) = (tuple(jnp.moveaxis(row, -1, 0)) for row in jnp.moveaxis(G, -2, 0))
    adjugate = jnp.stack([jnp.stack([d, -b], axis=-1), jnp.stack([-c, a], axis=-1)], axis=-2)
    return adjugate / (a * d - b * c)[..., None, None]


def _points(start: jax.Array, u: jax.Array, end: jax.Array) -> jax.Array:
    inner = start + jnp.cumsum(u[:-1], axis=0)
    return jnp.concatenate([start[None], inner, end[None]])


def _energy(metric: JaxMetric, x: jax.Array) -> jax.Array:
    return jnp.sum(jax.vmap(metric.form)(x[:-1], jnp.diff(x, axis=0)))


def _gradient(metric: JaxMetric, x: jax.Array) -> jax.Array:
    return jax.grad(lambda y: _energy(metric, y))(x)[1:-1]


def _line_search(metric: JaxMetric, x: jax.Array, u: jax.Array, step: jax.Array) -> jax.Array:
    """Halve the step until the energy falls; the old points where it never does."""
    before = _energy(metric, x)

    def at(k: jax.Array) -> jax.Array:
        return _points(x[0], u + BACKTRACK**k * step, x[-1])

    def too_long(k: jax.Array) -> jax.Array:
        return ~(_energy(metric, at(k)) < before) & (k < MAX_BACKTRACKS)

    k = jax.lax.while_loop(too_long, lambda k: k + 1, jnp.asarray(0))
    return jnp.where(k < MAX_BACKTRACKS, at(k), x)
