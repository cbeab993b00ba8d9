"""Experiment 7b: a mixture of locally adaptive normal distributions against a Gaussian mixture."""

import warnings
from typing import Any, NamedTuple

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.experiments.clustering import COARSE
from bench.paper.figures import panels
from bench.paper.lab import Lab, Model, digest
from bench.paper.planes import NEAR, box, draw_measure, draw_points
from bench.paper.statistics import Interval, bootstrap, mean
from geodesics import LandOptions, fit_land, k_medoids, log_measure, plot_field
from vae import Activation


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
    draw_samples(lab, model, {"LAND": land.drawn, "Gaussian mixture": flat.drawn})
    draw_fields(lab, model, gauss, {"LAND": land.drawn, "Gaussian mixture": flat.drawn})
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
    return Outcome(numbers, claims(numbers))


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
    names = ("weights", "means", "covariances", "log_normalizers", "errors", "effective_nodes", "failed_nodes")
    return (
        judged._asdict()
        | {name: getattr(land, name).clone() for name in names}
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


def draw_fields(lab: Lab, model: Model, gauss: GaussianMixture, samples: dict[str, Tensor]) -> None:
    """Samples of both over the measure and over the Gaussian mixture's density."""
    figure, axes = panels(1, 2, 4.7, 4.2)
    draw_measure(lab, model, lab.metric(model), axes[0])
    plot_field(
        lambda z: torch.as_tensor(gauss.score_samples(z.numpy())),
        extent=box(model.latents, NEAR),
        limits=(-12.0, 0.0),
        resolution=lab.config.resolution,
        label="log density",
        ax=axes[1],
    )
    draw_points(model, axes[1])
    axes[1].set(xlabel="", ylabel="", aspect="auto")
    for ax, (name, z) in zip(axes, samples.items(), strict=True):
        ax.scatter(*z.T.numpy(), s=22, color="crimson", edgecolors="white", linewidths=0.6, zorder=5)
        ax.set_title(f"samples of {name}", fontsize=10)
    lab.save(figure, "density.png")


def draw_samples(lab: Lab, model: Model, samples: dict[str, Tensor]) -> None:
    """Decoded samples, side by side."""
    figure, axes = panels(len(samples), 1, 7.0, 2.2)
    shape = model.split.train.shape
    for ax, (name, z) in zip(axes, samples.items(), strict=True):
        with torch.no_grad():
            images = model.vae.decode(z).mean.view(-1, *shape)
        images = torch.nn.functional.pad(images, (1, 1, 1, 1))
        rows = [torch.cat(list(part), dim=1) for part in images.split(lab.config.land_samples // 2)]
        ax.imshow(torch.cat(rows, dim=0).numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, fontsize=9)
    lab.save(figure, "density-samples.png")


EXPERIMENT = Experiment("density", "LAND against a Gaussian mixture", run)
