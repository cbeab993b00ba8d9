"""Experiment 7a: clusters by Riemannian and by Euclidean distances, compared with the classes."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from bench.paper.data import load_digit_set
from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import class_color, class_marks, panels
from bench.paper.lab import Lab, Model, digest
from bench.paper.planes import MEASURE, measure_raster, show_color_bar, show_plane
from bench.paper.statistics import bootstrap, mean
from geodesics import EnergySolver, k_medoids, riemannian_k_means
from vae import Activation

# Share of the images that a trial sees.
TRIAL = 2 / 3
# Distances to some percent are enough to tell which mean is the nearest.
COARSE = EnergySolver(num_segments=8, max_segments=8, length_tol=5e-2)


class Scores(NamedTuple):
    """Agreement of clusters with classes, one value per trial."""

    f_measure: Float[Tensor, " t"]
    rand: Float[Tensor, " t"]


def run(lab: Lab) -> Outcome:
    """Both main models, and a model for each set of digits; k-medoids by both distances, and k-means."""
    models = [model for model in (lab.model, lab.second) if not model.collapsed]
    for digits in lab.progress(lab.config.digit_sets, "sets of digits"):
        split = load_digit_set(lab.config, digits)
        name = f"{split.name}-{''.join(map(str, digits))}-identity"
        models.append(lab.perceptron(name, split, Activation.IDENTITY))
    numbers, shown = {}, {}
    for model in lab.progress(models, "clusterings"):
        numbers[model.name], shown[model.name] = study(lab, model)
    return Outcome(numbers, claims(numbers), shown)


def study(lab: Lab, model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of every method over trials on random parts of the images; the last trial's clusters, for the figure."""
    labels, config = model.split.train.labels, lab.config
    count = len(model.split.class_names)
    rows = torch.randperm(len(labels), generator=lab.rng(7))[: config.cluster_images]
    z, metric = model.latents[rows], lab.metric(model)
    key = f"graph distances {config.graph_nodes} {config.seed} {digest(z, model.latents, metric.tensor(z))}"
    riemannian = lab.kept(key, lambda: {"distances": lab.graph(metric, model.latents).distances(z)})["distances"]
    euclidean = torch.cdist(z, z)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ("riemannian", "euclidean", "k_means")}
    part, found = rows, {}
    for trial in range(config.cluster_trials):
        rng = lab.rng(700 + trial)
        part = torch.randperm(len(z), generator=rng)[: max(count, round(TRIAL * len(z)))]
        found = {
            "riemannian": k_medoids(riemannian[part][:, part], count, generator=rng).labels,
            "euclidean": k_medoids(euclidean[part][:, part], count, generator=rng).labels,
            "k_means": euclidean_k_means(z[part], count, trial),
        }
        for name, clusters in found.items():
            scores[name].append(score(labels[rows[part]], clusters))
    told = {name: Scores(*torch.tensor(values, dtype=torch.float64).T) for name, values in scores.items()}
    arrays = {
        "plane": measure_raster(lab, model, metric),
        "title": title_of(model),
        "names": list(model.split.class_names.values()),
        "latents": z[part],
        "classes": torch.searchsorted(torch.tensor(list(model.split.class_names)), labels[rows[part]]),
        "clusters": found,
    }
    return summarize(lab, told) | {"images": len(z)}, arrays


def title_of(model: Model) -> str:
    """The model's data, and how its log variances end, for readers."""
    names, variance = list(model.split.class_names.values()), model.vae.config.variance_activation
    data = f"{model.split.name} {', '.join(names)}" if all(name.isdecimal() for name in names) else model.split.name
    return f"{data}\n{'linear' if variance is Activation.IDENTITY else variance.value} log variances"


def euclidean_k_means(z: Float[Tensor, "n d"], count: int, seed: int) -> Int[Tensor, " n"]:
    """Clusters by scikit-learn's k-means, the best of ten starts."""
    return torch.as_tensor(KMeans(count, n_init=10, random_state=seed).fit_predict(z.numpy())).long()


def score(classes: Int[Tensor, " n"], clusters: Int[Tensor, " n"]) -> tuple[float, float]:
    """F-measure and adjusted Rand index."""
    return f_measure(classes, clusters), float(adjusted_rand_score(classes.numpy(), clusters.numpy()))


def f_measure(classes: Int[Tensor, " n"], clusters: Int[Tensor, " n"]) -> float:
    """Each class's best F_1 score with a cluster, 2 |c and k| / (|c| + |k|), averaged by size of class."""
    total = 0.0
    for c in classes.unique():
        own = classes == c
        inside = [clusters == k for k in clusters.unique()]
        best = max(float(2 * (own & other).sum() / (own.sum() + other.sum())) for other in inside)
        total += best * float(own.sum()) / len(classes)
    return total


def summarize(lab: Lab, told: dict[str, Scores]) -> dict[str, Any]:
    """Means over trials with intervals, and of the difference, trial by trial."""
    rng = lab.rng(71)
    summary: dict[str, Any] = {
        name: {kind: bootstrap(values, rng, mean) for kind, values in scores._asdict().items()}
        for name, scores in told.items()
    }
    summary["gain_of_f_measure"] = bootstrap(told["riemannian"].f_measure - told["euclidean"].f_measure, rng, mean)
    return summary


def run_means(lab: Lab) -> Outcome:
    """Riemannian k-means by geodesics on a few images, against k-medoids and k-means on the same."""
    model = lab.variant(Activation.IDENTITY)
    labels, metric = model.split.train.labels, lab.metric(model)
    count, config = len(model.split.class_names), lab.config
    rows = torch.randperm(len(labels), generator=lab.rng(72))[: config.means_images]
    z, graph = model.latents[rows], lab.graph(metric, model.latents)
    medoids = k_medoids(graph.distances(z), count, generator=lab.rng(73))
    start = time.process_time()
    found = riemannian_k_means(
        metric,
        z,
        count,
        start=z[medoids.medoids],
        solver=COARSE,
        initial=graph,
        tol=1e-2,
        max_iter=config.means_iterations,
    )
    flat = euclidean_k_means(z, count, 0)
    numbers = {
        "model": model.name,
        "images": len(z),
        "riemannian_f_measure": f_measure(labels[rows], found.labels),
        "medoids_f_measure": f_measure(labels[rows], medoids.labels),
        "euclidean_f_measure": f_measure(labels[rows], flat),
        "same_labels_as_medoids": float((found.labels == medoids.labels).double().mean()),
        "iterations": found.iterations,
        "converged": found.converged,
        "geodesics": found.geodesics,
        "cpu_seconds": time.process_time() - start,
    }
    return Outcome(numbers)


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """The paper's table 1, model by model."""
    verdicts = [entry["gain_of_f_measure"].exceeds(0.0) for entry in numbers.values()]
    told = "; ".join(
        f"{name}: {entry['riemannian']['f_measure']} against {entry['euclidean']['f_measure']} (k-means "
        f"{entry['k_means']['f_measure']})"
        for name, entry in numbers.items()
    )
    held = True if all(v is True for v in verdicts) else False if not any(v is True for v in verdicts) else None
    return (Claim("Riemannian distances cluster the classes better than Euclidean ones.", held, f"F-measure: {told}"),)


def matched(clusters: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " n"]:
    """Clusters renamed, each after the class with which it shares most, one to one: same name, same color."""
    common = np.array([[np.sum((clusters == k) & (classes == c)) for c in range(count)] for k in range(count)])
    return linear_sum_assignment(common, maximize=True)[1][clusters]


def draw(stored: Stored) -> dict[str, Figure]:
    """The clusters of the last trial by both distances, above one another for every model."""
    count = len(stored.arrays)
    figure, axes = panels(2, count, 2.5, 2.7)
    for column, (name, arrays) in enumerate(stored.arrays.items()):
        pair = {"riemannian": axes[column], "euclidean": axes[count + column]}
        for kind, ax in pair.items():
            image = show_plane(ax, arrays["plane"], tuple(arrays["plane"]["range"].tolist()))
            ax.set_aspect("auto")
            draw_clusters(ax, arrays, kind)
            title = f"F = {stored.numbers[name][kind]['f_measure']['value']:.3f}"
            ax.set_title(f"{arrays['title']}\n{title}" if kind == "riemannian" else title, fontsize=9)
            if column == 0:
                ax.set_ylabel(f"{kind.capitalize()} distances\n$z_2$")
        pair["euclidean"].set_xlabel("$z_1$")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "frameon": False}
        marks = class_marks(arrays["names"])
        legend = pair["euclidean"].legend(
            handles=marks, ncols=3, fontsize=7, handletextpad=0, columnspacing=0.6, **below
        )
        legend.set_in_layout(False)  # it is wider than its panel, which would shrink
        show_color_bar(figure, image, list(pair.values()), MEASURE if column == count - 1 else "")
    figure.set_layout_engine("constrained", rect=(0, 0.04, 1, 0.96))  # room for the legends
    return {"clustering.png": figure}


def draw_clusters(ax: Axes, arrays: dict[str, Any], kind: str) -> None:
    """Images in the color of the class that their cluster stands for; crosses where that is not their own class."""
    names = matched(arrays["clusters"][kind], arrays["classes"], len(arrays["names"]))
    own = names == arrays["classes"]
    for k in range(len(arrays["names"])):
        ax.scatter(*arrays["latents"][(names == k) & own].T, s=4, color=class_color(k), linewidths=0)
        wrong = arrays["latents"][(names == k) & ~own].T
        ax.scatter(*wrong, s=12, color=class_color(k), marker="x", linewidths=0.8)


EXPERIMENT = Experiment("clustering", "Clusters by Riemannian and by Euclidean distances", run, draw)
MEANS = Experiment("clustering-means", "Riemannian k-means by geodesics, on a few images", run_means)
