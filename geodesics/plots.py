"""Pictures of two-dimensional latent spaces: the measure with data and curves, decoded strips, speeds.

They need matplotlib (the extra `plots`), which is imported when a picture is drawn. Figures are made without
pyplot, so none stays open behind the caller's back: keep what is returned, or pass axes of your own.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.curves import Curve
from geodesics.forms import log_measure
from geodesics.metrics import Metric
from geodesics.quadrature import length
from geodesics.resampling import constant_speed

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.patheffects


# Share of the data's width and height left free around it.
_MARGIN = 0.05
# Share of the colour range added above the measure at the data: walls around the data are to be told apart.
_HEADROOM = 0.5
# Elements of a straight line: its speed is sampled 15 or 16 times in each, and it may cross narrow walls.
_STRAIGHT_SEGMENTS = 64
# Pixels between the frames of a strip.
_GAP = 1


def plot_measure(
    metric: Metric,
    latents: Float[Tensor, "n 2"] | None = None,
    *,
    labels: Int[Tensor, " n"] | None = None,
    curves: Curve | None = None,
    straight: bool = True,
    extent: tuple[float, float, float, float] | None = None,
    limits: tuple[float, float] | None = None,
    resolution: int = 256,
    ax: Optional["matplotlib.axes.Axes"] = None,
) -> "matplotlib.axes.Axes":
    r"""Heat map of the log measure :math:`\frac12 \log\det M(z)` over a latent plane, data and curves on top.

    One metric tensor per pixel, ``resolution`` squared of them. Pixels where the measure is zero, infinite or
    undefined are left grey.

    Args:
        metric: the Riemannian metric, of a two-dimensional latent space.
        latents: points ``(n, 2)``, usually the encoded data.
        labels: classes of the points ``(n,)``, a colour and an entry of the legend each; None for one colour.
        curves: curves to draw, as solid lines.
        straight: whether to draw the straight lines between the curves' ends too, dashed.
        extent: left, right, bottom and top of the plane; None for the box of points and curves with a margin.
        limits: log measure of the first and the last colour; None for its range at the points, with half as
            much again above it, so that the colours are spent where the data are. Without points, that of all
            pixels.
        resolution: pixels along each side.
        ax: axes to draw on; None for a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, labels do not fit, there is no extent nor
            anything to find it from, or the extent or the resolution is empty.
    """
    _check_plane(latents, labels, curves)
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2; got {resolution}")
    nodes = None if curves is None else curves.points.flatten(0, 1)
    shown = [points for points in (latents, nodes) if points is not None]
    left, right, bottom, top = _extent(shown) if extent is None else extent
    if not (left < right and bottom < top):
        raise ValueError(f"extent must be (left, right, bottom, top), increasing; got {extent}")
    like = shown[0] if shown else torch.empty(0)
    steps = torch.linspace(0, 1, resolution, dtype=like.dtype, device=like.device)
    x, y = left + (right - left) * steps, bottom + (top - bottom) * steps
    with torch.no_grad():
        measure = torch.cat([log_measure(metric, z) for z in torch.cartesian_prod(x, y).split(2048)])
        at_data = measure if latents is None else log_measure(metric, latents)
    low, high = _limits(at_data, latents is not None) if limits is None else limits

    # A shape near the plane's, and room for the colour bar.
    ax = _new_axes(6 * min(max((right - left) / (top - bottom), 0.5), 2.0) + 1.6, 6.2) if ax is None else ax
    image = _array(measure).reshape(resolution, resolution).T
    mesh = ax.pcolormesh(
        _array(x), _array(y), np.ma.masked_invalid(image), cmap="bone_r", vmin=low, vmax=high, rasterized=True
    )
    ax.set_facecolor("0.6")
    label = r"log measure $\frac{1}{2}\,\log\,\det\,M(z)$"
    ax.figure.colorbar(mesh, ax=ax, label=label, extend="both", pad=0.02)
    if latents is not None:
        _scatter(ax, _array(latents), None if labels is None else _array(labels))
    if curves is not None:
        if straight:
            plot_curves(straight_lines(curves), ax=ax, linestyle="--", linewidth=0.8)
        plot_curves(curves, ax=ax)
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    return ax


def plot_curves(
    curves: Curve,
    *,
    ax: Optional["matplotlib.axes.Axes"] = None,
    color: str | Sequence[str] = "crimson",
    linestyle: str = "-",
    linewidth: float = 1.5,
    num_points: int = 400,
) -> "matplotlib.axes.Axes":
    """Curves in a latent plane as lines, solid ones with a white rim; what is not finite is left out.

    Args:
        curves: B curves in two dimensions.
        ax: axes to draw on; None for a new figure.
        color: a colour of matplotlib's, for all or for each of the curves.
        linestyle: matplotlib's.
        linewidth: in points.
        num_points: points per curve, at equal steps of its parameter.

    Returns:
        The axes.

    Raises:
        ValueError: when the latent space is not two-dimensional, or the number of colours is not B.
    """
    _check_plane(None, None, curves)
    colors = _colors(color, len(curves))
    ax = _new_axes(6.0, 6.0) if ax is None else ax
    outline = _outline(linewidth) if linestyle == "-" else None
    t = torch.linspace(0, 1, num_points, dtype=curves.points.dtype, device=curves.points.device)
    for line, own in zip(_array(curves.evaluate(t)), colors, strict=True):
        ax.plot(*line.T, color=own, linestyle=linestyle, linewidth=linewidth, path_effects=outline)
    return ax


def plot_strips(
    metric: Metric,
    decode: Callable[[Tensor], Tensor],
    curves: Curve,
    image_shape: tuple[int, ...],
    *,
    num_frames: int = 12,
    titles: Sequence[str] | None = None,
) -> "matplotlib.figure.Figure":
    """Decoded images at equal Riemannian steps, along each curve and, below it, along its straight line.

    Every strip is marked with its length. Equal steps are equal amounts of change as the metric sees it:
    where a straight line crosses a wall, most of its frames lie in the wall.

    Args:
        metric: the Riemannian metric; says what equal steps are.
        decode: from latent points ``(T, d)`` to images ``(T, D)``, flat; further columns are ignored, so a
            generator that stacks a standard deviation behind its mean does.
        curves: B curves, usually geodesics, in any dimension.
        image_shape: ``(H, W)``, or ``(C, H, W)`` with C = 1 or 3.
        num_frames: images per strip, both ends included.
        titles: one per curve; None for none.

    Returns:
        A figure with two axes per curve. All images share one scale of grey.

    Raises:
        ValueError: when image_shape is not as above, the images are smaller, there are no curves, titles are
            not B, or num_frames is below 2.
    """
    if len(image_shape) not in (2, 3) or (len(image_shape) == 3 and image_shape[0] not in (1, 3)):
        raise ValueError(f"image_shape must be (H, W), or (C, H, W) with C = 1 or 3; got {image_shape}")
    if len(curves) == 0:
        raise ValueError("curves must hold at least one curve; got none")
    if titles is not None and len(titles) != len(curves):
        raise ValueError(f"titles must be {len(curves)}, one per curve; got {len(titles)}")
    kinds = {"geodesic": curves, "straight": straight_lines(curves)}
    with torch.no_grad():
        lengths = [_array(length(metric, lines)[0]) for lines in kinds.values()]
        points = [constant_speed(metric, lines, num_frames) for lines in kinds.values()]
        strips = [_strips(decode, z, image_shape) for z in points]
    low, high = float(np.nanmin(strips)), float(np.nanmax(strips))

    frame = 0.6
    strip = frame * image_shape[-2] / image_shape[-1]
    figure = _new_figure(frame * num_frames + 1.4, (2 * strip + 0.35) * len(curves))
    for row, part in enumerate(figure.subfigures(len(curves), 1, squeeze=False)[:, 0]):
        for kind, ax, images, own in zip(kinds, part.subplots(2, 1), strips, lengths, strict=True):
            ax.imshow(images[row], cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            text = f"{kind}\n{own[row]:.4g}"
            ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)
        if titles is not None:
            part.suptitle(titles[row], fontsize=10, x=0.02, ha="left")
    return figure


def plot_speeds(
    metric: Metric,
    curves: Curve,
    *,
    ax: Optional["matplotlib.axes.Axes"] = None,
    color: str | Sequence[str] = "crimson",
    num_points: int = 500,
) -> "matplotlib.axes.Axes":
    r"""Riemannian length per latent unit along curves, solid, and along their straight lines, dashed.

    Drawn is :math:`\sqrt{c'^T M(c)\, c'} \,/\, \|c'\|`, the Riemannian speed at unit Euclidean speed, over
    the Euclidean distance travelled: it depends on the path alone, and the area under it is the length. Peaks
    of a straight line are the walls it crosses; a geodesic goes further, over cheaper ground.

    Args:
        metric: the Riemannian metric.
        curves: B curves, usually geodesics, in any dimension.
        ax: axes to draw on; None for a new figure.
        color: a colour of matplotlib's, for all or for each of the curves.
        num_points: points per curve at which the speed is taken.

    Returns:
        The axes.

    Raises:
        ValueError: when the number of colours is not B.
    """
    colors = _colors(color, len(curves))
    # Midpoints of equal cells: a knot, where the velocity has two values, is hit by chance only.
    t = (torch.arange(num_points, dtype=curves.points.dtype, device=curves.points.device) + 0.5) / num_points
    ax = _new_axes(7.0, 4.0) if ax is None else ax
    for lines, style, width in ((curves, "-", 1.5), (straight_lines(curves), "--", 1.0)):
        with torch.no_grad():
            z, v = lines.evaluate(t), lines.derivative(t)
            pace = v.norm(dim=-1)
            speed = metric.norm(z.flatten(0, 1), v.flatten(0, 1)).reshape(pace.shape) / pace
        travelled = (pace.cumsum(1) - pace / 2) / num_points
        for x, y, own in zip(_array(travelled), _array(speed), colors, strict=True):
            ax.plot(x, y, style, color=own, linewidth=width)
    ax.set(xlabel="latent distance travelled", ylabel="length per latent unit")
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
    z0, z1 = curves.points[:, :1], curves.points[:, -1:]
    t = torch.linspace(0, 1, _STRAIGHT_SEGMENTS + 1, dtype=z0.dtype, device=z0.device)[:, None]
    return Curve((1 - t) * z0 + t * z1)


def _colors(color: str | Sequence[str], count: int) -> list[str]:
    colors = [color] * count if isinstance(color, str) else list(color)
    if len(colors) != count:
        raise ValueError(f"color must be one colour or {count}; got {len(colors)}")
    return colors


def _outline(linewidth: float) -> list["matplotlib.patheffects.AbstractPathEffect"]:
    """A white rim, without which a line is lost among points of its colour."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=linewidth + 1.2, foreground="white"), patheffects.Normal()]


def _check_plane(latents: Tensor | None, labels: Tensor | None, curves: Curve | None) -> None:
    for name, points in (("latents", latents), ("curves", None if curves is None else curves.points)):
        if points is not None and points.shape[-1] != 2:
            raise ValueError(f"{name} must lie in a plane, last axis 2; got {tuple(points.shape)}")
    count = 0 if latents is None else len(latents)
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels must be ({count},), one per latent point; got {tuple(labels.shape)}")


def _extent(shown: list[Tensor]) -> tuple[float, float, float, float]:
    """The box of all finite points with a margin; a box without width gets a width of one."""
    points = np.concatenate([_array(part) for part in shown]) if shown else np.empty((0, 2))
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        raise ValueError("extent must be given when there are no finite latents and curves to find it from")
    low, high = points.min(0), points.max(0)
    margin = np.where(high > low, _MARGIN * (high - low), 0.5)
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)


def _limits(measure: Tensor, headroom: bool) -> tuple[float, float]:
    """First and last colour: all but 1 % of the values at either end, and room above them."""
    values = _array(measure)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = np.quantile(values, [0.01, 0.99])
    high = high + _HEADROOM * (high - low) if headroom else high
    # A constant measure would leave no range, and its rounding a misleading one.
    slack = 1e-6 * max(1.0, abs(low))
    return (float(low), float(high)) if high - low > slack else (float(low) - 0.5, float(low) + 0.5)


def _scatter(ax: "matplotlib.axes.Axes", points: np.ndarray, labels: np.ndarray | None) -> None:
    if labels is None:
        ax.scatter(points[:, 0], points[:, 1], s=5, color="tab:blue", linewidths=0)
        return
    import matplotlib

    classes = np.unique(labels)
    colors = matplotlib.colormaps["tab10" if len(classes) <= 10 else "turbo"].resampled(max(len(classes), 10))
    for k, label in enumerate(classes):
        own = points[labels == label]
        ax.scatter(own[:, 0], own[:, 1], s=5, color=colors(k), linewidths=0, label=str(label))
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


def _strips(
    decode: Callable[[Tensor], Tensor], z: Float[Tensor, "b t d"], image_shape: tuple[int, ...]
) -> np.ndarray:
    """Frames side by side with gaps of NaN: (B, H, T (W + gap) - gap), with a last axis of 3 in colour."""
    images = decode(z.flatten(0, 1))
    size = int(np.prod(image_shape))
    if images.ndim != 2 or len(images) != z.shape[0] * z.shape[1] or images.shape[1] < size:
        raise ValueError(
            f"decode must map (T, d) to (T, D) with D >= {size}; got {tuple(z.flatten(0, 1).shape)} -> "
            f"{tuple(images.shape)}"
        )
    channels, height, width = image_shape if len(image_shape) == 3 else (1, *image_shape)
    frames = _array(images[:, :size]).reshape(*z.shape[:2], channels, height, width).transpose(0, 3, 1, 4, 2)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=np.nan)
    strips = padded.reshape(len(z), height, -1, channels)[:, :, :-_GAP]
    return strips[..., 0] if channels == 1 else strips


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'latent-geodesics[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _new_axes(width: float, height: float) -> "matplotlib.axes.Axes":
    return _new_figure(width, height).subplots()
