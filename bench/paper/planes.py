"""The latent plane as all figures show it: a field, the encoded images in the colors of their classes, and curves.

What is computed (`raster`, `measure_raster`, `points_of`, `sampled`) is apart from what is drawn (`show_...`): between
the two, arrays are stored, and drawing needs no model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from bench.paper.figures import GEODESIC, class_color, panels
from bench.paper.lab import Lab, Model
from geodesics import Curve, Metric, log_measure, plot_curves, straight_lines

# Share of the data's width and height that is shown beyond them on each side.
NEAR = 0.15
FAR = 0.5
# Points of a curve that are stored.
SAMPLES = 513
# Points of a field computed at a time, a bound on memory.
_ROWS = 2048
# Share of the color range added above the measure at the data: walls around the data are to be told apart.
_HEADROOM = 0.5

# What a color bar of the measure says.
MEASURE = r"log measure $\frac{1}{2}\,\log\,\det\,M(z)$"

Extent = tuple[float, float, float, float]


def box(latents: Tensor, beyond: float) -> Extent:
    """Left, right, bottom and top of points, enlarged by a share of their width and height on each side."""
    low, high = latents.amin(0), latents.amax(0)
    (left, bottom), (right, top) = (low - beyond * (high - low)).tolist(), (high + beyond * (high - low)).tolist()
    return left, right, bottom, top


def box_with(latents: Tensor, curves: Sequence[Curve]) -> Extent:
    """The near box of points, enlarged where curves leave it, within the far box."""
    near, far = box(latents, NEAR), box(latents, FAR)
    ways = torch.cat([sampled(part).flatten(0, 1) for part in curves])
    around = box(ways[ways.isfinite().all(1)], 0.05)
    left, right = max(far[0], min(near[0], around[0])), min(far[1], max(near[1], around[1]))
    bottom, top = max(far[2], min(near[2], around[2])), min(far[3], max(near[3], around[3]))
    return left, right, bottom, top


def raster(field: Callable[[Tensor], Tensor], extent: Extent, resolution: int) -> dict[str, Any]:
    """A function at the midpoints of equal cells of a plane: `values` (y, x), the lowest row first, and `extent`."""
    left, right, bottom, top = extent
    steps = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution
    x, y = left + (right - left) * steps, bottom + (top - bottom) * steps
    plane = torch.cartesian_prod(y, x).flip(1)
    with torch.no_grad():
        values = torch.cat([field(part) for part in plane.split(_ROWS)])
    return {"values": values.view(resolution, resolution), "extent": torch.tensor(extent)}


def measure_raster(lab: Lab, model: Model, metric: Metric, extent: Extent | None = None) -> dict[str, Any]:
    """The log measure over a plane, with the range of colors that tells the data and the walls around them apart."""
    at_data = log_measure(metric, model.latents)
    low, high = at_data.quantile(at_data.new_tensor([0.01, 0.99])).tolist()
    extent = extent or box(model.latents, NEAR)
    found = raster(lambda z: log_measure(metric, z), extent, lab.config.resolution)
    return found | {"range": torch.tensor([low, high + _HEADROOM * (high - low)])}


def points_of(model: Model) -> dict[str, Any]:
    """The encoded training images: `latents`, the index of each one's class, and the `names` of the classes."""
    classes = torch.tensor(list(model.split.class_names))
    index = (model.split.train.labels[:, None] == classes).int().argmax(1)
    return {"latents": model.latents, "classes": index, "names": list(model.split.class_names.values())}


def sampled(curves: Curve, count: int = SAMPLES) -> Tensor:
    """Points of curves at equal steps of their parameter, (B, count, d)."""
    return curves.evaluate(torch.linspace(0, 1, count, dtype=curves.points.dtype))


def plane_panels(
    rows: int, columns: int, extent: Sequence[float], width: float, lines: int = 1
) -> tuple[Figure, list[Axes]]:
    """Panels for planes of this extent, in equal units, with labels at the outer ones and room for a legend below.

    Args:
        rows: of panels.
        columns: of panels.
        extent: left, right, bottom, top.
        width: of one panel in inches.
        lines: of each title.
    """
    left, right, bottom, top = (float(v) for v in extent)
    inner = width - 0.75  # without tick labels and a share of the color bar
    figure, axes = panels(rows, columns, width, inner * (top - bottom) / (right - left) + 0.35 + 0.2 * lines)
    figure.set_figheight(figure.get_figheight() + 0.5)  # labels of the last row, and the legend
    for i, ax in enumerate(axes):
        ax.set_xlabel("$z_1$" if i >= (rows - 1) * columns else "")
        ax.set_ylabel("$z_2$" if i % columns == 0 else "")
    return figure, axes


def common_range(planes: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """One range of colors for several planes: from the lowest to the highest of their own."""
    ranges = np.array([plane["range"] for plane in planes])
    return float(ranges[:, 0].min()), float(ranges[:, 1].max())


def show_plane(ax: Axes, plane: Mapping[str, Any], limits: tuple[float, float], cmap: str = "bone_r") -> AxesImage:
    """A raster in equal units; what is not finite is gray."""
    ax.set_facecolor("0.6")
    low, high = limits
    return ax.imshow(
        np.ma.masked_invalid(plane["values"]),
        origin="lower",
        extent=tuple(plane["extent"].tolist()),
        cmap=cmap,
        vmin=low,
        vmax=high,
        aspect="equal",
        interpolation="nearest",
    )


def show_color_bar(figure: Figure, image: AxesImage, axes: Axes | list[Axes], label: str) -> None:
    """One color bar for all panels that share a range."""
    figure.colorbar(image, ax=axes, label=label, extend="both", pad=0.02)


def show_points(ax: Axes, points: Mapping[str, Any], size: float = 3.0) -> None:
    """The encoded images, a color for each class."""
    for k in range(len(points["names"])):
        ax.scatter(*points["latents"][points["classes"] == k].T, s=size, color=class_color(k), linewidths=0)


def show_curves(ax: Axes, curves: np.ndarray, straight: bool = True) -> None:
    """Stored curves with marked ends, and their straight lines, dashed."""
    lines = Curve(torch.as_tensor(curves))
    limits = ax.get_xlim(), ax.get_ylim()
    if straight:
        plot_curves(straight_lines(lines), ax=ax, color=GEODESIC, linestyle="--", linewidth=0.9)
    plot_curves(lines, ax=ax, color=GEODESIC, num_points=curves.shape[1], ends=True)
    ax.set(xlim=limits[0], ylim=limits[1])
