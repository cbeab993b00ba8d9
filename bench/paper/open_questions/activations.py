"""Experiment 8, second part: ReLU, ELU and SiLU networks against tanh."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import class_marks, curve_marks, legend_below, panels
from bench.paper.lab import Lab, Model
from bench.paper.open_questions.studies import (
    Space,
    chosen_rbf,
    connect_pairs,
    measured,
    open_model,
    rbf_space,
    resolved,
    settings,
)
from bench.paper.planes import (
    MEASURE,
    common_range,
    measure_raster,
    points_of,
    sampled,
    show_color_bar,
    show_curves,
    show_plane,
    show_points,
)
from bench.paper.statistics import bootstrap
from geodesics import PullbackMetric, check_generator, length, norm, straight_lines
from vae import Activation, MeanGenerator

# Geodesics in each panel.
SHOWN = 6
TITLES = {"relu": "ReLU", "elu": "ELU", "silu": "SiLU"}


def run(lab: Lab) -> Outcome:
    """The same model with every activation: likelihood, geodesics, and whether the geodesic equation sees it."""
    numbers: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for activation in lab.progress(settings(lab).activations, "activations"):
        model = open_model(lab, activation=activation)
        choice = chosen_rbf(lab, model)
        space = rbf_space(model, choice.precision)
        connected = connect_pairs(lab, space, activation.value)
        arrays[activation.value] = {
            "points": points_of(model),
            "plane": measure_raster(lab, model, space.metric),
            "curves": sampled(connected.result.curve[:SHOWN]),
        }
        line = next(
            line
            for line in choice.table
            if (line["K"], line["a"]) == (choice.config.num_centers, choice.config.bandwidth_factor)
        )
        result = connected.result
        numbers[activation.value] = {
            "loss": model.history[-1].loss,
            "kl": model.history[-1].kl,
            "chosen": line,
            "resolved": resolved(result),
            "converged": result.converged.double().mean(),
            "iterations": result.iterations.double().mean(),
            "jacobians": result.jacobians.double().mean(),
            "curves": measured(lab, space, connected),
            "mean_alone": mean_alone(lab, model),
        }
    return Outcome(numbers, claims(numbers), arrays)


def mean_alone(lab: Lab, model: Model) -> dict[str, Any]:
    """The decoder's mean without any standard deviation: does the geodesic equation see its curvature?

    Reported are the acceleration of geodesics per squared unit of latent speed, and what straight lines, which are
    what the equation gives where F'' = 0, cost against energy minimizers. A ReLU network's own second derivatives are
    zero; what is left of the acceleration is that of the sigmoid at its end.
    """
    metric = PullbackMetric(MeanGenerator(model.vae))
    z = model.latents[:: max(1, len(model.latents) // 200)]
    v = torch.randn(z.shape, generator=lab.rng(82), dtype=z.dtype)
    v = v / v.norm(dim=1, keepdim=True)
    space = Space(model, lambda z: torch.ones_like(z), metric)
    connected = connect_pairs(lab, space, "mean alone")
    straight, _ = length(metric, straight_lines(connected.result.curve))
    return {
        "check_generator": list(check_generator(metric.generator, z).messages),
        "acceleration": metric.acceleration(z, v).norm(dim=1).median(),
        "speed_spread": spread(norm(metric, z, v)),
        "resolved": resolved(connected.result),
        "straight_over_geodesic": bootstrap(straight / connected.result.length, lab.rng(83))._asdict(),
    }


def spread(values: Tensor) -> float:
    """Ratio of the 90 % to the 10 % quantile."""
    low, high = values.quantile(values.new_tensor([0.1, 0.9])).tolist()
    return high / low


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """What is said of other activations: they can take tanh's place; but a ReLU network has no second derivatives."""
    relu, tanh = Activation.RELU.value, Activation.TANH.value
    least = min(entry["resolved"] for entry in numbers.values())
    found = [
        Claim(
            "Geodesics are found whatever the activation, ReLU included.",
            least >= 0.9,
            "share of pairs resolved: " + ", ".join(f"{name} {e['resolved']:.2f}" for name, e in numbers.items()),
        )
    ]
    if relu in numbers and tanh in numbers:
        alone = {name: numbers[name]["mean_alone"] for name in (relu, tanh)}
        ratio = alone[relu]["straight_over_geodesic"]
        found.append(
            Claim(
                "The geodesic equation hardly sees the bends of a ReLU decoder's mean, energy minimization does.",
                float(alone[relu]["acceleration"]) < 0.1 * float(alone[tanh]["acceleration"]) and ratio["low"] > 1.01,
                f"median acceleration at unit latent speed: ReLU {float(alone[relu]['acceleration']):.3g}, tanh "
                f"{float(alone[tanh]['acceleration']):.3g}; straight/shortest length with ReLU {ratio['value']:.3g} "
                f"[{ratio['low']:.3g}, {ratio['high']:.3g}]",
            )
        )
    return tuple(found)


def draw(stored: Stored) -> dict[str, Figure]:
    """The measure of every model with its geodesics, in one range of colors; each model has a plane of its own."""
    figure, axes = panels(1, len(stored.arrays), 3.0, 3.0)
    limits = common_range([arrays["plane"] for arrays in stored.arrays.values()])
    for ax, (name, arrays) in zip(axes, stored.arrays.items(), strict=True):
        image = show_plane(ax, arrays["plane"], limits)
        show_points(ax, arrays["points"], 2.0)
        show_curves(ax, arrays["curves"])
        ax.set_title(TITLES.get(name, name), fontsize=10)
        ax.set(xlabel="$z_1$", ylabel="$z_2$" if ax is axes[0] else "", aspect="auto")
    show_color_bar(figure, image, axes, MEASURE)
    legend_below(figure, [*class_marks(arrays["points"]["names"]), *curve_marks()])
    return {"open-activations.png": figure}


EXPERIMENT = Experiment("open-activations", "ReLU, ELU and SiLU networks against tanh", run, draw)
