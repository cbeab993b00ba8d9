"""The table of problems with known answers: closed forms only, every metric as a tensor field, and as a
pullback too.

Both forms are written down independently of each other: the tensor fields are the textbook's, not J^T J.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ellipe
from torch import Tensor

from geodesics import FunctionMetric, Metric, PullbackMetric

Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """Two points, their exact distance, the metric as a tensor field and, where there is one, an embedding.

    `flat` says that geodesics are straight in the chart: any degree is exact there and has no order to show.
    """

    name: str
    z0: tuple[float, ...]
    z1: tuple[float, ...]
    distance: float
    tensor: Rows
    embedding: Rows | None = None
    flat: bool = False

    def ends(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """z0 and z1 as a batch of one."""
        return torch.tensor([self.z0], dtype=dtype), torch.tensor([self.z1], dtype=dtype)


@dataclass(frozen=True)
class Case:
    """A problem under one of the two forms of its metric."""

    problem: Problem
    metric: Metric
    form: str

    @property
    def name(self) -> str:
        return f"{self.problem.name}-{self.form}"


def diagonal(*entries: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack(entries, dim=-1))


def conformal(factor: Tensor, d: int = 2) -> Tensor:
    return factor[:, None, None] * torch.eye(d, dtype=factor.dtype, device=factor.device)


def sphere(z: Tensor) -> Tensor:
    """Unit sphere, z = (colatitude, longitude)."""
    theta, phi = z.unbind(-1)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)


def sphere_tensor(z: Tensor) -> Tensor:
    return diagonal(torch.ones_like(z[:, 0]), z[:, 0].sin().square())


def half_plane_tensor(z: Tensor) -> Tensor:
    """Half-plane, z = (x, y), y > 0; K = -1."""
    return conformal(z[:, 1] ** -2)


def fisher_tensor(z: Tensor) -> Tensor:
    """Fisher information of N(mu, sd^2), z = (mu, sd); K = -1/2."""
    return diagonal(z[:, 1] ** -2, 2 * z[:, 1] ** -2)


def disk_tensor(z: Tensor) -> Tensor:
    """Poincaré disk; K = -1."""
    return conformal(4 / (1 - z.square().sum(-1)).square())


def torus(z: Tensor) -> Tensor:
    """Torus of radii R = 2 and r = 1, z = (longitude, angle of the tube)."""
    phi, v = z.unbind(-1)
    rho = 2 + v.cos()
    return torch.stack([rho * phi.cos(), rho * phi.sin(), v.sin()], dim=-1)


def torus_tensor(z: Tensor) -> Tensor:
    return diagonal((2 + z[:, 1].cos()).square(), torch.ones_like(z[:, 0]))


def paraboloid(z: Tensor) -> Tensor:
    """z = (x, y) lifted to x^2 + y^2: regular at the vertex."""
    return torch.cat([z, z.square().sum(-1, keepdim=True)], dim=-1)


def paraboloid_tensor(z: Tensor) -> Tensor:
    return torch.eye(2, dtype=z.dtype, device=z.device) + 4 * z[:, :, None] * z[:, None, :]


def ellipsoid(z: Tensor) -> Tensor:
    """Semi-axes (1, 1, 1/2); z = (angle along the meridian in the xz-plane, angle off it): regular at the
    pole.
    """
    a, b = z.unbind(-1)
    return torch.stack([a.cos() * b.cos(), b.sin(), a.sin() * b.cos() / 2], dim=-1)


def ellipsoid_tensor(z: Tensor) -> Tensor:
    a, b = z.unbind(-1)
    E = b.cos().square() * (a.sin().square() + a.cos().square() / 4)
    F = 3 / 16 * (2 * a).sin() * (2 * b).sin()
    G = b.cos().square() + b.sin().square() * (a.cos().square() + a.sin().square() / 4)
    return torch.stack([torch.stack([E, F], dim=-1), torch.stack([F, G], dim=-1)], dim=-2)


def sphere_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``2 arcsin |x - y| / 2`` row by row, arccos <x, y> without its cancellation."""
    return 2 * ((sphere(z0) - sphere(z1)).norm(dim=-1) / 2).arcsin()


def half_plane_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``arcosh(1 + |D|^2 / (2 y0 y1))``, row by row."""
    return torch.arccosh(1 + (z0 - z1).square().sum(-1) / (2 * z0[:, 1] * z1[:, 1]))


def disk_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``arcosh(1 + 2 |u - v|^2 / ((1 - |u|^2) (1 - |v|^2)))``, row by row."""
    room = (1 - z0.square().sum(-1)) * (1 - z1.square().sum(-1))
    return torch.arccosh(1 + 2 * (z0 - z1).square().sum(-1) / room)


def fisher_distance(z0: Tensor, z1: Tensor) -> Tensor:
    """``sqrt 2 arcosh(1 + (dmu^2 / 2 + dsd^2) / (2 s0 s1))``, row by row."""
    mu, sd = (z1 - z0).unbind(-1)
    return math.sqrt(2) * torch.arccosh(1 + (mu.square() / 2 + sd.square()) / (2 * z0[:, 1] * z1[:, 1]))


def _between(distance: Callable[[Tensor, Tensor], Tensor], z0: tuple, z1: tuple) -> float:
    return float(distance(*(torch.tensor([z], dtype=torch.float64) for z in (z0, z1))))


def torus_clairaut(c: float, v: float) -> tuple[float, float]:
    """Change of longitude and length of the torus geodesic of Clairaut's constant c from -v to v.

    At unit speed ``rho^2 phi' = c`` and ``v'^2 = 1 - c^2 / rho^2``; both integrals by a 60-point Gauss
    rule, which is exact here.
    """
    nodes, weights = np.polynomial.legendre.leggauss(60)
    rho = 2 + np.cos(v * nodes)
    slowness = 1 / np.sqrt(1 - (c / rho) ** 2)
    return float(v * weights @ (c / rho**2 * slowness)), float(v * weights @ slowness)


def arc_of_parabola(r: float) -> float:
    """Length of ``z = x^2`` from 0 to r."""
    return r * math.sqrt(1 + 4 * r * r) / 2 + math.asinh(2 * r) / 4


def linear(d: int) -> Problem:
    """A decoder ``F(z) = A z``: M = A^T A, straight lines; with more outputs than latents, all of which
    count.
    """
    rng = torch.Generator().manual_seed(d)
    A = torch.randn(2 * d + 1, d, generator=rng, dtype=torch.float64)
    z0, z1 = torch.randn(2, d, generator=rng, dtype=torch.float64)
    return Problem(
        f"linear{d}",
        tuple(z0.tolist()),
        tuple(z1.tolist()),
        float((A @ (z1 - z0)).norm()),
        lambda z: (A.mT @ A).to(z).expand(len(z), d, d),
        lambda z: z @ A.mT.to(z),
        flat=True,
    )


_DPHI, _TORUS = torus_clairaut(0.8, 1.0)
_SPHERE = (0.9, 0.2), (1.9, 1.7)
_HALF_PLANE = (0.0, 1.0), (1.0, 1.0)
_FISHER = (0.0, 1.0), (1.0, 2.0)
_DISK = (0.5, 0.1), (-0.3, 0.6)

PROBLEMS = (
    Problem("sphere", *_SPHERE, _between(sphere_distance, *_SPHERE), sphere_tensor, sphere),
    Problem("half_plane", *_HALF_PLANE, _between(half_plane_distance, *_HALF_PLANE), half_plane_tensor),
    Problem("fisher", *_FISHER, _between(fisher_distance, *_FISHER), fisher_tensor),
    Problem("disk", *_DISK, _between(disk_distance, *_DISK), disk_tensor),
    Problem("torus", (0.0, -1.0), (_DPHI, 1.0), _TORUS, torus_tensor, torus),
    Problem("paraboloid", (0.0, 0.0), (0.6, -0.8), arc_of_parabola(1.0), paraboloid_tensor, paraboloid),
    Problem(
        "vertex",
        (-0.3, 0.0),
        (0.4, 0.0),
        arc_of_parabola(0.3) + arc_of_parabola(0.4),
        paraboloid_tensor,
        paraboloid,
    ),
    Problem("ellipsoid", (0.0, 0.0), (math.pi / 2, 0.0), float(ellipe(0.75)), ellipsoid_tensor, ellipsoid),
    linear(2),
    linear(3),
    linear(8),
)

CASES = tuple(
    Case(problem, metric, form)
    for problem in PROBLEMS
    for form, metric in (
        ("function", FunctionMetric(problem.tensor)),
        ("pullback", PullbackMetric(problem.embedding) if problem.embedding else None),
    )
    if metric is not None
)
# Those whose geodesics bend, in the chart or in their speed: an order of convergence can be seen.
CURVED = tuple(case for case in CASES if not case.problem.flat)
EMBEDDED = tuple(problem for problem in PROBLEMS if problem.embedding)
