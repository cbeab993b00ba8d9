"""Curves in a latent plane, the speed along them, and the straight lines that they are compared with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch

from geodesics.batches.arguments import check_count, check_fits, check_metric
from geodesics.curves.curve import Curve
from geodesics.metrics.metric import Metric
from geodesics.plots.canvas import as_array, check_curves, check_plane, colors_of, new_axes, rim_of

if TYPE_CHECKING:
    import matplotlib.axes

# Elements of a straight line: its speed is sampled 15 or 16 times in each, and it may cross narrow walls.
_STRAIGHT_SEGMENTS = 64


def plot_curves(
    curves: Curve,
    *,
    ax: Optional["matplotlib.axes.Axes"] = None,
    color: str | Sequence[str] = "crimson",
    linestyle: str = "-",
    linewidth: float = 1.5,
    num_points: int = 400,
    ends: bool = False,
) -> "matplotlib.axes.Axes":
    """Curves in a latent plane as lines, solid ones with a white rim; what is not finite is left out.

    Args:
        curves: B curves in two dimensions.
        ax: axes to draw on; None for a new figure.
        color: a color of matplotlib's, for all or for each of the curves.
        linestyle: matplotlib's.
        linewidth: in points.
        num_points: points per curve, at equal steps of its parameter.
        ends: whether to mark both ends of every curve by a dot of its color with a white rim.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, or the number of colors is not B.
    """
    check_plane(None, None, curves)
    check_count("num_points", num_points, 2)
    colors = colors_of(color, len(curves))
    if ax is None:
        ax = new_axes(6.0, 6.0)
        ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    outline = rim_of(linewidth) if linestyle == "-" else None
    t = torch.linspace(0, 1, num_points, dtype=curves.points.dtype, device=curves.points.device)
    for line, own in zip(as_array(curves.evaluate(t)), colors, strict=True):
        ax.plot(*line.T, color=own, linestyle=linestyle, linewidth=linewidth, path_effects=outline)
        if ends and np.isfinite(line[[0, -1]]).all():
            (dots,) = ax.plot(*line[[0, -1]].T, color=own, linestyle="none", marker="o", zorder=2.5)
            dots.set(markersize=2.5 + linewidth, markeredgecolor="white", markeredgewidth=0.8)
    return ax


def plot_speeds(
    metric: Metric,
    curves: Curve,
    *,
    ax: Optional["matplotlib.axes.Axes"] = None,
    color: str | Sequence[str] = "crimson",
    num_points: int = 500,
) -> "matplotlib.axes.Axes":
    r"""Riemannian length per latent unit along curves, solid, and along their straight lines, dashed.

    Drawn is $\sqrt{c'^T M(c)\, c'} \,/\, \|c'\|$, the Riemannian speed at unit Euclidean speed, over
    the Euclidean distance traveled: it depends on the path alone, and the area under it is the length. Peaks
    of a straight line are the walls it crosses; a geodesic goes further, over cheaper ground.

    Args:
        metric: the Riemannian metric.
        curves: B curves, usually geodesics, in any dimension.
        ax: axes to draw on; None for a new figure.
        color: a color of matplotlib's, for all or for each of the curves.
        num_points: points per curve at which the speed is taken.

    Returns:
        The axes.

    Raises:
        ValueError: when the number of colors is not B.
    """
    check_metric(metric)
    check_curves(curves)
    check_count("num_points", num_points)
    check_fits(metric, curves.points[:, 0])
    colors = colors_of(color, len(curves))
    # Midpoints of equal cells: a knot, where the velocity has two values, is hit by chance only.
    t = (torch.arange(num_points, dtype=curves.points.dtype, device=curves.points.device) + 0.5) / num_points
    ax = new_axes(7.0, 4.0) if ax is None else ax
    for lines, style, width in ((curves, "-", 1.5), (straight_lines(curves), "--", 1.0)):
        with torch.no_grad():
            z, v = lines.evaluate(t), lines.derivative(t)
            pace = v.norm(dim=-1)
            speed = metric.norm(z.flatten(0, 1), v.flatten(0, 1)).reshape(pace.shape) / pace
        traveled = (pace.cumsum(1) - pace / 2) / num_points
        for x, y, own in zip(as_array(traveled), as_array(speed), colors, strict=True):
            ax.plot(x, y, style, color=own, linewidth=width)
    ax.set(xlabel="latent distance traveled", ylabel="length per latent unit")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    return ax


def straight_lines(curves: Curve) -> Curve:
    """The straight lines between the ends of curves, cut into 64 elements so that `length` sees narrow walls.

    Args:
        curves: B curves, in any dimension.

    Returns:
        B polylines, at constant Euclidean speed.
    """
    check_curves(curves)
    z0, z1 = curves.points[:, :1], curves.points[:, -1:]
    t = torch.linspace(0, 1, _STRAIGHT_SEGMENTS + 1, dtype=z0.dtype, device=z0.device)[:, None]
    return Curve((1 - t) * z0 + t * z1)
