"""Metrics whose distances are known in closed form, or by one smooth integral, and random pairs on them."""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bench.problems.problem_set import ProblemSet
from geodesics import FunctionMetric, PullbackMetric

NUM_PAIRS = 16
Rows = Callable[[Tensor], Tensor]


class Maker(Protocol):
    """Draws a set of problems, the same every time."""

    def __call__(self, count: int = NUM_PAIRS) -> ProblemSet: ...


def closed_forms() -> dict[str, Maker]:
    """Makers of the problem sets, by name."""
    return {
        "sphere": _sphere,
        "half-plane": _half_plane,
        "fisher": _fisher,
        "poincare-disk": _disk,
        "torus": _torus,
        "paraboloid": _paraboloid,
    }


def sphere(z: Tensor) -> Tensor:
    """Unit sphere, z = (colatitude, longitude)."""
    theta, phi = z.unbind(-1)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)


def torus(z: Tensor) -> Tensor:
    """Torus of radii R = 2 and r = 1, z = (longitude, angle of the tube)."""
    phi, v = z.unbind(-1)
    rho = 2 + v.cos()
    return torch.stack([rho * phi.cos(), rho * phi.sin(), v.sin()], dim=-1)


def paraboloid(z: Tensor) -> Tensor:
    """z = (x, y) lifted to x^2 + y^2."""
    return torch.cat([z, z.square().sum(-1, keepdim=True)], dim=-1)


def half_plane_tensor(z: Tensor) -> Tensor:
    """Half-plane, z = (x, y), y > 0; K = -1."""
    return _diagonal(z[:, 1] ** -2, z[:, 1] ** -2)


def fisher_tensor(z: Tensor) -> Tensor:
    """Fisher information of N(mu, sd^2), z = (mu, sd); K = -1/2."""
    return _diagonal(z[:, 1] ** -2, 2 * z[:, 1] ** -2)


def disk_tensor(z: Tensor) -> Tensor:
    """Poincaré disk; K = -1."""
    factor = 4 / (1 - z.square().sum(-1)).square()
    return _diagonal(factor, factor)


def sphere_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``2 arcsin |x - y| / 2``: arccos <x, y> without its cancellation."""
    return 2 * ((sphere(z0) - sphere(z1)).norm(dim=-1) / 2).arcsin()


def half_plane_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``arcosh(1 + |z0 - z1|^2 / (2 y0 y1))``."""
    return torch.arccosh(1 + (z0 - z1).square().sum(-1) / (2 * z0[:, 1] * z1[:, 1]))


def fisher_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``sqrt 2 arcosh(1 + (dmu^2 / 2 + dsd^2) / (2 s0 s1))``."""
    mu, sd = (z1 - z0).unbind(-1)
    return math.sqrt(2) * torch.arccosh(1 + (mu.square() / 2 + sd.square()) / (2 * z0[:, 1] * z1[:, 1]))


def disk_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``arcosh(1 + 2 |u - v|^2 / ((1 - |u|^2) (1 - |v|^2)))``."""
    room = (1 - z0.square().sum(-1)) * (1 - z1.square().sum(-1))
    return torch.arccosh(1 + 2 * (z0 - z1).square().sum(-1) / room)


def clairaut(rho: Rows, slope: Rows, c: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Change of longitude and length of geodesics on surfaces of revolution, along which u runs from a to b.

    With the metric ``slope(u)^2 du^2 + rho(u)^2 dphi^2`` and Clairaut's constant c, ``ds = slope du / sqrt(1
    - c^2 / rho^2)`` and ``dphi = c / rho^2 ds``. By a Gauss rule of 200 points, exact to rounding where c
    stays well under rho; all arguments ``(B,)``.
    """
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(200))
    u = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * nodes
    weight = (b - a)[:, None] / 2 * weights
    ds = weight * slope(u) / (1 - (c[:, None] / rho(u)).square()).sqrt()
    return (ds * c[:, None] / rho(u).square()).sum(1), ds.sum(1)


def _diagonal(*entries: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack(entries, dim=-1))


def _uniform(rng: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=rng, dtype=torch.float64)


def _points(rng: torch.Generator, count: int, *ranges: tuple[float, float]) -> Tensor:
    return torch.stack([_uniform(rng, count, *bounds) for bounds in ranges], dim=1)


def _sphere(count: int = NUM_PAIRS) -> ProblemSet:
    rng = torch.Generator().manual_seed(1)
    z0, z1 = (_points(rng, count, (0.6, 2.5), (-1.2, 1.2)) for _ in range(2))
    return ProblemSet("sphere", PullbackMetric(sphere), z0, z1, sphere_distance(z0, z1), sphere)


def _half_plane(count: int = NUM_PAIRS) -> ProblemSet:
    rng = torch.Generator().manual_seed(2)
    z0, z1 = (_points(rng, count, (-2, 2), (0.3, 3)) for _ in range(2))
    return ProblemSet("half-plane", FunctionMetric(half_plane_tensor), z0, z1, half_plane_distance(z0, z1))


def _fisher(count: int = NUM_PAIRS) -> ProblemSet:
    rng = torch.Generator().manual_seed(3)
    z0, z1 = (_points(rng, count, (-2, 2), (0.3, 3)) for _ in range(2))
    return ProblemSet("fisher", FunctionMetric(fisher_tensor), z0, z1, fisher_distance(z0, z1))


def _disk(count: int = NUM_PAIRS) -> ProblemSet:
    rng = torch.Generator().manual_seed(4)
    z0, z1 = (_polar(_uniform(rng, count, 0, 0.9), _uniform(rng, count, -math.pi, math.pi)) for _ in range(2))
    return ProblemSet("poincare-disk", FunctionMetric(disk_tensor), z0, z1, disk_distance(z0, z1))


def _torus(count: int = NUM_PAIRS) -> ProblemSet:
    """Arcs on the outer side, shorter than any way around the tube or the hole."""
    rng = torch.Generator().manual_seed(5)
    v0, v1 = _uniform(rng, count, -1, 1), _uniform(rng, count, -1, 1)
    v1 = torch.where((v1 - v0).abs() < 0.3, v0 - 0.6 * v0.sign(), v1)
    low, high = v0.minimum(v1), v0.maximum(v1)
    narrowest = 2 + low.cos().minimum(high.cos())
    c = narrowest * _uniform(rng, count, 0.2, 0.8)
    dphi, length = clairaut(lambda v: 2 + v.cos(), torch.ones_like, c, low, high)
    start = _uniform(rng, count, -1, 1)
    z0, z1 = torch.stack([start, low], dim=1), torch.stack([start + dphi, high], dim=1)
    return ProblemSet("torus", PullbackMetric(torus), z0, z1, length, torus)


def _paraboloid(count: int = NUM_PAIRS) -> ProblemSet:
    """Outward arcs: minimal while the longitude changes by less than pi, the curvature falling outwards."""
    rng = torch.Generator().manual_seed(6)
    low = _uniform(rng, count, 0.2, 0.6)
    high = low + _uniform(rng, count, 0.3, 0.9)
    c = low * _uniform(rng, count, 0.1, 0.8)
    dphi, length = clairaut(lambda r: r, lambda r: (1 + 4 * r.square()).sqrt(), c, low, high)
    start = _uniform(rng, count, -math.pi, math.pi)
    z0, z1 = _polar(low, start), _polar(high, start + dphi)
    return ProblemSet("paraboloid", PullbackMetric(paraboloid), z0, z1, length, paraboloid)


def _polar(r: Tensor, phi: Tensor) -> Tensor:
    return torch.stack([r * phi.cos(), r * phi.sin()], dim=1)
