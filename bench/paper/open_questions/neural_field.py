"""Experiment 8, third part: a neural field that is penalized for confidence off the data, against the RBF network."""

import time
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import class_marks, curve_marks, legend_below
from bench.paper.lab import Lab, Model
from bench.paper.open_questions.dimensions import score
from bench.paper.open_questions.studies import (
    Connected,
    Deviation,
    Space,
    chosen_rbf,
    connect_pairs,
    measured,
    open_model,
    own_space,
    rbf_space,
    resolved,
    settings,
)
from bench.paper.planes import (
    FAR,
    box,
    plane_panels,
    points_of,
    raster,
    sampled,
    show_color_bar,
    show_curves,
    show_plane,
    show_points,
)
from geodesics import PullbackMetric
from vae import NeuralField, NeuralFieldConfig, NeuralFieldGenerator, fit_neural_field_to_vae

REPEATS = 5
# Geodesics in each panel.
SHOWN = 6
TITLES = {"own": "the decoder's own", "rbf": "RBF network", "field": "neural field"}


def run(lab: Lab) -> Outcome:
    """In every configured dimension: how well both fit, how they doubt, and what their geodesics do."""
    numbers: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for d in lab.progress(settings(lab).field_dimensions, "neural fields"):
        model = open_model(lab, d)
        rbf, start = rbf_space(model, chosen_rbf(lab, model).precision), time.perf_counter()
        field = field_space(model, fitted(lab, model))
        seconds = time.perf_counter() - start
        spaces = {"own": own_space(model), "rbf": rbf, "field": field}
        connected = {name: connect_pairs(lab, spaces[name], f"{name}, d = {d}") for name in ("rbf", "field")}
        numbers[str(d)] = {"seconds_of_fit": round(seconds, 2)} | {
            name: examined(lab, space, connected.get(name)) for name, space in spaces.items()
        }
        if d == 2:
            arrays = pictured(lab, spaces, connected)
    return Outcome(numbers, claims(numbers), arrays)


def fitted(lab: Lab, model: Model) -> NeuralField:
    """The neural field of a model, as unsure far out as the RBF network."""
    config = NeuralFieldConfig(xi=lab.config.xi, steps=settings(lab).field_steps, seed=lab.config.seed)
    return fit_neural_field_to_vae(model.vae, model.split.train.x.double(), config, lab.show_progress)


def field_space(model: Model, field: NeuralField) -> Space:
    """A model with a neural field's standard deviation."""
    return Space(model, field.standard_deviation, PullbackMetric(NeuralFieldGenerator(model.vae, field)))


def examined(lab: Lab, space: Space, connected: Connected | None) -> dict[str, Any]:
    """Everything that is measured of one standard deviation, without curves where none were computed."""
    found = {
        "score": score(space.model, space.deviation),
        "misfit": misfit(space.model, space.deviation),
        "unsure_far_away": unsure_far_away(lab, space),
        "milliseconds_of_1000_jacobians": milliseconds(space),
    }
    if connected is None:
        return found
    return found | {"resolved": resolved(connected.result), "curves": measured(lab, space, connected)}


def misfit(model: Model, deviation: Deviation) -> float:
    """Root mean square difference of log sigma from the decoder's own, at the held-out codes."""
    with torch.no_grad():
        z = model.test_latents
        difference = deviation(z).log() - model.vae.decode(z).standard_deviation.log()
    return float(difference.square().mean().sqrt())


def unsure_far_away(lab: Lab, space: Space) -> float:
    """Share of points ten deviations out, in any direction, where sigma is over ten times its median at the data."""
    latents = space.model.latents
    direction = torch.randn(1000, latents.shape[1], generator=lab.rng(84), dtype=latents.dtype)
    direction = direction / direction.norm(dim=1, keepdim=True)
    far = latents.mean(0) + 10 * latents.std(0).amax() * direction
    with torch.no_grad():
        level, size = (space.deviation(z).square().mean(1).sqrt() for z in (latents, far))
    return float((size > 10 * level.median()).double().mean())


def milliseconds(space: Space) -> float:
    """Median time of value and Jacobian at 1000 points."""
    latents = space.model.latents
    z = latents[torch.arange(1000) % len(latents)]
    times = []
    for _ in range(REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        space.metric.tensor(z)
        times.append(time.perf_counter() - start)
    return round(1e3 * sorted(times[1:])[REPEATS // 2], 2)


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """A neural field can take the RBF network's place: it doubts off the data, and geodesics keep to them."""

    def each(key: str) -> str:
        names = ("field", "rbf", "own")
        return ", ".join(
            f"d={d}: " + "/".join(f"{e[name]['score'][key]:.3g}" for name in names) for d, e in numbers.items()
        )

    ratios = {
        d: {n: entry[n]["curves"]["straight_over_geodesic"] for n in ("field", "rbf")} for d, entry in numbers.items()
    }
    near = {
        d: {n: entry[n]["curves"]["geodesic_nearest_image"]["value"] for n in ("field", "rbf")}
        for d, entry in numbers.items()
    }
    return (
        Claim(
            "A penalized neural field is unsure off the data, as the RBF network is and the decoder is not.",
            all(e["field"]["score"]["contrast"] > 10 * abs(e["own"]["score"]["contrast"]) for e in numbers.values()),
            f"rise of log sigma just off the data, field/RBF/own: {each('contrast')}; held-out log-likelihood: "
            f"{each('log_likelihood')}",
        ),
        Claim(
            "Geodesics of the neural field avoid what straight lines cross, as those of the RBF network do.",
            all(ratio["field"]["low"] > 1.05 for ratio in ratios.values()),
            "straight/geodesic length, field/RBF: "
            + ", ".join(f"d={d}: {r['field']['value']:.3g}/{r['rbf']['value']:.3g}" for d, r in ratios.items())
            + "; frames to the nearest real image, field/RBF: "
            + ", ".join(f"d={d}: {n['field']:.3g}/{n['rbf']:.3g}" for d, n in near.items()),
        ),
        Claim(
            "Far from all data the neural field stays unsure in every direction.",
            all(e["field"]["unsure_far_away"] == 1 for e in numbers.values()),
            "share of directions: "
            + ", ".join(f"d={d}: {e['field']['unsure_far_away']:.3f}" for d, e in numbers.items()),
        ),
    )


def pictured(lab: Lab, spaces: dict[str, Space], connected: dict[str, Connected]) -> dict[str, Any]:
    """log sigma over the plane, root mean square over the outputs, and the geodesics of a few pairs."""
    model = spaces["own"].model
    planes: dict[str, Any] = {}
    for name, space in spaces.items():

        def level(z: Tensor, sigma: Deviation = space.deviation) -> Tensor:
            return sigma(z).square().mean(1).log() / 2

        planes[name] = raster(level, box(model.latents, FAR), lab.config.resolution)
        planes[name]["range"] = level(model.latents).quantile(model.latents.new_tensor([0.01, 0.99]))
        if name in connected:
            planes[name]["curves"] = sampled(connected[name].result.curve[:SHOWN])
    return {"points": points_of(model), "planes": planes}


def draw(stored: Stored) -> dict[str, Figure]:
    """All three in one range of colors, from the least at the data to as much again above the RBF network's."""
    planes, points = stored.arrays["planes"], stored.arrays["points"]
    low, high = min(p["range"][0] for p in planes.values()), float(planes["rbf"]["values"].max())
    figure, axes = plane_panels(1, len(planes), planes["own"]["extent"], 3.3)
    for ax, (name, plane) in zip(axes, planes.items(), strict=True):
        image = show_plane(ax, plane, (float(low), high))
        show_points(ax, points, 1.0)
        if "curves" in plane:
            show_curves(ax, plane["curves"], straight=False)
        ax.set_title(TITLES[name], fontsize=10)
    show_color_bar(figure, image, axes, r"$\log\,\sigma(z)$")
    legend_below(figure, [*class_marks(points["names"]), *curve_marks(straight=False)])
    return {"open-field.png": figure}


EXPERIMENT = Experiment("open-field", "A neural field for the standard deviation against the RBF network", run, draw)
