"""Experiment 2: the decoder's standard deviation over the latent plane, the VAE's own and the RBF network's."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.figures import panels
from bench.paper.lab import Lab, Model
from bench.paper.planes import FAR, box, draw_points
from geodesics import plot_field
from vae import RBFPrecision


def run(lab: Lab) -> Outcome:
    """Fit the RBF network for all a and K, draw log sum sigma, compare it at the data and away from them."""
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
    draw(lab, model, {name: fields[name] for name in ("own", *factors)}, "deviation-factors.png")
    draw(lab, model, {name: fields[name] for name in counts}, "deviation-centers.png")
    return Outcome({"fields": numbers}, claims(numbers, f"K={config.num_centers}, a={config.bandwidth_factor:g}"))


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


def draw(lab: Lab, model: Model, fields: dict[str, Any], name: str) -> None:
    """log sum sigma over the plane, a panel for each network; all RBF networks share their colors.

    These begin a little below the VAE's own value at the data: what is white is at least as sure as the VAE is there.
    """
    columns = 4 if len(fields) > 5 else 3
    figure, axes = panels(-(-len(fields) // columns), columns, 3.1, 2.6)
    for ax in axes[len(fields) :]:
        ax.remove()
    highest = math.log(model.split.train.x.shape[1] / lab.config.xi**0.5)
    lowest = math.log(median_sum(lambda z: model.vae.decode(z).standard_deviation, model.latents)) - 0.5
    for ax, (title, deviation) in zip(axes, fields.items(), strict=False):

        def field(z: Tensor, deviation: Any = deviation) -> Tensor:
            return deviation(z.to(model.latents)).sum(1).log()

        own = title == "own"
        limits = spread(field, model) if own else (lowest, highest)
        plot_field(field, extent=box(model.latents, FAR), limits=limits, resolution=lab.config.resolution, ax=ax)
        draw_points(model, ax, 0.5)
        ax.set_title("the VAE's own" if own else title, fontsize=9)
        ax.set(xlabel="", ylabel="", aspect="auto")
    lab.save(figure, name)


def spread(field: Callable[[Tensor], Tensor], model: Model) -> tuple[float, float]:
    """The range of a field over the data and the plane around them; of some width where it is constant."""
    with torch.no_grad():
        values = field(torch.cat([away(model), model.latents]))
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-3 else (low - 0.5e-3, low + 0.5e-3)


EXPERIMENT = Experiment("deviation-fields", "Standard deviations of the VAE and of RBF networks over the plane", run)
