"""Experiment 8, first part: a and K without a picture, geodesics and curvature, in latent dimensions up to 32."""

from dataclasses import replace
from functools import partial
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.figures import legend_below, panels
from bench.paper.lab import Lab, Model
from bench.paper.open_questions import flatness as open_questions_flatness
from bench.paper.open_questions.studies import (
    Chosen,
    Space,
    chosen_rbf,
    connect_pairs,
    kept,
    measured,
    open_model,
    own_space,
    rbf_space,
    resolved,
    settings,
    told,
)
from vae import fit_rbf_to_vae, score_deviation


def run(lab: Lab) -> Outcome:
    """For every latent dimension: the rule's table and choice, k-means in a projection, geodesics, and curvature."""
    numbers: dict[str, Any] = {}
    arrays: dict[str, Any] | None = None
    for d in lab.progress(settings(lab).dimensions, "latent dimensions"):
        model = open_model(lab, d)
        choice = chosen_rbf(lab, model)
        spaces = {"own": own_space(model), "rbf": rbf_space(model, choice.precision)}
        studied = {
            name: kept(lab, model, name, partial(study, lab, space, f"{name}, d = {d}"))
            for name, space in spaces.items()
        }
        numbers[str(d)] = {
            "model": trained(model),
            "chosen": {"K": choice.config.num_centers, "a": choice.config.bandwidth_factor},
            "seconds_of_choice": choice.seconds,
            "table": choice.table,
            "own_score": score(model, spaces["own"].deviation),
            "projected": projected(lab, model, choice),
        } | studied
        if d == 2:
            distances = {name: float(entry["median_distance"]) for name, entry in studied.items()}
            arrays = open_questions_flatness.pictured(lab, spaces, distances)
    return Outcome(numbers, (*claims(numbers), *open_questions_flatness.claims(numbers)), arrays)


def study(lab: Lab, space: Space, text: str) -> dict[str, Any]:
    """Geodesics against straight lines in one space, and its curvature."""
    connected = connect_pairs(lab, space, text)
    distance = connected.result.length.nanmedian()
    return {
        "resolved": resolved(connected.result),
        "median_distance": distance,
        "curves": measured(lab, space, connected),
        "curvature": open_questions_flatness.bend(lab, space, distance),
    }


def trained(model: Model) -> dict[str, Any]:
    """What became of the training; an axis is used when its codes spread by a tenth of the prior's deviation."""
    spread = model.latents.std(0)
    last = model.history[-1]
    return {"kl": last.kl, "loss": last.loss, "used_axes": int((spread > 0.1).sum()), "spread": sorted(spread.tolist())}


def score(model: Model, deviation: Any) -> dict[str, float]:
    """Held-out score of a standard deviation."""
    train, held_out = (part.x.double() for part in (model.split.train, model.split.test))
    return score_deviation(model.vae, deviation, train, held_out)._asdict()


def projected(lab: Lab, model: Model, choice: Chosen) -> dict[str, float] | None:
    """The score of the chosen K and a when k-means works on principal components; None where there are no more."""
    count = settings(lab).components
    if model.latents.shape[1] <= count:
        return None
    options = replace(choice.config, num_components=count)
    return score(model, fit_rbf_to_vae(model.vae, model.split.train.x.double(), options).standard_deviation)


def claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    """What the report asks: whether a and K can be chosen without a picture, and whether the method survives."""
    choices = {d: entry["chosen"] for d, entry in numbers.items()}
    contrasts = {d: chosen_line(entry)["contrast"] for d, entry in numbers.items()}
    wide = {d: widest_line(entry)["contrast"] for d, entry in numbers.items()}
    ratios = {d: entry["rbf"]["curves"]["straight_over_geodesic"] for d, entry in numbers.items()}
    apart = {
        d: (entry["projected"], chosen_line(entry)) for d, entry in numbers.items() if entry["projected"] is not None
    }
    as_good = [
        p["log_likelihood"] > own["log_likelihood"] - own["standard_error"] and p["contrast"] > 0.9 * own["contrast"]
        for p, own in apart.values()
    ]
    return (
        Claim(
            "Held-out data tell a and K without a picture, in every latent dimension tried.",
            all(contrasts[d] > 2 * wide[d] for d in numbers),
            "chosen "
            + ", ".join(f"d={d}: K={c['K']}, a={c['a']:g}" for d, c in choices.items())
            + "; rise of log sigma off the data, chosen against the widest kernels tried: "
            + ", ".join(f"d={d}: {contrasts[d]:.2f} against {wide[d]:.2f}" for d in numbers),
        ),
        Claim(
            "In higher latent dimensions straight lines are longer than geodesics too.",
            all(r["low"] > 1.05 for r in ratios.values()),
            "straight/geodesic " + ", ".join(f"d={d}: {told(r)}" for d, r in ratios.items()),
        ),
        Claim(
            "k-means in a projection of the latent space serves as well as in the space itself.",
            all(as_good) if as_good else None,
            "held-out log-likelihood, projected less latent: "
            + ", ".join(f"d={d}: {p['log_likelihood'] - o['log_likelihood']:+.1f}" for d, (p, o) in apart.items())
            + "; rise of log sigma off the data, projected against latent: "
            + ", ".join(f"d={d}: {p['contrast']:.2f} against {o['contrast']:.2f}" for d, (p, o) in apart.items()),
        ),
    )


def chosen_line(entry: dict[str, Any]) -> dict[str, Any]:
    """The line of the table that was chosen."""
    return next(line for line in entry["table"] if {k: line[k] for k in ("K", "a")} == entry["chosen"])


def widest_line(entry: dict[str, Any]) -> dict[str, Any]:
    """The line of the chosen K with the widest kernels."""
    return max((line for line in entry["table"] if line["K"] == entry["chosen"]["K"]), key=lambda line: line["a"])


def draw(stored: Stored) -> dict[str, Figure]:
    """The candidates for a and K, ratios by dimension, and curvatures in two dimensions."""
    figures = {"open-selection.png": draw_selection(stored), "open-dimensions.png": draw_ratios(stored)}
    if stored.arrays:
        figures["open-curvature.png"] = open_questions_flatness.draw(stored.arrays)
    return figures


def draw_selection(stored: Stored) -> Figure:
    """Held-out log-likelihood against the rise of log sigma off the data, a panel for each dimension.

    Candidates more than four standard errors below the best lie on the gray line.
    """
    figure, axes = panels(1, len(stored.numbers), 2.7, 3.2)
    lines = [line for entry in stored.numbers.values() for line in entry["table"]]
    factors, counts = (sorted({line[name] for line in lines}) for name in ("a", "K"))
    color = {a: matplotlib.colormaps["viridis"](i / max(len(factors) - 1, 1)) for i, a in enumerate(factors)}
    size = {k: 20 + 25 * i for i, k in enumerate(counts)}
    for ax, (d, entry) in zip(axes, stored.numbers.items(), strict=True):
        best = max(entry["table"], key=lambda line: line["log_likelihood"])
        lowest = best["log_likelihood"] - 4 * best["standard_error"]
        for line in entry["table"]:
            at = line["contrast"], max(line["log_likelihood"], lowest)
            marker = "o" if line["admitted"] else "x"
            ax.scatter(*at, s=size[line["K"]], color=color[line["a"]], marker=marker)
        chosen = chosen_line(entry)
        ax.scatter(chosen["contrast"], chosen["log_likelihood"], s=160, facecolors="none", edgecolors="crimson")
        ax.axhline(best["log_likelihood"] - best["standard_error"], color="0.4", linewidth=0.8, linestyle=":")
        ax.axhline(lowest, color="0.8", linewidth=0.8)
        ax.set_title(f"d = {d}, chosen K = {chosen['K']}, a = {chosen['a']:g}", fontsize=9)
        ax.set_xlabel(r"rise of $\log\,\sigma$ off the data")
    axes[0].set_ylabel("held-out log-likelihood\nin nats per image")
    marks = [axes[-1].scatter([], [], s=30, color=color[a], label=f"a = {a:g}") for a in factors]
    marks += [axes[-1].scatter([], [], s=size[k], color="0.5", label=f"K = {k}") for k in counts]
    marks.append(axes[-1].scatter([], [], s=30, color="0.5", marker="x", label="not admitted"))
    marks.append(axes[-1].scatter([], [], s=160, facecolors="none", edgecolors="crimson", label="chosen"))
    legend_below(figure, marks)
    return figure


def draw_ratios(stored: Stored) -> Figure:
    """Straight over geodesic: length, and distance of decoded frames to real images, by latent dimension."""
    figure, (ax,) = panels(1, 1, 5.0, 3.2)
    positions = range(len(stored.numbers))
    for name, label in (
        ("straight_over_geodesic", "length"),
        ("nearest_image_straight_over_geodesic", "distance of frames to real images"),
    ):
        intervals = [entry["rbf"]["curves"][name] for entry in stored.numbers.values()]
        middle = [i["value"] for i in intervals]
        spread = [[i["value"] - i["low"] for i in intervals], [i["high"] - i["value"] for i in intervals]]
        ax.errorbar(positions, middle, spread, marker="o", capsize=3, label=label)
    ax.axhline(1, color="0.7", linewidth=0.8)
    ax.set_xticks(list(positions), list(stored.numbers))
    ax.set(xlabel="latent dimension d", ylabel="straight line / geodesic, median", yscale="log")
    ax.legend(frameon=False)
    return figure


EXPERIMENT = Experiment(
    "open-dimensions", "Latent dimensions 2 to 32: a and K without a picture, geodesics, and flatness", run, draw
)
