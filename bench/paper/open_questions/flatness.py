"""Experiment 8: does the decoder's own standard deviation give a nearly flat space? Curvatures and their figure."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.experiment import Claim
from bench.paper.figures import class_marks, legend_below
from bench.paper.lab import Lab
from bench.paper.open_questions.studies import Space, settings, told
from bench.paper.planes import (
    NEAR,
    box,
    plane_panels,
    points_of,
    raster,
    show_color_bar,
    show_plane,
    show_points,
)
from bench.paper.statistics import bootstrap
from geodesics import gaussian_curvature, sectional_curvature

# Below this curvature, in units of one over the squared median distance, two geodesics of that length that start
# parallel drift apart by less than a twentieth of their distance: the space is flat for what is done in it.
FLAT = 0.1
# A straight line is a shortest path for practical purposes when it is longer by less than this share.
STRAIGHT = 1.05
# Points at a time: a bound on memory.
_ROWS = 50
TITLES = {"own": "the decoder's own standard deviation", "rbf": "RBF network"}
# The largest size of sign(K) log(1 + |K| L^2) that has a color of its own.
LARGEST = 8.0


def bend(lab: Lab, space: Space, distance: Tensor) -> dict[str, Any]:
    """Sizes of the curvature at encoded images, in units of one over a squared distance."""
    bent = curvatures(lab, space) * distance**2
    kept = bent[bent.isfinite()]
    return {
        "size": bootstrap(kept.abs(), lab.rng(85))._asdict(),
        "quantiles_10_50_90": kept.abs().quantile(kept.new_tensor([0.1, 0.5, 0.9])),
        "share_negative": (kept < 0).double().mean(),
        "planes": len(bent),
        "not_finite": len(bent) - len(kept),
    }


def curvatures(lab: Lab, space: Space) -> Float[Tensor, " n"]:
    """Sectional curvatures at random encoded images, of the planes toward two others.

    Planes of any direction would say little: along the axes that a model does not use, the metric is all but
    singular, and its curvature there anything.
    """
    c, latents, rng = settings(lab), space.model.latents, lab.rng(86)
    count = c.curvature_points * (1 if latents.shape[1] == 2 else c.curvature_planes)
    at, first, second = (latents[torch.randint(len(latents), (count,), generator=rng)] for _ in range(3))
    parts = zip(at.split(_ROWS), (first - at).split(_ROWS), (second - at).split(_ROWS), strict=True)
    return torch.cat([sectional_curvature(space.metric, z, u, v) for z, u, v in parts])


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """The paper's statement, taken apart: straight lines nearly shortest, and curvature nearly zero."""
    ratios = {d: {n: e[n]["curves"]["straight_over_geodesic"] for n in ("own", "rbf")} for d, e in numbers.items()}
    bends = {d: {n: e[n]["curvature"]["size"] for n in ("own", "rbf")} for d, e in numbers.items()}
    return (
        Claim(
            f"With the decoder's own deviation straight lines are shortest paths, to {STRAIGHT - 1:.0%}.",
            verdict([r["own"] for r in ratios.values()], STRAIGHT),
            "straight/geodesic length, own against RBF: "
            + "; ".join(f"d={d}: {told(r['own'])} against {told(r['rbf'])}" for d, r in ratios.items()),
        ),
        Claim(
            "With the decoder's own deviation the space is nearly flat.",
            verdict([b["own"] for b in bends.values()], FLAT),
            "median |curvature| times the squared median distance, own against RBF: "
            + "; ".join(f"d={d}: {told(b['own'])} against {told(b['rbf'])}" for d, b in bends.items())
            + f"; flat is below {FLAT:g}, a quarter of a great circle has {(torch.pi / 2) ** 2:.2f}",
        ),
    )


def verdict(intervals: list[dict[str, Any]], bound: float) -> bool | None:
    """Whether all lie below a bound, or not all; None where an interval holds it and none lies above."""
    if all(i["high"] < bound for i in intervals):
        return True
    return False if any(i["low"] > bound for i in intervals) else None


def pictured(lab: Lab, spaces: dict[str, Space], distances: dict[str, float]) -> dict[str, Any]:
    """Gaussian curvature over the plane, in units of the squared median distance, on a scale of signed logarithms."""
    model = spaces["own"].model
    planes: dict[str, Any] = {}
    for name, space in spaces.items():
        square = distances[name] ** 2

        def bent(z: Tensor, space: Space = space, square: float = square) -> Tensor:
            value = torch.cat([gaussian_curvature(space.metric, part) for part in z.split(_ROWS)]) * square
            return value.sign() * value.abs().log1p()

        planes[name] = raster(bent, box(model.latents, NEAR), max(16, lab.config.resolution // 3))
    return {"points": points_of(model), "planes": planes}


def draw(arrays: Mapping[str, Any]) -> Figure:
    """Both curvatures, white where the space is flat."""
    planes, points = arrays["planes"], arrays["points"]
    figure, axes = plane_panels(1, len(planes), planes["own"]["extent"], 4.2)
    for ax, (name, plane) in zip(axes, planes.items(), strict=True):
        image = show_plane(ax, plane, (-LARGEST, LARGEST), cmap="RdBu_r")
        show_points(ax, points, 1.0)
        ax.set_title(TITLES[name], fontsize=10)
    show_color_bar(figure, image, axes, r"curvature, $\mathrm{sign}(K)\,\log(1 + |K| L^2)$")
    legend_below(figure, class_marks(points["names"]))
    return figure
