"""The demo: a VAE of handwritten digits, the expected metric of its latent space, and geodesics in one batch.

`python -m vae.demo`, or `make demo`, trains on the digits bundled with scikit-learn, connects encoded images
of different digits by geodesics, prints a table of their lengths against straight lines, and writes pictures.
A run that was killed goes on where it was.
"""

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from geodesics import (
    Curve,
    GeodesicResult,
    GraphPaths,
    PullbackMetric,
    Status,
    geodesic,
    length,
    plot_curves,
    plot_measure,
    plot_speeds,
    plot_strips,
    straight_lines,
)
from vae.autoencoder.activations import Activation
from vae.autoencoder.model import VAE, VAEConfig
from vae.deviation.rbf_fit import RBFConfig, fit_rbf_to_vae
from vae.files.datasets import Dataset, load_digits
from vae.generators.plugins import RBFGenerator
from vae.training import TrainingConfig, train_vae

# Many narrow kernels: narrow enough that uncertainty rises in the gaps between the digits, not only around
# them all, and many enough that the variance at the data still fits; wider kernels fit it better and show
# lower walls. Far away sigma levels off at xi^(-1/2), and the measure falls again: xi is small enough to keep
# that out of the picture.
RBF = RBFConfig(num_centers=128, bandwidth_factor=1.5, xi=1e-9)
NUM_SHOWN = 5
COLOR = "crimson"
# Dots per inch of the pictures: fit for print.
DPI = 200


@dataclass(frozen=True)
class Options:
    """Arguments of the demo.

    Attributes:
        out: folder for the table, the pictures and the checkpoint.
        epochs: of the training.
        pairs: geodesics, all solved in one batch.
        seed: of the weights, the training and the choice of pairs.
    """

    out: Path
    epochs: int
    pairs: int
    seed: int


class Scene(NamedTuple):
    """A data set, its latent points (n, 2), and the expected metric of the model."""

    data: Dataset
    latents: Tensor
    metric: PullbackMetric


class Comparison(NamedTuple):
    """Geodesics against straight lines between the encoded images `first` and `second`, both (B,)."""

    first: Tensor
    second: Tensor
    straight: Tensor
    straight_error: Tensor
    result: GeodesicResult
    seconds: float

    @property
    def ratio(self) -> Tensor:
        """Straight length over geodesic length, (B,)."""
        return self.straight / self.result.length


@dataclass(frozen=True)
class Row:
    """One line of the table; lengths in data units, errors are estimates of the same unit."""

    pair: int
    first_image: int
    second_image: int
    first_digit: int
    second_digit: int
    straight: float
    straight_error: float
    geodesic: float
    geodesic_error: float
    ratio: float
    status: str
    iterations: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = parse(arguments)
    if find_spec("matplotlib") is None:
        print("error: the pictures need matplotlib: pip install 'latent-geodesics[plots]'", file=sys.stderr)
        return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        scene = build_scene(options)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    comparison = compare(scene, *draw_pairs(scene.data.labels, options.pairs, options.seed))
    rows = table(scene.data, comparison)
    print("\n" + format_table(rows), summarize(rows, comparison.seconds), sep="\n\n")
    save_table(rows, comparison.seconds, options)
    save_pictures(scene, comparison, rows, options.out)
    print("\nwritten:", *(f"  {path}" for path in sorted(options.out.iterdir())), sep="\n")
    return 0


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line; exits with a sentence on a wrong one."""
    about = "Geodesics between handwritten digits."
    parser = argparse.ArgumentParser(prog="python -m vae.demo", description=about)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="output folder (%(default)s)")
    parser.add_argument("--epochs", type=_positive, default=400, help="epochs of training (%(default)s)")
    parser.add_argument("--pairs", type=_positive, default=48, help="geodesics, one batch (%(default)s)")
    parser.add_argument("--seed", type=_natural, default=0, help="of training and pairs (%(default)s)")
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    return _at_least(1, text)


def _natural(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    value = int(text) if text.lstrip("+-").isdecimal() else None
    if value is None or value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}; got {text!r}")
    return value


def build_scene(options: Options) -> Scene:
    """Train, or load, the VAE on the bundled digits, and build its expected metric in float64."""
    data = load_digits()
    images = data.x.double()
    vae = train(data, options).double()
    rbf = fit_rbf_to_vae(vae, images, replace(RBF, seed=options.seed))
    with torch.no_grad():
        latents = vae.encode(images).mean
    return Scene(data, latents, PullbackMetric(RBFGenerator(vae, rbf)))


def train(data: Dataset, options: Options) -> VAE:
    """The VAE, from the checkpoint in the output folder as far as there is one."""
    checkpoint = options.out / f"training_seed{options.seed}_epochs{options.epochs}.safetensors"
    print(f"training a VAE on {len(data.x)} images of digits, checkpoint {checkpoint}", flush=True)
    # The bundled digits have pixels that are always 0: noise bounds the likelihood (see TrainingConfig).
    training = TrainingConfig(epochs=options.epochs, learning_rate=1e-3, noise=0.1, seed=options.seed)
    model = VAEConfig(data.x.shape[1], variance_activation=Activation.IDENTITY)
    return train_vae(data.x, model, training, checkpoint).vae


def draw_pairs(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of ``count`` random pairs of images with different labels.

    Raises:
        ValueError: when all labels are the same.
    """
    if bool((labels == labels[0]).all()):
        raise ValueError("labels must name at least two classes to draw pairs of different ones")
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(len(labels), (count,), generator=rng)
    second = torch.randint(len(labels), (count,), generator=rng)
    while bool((same := labels[first] == labels[second]).any()):
        second[same] = torch.randint(len(labels), (int(same.sum()),), generator=rng)
    return first, second


def compare(scene: Scene, first: Tensor, second: Tensor) -> Comparison:
    """All geodesics in one batch, started on the graph of the data, and the straight lines' lengths."""
    z0, z1 = scene.latents[first], scene.latents[second]
    start = time.perf_counter()
    result = geodesic(scene.metric, z0, z1, initial=GraphPaths(scene.metric, scene.latents))
    seconds = time.perf_counter() - start
    straight, error = length(scene.metric, straight_lines(result.curve))
    return Comparison(first, second, straight, error, result, seconds)


def table(data: Dataset, comparison: Comparison) -> list[Row]:
    """One row per pair, in the order of the batch."""
    c, result = comparison, comparison.result
    digits = data.labels[c.first], data.labels[c.second]
    lengths = c.straight, c.straight_error, result.length, result.length_error, c.ratio
    columns = [column.tolist() for column in (c.first, c.second, *digits, *lengths)]
    statuses = [Status(code).name for code in result.status.tolist()]
    rows = zip(range(len(statuses)), *columns, statuses, result.iterations.tolist(), strict=True)
    return [Row(*row) for row in rows]


def format_table(rows: list[Row]) -> str:
    """The table for the terminal."""
    lines = ["pair  digits  straight   geodesic ± error   straight/geodesic  iterations  status"]
    lines += [
        f"{r.pair:4d}  {r.first_digit} - {r.second_digit}  {r.straight:9.4f}"
        f"  {r.geodesic:9.4f} ± {r.geodesic_error:.4f}"
        f"  {r.ratio:17.3f}  {r.iterations:10d}  {r.status}"
        for r in rows
    ]
    return "\n".join(lines)


def summarize(rows: list[Row], seconds: float) -> str:
    """Statuses counted, geodesics against straight lines, time."""
    statuses = ", ".join(f"{n} {status}" for status, n in Counter(r.status for r in rows).most_common())
    shorter = sum(r.geodesic - r.geodesic_error <= r.straight + r.straight_error for r in rows)
    ratios = torch.tensor([r.ratio for r in rows])
    return (
        f"{len(rows)} geodesics in one batch: {statuses}\n"
        f"{shorter} of {len(rows)} are no longer than the straight line; straight/geodesic: "
        f"median {ratios.nanmedian():.3f}, largest {ratios.nan_to_num(0).max():.3f}\n"
        f"{seconds:.1f} s with the graph of initial paths, {len(rows) / seconds:.1f} geodesics per second"
    )


def save_table(rows: list[Row], seconds: float, options: Options) -> None:
    """table.csv, and table.json with the options, the status counts and the time besides."""
    # JSON has no NaN: what a failed geodesic lacks is null.
    records = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    with (options.out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    report = {
        "epochs": options.epochs,
        "seed": options.seed,
        "seconds": seconds,
        "statuses": Counter(row.status for row in rows),
        "rows": records,
    }
    (options.out / "table.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def save_pictures(scene: Scene, comparison: Comparison, rows: list[Row], out: Path) -> None:
    """measure.png with all geodesics; strips.png and speeds.png of the pairs with the largest ratios."""
    largest = comparison.ratio.nan_to_num(0).argsort(descending=True)[:NUM_SHOWN]
    chosen = comparison.result.curve[largest]
    shown = [rows[i] for i in largest.tolist()]
    titles = [
        f"pair {r.pair}, {r.first_digit} to {r.second_digit}: the straight line is {r.ratio:.2f} times as long"
        for r in shown
    ]
    save_measure(scene, comparison.result.curve, chosen, [r.pair for r in shown], out / "measure.png")
    strips = plot_strips(scene.metric, scene.metric.generator, chosen, scene.data.shape, titles=titles)
    strips.savefig(out / "strips.png", dpi=DPI)
    save_speeds(scene.metric, chosen, titles, out / "speeds.png")


def save_measure(scene: Scene, curves: Curve, chosen: Curve, numbers: list[int], path: Path) -> None:
    """The plane with the data and all geodesics; the chosen ones thick, with straight lines and numbers."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(6.5, 6.9), layout="constrained")
    names = {digit: f"digit {digit}" if digit == 0 else str(digit) for digit in range(10)}
    ax = plot_measure(scene.metric, scene.latents, labels=scene.data.labels, names=names, ax=figure.subplots())
    plot_curves(curves, ax=ax, color="black", linewidth=0.5, ends=True)
    plot_curves(straight_lines(chosen), ax=ax, color=COLOR, linestyle="--", linewidth=1.0)
    plot_curves(chosen, ax=ax, color=COLOR, linewidth=1.8, ends=True)
    marks = [
        Line2D([], [], color="black", linewidth=0.8, label=f"geodesic, {len(curves)} in all", marker="o"),
        Line2D([], [], color=COLOR, label=f"the {len(chosen)} that gain most", marker="o"),
        Line2D([], [], color=COLOR, linestyle="--", linewidth=1.0, label="their straight lines"),
    ]
    for mark in marks[:2]:
        mark.set(markersize=4, markeredgecolor="white")
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    # Paths share valleys: each has its number at another time, so that numbers do not meet.
    times = torch.linspace(0.25, 0.75, len(numbers), dtype=chosen.points.dtype)
    places = chosen.evaluate(times[:, None])[:, 0].tolist()
    badge = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": COLOR}
    for (x, y), number in zip(places, numbers, strict=True):
        ax.text(x, y, str(number), color=COLOR, fontsize=7, ha="center", va="center", bbox=badge)
    figure.savefig(path, dpi=DPI)


def save_speeds(metric: PullbackMetric, chosen: Curve, titles: list[str], path: Path) -> None:
    """One small picture per chosen pair, below one another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.8 * len(titles)), layout="constrained")
    panels = figure.subplots(len(titles), squeeze=False)[:, 0]
    for i, (title, ax) in enumerate(zip(titles, panels, strict=True)):
        plot_speeds(metric, chosen[i : i + 1], ax=ax, color=COLOR)
        ax.set_title(title, fontsize=10, loc="left")
        if i + 1 < len(titles):
            ax.set_xlabel("")
    panels[0].legend(panels[0].lines, ("geodesic", "straight line"), loc="upper right")
    figure.savefig(path, dpi=DPI)


if __name__ == "__main__":
    sys.exit(main())
