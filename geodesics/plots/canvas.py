"""What all pictures share: figures and axes without pyplot, arrays, colors."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from geodesics.batches.arguments import check_is, check_points
from geodesics.curves.curve import Curve

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import matplotlib.patheffects

# Share of the data's width and height left free around it.
_MARGIN = 0.05


def new_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'latent-geodesics[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float) -> "matplotlib.axes.Axes":
    return new_figure(width, height).subplots()


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def colors_of(color: str | Sequence[str], count: int) -> list[str]:
    colors = [color] * count if isinstance(color, str) else list(color)
    if len(colors) != count:
        raise ValueError(f"color must be one color or {count}; got {len(colors)}")
    return colors


def rim_of(linewidth: float) -> list["matplotlib.patheffects.AbstractPathEffect"]:
    """A white rim, without which a line is lost among points of its color."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=linewidth + 1.2, foreground="white"), patheffects.Normal()]


def check_plane(latents: Tensor | None, labels: Tensor | None, curves: Curve | None) -> None:
    """Raise unless all that is given fits a picture of a latent plane."""
    if latents is not None:
        check_points("latents", latents)
    if curves is not None:
        check_curves(curves)
    for name, points in (("latents", latents), ("curves", None if curves is None else curves.points)):
        if points is not None and points.shape[-1] != 2:
            raise ValueError(f"{name} must lie in a plane, last axis 2; got {tuple(points.shape)}")
    count = 0 if latents is None else len(latents)
    if labels is not None and not isinstance(labels, Tensor):
        raise TypeError(f"labels must be a tensor ({count},), one per latent point; got {type(labels).__name__}")
    if labels is not None and labels.shape != (count,):
        raise ValueError(f"labels must be ({count},), one per latent point; got {tuple(labels.shape)}")


def check_curves(curves: object) -> None:
    """Raise unless the argument is a batch of curves."""
    check_is("curves", curves, Curve, "as geodesic(...).curve")


def checked_extent(extent: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The extent given, which must be one."""
    box: object = extent
    if not isinstance(box, tuple | list) or len(box) != 4 or not all(isinstance(x, Real) for x in box):
        raise TypeError(f"extent must be four numbers, left, right, bottom and top; got {box!r}")
    left, right, bottom, top = extent
    if not (-math.inf < left < right < math.inf and -math.inf < bottom < top < math.inf):
        raise ValueError(f"extent must be (left, right, bottom, top), increasing; got {extent}")
    return extent


def extent_of(shown: list[Tensor]) -> tuple[float, float, float, float]:
    """The box of all finite points with a margin; a box without width gets a width of one."""
    points = np.concatenate([as_array(part) for part in shown]) if shown else np.empty((0, 2))
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        raise ValueError("extent must be given when there are no finite latents and curves to find it from")
    low, high = points.min(0), points.max(0)
    margin = np.where(high > low, _MARGIN * (high - low), 0.5)
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)
