"""Figure of a wall: jumped by an energy that looks at its nodes alone, seen by one with twice as many samples."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.polynomial import legendre
from torch import Tensor

from bench.figures.drawing import MAIN, OTHER, draw_curve, figure, heat_map, lobatto, mark_ends, times_of
from geodesics import Curve, EnergySolver, GeodesicResult, PullbackMetric, geodesic

ENDS = torch.tensor([[[-1.5, 0.0]], [[1.5, 0.3]]], dtype=torch.float64)
EXTENT = (-1.75, 1.75, -0.75, 1.6)
SEGMENTS = 8


def walled(z: Tensor) -> Tensor:
    """A flat plane with a wall along x = 0 that has a gate at y = 1.2."""
    x, y = z.T
    wall = 1.5 * torch.exp(-((x / 0.08) ** 2) / 2) * (1 - torch.exp(-(((y - 1.2) / 0.35) ** 2) / 2))
    return torch.stack([x, y, wall], dim=1)


class Solved(NamedTuple):
    """One answer, the degree of its samples, and the length of the curve by these samples."""

    result: GeodesicResult
    samples: int
    discrete: float

    @property
    def curve(self) -> Curve:
        """The curve found."""
        return self.result.curve

    @property
    def length(self) -> float:
        """Its certified length."""
        return float(self.result.length)


def draw_walls(quick: bool) -> Figure:
    """The same straight start, minimized with as many samples as the degree, and with twice as many."""
    jumped, seen = solve(3), solve(6)
    whole = figure(6.6, "constrained")
    axes = whole.subplot_mosaic([["plane", "plane"], ["jumped", "seen"]], height_ratios=(1.4, 1))
    plane = axes["plane"]
    heat_map(plane, lambda z: walled(z)[:, 2], EXTENT, 60 if quick else 400, "height of the wall")
    for solved, color, style in ((jumped, OTHER, "--"), (seen, MAIN, "-")):
        draw_curve(plane, solved.curve, color, style, label=f"from {solved.samples + 1} samples an element")
        plane.plot(*solved.curve.points[0, :: solved.curve.degree].T.numpy(), "o", color=color, markersize=4.5)
    mark_ends(plane, *ENDS[:, 0])
    plane.plot([], [], "o", color="0.4", markersize=4.5, label="ends of elements")
    plane.legend(loc="lower right", frameon=False)
    _draw_image(axes["jumped"], jumped, OTHER, "4 samples an element: the wall is jumped")
    _draw_image(axes["seen"], seen, MAIN, "7 samples an element: the wall is seen")
    axes["seen"].set_ylabel("")
    return whole


def solve(num_samples: int) -> Solved:
    """Minimize on eight elements from the straight line."""
    solver = EnergySolver(num_segments=SEGMENTS, max_segments=SEGMENTS, num_samples=num_samples)
    result = geodesic(PullbackMetric(walled), *ENDS, solver=solver)
    nodes, weights = legendre.leggauss(num_samples)
    slopes = through_samples(result.curve, num_samples, (nodes + 1) / 2)[1]
    return Solved(result, num_samples, float((np.linalg.norm(slopes, axis=2) @ weights / 2).sum()))


def through_samples(curve: Curve, num_samples: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the energy sees: polynomials through the samples in data space.

    Values and derivatives at the places ``at`` (k,) of every element, per unit of the element, ``(N, k, D)`` both.
    """
    nodes = lobatto(num_samples)
    z = curve.evaluate(times_of(curve, nodes).flatten()[None])[0]
    images = walled(z).numpy().reshape(curve.num_segments, num_samples + 1, -1)
    coefficients = np.linalg.inv(legendre.legvander(2 * nodes - 1, num_samples)) @ images
    values = legendre.legvander(2 * at - 1, num_samples) @ coefficients
    slopes = legendre.legvander(2 * at - 1, num_samples - 1) @ legendre.legder(coefficients, scl=2.0, axis=1)
    return values, slopes


def _draw_image(ax: Axes, solved: Solved, color: str, title: str) -> None:
    """The third output along a curve: the decoder's, and that of the polynomials through the samples."""
    curve, fine = solved.curve, np.linspace(0, 1, 101)
    points = curve.evaluate(times_of(curve, fine).flatten()[None])[0]
    place = points[:, 0].numpy()
    label = f"decoder, length {solved.length:.2f}"
    ax.fill_between(place, walled(points)[:, 2].numpy(), color="0.8", linewidth=0, label=label)
    label = f"through the samples, length {solved.discrete:.2f}"
    seen = through_samples(curve, solved.samples, fine)[0]
    ax.plot(seen[..., 0].ravel(), seen[..., 2].ravel(), color=color, label=label)
    samples = through_samples(curve, solved.samples, lobatto(solved.samples))[0]
    ax.plot(samples[..., 0].ravel(), samples[..., 2].ravel(), "x", color=color, markersize=5, label="samples")
    ax.set(xlabel="$z_1$ along the curve", ylabel="third output", title=title, ylim=(-0.08, 2.6))
    ax.legend(loc="upper left", frameon=False)
