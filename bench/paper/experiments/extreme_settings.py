"""Experiment 4: geodesics between the same images under extreme settings of the RBF network."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.data import draw_pairs
from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import class_marks, curve_marks, legend_below
from bench.paper.lab import Lab, Model
from bench.paper.paths import certified, connect, largest_deviation, one_of_each, statuses
from bench.paper.planes import (
    MEASURE,
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
from geodesics import Curve, GeodesicResult, PullbackMetric, straight_lines


def run(lab: Lab) -> Outcome:
    """One pair of each pair of classes, the first of experiment 3: usual against extreme settings."""
    model, config = lab.model, lab.config
    first, second = draw_pairs(model.split.train.labels, config.pairs, lab.rng(3))
    chosen = one_of_each(model.split.train.labels, first, second)
    z0, z1 = model.latents[first[chosen]], model.latents[second[chosen]]
    settings = [
        (config.num_centers, config.bandwidth_factor),
        (config.num_centers, config.extreme_factor),
        (config.extreme_centers, config.bandwidth_factor),
        (config.extreme_centers, config.extreme_factor),
    ]
    numbers: dict[str, Any] = {}
    planes: dict[str, Any] = {}
    found: dict[str, GeodesicResult] = {}
    for count, factor in lab.progress(settings, "settings"):
        name = f"K={count}, a={factor:g}"
        metric = lab.metric(model, count, factor)
        found[name] = connect(lab, model, metric, z0, z1, name)
        numbers[name] = measure(lab, model, metric, found[name], (count, factor))
        planes[name] = measure_raster(lab, model, metric) | {"curves": sampled(found[name].curve)}
    usual, extreme = (f"K={k}, a={a:g}" for k, a in (settings[0], settings[-1]))
    apart = separation(found[usual].curve, found[extreme].curve)
    numbers["distance_between_the_geodesics"] = apart
    return Outcome(numbers, (claim(numbers, usual, extreme),), {"points": points_of(model), "planes": planes})


def measure(
    lab: Lab, model: Model, metric: PullbackMetric, result: GeodesicResult, settings: tuple[int, float]
) -> dict[str, Any]:
    """Lengths, straight over geodesic, and the deviations met, pair by pair."""
    lines = straight_lines(result.curve)
    straight, _ = certified(lab, metric, lines, "lengths")
    deviation = lab.rbf(model, *settings).standard_deviation
    return {
        "statuses": statuses(result),
        "length": result.length,
        "length_error": result.length_error,
        "straight_length": straight,
        "straight_over_geodesic": straight / result.length,
        "largest_deviation": largest_deviation(deviation, result.curve),
        "largest_deviation_straight": largest_deviation(deviation, lines),
        "latent_length_over_straight": latent_length(result.curve) / latent_length(lines),
    }


def latent_length(curves: Curve) -> Tensor:
    """Euclidean length in the latent space."""
    return curves.evaluate(torch.linspace(0, 1, 2049, dtype=curves.points.dtype)).diff(dim=1).norm(dim=-1).sum(1)


def separation(curves: Curve, others: Curve) -> Tensor:
    """How far apart two curves lie: the mean distance from a point of one to the other, relative to the ends'."""
    t = torch.linspace(0, 1, 513, dtype=curves.points.dtype)
    a, b = curves.evaluate(t), others.evaluate(t)
    return torch.cdist(a, b).amin(2).mean(1) / (a[:, -1] - a[:, 0]).norm(dim=1)


def claim(numbers: dict[str, Any], usual: str, extreme: str) -> Claim:
    """What the report says of extreme settings."""
    ratios = [numbers[name]["straight_over_geodesic"].median() for name in (usual, extreme)]
    return Claim(
        "Wide kernels (a = 3, K = 128) smear the walls out, and geodesics become straighter.",
        bool(ratios[1] < ratios[0]),
        f"straight/geodesic length, median of the pairs: {ratios[0]:.3g} with {usual}, {ratios[1]:.3g} with {extreme}",
    )


def draw(stored: Stored) -> dict[str, Figure]:
    """The measure of every setting with its geodesics, in one range of colors."""
    planes, points = stored.arrays["planes"], stored.arrays["points"]
    limits = common_range(list(planes.values()))
    figure, axes = plane_panels(2, 2, next(iter(planes.values()))["extent"], 4.2)
    for ax, (name, plane) in zip(axes, planes.items(), strict=True):
        image = show_plane(ax, plane, limits)
        show_points(ax, points)
        show_curves(ax, plane["curves"])
        ax.set_title(name.replace("=", " = "), fontsize=10)
    show_color_bar(figure, image, axes, MEASURE)
    legend_below(figure, [*class_marks(points["names"]), *curve_marks()])
    return {"extreme-settings.png": figure}


EXPERIMENT = Experiment("extreme-settings", "Geodesics under extreme settings of the RBF network", run, draw)
