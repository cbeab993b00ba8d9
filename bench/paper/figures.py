"""Figures fit for print in small files: drawn without pyplot, few colors, written whole or not at all."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.colors
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

# Dots per inch of every file.
DPI = 200
# Colors of a file: heat maps and photographs of 8 bits look the same, at a third of the size. Fewer, if it is larger.
COLORS = (192, 128, 96, 64)
# Bytes of a file at most: a gallery of them is still quick to load.
LIMIT = 400_000
# White pixels between images.
_GAP = 1
GEODESIC = "crimson"


def panels(rows: int, columns: int, width: float = 3.4, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row; sizes of one panel in inches."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def class_color(index: int) -> tuple[float, float, float]:
    """The color of the class of this index, the same in every figure."""
    return matplotlib.colormaps["tab10"](index)[:3]


def class_marks(names: Sequence[str]) -> list[Artist]:
    """Entries of a legend for classes."""
    return [
        Line2D([], [], linestyle="none", marker="o", markersize=5, color=class_color(k), label=str(name))
        for k, name in enumerate(names)
    ]


def curve_marks(straight: bool = True, label: str = "geodesic") -> list[Artist]:
    """Entries of a legend for curves with their ends, and for straight lines."""
    ends = {"marker": "o", "markersize": 5, "markeredgecolor": "white"}
    marks: list[Artist] = [Line2D([], [], color=GEODESIC, label=label, **ends)]
    if straight:
        marks.append(Line2D([], [], color=GEODESIC, linestyle="--", linewidth=1, label="straight line"))
    return marks


def legend_below(figure: Figure, marks: Sequence[Artist]) -> None:
    """One legend for all panels, below them."""
    figure.legend(handles=list(marks), loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)


def as_bytes(images: Tensor) -> Tensor:
    """Images of values from 0 to 1 as they are stored."""
    return (255 * images.clamp(0, 1)).round().to(torch.uint8)


def show_images(ax: Axes, images: np.ndarray, extent: Sequence[float] | None = None) -> None:
    """Images side by side, (rows, columns, height, width) of bytes, white where they are 0; `extent` as of `imshow`."""
    rows, columns, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (0, _GAP), (0, _GAP)))
    whole = padded.transpose(0, 2, 1, 3).reshape(rows * (height + _GAP), columns * (width + _GAP))
    aspect = "equal" if extent is None else "auto"
    ax.imshow(whole, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest", extent=extent, aspect=aspect)
    if extent is None:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colors, smaller than LIMIT if it can be; a kill leaves the old file or the new."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=DPI)
    image = Image.open(raw).convert("RGB")
    content = b""
    for colors in COLORS:
        packed = io.BytesIO()
        _quantized(image, colors).save(packed, format="png", optimize=True, dpi=(DPI, DPI))
        content = packed.getvalue()
        if len(content) <= LIMIT:
            break
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _quantized(image: Image.Image, colors: int) -> Image.Image:
    """An image of few colors, those of classes and curves among them: small dots would lose theirs to a large field."""
    named = [*(class_color(k) for k in range(10)), matplotlib.colors.to_rgb(GEODESIC), (0, 0, 0), (1, 1, 1)]
    common = image.quantize(colors - len(named), dither=Image.Dither.NONE).getpalette() or []
    palette = np.array([round(255 * value) for color in named for value in color] + common, np.uint8).reshape(-1, 3)
    # Every color becomes the nearest of the palette; Pillow's own search is coarse, and white would turn gray.
    drawn, places = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_inverse=True)
    nearest = cKDTree(palette.astype(float)).query(drawn.astype(float))[1].astype(np.uint8)
    found = Image.fromarray(nearest[places].reshape(image.height, image.width), mode="P")
    found.putpalette(palette.ravel().tolist())
    return found
