"""What the parts of experiment 8 share: their models, the chosen RBF network, and curves measured alike."""

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.paper.data import draw_pairs
from bench.paper.lab import Lab, Model
from bench.paper.open_questions.config import OpenQuestionsConfig
from bench.paper.paths import SOLVER, certified, frames_at_equal_latent_steps, largest_deviation, statuses, watch
from bench.paper.run import described, jsonable, write_json
from bench.paper.statistics import bootstrap, median
from geodesics import Curve, GeodesicResult, GraphPaths, PullbackMetric, Status, geodesic, straight_lines
from vae import (
    Activation,
    PerceptronArchitecture,
    RBFConfig,
    RBFGenerator,
    RBFPrecision,
    TrainingConfig,
    VAEConfig,
    VAEGenerator,
    load_rbf,
    save_rbf,
    select_rbf,
)

Deviation = Callable[[Tensor], Tensor]


class Space(NamedTuple):
    """A latent space with one standard deviation.

    Attributes:
        model: with its mean.
        deviation: sigma(z), (B, d) -> (B, D).
        metric: the expected metric of both.
    """

    model: Model
    deviation: Deviation
    metric: PullbackMetric


class Chosen(NamedTuple):
    """The RBF network that `select_rbf` chose for a model.

    Attributes:
        config: its options.
        precision: the network.
        table: one mapping per candidate.
        seconds: that the choice took.
    """

    config: RBFConfig
    precision: RBFPrecision
    table: list[dict[str, Any]]
    seconds: float


class Connected(NamedTuple):
    """Geodesics and straight lines between the same pairs in one space, `seconds` for the geodesics alone."""

    result: GeodesicResult
    straight: Curve
    seconds: float


def settings(lab: Lab) -> OpenQuestionsConfig:
    """This experiment's settings."""
    return lab.config.open_questions


def open_model(lab: Lab, latent_dim: int = 2, activation: Activation | None = None) -> Model:
    """The model of some latent dimension and activation; None for the first of those configured."""
    c, split = settings(lab), lab.data
    activation = activation or c.activations[0]
    config = VAEConfig(
        split.train.x.shape[1],
        latent_dim,
        PerceptronArchitecture(lab.config.hidden),
        activation,
        variance_activation=Activation.IDENTITY,
    )
    training = TrainingConfig(c.epochs, lab.config.batch_size, c.learning_rate, lab.config.seed, noise=c.noise)
    return lab.train(f"open-{split.name}-{activation.value}-{latent_dim}", split, config, training)


def candidates(lab: Lab) -> list[RBFConfig]:
    """All K and a that are tried."""
    c = settings(lab)
    common = RBFConfig(xi=lab.config.xi, max_iter=c.fit_iterations, tol=c.fit_tol, seed=lab.config.seed)
    return [replace(common, num_centers=k, bandwidth_factor=a) for k in c.centers for a in c.factors]


def kept(lab: Lab, model: Model, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` finds about a model, from its file where an earlier run with this configuration has found it.

    Parts of this experiment take minutes each: a run that was killed goes on at the part where it was.
    """
    mark = zlib.crc32(repr(described(lab.config)).encode())
    path = model.checkpoint.with_name(f"{model.checkpoint.stem}-{name}-{mark:08x}.json")
    if not path.exists():
        start = time.process_time()
        found = jsonable(make())
        write_json({"found": found, "cpu_seconds": time.process_time() - start}, path)
        return dict(found)
    earlier = json.loads(path.read_text("utf-8"))
    lab.earlier_seconds += earlier["cpu_seconds"]
    return dict(earlier["found"])


def chosen_rbf(lab: Lab, model: Model) -> Chosen:
    """The RBF network chosen by the held-out images of a model's data."""
    tried = candidates(lab)
    path = model.checkpoint.with_name(f"{model.checkpoint.stem}-chosen.safetensors")

    def choose() -> dict[str, Any]:
        train, held_out = (part.x.double() for part in (model.split.train, model.split.test))
        start = time.perf_counter()
        found = select_rbf(model.vae, train, held_out, tried, lab.config.seed, lab.show_progress)
        seconds = round(time.perf_counter() - start, 2)
        save_rbf(found.precision, path)
        table = [
            {"K": line.config.num_centers, "a": line.config.bandwidth_factor, "admitted": line.admitted}
            | line.score._asdict()
            for line in found.table
        ]
        return {"chosen": tried.index(found.config), "table": table, "seconds": seconds}

    known = kept(lab, model, "chosen", choose)
    return Chosen(tried[known["chosen"]], load_rbf(path), known["table"], known["seconds"])


def rbf_space(model: Model, precision: RBFPrecision) -> Space:
    """A model with an RBF network's standard deviation."""
    return Space(model, precision.standard_deviation, PullbackMetric(RBFGenerator(model.vae, precision)))


def own_space(model: Model) -> Space:
    """A model with its decoder's own standard deviation."""
    return Space(model, lambda z: model.vae.decode(z).standard_deviation, PullbackMetric(VAEGenerator(model.vae)))


def connect_pairs(lab: Lab, space: Space, text: str) -> Connected:
    """Geodesics of the configured pairs, the same images in every space, started on a graph of the space's own."""
    c, model = settings(lab), space.model
    first, second = draw_pairs(model.split.train.labels, c.pairs, lab.rng(80))
    z0, z1 = model.latents[first], model.latents[second]
    start = time.perf_counter()
    graph = GraphPaths(space.metric, model.latents, num_nodes=c.graph_nodes, seed=lab.config.seed)
    for _ in lab.progress(range(1), text):
        result = geodesic(space.metric, z0, z1, solver=SOLVER, initial=graph, chunk_size=16)
    seconds = time.perf_counter() - start
    return Connected(result, straight_lines(Curve(torch.stack([z0, z1], dim=1))), seconds)


def measured(lab: Lab, space: Space, connected: Connected) -> dict[str, Any]:
    """Lengths, walls and decoded frames of geodesics and straight lines, medians over pairs with intervals."""
    rng, result = lab.rng(81), connected.result
    straight, straight_error = certified(lab, space.metric, connected.straight, "lengths")
    kinds = {"geodesic": result.curve, "straight": connected.straight}
    walls = {name: largest_deviation(space.deviation, curves) for name, curves in kinds.items()}
    frames = {
        name: watch(space.model, frames_at_equal_latent_steps(curves, lab.config.frames))
        for name, curves in kinds.items()
    }
    values = {
        "geodesic_length": result.length,
        "straight_over_geodesic": straight / result.length,
        "geodesic_largest_deviation": walls["geodesic"],
        "straight_largest_deviation": walls["straight"],
        "geodesic_nearest_image": frames["geodesic"].nearest_mean,
        "straight_nearest_image": frames["straight"].nearest_mean,
        "nearest_image_straight_over_geodesic": frames["straight"].nearest_mean / frames["geodesic"].nearest_mean,
    }
    return {
        "pairs": len(straight),
        "statuses": statuses(result),
        "seconds_with_graph": round(connected.seconds, 2),
        "relative_error": (result.length_error / result.length).nanmedian(),
        "straight_relative_error": (straight_error / straight).nanmedian(),
        "share_straight_within_1_percent": (straight <= 1.01 * result.length).double().mean(),
    } | {name: bootstrap(value, rng, median)._asdict() for name, value in values.items()}


def resolved(result: GeodesicResult) -> float:
    """Share of the pairs whose length is resolved: converged, or settled."""
    return float((result.status <= Status.SETTLED).double().mean())


def told(interval: dict[str, Any]) -> str:
    """A statistic with its interval, in words."""
    return f"{interval['value']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"
