"""Scalar fields over a latent plane, the measure among them, with data and curves on top."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.arguments import check_callable, check_count, check_metric, check_output
from geodesics.curves.curve import Curve
from geodesics.metrics.metric import Metric
from geodesics.metrics.pointwise import log_measure
from geodesics.plots.canvas import as_array, check_plane, checked_extent, extent_of, new_axes
from geodesics.plots.lines import plot_curves, straight_lines

if TYPE_CHECKING:
    import matplotlib.axes

# Share of the color range added above the measure at the data: walls around the data are to be told apart.
_HEADROOM = 0.5
# Points of a field computed at a time, a bound on memory.
_ROWS = 2048


def plot_measure(
    metric: Metric,
    latents: Float[Tensor, "n 2"] | None = None,
    *,
    labels: Int[Tensor, " n"] | None = None,
    names: Mapping[int, str] | None = None,
    curves: Curve | None = None,
    straight: bool = True,
    extent: tuple[float, float, float, float] | None = None,
    limits: tuple[float, float] | None = None,
    resolution: int = 256,
    ax: Optional["matplotlib.axes.Axes"] = None,
) -> "matplotlib.axes.Axes":
    r"""Heat map of the log measure $\frac12 \log\det M(z)$ over a latent plane, data and curves on top.

    One metric tensor per pixel, ``resolution`` squared of them. Pixels where the measure is zero, infinite or
    undefined are left gray.

    Args:
        metric: the Riemannian metric, of a two-dimensional latent space.
        latents: points ``(n, 2)``, usually the encoded data.
        labels: classes of the points ``(n,)``, a color and an entry of the legend each; None for one color.
        names: of classes, by label, for the legend; a class without one has its label there.
        curves: curves to draw, as solid lines whose ends are marked.
        straight: whether to draw the straight lines between the curves' ends too, dashed.
        extent: left, right, bottom and top of the plane; None for the box of points and curves with a margin.
        limits: log measure of the first and the last color; see `plot_field`.
        resolution: pixels along each side.
        ax: axes to draw on; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, labels do not fit, there is no extent nor
            anything to find it from, or the extent or the resolution is empty.
    """
    check_metric(metric)
    check_plane(latents, labels, curves)
    if extent is None:
        nodes = None if curves is None else curves.points.flatten(0, 1)
        extent = extent_of([points for points in (latents, nodes) if points is not None])
    like = latents if curves is None else curves.points
    ax = plot_field(
        lambda z: log_measure(metric, z if like is None else z.to(like)),
        latents,
        labels=labels,
        names=names,
        extent=extent,
        limits=limits,
        resolution=resolution,
        label=r"log measure $\frac{1}{2}\,\log\,\det\,M(z)$",
        ax=ax,
    )
    if curves is not None:
        if straight:
            plot_curves(straight_lines(curves), ax=ax, linestyle="--", linewidth=0.8)
        plot_curves(curves, ax=ax, ends=True)
    return ax


def plot_field(
    field: Callable[[Tensor], Tensor],
    latents: Float[Tensor, "n 2"] | None = None,
    *,
    labels: Int[Tensor, " n"] | None = None,
    names: Mapping[int, str] | None = None,
    extent: tuple[float, float, float, float] | None = None,
    limits: tuple[float, float] | None = None,
    resolution: int = 256,
    label: str = "",
    ax: Optional["matplotlib.axes.Axes"] = None,
) -> "matplotlib.axes.Axes":
    """Heat map of a function over a latent plane, with data on top: a standard deviation, a density, a curvature.

    The function is called at ``resolution`` squared points, a few thousand at a time. Pixels where it is not finite
    are left gray.

    Args:
        field: row-wise, from points ``(B, 2)`` to values ``(B,)``.
        latents: points ``(n, 2)``, usually the encoded data.
        labels: classes of the points ``(n,)``, a color and an entry of the legend each; None for one color.
        names: of classes, by label, for the legend; a class without one has its label there.
        extent: left, right, bottom and top of the plane; None for the box of the points with a margin.
        limits: value of the first and the last color; None for the field's range at the points, with half as much
            again above it, so that the colors are spent where the data are. Without points, that of all pixels.
        resolution: pixels along each side.
        label: of the color bar.
        ax: axes to draw on; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, labels do not fit, there is no extent nor
            points to find it from, the extent or the resolution is empty, or the field's values are not one a point.
    """
    check_callable("field", field, "(B, 2) -> (B,)")
    check_plane(latents, labels, None)
    check_count("resolution", resolution, 2)
    shown = [] if latents is None else [latents]
    left, right, bottom, top = extent_of(shown) if extent is None else checked_extent(extent)
    like = torch.empty(0) if latents is None else latents
    steps = torch.linspace(0, 1, resolution, dtype=like.dtype, device=like.device)
    x, y = left + (right - left) * steps, bottom + (top - bottom) * steps
    with torch.no_grad():
        values = torch.cat([_values(field, z) for z in torch.cartesian_prod(x, y).split(_ROWS)])
        at_data = values if latents is None else _values(field, latents)
    low, high = _limits(at_data, latents is not None) if limits is None else limits

    # A shape near the plane's, and room for the color bar.
    ax = new_axes(6 * min(max((right - left) / (top - bottom), 0.5), 2.0) + 1.6, 6.2) if ax is None else ax
    image = as_array(values).reshape(resolution, resolution).T
    mesh = ax.pcolormesh(
        as_array(x), as_array(y), np.ma.masked_invalid(image), cmap="bone_r", vmin=low, vmax=high, rasterized=True
    )
    ax.set_facecolor("0.6")
    ax.figure.colorbar(mesh, ax=ax, label=label, extend="both", pad=0.02)
    if latents is not None:
        plot_latents(latents, labels, names=names, ax=ax)
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    return ax


def plot_latents(
    latents: Float[Tensor, "n 2"],
    labels: Int[Tensor, " n"] | None = None,
    *,
    names: Mapping[int, str] | None = None,
    ax: Optional["matplotlib.axes.Axes"] = None,
) -> "matplotlib.axes.Axes":
    """Points of a latent plane, a color and an entry of the legend for each class.

    Args:
        latents: points ``(n, 2)``, usually the encoded data.
        labels: classes of the points ``(n,)``; None for one color and no legend.
        names: of classes, by label, for the legend; a class without one has its label there.
        ax: axes to draw on; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, or labels do not fit.
    """
    check_plane(latents, labels, None)
    if ax is None:
        ax = new_axes(6.0, 6.2)
        ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    _scatter(ax, as_array(latents), None if labels is None else as_array(labels), names or {})
    return ax


def _values(field: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    values = field(z)
    check_output("field", z, values, "(B, 2) to (B,)", z.shape[:1])
    return values


def _limits(measure: Tensor, headroom: bool) -> tuple[float, float]:
    """First and last color: all but 1 % of the values at either end, and room above them."""
    values = as_array(measure)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = np.quantile(values, [0.01, 0.99])
    high = high + _HEADROOM * (high - low) if headroom else high
    # A constant measure would leave no range, and its rounding a misleading one.
    slack = 1e-6 * max(1.0, abs(low))
    return (float(low), float(high)) if high - low > slack else (float(low) - 0.5, float(low) + 0.5)


def _scatter(
    ax: "matplotlib.axes.Axes", points: np.ndarray, labels: np.ndarray | None, names: Mapping[int, str]
) -> None:
    if labels is None:
        ax.scatter(points[:, 0], points[:, 1], s=5, color="tab:blue", linewidths=0)
        return
    import matplotlib

    classes = np.unique(labels)
    colors = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"].resampled(max(len(classes), 10))
    for k, label in enumerate(classes):
        own = points[labels == label]
        ax.scatter(own[:, 0], own[:, 1], s=5, color=colors(k), linewidths=0, label=names.get(int(label), str(label)))
    above = (0.5, 1.0)
    ax.legend(
        loc="lower center",
        bbox_to_anchor=above,
        ncols=10,
        frameon=False,
        markerscale=3,
        handletextpad=0.0,
        columnspacing=0.8,
        fontsize=9,
    )
