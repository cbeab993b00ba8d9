"""The figures of experiment 3: the measure with geodesics, and decoded images with the deviation that is met."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from bench.paper.experiment import Stored
from bench.paper.figures import GEODESIC, as_bytes, class_marks, curve_marks, legend_below, show_images
from bench.paper.lab import Lab, Model
from bench.paper.paths import LOOKS, deviations
from bench.paper.planes import (
    MEASURE,
    box_with,
    common_range,
    measure_raster,
    plane_panels,
    points_of,
    sampled,
    show_color_bar,
    show_curves,
    show_plane,
    show_points,
)
from geodesics import Curve

TITLES = {"rbf": "standard deviation of the RBF network", "own": "the VAE's own standard deviation"}
# Frames of a strip.
FRAMES = 9
# Deviations that may be marked.
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def measures(lab: Lab, model: Model, curves: dict[str, Curve]) -> dict[str, Any]:
    """The log measure by both metrics over one plane, with the geodesics of one pair of each pair of classes."""
    metrics = {"rbf": lab.metric(model), "own": lab.own_metric(model)}
    extent = box_with(model.latents, list(curves.values()))
    planes = {
        name: measure_raster(lab, model, metrics[name], extent) | {"curves": sampled(lines)}
        for name, lines in curves.items()
    }
    return {"points": points_of(model), "planes": planes}


def strips(lab: Lab, model: Model, curves: Curve, paced: Tensor) -> dict[str, Any]:
    """Along curves: images decoded at equal Riemannian steps, some of `paced`, and the deviation that is met."""
    frames = paced[:, :: max(1, (paced.shape[1] - 1) // (FRAMES - 1))]
    ways = sampled(curves, LOOKS)
    with torch.no_grad():
        images = as_bytes(model.vae.decode(frames.flatten(0, 1)).mean)
        met = deviations(lab.rbf(model).standard_deviation, ways)
    return {"images": images.view(*frames.shape[:2], *model.split.train.shape), "curves": ways, "deviation": met}


def draw(stored: Stored, suffix: str) -> dict[str, Figure]:
    """Both figures; none where the model had collapsed."""
    if not stored.arrays:
        return {}
    return {f"measure{suffix}.png": draw_measures(stored), f"strips{suffix}.png": draw_strips(stored)}


def draw_measures(stored: Stored) -> Figure:
    """Both measures in one range of colors, with geodesics and straight lines."""
    planes, points = stored.arrays["planes"], stored.arrays["points"]
    limits = common_range(list(planes.values()))
    figure, axes = plane_panels(1, 2, planes["rbf"]["extent"], 4.4)
    for ax, (name, plane) in zip(axes, planes.items(), strict=True):
        image = show_plane(ax, plane, limits)
        show_points(ax, points)
        show_curves(ax, plane["curves"])
        ax.set_title(TITLES[name], fontsize=10)
    show_color_bar(figure, image, axes, MEASURE)
    legend_below(figure, [*class_marks(points["names"]), *curve_marks()])
    return figure


def chosen(stored: Stored) -> list[int]:
    """For each pair of classes, the pair of images with the largest ratio of straight line to geodesic length."""
    lengths = stored.numbers["pairs"]
    ratio = np.array(lengths["straight.rbf_length"]) / np.array(lengths["geodesic.rbf_length"])
    kinds = np.sort(stored.arrays["ends"], axis=1)
    rows = [np.flatnonzero((kinds == kind).all(1)) for kind in np.unique(kinds, axis=0)]
    return [int(own[np.argmax(ratio[own])]) for own in rows]


def draw_strips(stored: Stored) -> Figure:
    """Per pair of classes: images along the geodesic and the straight line, and the deviation on both ways."""
    arrays, names = stored.arrays, stored.arrays["points"]["names"]
    rows = chosen(stored)
    met = np.concatenate([arrays["strips"][kind]["deviation"][rows] for kind in ("geodesic", "straight")])
    limits = float(met.min() / 1.1), float(met.max() * 1.1)
    figure = Figure(figsize=(9.6, 2.0 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        grid = part.add_gridspec(2, 2, width_ratios=(2.6, 1))
        for place, kind in enumerate(("geodesic", "straight")):
            ax = part.add_subplot(grid[place, 0])
            show_images(ax, arrays["strips"][kind]["images"][row][None])
            length = stored.numbers["pairs"][f"{kind}.rbf_length"][row]
            text = "geodesic" if kind == "geodesic" else "straight line"
            ax.set_ylabel(f"{text}\nlength {length:.3g}", rotation=0, ha="right", va="center", fontsize=9)
        first, last = arrays["ends"][row]
        part.suptitle(f"{names[first]} to {names[last]}", fontsize=10, x=0.02, ha="left")
        ax = part.add_subplot(grid[:, 1])
        draw_deviations(ax, arrays["strips"], row)
        ax.set(ylim=limits, yticks=[tick for tick in TICKS if limits[0] < tick < limits[1]])
        ax.set_xlabel("share of the way in the latent plane", fontsize=9)
    parts[0].axes[2].legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def draw_deviations(ax: Axes, strips_: dict[str, Any], row: int) -> None:
    """The deviation of one pair's geodesic and straight line over the share of the latent way."""
    for kind, style, label in (("geodesic", "-", "geodesic"), ("straight", "--", "straight line")):
        way = np.linalg.norm(np.diff(strips_[kind]["curves"][row], axis=0), axis=1)
        share = np.concatenate([[0], way.cumsum()]) / way.sum()
        ax.plot(share, strips_[kind]["deviation"][row], style, color=GEODESIC, linewidth=1.2, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set(xlim=(0, 1))
    ax.set_ylabel(r"$\sigma$ on the way", fontsize=9)
    ax.tick_params(labelsize=8)
