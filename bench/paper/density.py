"""Experiment 7b: a mixture of locally adaptive normal distributions against a Gaussian mixture."""

import time
import warnings
from typing import Any

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from bench.paper.clustering import COARSE
from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.figures import panels
from bench.paper.lab import Lab, Model
from bench.paper.planes import NEAR, box, draw_measure, draw_points
from bench.paper.statistics import Interval, bootstrap, mean
from geodesics import LandFit, LandOptions, fit_land, plot_field
from vae import Activation


def run(lab: Lab) -> Outcome:
    """Both mixtures of as many components as classes, fitted to the same encoded images."""
    model, config = lab.variant(Activation.IDENTITY), lab.config
    metric, count = lab.metric(model), len(model.split.class_names)
    graph = lab.graph(metric, model.latents)
    rows = torch.randperm(len(model.latents), generator=lab.rng(8))[: config.land_images]
    held_out = model.test_latents[torch.randperm(len(model.test_latents), generator=lab.rng(81))[: config.land_images]]
    z, options = model.latents[rows], LandOptions(num_nodes=config.land_nodes, max_iter=config.land_iterations)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # geodesics that fail are counted
        fit = fit_land(
            metric, z, count, options=options, solver=COARSE, initial=graph, generator=lab.rng(82)
        )
        land = {"train": fit.land.log_prob(z), "held_out": fit.land.log_prob(held_out)}
        drawn = fit.land.sample(config.land_samples, num_steps=config.land_steps, generator=lab.rng(83))
    seconds = time.process_time() - start
    gauss = GaussianMixture(count, random_state=config.seed, n_init=5).fit(z.numpy())
    flat = {name: torch.as_tensor(gauss.score_samples(x.numpy())) for name, x in (("train", z), ("held_out", held_out))}
    others = torch.as_tensor(gauss.sample(config.land_samples)[0])
    draw_samples(lab, model, {"LAND": drawn, "Gaussian mixture": others})
    draw_fields(lab, model, gauss, {"LAND": drawn, "Gaussian mixture": others})
    rng = lab.rng(84)
    gain = bootstrap(land["held_out"] - flat["held_out"], rng, mean)
    numbers = {
        "model": model.name,
        "images": len(z),
        "held_out_images": len(held_out),
        "log_likelihood": {
            name: {part: bootstrap(values, rng, mean) for part, values in parts.items()}
            for name, parts in (("land", land), ("gaussian_mixture", flat))
        },
        "gain_held_out": gain,
        "without_density": {part: int(values.isnan().sum()) for part, values in land.items()},
        "nearest_image": nearest(lab, model, {"land": drawn, "gaussian_mixture": others}),
        "fit": describe(fit) | {"cpu_seconds": seconds},
    }
    return Outcome(numbers, claims(numbers, gain))


def describe(fit: LandFit) -> dict[str, Any]:
    """How the fit ended."""
    return {
        "iterations": fit.iterations,
        "converged": fit.converged,
        "geodesics": fit.geodesics,
        "weights": fit.land.weights,
        "means": fit.land.means,
        "effective_nodes": fit.land.effective_nodes,
        "failed_nodes": fit.land.failed_nodes,
    }


def nearest(lab: Lab, model: Model, samples: dict[str, Tensor]) -> dict[str, Interval]:
    """Distance of decoded samples to the nearest training image."""
    found = {}
    for name, z in samples.items():
        with torch.no_grad():
            images = model.vae.decode(z).mean
            found[name] = bootstrap(torch.cdist(images, model.split.train.x.double()).amin(1), lab.rng(85), mean)
    return found


def claims(numbers: dict[str, Any], gain: Interval) -> tuple[Claim, ...]:
    """What the paper says of densities in latent space."""
    land, flat = (numbers["log_likelihood"][name]["held_out"] for name in ("land", "gaussian_mixture"))
    near, far = numbers["nearest_image"]["land"], numbers["nearest_image"]["gaussian_mixture"]
    return (
        Claim(
            "LAND explains held-out latent points better than a Gaussian mixture of as many components.",
            gain.exceeds(0.0) if numbers["fit"]["converged"] else None,
            f"mean log likelihood {land} against {flat}, difference {gain} nats, both by Lebesgue measure; the fit "
            f"{'converged' if numbers['fit']['converged'] else 'had not converged'} after "
            f"{numbers['fit']['iterations']} steps",
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
