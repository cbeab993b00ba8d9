"""What the figures share: one size and one look, marks for ends, nodes and samples, and files that do not change."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.polynomial import legendre
from torch import Tensor

from bench.problems.learned_metrics import digits, digits_model
from geodesics import Curve, GeodesicResult, GraphPaths, geodesic

# Inches; a page of the site is about as wide, so that letters of ten points look like those of the text.
WIDTH = 7.2
LOOK = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",  # looks the same everywhere
    "svg.hashsalt": "latent geodesics",  # the same file from the same picture
}
RASTER = 150
MAIN, OTHER, THIRD = "#b2182b", "#2166ac", "#1b7837"


def figure(height: float, layout: str = "compressed") -> Figure:
    """An empty figure of the page's width; for planes side by side "compressed", for other panels "constrained"."""
    return Figure(figsize=(WIDTH, height), layout=layout, facecolor="white")


def save(drawn: Figure, path: Path) -> None:
    """Write a figure as SVG, without a date."""
    drawn.savefig(path, dpi=RASTER, metadata={"Date": None})


def heat_map(
    ax: Axes,
    field: Callable[[Tensor], Tensor],
    extent: tuple[float, ...],
    pixels: int,
    label: str,
    share: float = 1.0,
) -> None:
    """A function of the plane in shades of gray with its color bar: dark where it is large.

    Args:
        ax: where to draw.
        field: row-wise, ``(B, 2)`` to ``(B,)``.
        extent: left, right, bottom and top of the plane.
        pixels: from left to right.
        label: of the color bar.
        share: of the pixels that get a shade of their own; what is larger is as dark as the largest of these.
    """
    left, right, bottom, top = extent
    rows = max(2, round(pixels * (top - bottom) / (right - left)))
    x, y = (torch.linspace(*ends, dtype=torch.float64) for ends in ((left, right, pixels), (bottom, top, rows)))
    with torch.no_grad():
        values = torch.cat([field(z) for z in torch.cartesian_prod(x, y).split(4096)])
    image = values.reshape(pixels, rows).T.numpy()
    low, high = np.nanquantile(image, [0.0, share])
    # The upper third of the grays is left out: lines stay visible on the darkest.
    gray = LinearSegmentedColormap.from_list("gray", matplotlib.colormaps["Greys"](np.linspace(0, 0.62, 256)))
    style = {"cmap": gray, "vmin": low, "vmax": high, "rasterized": True, "shading": "nearest"}
    mesh = ax.pcolormesh(x.numpy(), y.numpy(), image, **style)
    ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.015, extend="max" if share < 1 else "neither")
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")


def draw_curve(ax: Axes, curve: Curve, color: str, style: str = "-", label: str = "", width: float = 1.8) -> None:
    """One curve of a plane, the first of a batch."""
    points = curve.evaluate(torch.linspace(0, 1, 801, dtype=curve.points.dtype))[0].numpy()
    ax.plot(*points.T, style, color=color, linewidth=width, label=label or None)


def mark_ends(ax: Axes, z0: Tensor, z1: Tensor) -> None:
    """Names and marks for the two ends, each ``(2,)``."""
    for point, name in ((z0, "$z_0$"), (z1, "$z_1$")):
        ax.plot(*point.tolist(), "o", color="black", markersize=6, zorder=6)
        ax.annotate(
            name,
            point.tolist(),
            xytext=(6, 6),
            textcoords="offset points",
            zorder=7,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )


def lobatto(degree: int) -> np.ndarray:
    """The degree + 1 Gauss-Lobatto points on [0, 1]."""
    inner = np.sort(legendre.legroots(legendre.legder([0.0] * degree + [1.0])).real)
    return (np.concatenate([[-1.0], inner, [1.0]]) + 1) / 2


def times_of(curve: Curve, at: np.ndarray) -> Tensor:
    """Times of places ``at`` (k,) in [0, 1] of every element of the first curve, ``(N, k)``."""
    left, right = curve.knots[0, :-1, None], curve.knots[0, 1:, None]
    return left + (right - left) * torch.as_tensor(at).to(curve.points)


def digits_graph(quick: bool) -> GraphPaths:
    """A graph of the shipped digits model, of fewer nodes than usual, so that they can be told apart."""
    return _graph(600 if quick else 6000)


@cache
def _graph(num_nodes: int) -> GraphPaths:
    model = digits_model()
    return GraphPaths(model.metric, model.latents, num_nodes=num_nodes, num_paths=1)


def digits_geodesic(pair: int, quick: bool) -> GeodesicResult:
    """One of the pairs of `bench.digits_reference`, solved from the graph with the default solver."""
    problems = digits()
    rows = slice(pair, pair + 1)
    return geodesic(problems.metric, problems.z0[rows], problems.z1[rows], initial=digits_graph(quick))
