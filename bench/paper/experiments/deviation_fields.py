"""Experiment 2: the decoder's standard deviation over the latent plane, the VAE's own and the RBF network's."""

import math
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import class_marks, legend_below
from bench.paper.lab import Lab, Model
from bench.paper.planes import (
    FAR,
    box,
    plane_panels,
    points_of,
    raster,
    show_color_bar,
    show_plane,
    show_points,
)
from vae import RBFPrecision


def run(lab: Lab) -> Outcome:
    """Fit the RBF network for all a and K; compare log sum sigma at the data and away from them."""
    model, config = lab.model, lab.config
    settings = {(config.num_centers, a) for a in config.sweep_factors}
    settings |= {(k, config.bandwidth_factor) for k in config.sweep_centers}
    own = lambda z: model.vae.decode(z).standard_deviation  # noqa: E731
    fields = {"own": own}
    numbers: dict[str, Any] = {"own": contrast(own, model)}
    for count, factor in lab.progress(sorted(settings), "RBF networks"):
        rbf = lab.rbf(model, count, factor)
        name = f"K={count}, a={factor:g}"
        fields[name] = rbf.standard_deviation
        numbers[name] = contrast(rbf.standard_deviation, model) | {"misfit": misfit(rbf, model)}
    factors = [f"K={config.num_centers}, a={a:g}" for a in config.sweep_factors]
    counts = [f"K={k}, a={config.bandwidth_factor:g}" for k in config.sweep_centers]
    arrays = {
        "points": points_of(model),
        "fields": {name: log_sum(lab, model, deviation) for name, deviation in fields.items()},
        "factors": factors,
        "counts": counts,
        "highest": math.log(model.split.train.x.shape[1] / config.xi**0.5),
    }
    main = f"K={config.num_centers}, a={config.bandwidth_factor:g}"
    return Outcome({"fields": numbers}, claims(numbers, main), arrays)


def claims(numbers: dict[str, Any], main: str) -> tuple[Claim, ...]:
    """The paper's reason for the RBF network: away from the data only its deviation grows."""
    own, rbf = numbers["own"], numbers[main]
    return (
        Claim(
            "The variance network of the VAE does not grow away from the data.",
            own["away_over_data"] < 2,
            f"median sum of standard deviations beyond the data over that at the data: {own['away_over_data']:.3g}",
        ),
        Claim(
            "The RBF network's standard deviation is large wherever there are no data.",
            rbf["away_over_data"] > 2 * own["away_over_data"],
            f"the same ratio: {rbf['away_over_data']:.3g} for {main}, {own['away_over_data']:.3g} for the VAE's own",
        ),
    )


def contrast(deviation: Any, model: Model) -> dict[str, float]:
    """Sum of standard deviations at the data, at held-out data, and at points of the plane far from any data.

    Far is beyond three times the 99 % quantile of the distance from an encoded image to the nearest other one.
    """
    plane = away(model)
    at_data, held_out, beyond = (median_sum(deviation, z) for z in (model.latents, model.test_latents, plane))
    return {
        "at_data": at_data,
        "at_held_out": held_out,
        "away": beyond,
        "away_over_data": beyond / at_data,
        "away_points": len(plane),
    }


def median_sum(deviation: Any, z: Float[Tensor, "n d"]) -> float:
    """Median over points of the sum of standard deviations over all outputs."""
    with torch.no_grad():
        return float(torch.cat([deviation(part).sum(1) for part in z.split(2048)]).median())


def away(model: Model) -> Float[Tensor, "m 2"]:
    """A grid over the enlarged box of the data, without the points near data."""
    left, right, bottom, top = box(model.latents, FAR)
    x, y = torch.linspace(left, right, 60), torch.linspace(bottom, top, 60)
    plane = torch.cartesian_prod(x, y).to(model.latents)
    near = torch.cdist(model.latents, model.latents).fill_diagonal_(torch.inf).amin(1).quantile(0.99)
    return plane[torch.cdist(plane, model.latents).amin(1) > 3 * near]


def misfit(rbf: RBFPrecision, model: Model) -> float:
    """Root mean square error of the variance at the data, relative to the root mean square variance."""
    with torch.no_grad():
        wanted = model.vae.decode(model.latents).log_variance.exp()
        return float((1 / rbf(model.latents) - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def log_sum(lab: Lab, model: Model, deviation: Any) -> dict[str, Any]:
    """log sum sigma over the plane of the data and far around it."""
    return raster(lambda z: deviation(z).sum(1).log(), box(model.latents, FAR), lab.config.resolution)


def draw(stored: Stored) -> dict[str, Figure]:
    """log sum sigma over the plane for every a, and for every K."""
    factors, counts = (stored.arrays[name].tolist() for name in ("factors", "counts"))
    return {
        "deviation-factors.png": draw_fields(stored, factors, 4),
        "deviation-centers.png": draw_fields(stored, counts, 3),
    }


def draw_fields(stored: Stored, networks: list[str], columns: int) -> Figure:
    """The VAE's own and some of the networks, row by row, in one range of colors; what they cost where a place is left.

    The range begins a little below the VAE's own value at the data: what is white is as sure as the VAE is there.
    """
    arrays, names = stored.arrays, ["own", *networks]
    limits = math.log(stored.numbers["fields"]["own"]["at_data"]) - 0.5, float(arrays["highest"])
    figure, axes = plane_panels(-(-len(names) // columns), columns, arrays["fields"]["own"]["extent"], 2.9)
    for ax in axes[len(names) + 1 :]:
        ax.remove()
    for ax in axes[len(names) : len(names) + 1]:
        draw_misfits(ax, stored, networks)
    for ax, name in zip(axes, names, strict=False):
        image = show_plane(ax, arrays["fields"][name], limits)
        show_points(ax, arrays["points"], 0.8)
        ax.set_title("the VAE's own" if name == "own" else name.replace("=", " = "), fontsize=10)
    show_color_bar(figure, image, axes[: len(names) + 1], r"log of the summed deviations, $\log\,\sum\,\sigma(z)$")
    legend_below(figure, class_marks(arrays["points"]["names"]))
    return figure


def draw_misfits(ax: Axes, stored: Stored, networks: list[str]) -> None:
    """The error of the variance at the data, over a."""
    factors = [float(name.partition("a=")[2]) for name in networks]
    ax.plot(factors, [stored.numbers["fields"][name]["misfit"] for name in networks], "o-", color="0.3", markersize=4)
    ax.set(xlabel="a", ylabel="relative error", yscale="log", box_aspect=0.7)
    ax.set_title("variance at the data", fontsize=10)


EXPERIMENT = Experiment(
    "deviation-fields", "Standard deviations of the VAE and of RBF networks over the plane", run, draw
)
