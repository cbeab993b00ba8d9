"""Experiment 7b: a mixture of locally adaptive normal distributions against a Gaussian mixture."""

import warnings
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.mixture import GaussianMixture
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.experiments.clustering import COARSE
from bench.paper.figures import as_bytes, class_marks, legend_below, panels, show_images
from bench.paper.lab import Lab, Model, digest
from bench.paper.planes import (
    NEAR,
    Extent,
    box,
    plane_panels,
    points_of,
    raster,
    show_color_bar,
    show_plane,
    show_points,
)
from bench.paper.statistics import Interval, bootstrap, mean
from geodesics import GraphPaths, Land, LandOptions, PullbackMetric, fit_land, k_medoids, log_measure
from vae import Activation

TITLES = {"land": "mixture of LAND components", "gaussian_mixture": "Gaussian mixture"}
# Log density of the first color.
LOWEST = -12.0
# Points along each side of the plane at which LAND's density against the Riemannian volume is taken.
GRID = 32
# What tells a `Land` on a metric.
PARAMETERS = ("weights", "means", "covariances", "log_normalizers", "errors", "effective_nodes", "failed_nodes")


class Judged(NamedTuple):
    """A density's log likelihoods, against Lebesgue measure, and samples of it.

    Attributes:
        train: of the points that it was fitted to.
        held_out: of held-out points.
        drawn: samples, ``(n, d)``.
    """

    train: Tensor
    held_out: Tensor
    drawn: Tensor


def run(lab: Lab) -> Outcome:
    """Both mixtures of as many components as classes, fitted to the same encoded images."""
    model, config = lab.variant(Activation.IDENTITY), lab.config
    rows = torch.randperm(len(model.latents), generator=lab.rng(8))[: config.land_images]
    held_out = model.test_latents[torch.randperm(len(model.test_latents), generator=lab.rng(81))[: config.land_images]]
    z, count = model.latents[rows], len(model.split.class_names)
    gauss = GaussianMixture(count, random_state=config.seed, n_init=5).fit(z.numpy())
    flat = Judged(
        *(torch.as_tensor(gauss.score_samples(x.numpy())) for x in (z, held_out)),
        torch.as_tensor(gauss.sample(config.land_samples)[0]),
    )
    graph = lab.graph(lab.metric(model), model.latents)
    medoids = k_medoids(graph.distances(z), count, generator=lab.rng(82)).labels
    # From the clusters by Riemannian distances: where classes touch, Euclidean ones lie across walls.
    key = f"land {config.land_nodes} {config.land_iterations} {config.land_rounds} {config.land_samples} "
    key += f"{config.land_steps} {config.land_tol} {config.graph_nodes} "
    key += digest(z, held_out, medoids, log_measure(lab.metric(model), z))
    found = lab.kept(key, lambda: fit(lab, model, z, held_out, medoids))
    land = Judged(*(found[name] for name in Judged._fields))
    rng = lab.rng(84)
    numbers = {
        "model": model.name,
        "images": len(z),
        "held_out_images": len(held_out),
        "log_likelihood": {
            name: {part: bootstrap(values, rng, mean) for part, values in judged._asdict().items() if part != "drawn"}
            for name, judged in (("land", land), ("gaussian_mixture", flat))
        },
        "gain_held_out": bootstrap(land.held_out - flat.held_out, rng, mean),
        "without_density": {"train": int(land.train.isnan().sum()), "held_out": int(land.held_out.isnan().sum())},
        "nearest_image": nearest(lab, model, {"land": land.drawn, "gaussian_mixture": flat.drawn}),
        "log_measure": {
            "data": bootstrap(log_measure(lab.metric(model), held_out), rng, mean),
            "land": bootstrap(log_measure(lab.metric(model), land.drawn), rng, mean),
            "gaussian_mixture": bootstrap(log_measure(lab.metric(model), flat.drawn), rng, mean),
        },
        "fit": {name: value for name, value in found.items() if name not in Judged._fields},
    }
    extent, size = box(model.latents, NEAR), lab.config.resolution // 2
    arrays = {
        "points": points_of(model),
        "fields": {
            "land": land_raster(lab, density_of(found, lab.metric(model), graph), extent),
            "gaussian_mixture": raster(lambda z: torch.as_tensor(gauss.score_samples(z.numpy())), extent, size),
        },
        "means": {"land": found["means"], "gaussian_mixture": torch.as_tensor(gauss.means_)},
        "samples": {"land": pictured(model, land.drawn), "gaussian_mixture": pictured(model, flat.drawn)},
    }
    return Outcome(numbers, claims(numbers), arrays)


def density_of(found: dict[str, Tensor], metric: PullbackMetric, graph: GraphPaths) -> Land:
    """The mixture that was fitted, from the tensors that were kept."""
    return Land(metric, *(found[name] for name in PARAMETERS), solver=COARSE, initial=graph)


def land_raster(lab: Lab, land: Land, extent: Extent) -> dict[str, Any]:
    """LAND's log density over a plane, as `planes.raster` has it, at the price of a coarse one.

    Three geodesics a point are too many for every pixel. The density against the Riemannian volume is smooth: it is
    taken on a grid, and interpolated. Times the volume, exact in every pixel, it is that against Lebesgue measure.
    """

    def smooth(z: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # points without a geodesic have the lowest density there is
            return land.log_prob(z) - log_measure(land.metric, z)

    size, coarse = lab.config.resolution // 2, min(GRID, lab.config.resolution)
    key = f"field of land {coarse} {extent} {COARSE} {lab.config.graph_nodes} "
    key += digest(land.weights, land.means, land.covariances, land.log_normalizers)
    grid = lab.kept(key, lambda: {"values": raster(smooth, extent, coarse)["values"]})["values"]
    grid = torch.where(grid.isfinite(), grid, grid[grid.isfinite()].min())
    fine = torch.nn.functional.interpolate(grid[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
    volume = raster(lambda z: log_measure(land.metric, z), extent, size)
    return volume | {"values": fine + volume["values"]}


def pictured(model: Model, z: Tensor) -> dict[str, Tensor]:
    """Samples, and what they decode to."""
    with torch.no_grad():
        return {"z": z, "images": as_bytes(model.vae.decode(z).mean).view(len(z), *model.split.train.shape)}


def fit(lab: Lab, model: Model, z: Tensor, held_out: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """LAND from one start: its parameters, how the fit ended, and what `Judged` wants."""
    config, metric = lab.config, lab.metric(model)
    options = LandOptions(
        num_nodes=config.land_nodes,
        max_iter=config.land_iterations,
        max_rounds=config.land_rounds,
        tol=config.land_tol,
    )
    graph = lab.graph(metric, model.latents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # geodesics that fail are counted
        found = fit_land(
            metric,
            z,
            len(model.split.class_names),
            options=options,
            labels=labels,
            solver=COARSE,
            initial=graph,
            generator=lab.rng(82),
        )
        land = found.land
        judged = Judged(
            land.log_prob(z),
            land.log_prob(held_out),
            land.sample(config.land_samples, num_steps=config.land_steps, generator=lab.rng(83)),
        )
    ended = {"iterations": found.iterations, "converged": found.converged, "geodesics": found.geodesics}
    return (
        judged._asdict()
        | {name: getattr(land, name).clone() for name in PARAMETERS}
        | {name: torch.tensor(value) for name, value in ended.items()}
    )


def nearest(lab: Lab, model: Model, samples: dict[str, Tensor]) -> dict[str, Interval]:
    """Distance of decoded samples to the nearest training image."""
    found = {}
    for name, z in samples.items():
        with torch.no_grad():
            images = model.vae.decode(z).mean
            found[name] = bootstrap(torch.cdist(images, model.split.train.x.double()).amin(1), lab.rng(85), mean)
    return found


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """What the paper says of densities in latent space."""
    land, flat = (numbers["log_likelihood"][name]["held_out"] for name in ("land", "gaussian_mixture"))
    near, far = numbers["nearest_image"]["land"], numbers["nearest_image"]["gaussian_mixture"]
    gain, fit = numbers["gain_held_out"], numbers["fit"]
    # A fit that could still gain, and normalizers in doubt by more than a tenth, decide nothing.
    known = bool(fit["converged"]) and bool((fit["errors"] < 0.1).all())
    return (
        Claim(
            "LAND explains held-out latent points better than a Gaussian mixture of as many components.",
            gain.exceeds(0.0) if known else None,
            f"mean log likelihood {land} against {flat}, difference {gain} nats; the fit "
            f"{'converged' if fit['converged'] else 'had not converged'} after {int(fit['iterations'])} moves, with "
            f"standard errors of log C up to {float(fit['errors'].max()):.2g}",
        ),
        Claim(
            "Samples of LAND decode to images nearer to real ones.",
            near.high < far.low or (None if near.low < far.high and far.low < near.high else False),
            f"distance to the nearest training image {near} against {far}",
        ),
    )


def draw(stored: Stored) -> dict[str, Figure]:
    """Both densities side by side with their samples, and the decoded samples."""
    return {"density.png": draw_densities(stored), "density-samples.png": draw_samples(stored)}


def draw_densities(stored: Stored) -> Figure:
    """Both log densities in one range of colors."""
    fields, points = stored.arrays["fields"], stored.arrays["points"]
    figure, axes = plane_panels(1, 2, fields["land"]["extent"], 4.4, lines=2)
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        image = show_plane(ax, fields[name], (LOWEST, 0.0))
        show_points(ax, points)
        z = stored.arrays["samples"][name]["z"]
        ax.scatter(*z.T, s=26, color="crimson", edgecolors="white", linewidths=0.7, zorder=5)
        told = stored.numbers["log_likelihood"][name]["held_out"]["value"]
        ax.set_title(f"{title}\nheld-out log likelihood {told:.2f} nats per image", fontsize=10)
    show_color_bar(figure, image, axes, r"log density $\log\,p(z)$")
    sample = Line2D([], [], linestyle="none", marker="o", color="crimson", markeredgecolor="white", label="sample")
    legend_below(figure, [*class_marks(points["names"]), sample])
    return figure


def draw_samples(stored: Stored) -> Figure:
    """Decoded samples, two rows for each density."""
    figure, axes = panels(len(TITLES), 1, 7.2, 1.5)
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        images = stored.arrays["samples"][name]["images"]
        rows = 2 if len(images) % 2 == 0 else 1
        show_images(ax, images.reshape(rows, -1, *images.shape[1:]))
        ax.set_title(f"samples of the {title}", fontsize=10)
    return figure


EXPERIMENT = Experiment("density", "LAND against a Gaussian mixture", run, draw)
