"""Experiment 3: the measure, and geodesics against straight lines between images of different classes."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.paper.data import draw_pairs
from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.experiments import interpolation_figures as figures
from bench.paper.lab import Lab, Model
from bench.paper.paths import (
    Frames,
    certified,
    connect,
    frames_at_equal_latent_steps,
    frames_at_equal_steps,
    largest_deviation,
    one_of_each,
    rounded,
    statuses,
    watch,
)
from bench.paper.planes import points_of
from bench.paper.statistics import Interval, bootstrap, summary
from geodesics import Curve, GeodesicResult, straight_lines


class Compared(NamedTuple):
    """One kind of curve between all pairs: lengths by both metrics, the largest deviations, the frames."""

    curves: Curve
    rbf_length: Tensor
    rbf_error: Tensor
    own_length: Tensor
    own_error: Tensor
    rbf_deviation: Tensor
    own_deviation: Tensor
    even: Frames
    paced: Frames


def run(lab: Lab) -> Outcome:
    """The main model."""
    return study(lab, lab.model)


def run_second(lab: Lab) -> Outcome:
    """The model with the other activation of the log variances, unless it has collapsed."""
    return Outcome({"collapsed": True}) if lab.second.collapsed else study(lab, lab.second)


def study(lab: Lab, model: Model) -> Outcome:
    """All pairs of images, both metrics: three kinds of curves, measured alike."""
    labels = model.split.train.labels
    first, second = draw_pairs(labels, lab.config.pairs, lab.rng(3))
    z0, z1 = model.latents[first], model.latents[second]
    rbf, own = lab.metric(model), lab.own_metric(model)
    found = {
        "geodesic": connect(lab, model, rbf, z0, z1, "geodesics, RBF"),
        "own_geodesic": connect(lab, model, own, z0, z1, "geodesics, the VAE's own"),
    }
    curves = {name: result.curve for name, result in found.items()}
    curves["straight"] = straight_lines(Curve(torch.stack([z0, z1], dim=1)))
    paced = {name: frames_at_equal_steps(lab, rbf, lines, lab.config.frames) for name, lines in curves.items()}
    table = {name: compare(lab, model, lines, paced[name]) for name, lines in curves.items()}
    chosen = one_of_each(labels, first, second)
    drawn = {"rbf": curves["geodesic"][chosen], "own": curves["own_geodesic"][chosen]}
    shown = {name: figures.strips(lab, model, curves[name], paced[name]) for name in ("geodesic", "straight")}
    ends = points_of(model)["classes"][torch.stack([first, second], dim=1)]
    arrays = figures.measures(lab, model, drawn) | {"strips": shown, "ends": ends}
    numbers, told = report(lab, table, found)
    numbers["pairs"] = rounded({"first": first, "second": second} | per_pair(table))
    return Outcome(numbers, told, arrays)


def compare(lab: Lab, model: Model, curves: Curve, paced: Tensor) -> Compared:
    """Everything that is measured on one kind of curve; `paced` are its points at equal Riemannian steps."""
    rbf, own, count = lab.metric(model), lab.own_metric(model), lab.config.frames
    precision = lab.rbf(model)
    return Compared(
        curves,
        *certified(lab, rbf, curves, "lengths"),
        *certified(lab, own, curves, "lengths"),
        largest_deviation(precision.standard_deviation, curves),
        largest_deviation(lambda z: model.vae.decode(z).standard_deviation, curves),
        watch(model, frames_at_equal_latent_steps(curves, count)),
        watch(model, paced),
    )


def columns(kind: Compared) -> dict[str, Tensor]:
    """The measurements of one kind of curve, by name."""
    named = {name: value for name, value in kind._asdict().items() if isinstance(value, Tensor)}
    for pace, frames in (("equal_latent_steps", kind.even), ("equal_riemannian_steps", kind.paced)):
        named |= {f"{name}_{pace}": value for name, value in frames._asdict().items()}
    return named


def per_pair(table: dict[str, Compared]) -> dict[str, Tensor]:
    """Every measurement of every pair."""
    return {f"{kind}.{name}": v for kind, c in table.items() for name, v in columns(c).items()}


def report(
    lab: Lab, table: dict[str, Compared], found: dict[str, GeodesicResult]
) -> tuple[dict[str, Any], tuple[Claim, ...]]:
    """Summaries of every measurement, ratios pair by pair, and the claims."""
    measured = {kind: columns(compared) for kind, compared in table.items()}
    rng = lab.rng(31)
    summaries = {
        kind: {name: summary(values, rng) for name, values in named.items()} for kind, named in measured.items()
    }
    names = measured["straight"]
    ratios = {
        f"straight_over_{kind}": {
            name: bootstrap(names[name] / measured[kind][name], rng) for name in names if not name.endswith("_error")
        }
        for kind in ("geodesic", "own_geodesic")
    }
    for kind, entries in ratios.items():
        # Each as it is usually shown: a straight line at equal latent steps, a geodesic at constant speed.
        even, paced = (f"largest_change_equal_{steps}_steps" for steps in ("latent", "riemannian"))
        curve = measured[kind.removeprefix("straight_over_")]
        entries["largest_change_at_own_pace"] = bootstrap(names[even] / curve[paced], rng)
    shorter = {
        "geodesic": (names["rbf_length"] > measured["geodesic"]["rbf_length"]).double().mean(),
        "own_geodesic": (names["own_length"] > measured["own_geodesic"]["own_length"]).double().mean(),
    }
    numbers = {
        "number_of_pairs": len(names["rbf_length"]),
        "statuses": {kind: statuses(result) for kind, result in found.items()},
        "solver_jacobians": {kind: result.jacobians.double().mean() for kind, result in found.items()},
        "summaries": summaries,
        "ratios": {kind: {n: r._asdict() for n, r in entries.items()} for kind, entries in ratios.items()},
        "share_where_geodesic_is_shorter": shorter,
    }
    return numbers, claims(ratios["straight_over_geodesic"], ratios["straight_over_own_geodesic"])


def claims(rbf: dict[str, Interval], own: dict[str, Interval]) -> tuple[Claim, ...]:
    """The paper's statements about interpolation; ratios are straight over geodesic, medians of all pairs."""
    near, paced = (rbf[f"nearest_mean_equal_{steps}_steps"] for steps in ("latent", "riemannian"))
    jump, total = rbf["largest_change_at_own_pace"], rbf["total_change_equal_latent_steps"]
    return (
        Claim(
            "With the RBF standard deviation straight lines are longer than geodesics by half and more.",
            rbf["rbf_length"].exceeds(1.5),
            f"straight/geodesic length {rbf['rbf_length']}",
        ),
        Claim(
            "Geodesics avoid the regions of large standard deviation that straight lines cross.",
            rbf["rbf_deviation"].exceeds(1.0),
            f"largest deviation on the way, straight/geodesic {rbf['rbf_deviation']}",
        ),
        Claim(
            "Images decoded along geodesics stay nearer to real images than those along straight lines.",
            unanimous(near.exceeds(1.0), paced.exceeds(1.0)),
            f"distance of a frame to the nearest training image, straight/geodesic: {near} with frames at equal latent "
            f"steps, {paced} at equal Riemannian steps",
        ),
        Claim(
            "Images change more smoothly along geodesics.",
            jump.exceeds(1.0),
            f"largest change between neighboring frames, straight line at equal latent steps over geodesic at "
            f"constant speed {jump}, both at equal latent steps {rbf['largest_change_equal_latent_steps']}; total "
            f"change {total}",
        ),
        Claim(
            "With the VAE's own standard deviation straight lines are nearly as short as geodesics.",
            not_(own["own_length"].exceeds(1.1)),
            f"straight/geodesic length under that metric {own['own_length']}",
        ),
    )


def unanimous(*verdicts: bool | None) -> bool | None:
    """The verdict on which all agree; None where they do not."""
    return verdicts[0] if len(set(verdicts)) == 1 else None


def not_(verdict: bool | None) -> bool | None:
    """The opposite verdict; undecided stays so."""
    return None if verdict is None else not verdict


EXPERIMENT = Experiment(
    "interpolation",
    "The measure, and geodesics against straight lines between classes",
    run,
    partial(figures.draw, suffix=""),
)
SECOND = Experiment(
    "interpolation-second",
    "The same with the other activation of the log variances",
    run_second,
    partial(figures.draw, suffix="-second"),
)
