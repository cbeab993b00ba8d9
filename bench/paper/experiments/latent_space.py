"""Experiment 1: the latent space itself, and what the activation of the log variances does to training."""

from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import as_bytes, class_marks, legend_below, panels, show_images
from bench.paper.lab import Lab, Model
from bench.paper.planes import box, points_of, show_points
from vae import Activation

NEIGHBORS = 5
# Decoded images along each side of the plane.
GRID = 10
# Share of the data's width and height that is shown beyond them.
MARGIN = 0.05
FIGURES = {"main": "", "second": "-second"}


def run(lab: Lab) -> Outcome:
    """Train both models; encode the images, and decode a grid of points."""
    main_activation, other_activation = lab.config.variance_activation, lab.config.other_activation
    numbers = {main_activation.value: describe(lab.model), other_activation.value: describe(lab.second)}
    main = numbers[main_activation.value]
    softplus = numbers[Activation.SOFTPLUS.value]
    claims = (
        Claim(
            "The classes lie apart in a latent plane of two dimensions.",
            main["held_out_accuracy"] > 0.9,
            f"{NEIGHBORS} nearest encoded training images name the class of {main['held_out_accuracy']:.1%} of the "
            f"held-out images",
        ),
        Claim(
            "Softplus on both log variances, as published, trains a model that uses its latent space.",
            not softplus["collapsed"],
            f"KL to the prior at the end: {softplus['kl']:.3g} nats, root mean square error of the reconstruction "
            f"{softplus['rmse']:.3g}; with the identity {numbers[Activation.IDENTITY.value]['kl']:.3g} nats, "
            f"{numbers[Activation.IDENTITY.value]['rmse']:.3g}",
        ),
    )
    arrays = {"main": pictured(lab.model), "second": pictured(lab.second)}
    return Outcome({"main": lab.model.name, "models": numbers}, claims, arrays)


def describe(model: Model) -> dict[str, Any]:
    """How a training ended: loss, use of the latent space, error of the reconstruction, deviations, classes."""
    images, last = model.split.train.x.double(), model.history[-1]
    with torch.no_grad():
        posterior = model.vae.encode(images)
        likelihood = model.vae.decode(posterior.mean)
        known = KNeighborsClassifier(NEIGHBORS).fit(model.latents.numpy(), model.split.train.labels.numpy())
        deviation = likelihood.standard_deviation
    return {
        "images": len(images),
        "held_out_images": len(model.split.test.x),
        "epochs": len(model.history),
        "nll": last.nll,
        "kl": last.kl,
        "loss": last.loss,
        "collapsed": model.collapsed,
        "latent_standard_deviation": model.latents.std(0),
        "posterior_standard_deviation": posterior.standard_deviation.mean(0),
        "decoder_standard_deviation": {
            "least": deviation.amin(),
            "mean": deviation.mean(),
            "largest": deviation.amax(),
        },
        "rmse": float((likelihood.mean - images).square().mean().sqrt()),
        "rmse_of_the_mean_image": float((images - images.mean(0)).square().mean().sqrt()),
        "held_out_accuracy": float(known.score(model.test_latents.numpy(), model.split.test.labels.numpy())),
    }


def pictured(model: Model) -> dict[str, Any]:
    """The encoded images, and images decoded at the midpoints of a grid of cells, the top row first."""
    left, right, bottom, top = extent = box(model.latents, MARGIN)
    steps = (torch.arange(GRID, dtype=model.latents.dtype) + 0.5) / GRID
    x, y = left + (right - left) * steps, top - (top - bottom) * steps
    with torch.no_grad():
        images = model.vae.decode(torch.cartesian_prod(y, x).flip(1)).mean
    grid = as_bytes(images).view(GRID, GRID, *model.split.train.shape)
    return {"points": points_of(model), "extent": torch.tensor(extent), "grid": grid}


def draw(stored: Stored) -> dict[str, Figure]:
    """For both models the encoded training images beside a 10 x 10 grid of decoded points."""
    return {f"latent-space{suffix}.png": draw_one(stored.arrays[name]) for name, suffix in FIGURES.items()}


def draw_one(pictured: dict[str, Any]) -> Figure:
    """One model: the same plane twice."""
    figure, (scatter, grid) = panels(1, 2, 4.6, 4.5)
    extent = pictured["extent"].tolist()
    show_points(scatter, pictured["points"], 5.0)
    show_images(grid, pictured["grid"], extent)
    for ax, title in ((scatter, "encoded training images"), (grid, "decoded means")):
        ax.set(xlim=extent[:2], ylim=extent[2:], xlabel="$z_1$", ylabel="$z_2$")
        ax.set_title(title, fontsize=10)
    legend_below(figure, class_marks(pictured["points"]["names"]))
    return figure


EXPERIMENT = Experiment("latent-space", "Latent scatter, and a decoded 10 x 10 grid", run, draw)
