"""Figures as small files: drawn without pyplot, few colors, written whole or not at all."""

import io
import os
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Colors of a file: heat maps and photographs of 8 bits look the same, at a third of the size.
COLORS = 192
# Bytes of a file at most: a gallery of them is still quick to load.
LIMIT = 140_000


def panels(rows: int, columns: int, width: float = 3.4, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row; sizes of one panel in inches."""
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def class_color(index: int) -> tuple[float, float, float]:
    """The color of the class of this index, the same in every figure."""
    return matplotlib.colormaps["tab10"](index)[:3]


def write_png(figure: Figure, path: Path, dpi: float) -> None:
    """Write a figure as a PNG of few colors, smaller than LIMIT; a kill leaves the old file or the new one."""
    content = _packed(figure, dpi)
    while len(content) > LIMIT:
        dpi *= 0.9
        content = _packed(figure, dpi)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _packed(figure: Figure, dpi: float) -> bytes:
    raw, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    image = Image.open(raw).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True)
    return packed.getvalue()
