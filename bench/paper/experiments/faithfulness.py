"""Experiment 9: where published re-implementations depart from the paper's formulas, and what that does to numbers.

The departures are those of a public re-implementation (docs, faithfulness). Curves come from the published kind of
solver, which is cheap and takes any metric, however degenerate; every length is certified.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.paper.data import draw_pairs
from bench.paper.experiment import Claim, Experiment, Outcome
from bench.paper.experiments.deviation_fields import contrast, misfit
from bench.paper.experiments.graph_spline import build_graph, certified_lengths, connect_by_polyline, connect_by_spline
from bench.paper.experiments.solver_comparison import USUAL
from bench.paper.lab import Lab, Model, digest
from bench.paper.statistics import Interval, bootstrap
from geodesics import (
    Curve,
    FunctionMetric,
    Metric,
    PullbackMetric,
    length,
    log_measure,
    straight_lines,
    value_and_jacobian,
)
from vae import RBFGenerator, RBFPrecision
from vae.deviation.rbf_fit import fit_weights
from vae.generators.feature_maps import RadialFeatures

# Of the published fit of the weights: Adam, and the floor at which they are clamped after each step.
ADAM_RATE = 1e-3
WEIGHT_FLOOR = 1e-5


def run(lab: Lab) -> Outcome:
    """The faithful metric, and each departure beside it, on the same pairs of images."""
    model, config = lab.model, lab.config
    first, second = draw_pairs(model.split.train.labels, config.pairs, lab.rng(3))
    faithful, rbf = lab.metric(model), lab.rbf(model)
    numbers: dict[str, Any] = {"pairs": len(first), "faithful": describe(lab, model, faithful, rbf, first, second)}
    numbers["first_outputs_only"] = first_outputs(lab, model, faithful, first, second)
    narrow = refit(lab, model, smallest_deviation_bandwidths(model, rbf, config.bandwidth_factor))
    logarithmic = fit_in_log_space(lab, model, rbf)
    for name, other in lab.progress([("smallest_deviation", narrow), ("log_space_adam", logarithmic)], "departures"):
        metric = PullbackMetric(RBFGenerator(model.vae, other))
        numbers[name] = describe(lab, model, metric, other, first, second)
        numbers[name]["bandwidth_ratio"] = float((other.bandwidths / rbf.bandwidths).median())
    numbers["halved_edges"] = halved_edges(lab, model, faithful, first, second)
    return Outcome(numbers, claims(numbers))


def describe(
    lab: Lab, model: Model, metric: Metric, rbf: RBFPrecision, first: Tensor, second: Tensor
) -> dict[str, Any]:
    """Fit, contrast, and straight lines against paths under one metric."""
    paths, lines = curves_of(model, metric, first, second)
    own = certified_lengths(metric, paths)
    straight, _ = length(metric, lines)
    return contrast(rbf.standard_deviation, model) | {
        "misfit": misfit(rbf, model),
        "misfit_of_log_variance": log_misfit(rbf, model),
        "log_measure_at_data": float(log_measure(metric, model.latents).median()),
        "path_length": bootstrap(own, lab.rng(9)),
        "straight_over_path": bootstrap(straight / own, lab.rng(9)),
    }


def curves_of(model: Model, metric: Metric, first: Tensor, second: Tensor) -> tuple[list[Curve | None], Curve]:
    """Paths by the published kind of solver, and straight lines, between pairs of images."""
    found = connect_by_spline(build_graph(metric, model.latents, USUAL), first, second)
    ends = torch.stack([model.latents[first], model.latents[second]], dim=1)
    return found.curves, straight_lines(Curve(ends))


def first_outputs(lab: Lab, model: Model, metric: PullbackMetric, first: Tensor, second: Tensor) -> dict[str, Any]:
    """The metric J_d J_d^T of the first d outputs of the mean and of the deviation, instead of J^T J of all."""
    width = model.split.train.x.shape[1]

    def tensor(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        _, jacobian = value_and_jacobian(metric.generator, z)
        d = z.shape[1]
        # Tangents first: J[a, :, o]. Rows and columns of the result are outputs, as published.
        parts = [jacobian[:, :, start : start + d] for start in (0, width)]
        return sum((torch.einsum("abi,abj->bij", part, part) for part in parts), torch.zeros(()).to(z))

    wrong = FunctionMetric(tensor)
    chosen, lines = curves_of(model, wrong, first, second)
    right, _ = curves_of(model, metric, first, second)
    true_right, true_chosen = (certified_lengths(metric, curves) for curves in (right, chosen))
    true_straight, _ = length(metric, lines)
    wrong_right, (wrong_straight, _) = certified_lengths(wrong, right), length(wrong, lines)
    eigenvalues = torch.linalg.eigvalsh(wrong.tensor(model.latents))
    rng = lab.rng(91)
    return {
        "length_over_true_length": bootstrap(wrong_right / true_right, rng),
        "eigenvalue_ratio_at_data": float((eigenvalues[:, 0] / eigenvalues[:, 1]).median()),
        "not_positive_definite_share": float((eigenvalues[:, 0] <= 0).double().mean()),
        "true_length_of_its_paths_over_those_of_the_right_metric": bootstrap(true_chosen / true_right, rng),
        "share_where_it_prefers_the_straight_line": float((wrong_straight < wrong_right).double().mean()),
        "share_where_the_straight_line_is_shorter": float((true_straight < true_right).double().mean()),
        "true_straight_over_its_paths": bootstrap(true_straight / true_chosen, rng),
    }


def smallest_deviation_bandwidths(model: Model, rbf: RBFPrecision, factor: float) -> RBFPrecision:
    """The same centers, with bandwidths 1/2 (a s)^-2, s the smallest standard deviation of the cluster's axes.

    A cluster without spread along an axis, of one point for instance, gets the median of the others', without which
    its bandwidth would be infinite.
    """
    own = torch.cdist(model.latents, rbf.centers).argmin(1)
    rows = [model.latents[own == k] - rbf.centers[k] for k in range(len(rbf.centers))]
    spread = torch.stack([part.square().mean(0).min().sqrt() if len(part) else part.new_zeros(()) for part in rows])
    positive = spread > 1e-9
    spread = torch.where(positive, spread, spread[positive].median())
    return RBFPrecision(rbf.centers, 0.5 / (factor * spread) ** 2, rbf.weights, rbf.xi)


def refit(lab: Lab, model: Model, rbf: RBFPrecision) -> RBFPrecision:
    """The weights of a network with other bandwidths, by the library's fit."""
    with torch.no_grad():
        variances = model.vae.decode(model.latents).log_variance.exp()
        features = RadialFeatures(rbf.centers, rbf.bandwidths)(model.latents)
        fit = fit_weights(features, variances, rbf.xi, tol=1e-4, max_iter=lab.config.rbf_iterations)
    return RBFPrecision(rbf.centers, rbf.bandwidths, fit.weights, rbf.xi)


def fit_in_log_space(lab: Lab, model: Model, rbf: RBFPrecision) -> RBFPrecision:
    """The weights as published: Adam on the squared error of the log variance, clamped at a floor after each step."""
    rng = lab.rng(92)
    with torch.no_grad():
        wanted = model.vae.decode(model.latents).log_variance
        features = RadialFeatures(rbf.centers, rbf.bandwidths)(model.latents)

    def fit() -> dict[str, Tensor]:
        weights = nn.Parameter(torch.rand(rbf.weights.shape, generator=rng, dtype=rbf.weights.dtype))
        optimizer = torch.optim.Adam([weights], lr=ADAM_RATE)
        for _ in lab.progress(range(lab.config.adam_epochs), "Adam"):
            for rows in torch.randperm(len(wanted), generator=rng).split(lab.config.batch_size):
                optimizer.zero_grad()
                given = -torch.log(torch.addmm(rbf.xi, features[rows], weights.T))
                (wanted[rows] - given).square().sum(1).mean().backward()
                optimizer.step()
                with torch.no_grad():
                    weights.clamp_(min=WEIGHT_FLOOR)
        return {"weights": weights.detach()}

    key = f"Adam {lab.config.adam_epochs} {lab.config.batch_size} {lab.config.seed} {digest(wanted, features)}"
    return RBFPrecision(rbf.centers, rbf.bandwidths, lab.kept(key, fit)["weights"], rbf.xi)


def log_misfit(rbf: RBFPrecision, model: Model) -> float:
    """Root mean square error of the log variance at the data."""
    with torch.no_grad():
        return float((model.vae.decode(model.latents).log_variance + rbf(model.latents).log()).square().mean().sqrt())


def halved_edges(lab: Lab, model: Model, metric: Metric, first: Tensor, second: Tensor) -> dict[str, Any]:
    """The graph whose one-way edges count half, against the undirected one: what it says, and what it finds."""
    rng, found = lab.rng(93), {}
    for name, halved in (("undirected", False), ("halved", True)):
        graph = build_graph(metric, model.latents, USUAL, halved)
        splines, lines = (connect(graph, first, second) for connect in (connect_by_spline, connect_by_polyline))
        found[name] = (
            torch.as_tensor(lines.graph_length),
            certified_lengths(metric, lines.curves),
            certified_lengths(metric, splines.curves),
        )
    whole, half = found["undirected"], found["halved"]
    return {
        "one_way_edges": graph.one_way,
        "graph_length_over_true_length": {name: bootstrap(said / true, rng) for name, (said, true, _) in found.items()},
        "true_length_of_paths_over_undirected": bootstrap(half[1] / whole[1], rng),
        "true_length_of_splines_over_undirected": bootstrap(half[2] / whole[2], rng),
        "without_a_path": {name: int(true.isnan().sum()) for name, (_, true, _) in found.items()},
    }


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """What each departure does, in one number."""
    few, half = numbers["first_outputs_only"], numbers["halved_edges"]
    longer: Interval = few["true_length_of_its_paths_over_those_of_the_right_metric"]
    said: Interval = half["graph_length_over_true_length"]["halved"]
    faithful, narrow, log = (numbers[name] for name in ("faithful", "smallest_deviation", "log_space_adam"))
    return (
        Claim(
            "The metric of the first d outputs stands for the metric.",
            longer.high < 1.05,
            f"lengths are {few['length_over_true_length']} of the true ones; its own paths are truly {longer} times as "
            f"long as those of the metric",
        ),
        Claim(
            "The smallest standard deviation of a cluster stands for the mean distance to its center.",
            bool(narrow["bandwidth_ratio"] < 1.2),
            f"bandwidths are {narrow['bandwidth_ratio']:.3g} times as large (median); path lengths "
            f"{narrow['path_length']} against {faithful['path_length']}",
        ),
        Claim(
            "A fit of the log variance by Adam with clamping stands for the fit of the variance.",
            bool(log["misfit"] < 1.5 * faithful["misfit"]),
            f"relative error of the variance {log['misfit']:.3g} against {faithful['misfit']:.3g}, of the log variance "
            f"{log['misfit_of_log_variance']:.3g} against {faithful['misfit_of_log_variance']:.3g}; path lengths "
            f"{log['path_length']} against {faithful['path_length']}",
        ),
        Claim(
            "The symmetrized graph measures the length of its paths.",
            said.low > 0.95,
            f"{half['one_way_edges']:.0%} of the edges are one-way and count half; the graph says {said} of the true "
            f"length of its paths, which are {half['true_length_of_paths_over_undirected']} times as long as those of "
            f"the undirected graph",
        ),
    )


EXPERIMENT = Experiment("faithfulness", "Departures of published re-implementations from the formulas", run)
