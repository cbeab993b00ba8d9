"""Decoded images: along curves, and over a latent plane."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_callable, check_count, check_metric, check_points
from geodesics.curves.curve import Curve
from geodesics.metrics.lengths import constant_speed, length
from geodesics.metrics.metric import Metric
from geodesics.plots.canvas import as_array, check_curves, check_plane, checked_extent, extent_of, new_axes, new_figure
from geodesics.plots.lines import straight_lines

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

# Pixels between the frames of a strip.
_GAP = 1


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
        decode: from latent points ``(T, d)`` to images ``(T, D)`` or ``(T, C, H, W)``; further columns are ignored, so
            a generator that stacks a standard deviation behind its mean does.
        curves: B curves, usually geodesics, in any dimension.
        image_shape: ``(H, W)``, or ``(C, H, W)`` with C = 1 or 3.
        num_frames: images per strip, both ends included.
        titles: one per curve; None for none.

    Returns:
        A figure with two axes per curve. All images share one scale of gray.

    Raises:
        ValueError: when image_shape is not as above, the images are smaller, there are no curves, titles are
            not B, or num_frames is below 2.
    """
    check_metric(metric)
    check_callable("decode", decode, "(T, d) -> (T, D)")
    check_curves(curves)
    check_count("num_frames", num_frames, 2)
    _check_image_shape(image_shape)
    if len(curves) == 0:
        raise ValueError("curves must hold at least one curve; got none")
    if titles is not None and len(titles) != len(curves):
        raise ValueError(f"titles must be {len(curves)}, one per curve; got {len(titles)}")
    kinds = {"geodesic": curves, "straight": straight_lines(curves)}
    with torch.no_grad():
        lengths = [as_array(length(metric, lines)[0]) for lines in kinds.values()]
        points = [constant_speed(metric, lines, num_frames) for lines in kinds.values()]
        strips = [_strips(decode, z, image_shape) for z in points]
    low, high = float(np.nanmin(strips)), float(np.nanmax(strips))

    frame = 0.6
    strip = frame * image_shape[-2] / image_shape[-1]
    figure = new_figure(frame * num_frames + 1.4, (2 * strip + 0.35) * len(curves))
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


def plot_decoded(
    decode: Callable[[Tensor], Tensor],
    latents: Float[Tensor, "n 2"],
    image_shape: tuple[int, ...],
    *,
    extent: tuple[float, float, float, float] | None = None,
    num_images: int = 10,
    ax: Optional["matplotlib.axes.Axes"] = None,
) -> "matplotlib.axes.Axes":
    """Images decoded on a square grid over a latent plane, each where its latent point is.

    Args:
        decode: from latent points ``(T, 2)`` to images ``(T, D)`` or ``(T, C, H, W)``; further columns are ignored, so
            a generator that stacks a standard deviation behind its mean does.
        latents: points ``(n, 2)``, usually the encoded data, whose box is shown.
        image_shape: ``(H, W)``, or ``(C, H, W)`` with C = 1 or 3.
        extent: left, right, bottom and top of the plane; None for the box of the points with a margin. The images'
            points are the midpoints of equal cells.
        num_images: along each side.
        ax: axes to draw on; None for a new figure.

    Returns:
        The axes, in latent units.

    Raises:
        ValueError: when the latent space is not two-dimensional, the extent is empty, num_images is below 1,
            image_shape is not as above, or the images are smaller.
    """
    check_callable("decode", decode, "(T, 2) -> (T, D)")
    _check_image_shape(image_shape)
    check_points("latents", latents)
    check_plane(latents, None, None)
    left, right, bottom, top = extent_of([latents]) if extent is None else checked_extent(extent)
    check_count("num_images", num_images)
    steps = (torch.arange(num_images, dtype=latents.dtype, device=latents.device) + 0.5) / num_images
    x, y = left + (right - left) * steps, top - (top - bottom) * steps
    cells = torch.cartesian_prod(y, x).flip(1).view(num_images, num_images, 2)
    with torch.no_grad():
        strips = _strips(decode, cells, image_shape)
    gap = np.full_like(strips[:, :_GAP], np.nan)
    image = np.concatenate([strips, gap], axis=1).reshape(-1, *strips.shape[2:])[:-_GAP]
    ax = new_axes(6.0, 6.0) if ax is None else ax
    ax.imshow(image, cmap="gray_r", interpolation="nearest", extent=(left, right, bottom, top), aspect="auto")
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    return ax


def _check_image_shape(image_shape: tuple[int, ...]) -> None:
    if not isinstance(image_shape, tuple | list) or not all(isinstance(n, int) and n > 0 for n in image_shape):
        raise TypeError(f"image_shape must be (H, W) or (C, H, W), positive integers; got {image_shape!r}")
    if len(image_shape) not in (2, 3) or (len(image_shape) == 3 and image_shape[0] not in (1, 3)):
        raise ValueError(f"image_shape must be (H, W), or (C, H, W) with C = 1 or 3; got {image_shape}")


def _strips(decode: Callable[[Tensor], Tensor], z: Float[Tensor, "b t d"], image_shape: tuple[int, ...]) -> np.ndarray:
    """Frames side by side with gaps of NaN: (B, H, T (W + gap) - gap), with a last axis of 3 in color."""
    images = decode(z.flatten(0, 1))
    size = int(np.prod(image_shape))
    if not isinstance(images, Tensor):
        raise TypeError(f"decode must map (T, d) to (T, D); got {type(images).__name__}")
    images = images.flatten(1) if images.ndim > 2 else images
    if images.ndim != 2 or len(images) != z.shape[0] * z.shape[1] or images.shape[1] < size:
        raise ValueError(
            f"decode must map (T, d) to (T, D) with D >= {size}; got {tuple(z.flatten(0, 1).shape)} -> "
            f"{tuple(images.shape)}"
        )
    channels, height, width = image_shape if len(image_shape) == 3 else (1, *image_shape)
    frames = as_array(images[:, :size]).reshape(*z.shape[:2], channels, height, width).transpose(0, 3, 1, 4, 2)
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=np.nan)
    strips = padded.reshape(len(z), height, -1, channels)[:, :, :-_GAP]
    return strips[..., 0] if channels == 1 else strips
