"""Experiment 6: the published graph solver against the library's, on the same pairs."""

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.data import draw_pairs
from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.experiments.graph_spline import build_graph, certified_lengths, connect_by_polyline, connect_by_spline
from bench.paper.figures import class_marks, curve_marks, legend_below
from bench.paper.lab import Lab
from bench.paper.paths import SOLVER
from bench.paper.planes import (
    MEASURE,
    SAMPLES,
    measure_raster,
    plane_panels,
    points_of,
    sampled,
    show_color_bar,
    show_curves,
    show_plane,
    show_points,
)
from bench.paper.statistics import bootstrap
from geodesics import Curve, GraphPaths, PullbackMetric, geodesic, straight_lines

# A geodesic counts as found when its curve is no longer than the best known by more than this.
FOUND = 0.02
NEIGHBORS = (5, 10, 20)
USUAL = 10
PUBLISHED = f"kNN graph ({USUAL}), smoothing, spline"
OURS = "EnergySolver from GraphPaths"
TITLES = {PUBLISHED: "kNN graph of 10 neighbors, smoothed, cubic spline", OURS: OURS}
# Pairs whose curves are stored for the figure, and those of them that it shows.
SHOWN = 12
DRAWN = 6


class Contestant(NamedTuple):
    """A solver's curves, one problem each, None where it found none, and what it cost."""

    curves: list[Curve | None]
    setup_seconds: float
    seconds: float


def run(lab: Lab) -> Outcome:
    """All solvers on the same pairs of images, in one process, one after the other."""
    model, metric = lab.model, lab.metric(lab.model)
    first, second = draw_pairs(model.split.train.labels, lab.config.solver_pairs, lab.rng(3))
    z0, z1 = model.latents[first], model.latents[second]
    answers: dict[str, Contestant] = {}
    for count in lab.progress(NEIGHBORS, "kNN graphs"):
        graph, setup = timed(lambda count=count: build_graph(metric, model.latents, count))
        found, seconds = timed(lambda graph=graph: connect_by_spline(graph, first, second))
        answers[f"kNN graph ({count}), smoothing, spline"] = Contestant(found.curves, setup, seconds)
        if count == USUAL:
            found, seconds = timed(lambda graph=graph: connect_by_polyline(graph, first, second))
            answers[f"kNN graph ({count}), the path itself"] = Contestant(found.curves, setup, seconds)
    lines = straight_lines(Curve(torch.stack([z0, z1], dim=1)))
    answers["straight line"] = Contestant(rows(lines), 0.0, 0.0)
    answers["EnergySolver from straight lines"] = solve(metric, z0, z1, None)
    answers[OURS] = solve(metric, z0, z1, lambda: lab_graph(lab, metric))
    lengths = {name: certified_lengths(metric, answer.curves) for name, answer in answers.items()}
    best = torch.stack(list(lengths.values())).nan_to_num(torch.inf).amin(0)
    table = {name: row(lengths[name], best, answer, lab) for name, answer in answers.items()}
    arrays = {
        "points": points_of(model),
        "plane": measure_raster(lab, model, metric),
        "curves": {name: sampled_rows(answers[name].curves[:SHOWN]) for name in (PUBLISHED, OURS)},
        "length_over_best": {name: lengths[name][:SHOWN] / best[:SHOWN] for name in (PUBLISHED, OURS)},
    }
    return Outcome({"pairs": len(z0), "solvers": table}, (claim(table),), arrays)


def sampled_rows(curves: list[Curve | None]) -> Tensor:
    """Points of curves, NaN where there is none."""
    none = torch.full((1, SAMPLES, 2), torch.nan, dtype=torch.float64)
    return torch.cat([none if curve is None else sampled(curve) for curve in curves])


def lab_graph(lab: Lab, metric: PullbackMetric) -> GraphPaths:
    """A graph built now: its time belongs to the contestant."""
    return GraphPaths(metric, lab.model.latents, num_nodes=lab.config.graph_nodes, seed=lab.config.seed)


def solve(metric: PullbackMetric, z0: Tensor, z1: Tensor, graph: Callable[[], GraphPaths] | None) -> Contestant:
    """The library's solver, from straight lines or from a graph."""
    initial, setup = timed(lambda: None if graph is None else graph())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # failures are counted
        result, seconds = timed(lambda: geodesic(metric, z0, z1, solver=SOLVER, initial=initial, chunk_size=25))
    return Contestant(rows(result.curve), setup, seconds)


def rows(curves: Curve) -> list[Curve | None]:
    """The curves of a batch, one by one; None for those that are not finite."""
    finite = curves.points.isfinite().all(2).all(1).tolist()
    return [curves[i : i + 1] if whole else None for i, whole in enumerate(finite)]


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What an action returns, and the seconds of processor time it took."""
    start = time.process_time()
    value = action()
    return value, time.process_time() - start


def row(lengths: Tensor, best: Tensor, answer: Contestant, lab: Lab) -> dict[str, Any]:
    """One line of the table."""
    excess = lengths / best - 1
    kept = excess[excess.isfinite()]
    return {
        "excess_median": bootstrap(excess, lab.rng(6))._asdict(),
        "excess_ninth_decile": float(kept.quantile(0.9)) if len(kept) else None,
        "excess_largest": float(kept.max()) if len(kept) else None,
        "no_curve": int(lengths.isnan().sum()),
        "found": int((excess <= FOUND).sum()),
        "setup_cpu_seconds": answer.setup_seconds,
        "cpu_seconds_per_pair": answer.seconds / len(lengths),
    }


def claim(table: dict[str, Any]) -> Claim:
    """What the published solver is taken for."""
    published, ours = table[PUBLISHED], table[OURS]
    excess = published["excess_median"]
    return Claim(
        "The kNN-graph solver with smoothing and a cubic spline finds the geodesics.",
        published["found"] >= ours["found"],
        f"its curves are longer than the best known by {excess['value']:.1%} "
        f"[{excess['low']:.1%}, {excess['high']:.1%}] (median), {published['excess_largest']:.0%} at worst, "
        f"{published['found']} within {FOUND:.0%}, "
        f"{published['no_curve']} without a path; EnergySolver from GraphPaths: {ours['excess_median']['value']:.2%}, "
        f"{ours['found']} within {FOUND:.0%}",
    )


def draw(stored: Stored) -> dict[str, Figure]:
    """The first pairs' curves by the published solver and by the library's."""
    arrays, table = stored.arrays, stored.numbers["solvers"]
    range_ = tuple(arrays["plane"]["range"].tolist())
    figure, axes = plane_panels(1, 2, arrays["plane"]["extent"], 4.4, lines=2)
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        image = show_plane(ax, arrays["plane"], range_)
        show_points(ax, arrays["points"])
        show_curves(ax, arrays["curves"][name][:DRAWN], straight=False)
        ax.set_title(f"{title}\nmedian excess length {table[name]['excess_median']['value']:.0%}", fontsize=10)
    show_color_bar(figure, image, axes, MEASURE)
    legend_below(figure, [*class_marks(arrays["points"]["names"]), *curve_marks(straight=False, label="curve found")])
    return {"solver-comparison.png": figure}


EXPERIMENT = Experiment("solver-comparison", "The published kNN-graph solver against the library's", run, draw)
