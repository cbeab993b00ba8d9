"""Experiment 1: the latent space itself, and what the activation of the log variances does to training."""

from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier

from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.figures import panels
from bench.paper.lab import Lab, Model
from geodesics import plot_decoded, plot_latents
from vae import Activation

NEIGHBORS = 5


def run(lab: Lab) -> Outcome:
    """Train both models; draw the encoded images and a grid of decoded points of the main one."""
    main_activation, other_activation = lab.config.variance_activation, lab.config.other_activation
    draw(lab, lab.model, "")
    draw(lab, lab.second, "-second")
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
    return Outcome({"main": lab.model.name, "models": numbers}, claims)


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


def draw(lab: Lab, model: Model, suffix: str) -> None:
    """The scatter of the encoded training images beside a 10 x 10 grid of decoded points."""
    figure, (scatter, grid) = panels(1, 2, 4.6, 4.6)
    plot_latents(model.latents, model.split.train.labels, ax=scatter)
    extent = (*scatter.get_xlim(), *scatter.get_ylim())
    scatter.set(xlabel="$z_1$", ylabel="$z_2$")
    for text in scatter.get_legend().get_texts():
        text.set_text(model.split.class_names[int(text.get_text())])

    plot_decoded(lambda z: model.vae.decode(z).mean, model.latents, model.split.train.shape, extent=extent, ax=grid)
    lab.save(figure, f"latent-space{suffix}.png")


EXPERIMENT = Experiment("latent-space", "Latent scatter, and a decoded 10 x 10 grid", run)
