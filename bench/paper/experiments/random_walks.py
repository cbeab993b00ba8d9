"""Experiment 5: random walks, Riemannian and Euclidean, and the true Brownian motion on the manifold."""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import GEODESIC, class_marks, legend_below
from bench.paper.lab import Lab, Model, digest
from bench.paper.planes import (
    FAR,
    MEASURE,
    box,
    measure_raster,
    plane_panels,
    points_of,
    show_color_bar,
    show_plane,
    show_points,
)
from bench.paper.statistics import Interval, bootstrap, mean
from geodesics import (
    FunctionMetric,
    Metric,
    brownian_drift,
    brownian_motion,
    inner,
    log_measure,
    random_walk,
)

# The data's support: as near to an encoded training image as all but this share of the held-out images.
OUTSIDE = 0.01
# Steps that are walked at a time, and kept: what a kill can cost.
BLOCK = 1000
START = {"marker": "o", "markersize": 5, "color": "black", "markeredgecolor": "white"}
END = {"marker": "D", "markersize": 5, "color": GEODESIC, "markeredgecolor": "white"}
WALK_MARKS = [
    Line2D([], [], color=GEODESIC, linewidth=0.8, label="walk"),
    Line2D([], [], linestyle="none", label="start", **START),
    Line2D([], [], linestyle="none", label="end, where in view", **END),
]
# Walkers of each kind whose walks are stored for the figure.
SHOWN = 8
TITLES = {
    "riemannian": "Riemannian, the paper's scheme",
    "brownian": "Brownian motion on the manifold",
    "euclidean": "Euclidean, steps of the same size",
    "euclidean_matched": "Euclidean, as short in the latent plane",
}


class Support(NamedTuple):
    """The region of the latent space where there are data: within a radius of an encoded image."""

    neighbors: NearestNeighbors
    radius: float

    def excursion(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Distance to the nearest encoded image; NaN for a point that is not finite."""
        found = torch.full_like(z[:, 0], torch.nan)
        finite = z.isfinite().all(1)
        if bool(finite.any()):
            distance, _ = self.neighbors.kneighbors(z[finite].numpy())
            found[finite] = torch.as_tensor(distance[:, 0]).to(z)
        return found


def run(lab: Lab) -> Outcome:
    """The main model."""
    return study(lab, lab.model)


def run_second(lab: Lab) -> Outcome:
    """The model with the other activation of the log variances, unless it has collapsed."""
    return Outcome({"collapsed": True}) if lab.second.collapsed else study(lab, lab.second)


def study(lab: Lab, model: Model) -> Outcome:
    """Four kinds of walks from the same encoded images, walker by walker."""
    config = lab.config
    metric, support = lab.metric(model), support_of(model)
    flat = FunctionMetric(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))
    rows = torch.randperm(len(model.latents), generator=lab.rng(5))[: config.walkers]
    z0, steps, size = model.latents[rows], config.walk_steps, config.walk_step
    paper = kept_walk(lab, metric, z0, "paper", lambda z, n, rng: random_walk(metric, z, n, size, generator=rng))
    # Normal steps of two dimensions have a median length of sqrt(2 log 2).
    matched = float(paper.diff(dim=1).norm(dim=-1).nanmedian()) / (2 * math.log(2)) ** 0.5
    walks = {
        "riemannian": paper,
        "brownian": kept_walk(
            lab, metric, z0, "brownian", lambda z, n, rng: brownian_motion(metric, z, n, size**2, generator=rng)
        ),
        "euclidean": random_walk(flat, z0, steps, size, generator=lab.rng(50)),
        "euclidean_matched": random_walk(flat, z0, steps, matched, generator=lab.rng(50)),
    }
    found = {name: measure(lab, walk, metric, support) for name, walk in walks.items()}
    numbers = {
        "support_radius": support.radius,
        "matched_step": matched,
        "walks": found,
        "drift": drift(metric, model.latents, size),
    }
    arrays = {
        "points": points_of(model),
        "plane": measure_raster(lab, model, metric, box(model.latents, FAR)),
        "walks": {name: walk[:SHOWN] for name, walk in walks.items()},
    }
    return Outcome(numbers, claims(found, numbers["drift"]), arrays)


def kept_walk(
    lab: Lab, metric: Metric, z0: Tensor, kind: str, walk: Callable[[Tensor, int, torch.Generator], Tensor]
) -> Float[Tensor, "b t d"]:
    """A walk of the configured number of steps, in blocks that are kept when they are done.

    Walkers that are lost are counted, not warned of.
    """
    config = lab.config
    parts, left, block = [z0[:, None]], config.walk_steps, 0
    while left:
        steps, start, rng = min(BLOCK, left), parts[-1][:, -1], lab.rng(500 + block)
        key = f"{kind} walk {steps} {config.walk_step} {config.seed} {block} {digest(start, metric.tensor(z0))}"
        parts.append(lab.kept(key, lambda s=start, n=steps, g=rng: {"walk": quietly(walk, s, n, g)[:, 1:]})["walk"])
        left, block = left - steps, block + 1
    return torch.cat(parts, dim=1)


def quietly(
    walk: Callable[[Tensor, int, torch.Generator], Tensor], z: Tensor, steps: int, rng: torch.Generator
) -> Tensor:
    """A walk without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return walk(z, steps, rng)


def support_of(model: Model) -> Support:
    """The support of a model's training data."""
    neighbors = NearestNeighbors(n_neighbors=1).fit(model.latents.numpy())
    distance, _ = neighbors.kneighbors(model.test_latents.numpy())
    return Support(neighbors, float(torch.as_tensor(distance).quantile(1 - OUTSIDE)))


def measure(lab: Lab, walk: Float[Tensor, "b t d"], metric: Metric, support: Support) -> dict[str, Any]:
    """Share of steps inside the support, excursions, and the measure on the way; intervals over walkers."""
    rng, steps = lab.rng(51), walk[:, 1:]
    away = support.excursion(steps.flatten(0, 1)).view(steps.shape[:2])
    few = steps[:, :: max(1, steps.shape[1] // 100)]
    measures = log_measure(metric, few.flatten(0, 1)).view(few.shape[:2])
    inside = (away <= support.radius).double().mean(1)
    return {
        "walkers": len(walk),
        "lost_walkers": int(walk[:, -1].isnan().any(1).sum()),
        "share_inside": bootstrap(inside, rng, mean),
        "walkers_inside_at_the_end": float((away[:, -1] <= support.radius).double().mean()),
        "mean_excursion": bootstrap(away.nanmean(1), rng, mean),
        # A walker that has left the walls behind takes steps of any size: the mean is its alone.
        "median_excursion": bootstrap(away.nanmedian(1).values, rng),
        "largest_excursion": float(away[away.isfinite()].max()),
        "distance_from_start": bootstrap((walk[:, -1] - walk[:, 0]).norm(dim=1), rng, mean),
        "median_latent_step": float(walk.diff(dim=1).norm(dim=-1).nanmedian()),
        "mean_log_measure": bootstrap(measures.nanmean(1), rng, mean),
    }


def drift(metric: Metric, z: Float[Tensor, "n d"], step: float) -> dict[str, float]:
    """Length of the Brownian drift's share of a step, relative to the noise's, both by the metric, at the data."""
    b = brownian_drift(metric, z)
    ratio = inner(metric, z, b, b).clamp(min=0).sqrt() * step / z.shape[1] ** 0.5
    ratio = ratio[ratio.isfinite()]
    return {"median_over_noise": float(ratio.median()), "ninth_decile_over_noise": float(ratio.quantile(0.9))}


def claims(found: dict[str, dict[str, Any]], drifting: dict[str, float]) -> tuple[Claim, ...]:
    """What the paper says of random walks."""
    walk, flat, matched, motion = (found[name] for name in ("riemannian", "euclidean", "euclidean_matched", "brownian"))
    return (
        Claim(
            "A Riemannian random walk stays nearer to the data than a Euclidean one of the same step size.",
            walk["median_excursion"].high < flat["median_excursion"].low,
            f"median distance to the nearest encoded image {walk['median_excursion']} against "
            f"{flat['median_excursion']}; {matched['median_excursion']} for Euclidean steps of the same median latent "
            f"length",
        ),
        Claim(
            "A Riemannian random walk stays inside the data's support.",
            walk["share_inside"].exceeds(0.5),
            f"share of steps inside {walk['share_inside']}, Euclidean {flat['share_inside']}",
        ),
        Claim(
            "The paper's scheme is a Brownian motion on the manifold.",
            None if agree(walk["mean_log_measure"], motion["mean_log_measure"]) else False,
            f"it lacks the drift, {drifting['median_over_noise']:.2g} of the noise of a step at the median image; "
            f"share inside {walk['share_inside']} against {motion['share_inside']}, mean log measure on the way "
            f"{walk['mean_log_measure']} against {motion['mean_log_measure']}",
        ),
    )


def agree(a: Interval, b: Interval) -> bool:
    """Whether two intervals overlap."""
    return a.low <= b.high and b.low <= a.high


def draw(stored: Stored, suffix: str) -> dict[str, Figure]:
    """One walker of each kind over the measure, all from the same image; none where the model had collapsed."""
    if not stored.arrays:
        return {}
    arrays = stored.arrays
    figure, axes = plane_panels(2, 2, arrays["plane"]["extent"], 4.2)
    for ax, (kind, walks) in zip(axes, arrays["walks"].items(), strict=True):
        image = show_plane(ax, arrays["plane"], tuple(arrays["plane"]["range"].tolist()))
        show_points(ax, arrays["points"], 2.0)
        draw_walk(ax, walks[0])
        ax.set_title(TITLES[kind], fontsize=10)
        if kind == "euclidean_matched":
            magnify(ax, walks[0], arrays)
    show_color_bar(figure, image, axes, MEASURE)
    legend_below(figure, [*class_marks(arrays["points"]["names"]), *WALK_MARKS])
    return {f"random-walks{suffix}.png": figure}


def draw_walk(ax: Axes, walk: np.ndarray) -> None:
    """A walk as a thin line, its start, and its end where that is in view."""
    limits = ax.get_xlim(), ax.get_ylim()
    start, end = walk[np.isfinite(walk).all(1)][[0, -1]]
    ax.plot(*walk.T, color=GEODESIC, linewidth=0.4)
    ax.plot(*start, linestyle="none", zorder=4, **START)
    ax.plot(*end, linestyle="none", zorder=4, **END)
    ax.set(xlim=limits[0], ylim=limits[1])


def magnify(ax: Axes, walk: np.ndarray, arrays: Mapping[str, Any]) -> None:
    """The surroundings of a short walk, enlarged in a corner of its panel."""
    middle, half = (walk.max(0) + walk.min(0)) / 2, 0.7 * float((walk.max(0) - walk.min(0)).max())
    left, right, bottom, top = arrays["plane"]["extent"]
    corner = (0.03, 0.03) if middle[1] > (bottom + top) / 2 else (0.03, 0.57)
    inset = ax.inset_axes((*corner, 0.4, 0.4))
    show_plane(inset, arrays["plane"], tuple(arrays["plane"]["range"].tolist()))
    show_points(inset, arrays["points"], 6.0)
    draw_walk(inset, walk)
    x, y = middle
    inset.set(xlim=(x - half, x + half), ylim=(y - half, y + half), xticks=[], yticks=[])
    text = f"enlarged {(right - left) * 0.4 / (2 * half):.0f} times"
    badge = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    inset.text(0.5, 0.05, text, transform=inset.transAxes, fontsize=8, ha="center", bbox=badge)
    ax.indicate_inset_zoom(inset, edgecolor="0.5", alpha=1.0)


EXPERIMENT = Experiment(
    "random-walks", "Random walks: Riemannian, Euclidean, and Brownian motion", run, partial(draw, suffix="")
)
SECOND = Experiment(
    "random-walks-second",
    "The same with the other activation of the log variances",
    run_second,
    partial(draw, suffix="-second"),
)
