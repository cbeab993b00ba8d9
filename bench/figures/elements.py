"""Figures of the elements: where nodes and samples of a solved geodesic lie, and how fast its length converges."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from bench.figures.drawing import (
    MAIN,
    OTHER,
    THIRD,
    digits_geodesic,
    draw_curve,
    figure,
    heat_map,
    lobatto,
    mark_ends,
    times_of,
)
from bench.problems.learned_metrics import digits_model
from geodesics import Curve, EnergySolver, PullbackMetric, geodesic, log_measure

DEGREE, SAMPLES = EnergySolver().degree, EnergySolver().num_samples
# A pair of digits that are far apart, with bends between them.
PAIR = 22
# Half the side of the enlarged square, in latent units.
_ZOOM = 0.22


def draw_elements(quick: bool) -> Figure:
    """A geodesic of the digits with its elements, and some of them enlarged."""
    metric, curve = digits_model().metric, digits_geodesic(PAIR, quick).curve
    whole = figure(3.9)
    left, right = whole.subplots(1, 2, width_ratios=(1.1, 1))
    low, high = curve.points[0].amin(0) - 0.35, curve.points[0].amax(0) + 0.35
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    heat_map(left, lambda z: log_measure(metric, z), extent, 40 if quick else 200, "log measure")
    draw_curve(left, curve, MAIN)
    left.plot(*curve.points[0, ::DEGREE].T.numpy(), "o", color=MAIN, markersize=3.5)
    mark_ends(left, curve.points[0, 0], curve.points[0, -1])
    left.set_title(f"a geodesic of {curve.num_segments} elements")
    center = _sharpest(curve)
    corner = (float(center[0]) - _ZOOM, float(center[1]) - _ZOOM)
    left.add_patch(Rectangle(corner, 2 * _ZOOM, 2 * _ZOOM, fill=False, linewidth=1.2, edgecolor=OTHER))
    _draw_nodes(right, curve, 7)
    samples = curve.evaluate(times_of(curve, lobatto(SAMPLES)).flatten()[None])[0].numpy()
    right.plot(*samples.T, "x", color=OTHER, markersize=5, label=f"sample of the generator, {SAMPLES + 1} an element")
    right.set(xlim=(corner[0], corner[0] + 2 * _ZOOM), ylim=(corner[1], corner[1] + 2 * _ZOOM))
    right.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal", title="the blue square, enlarged")
    whole.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return whole


def _draw_nodes(ax: Axes, curve: Curve, size: float) -> None:
    draw_curve(ax, curve, MAIN, label="the curve")
    nodes = curve.points[0]
    inner = torch.ones(len(nodes), dtype=torch.bool)
    inner[::DEGREE] = False
    style = {"linestyle": "", "markeredgecolor": "black", "markeredgewidth": 0.7}
    ax.plot(*nodes[inner].T.numpy(), marker="s", color="white", markersize=size * 0.75, label="inner node", **style)
    ax.plot(*nodes[~inner].T.numpy(), marker="o", color=MAIN, markersize=size, label="end of an element", **style)


def _sharpest(curve: Curve) -> Tensor:
    """Where the curve turns most over a tenth of its time."""
    points = curve.evaluate(torch.linspace(0.1, 0.9, 161, dtype=curve.points.dtype))[0]
    ahead = torch.nn.functional.normalize(points[10:] - points[:-10], dim=1)
    return points[10 + int((ahead[10:] * ahead[:-10]).sum(1).argmin())]


def draw_order(quick: bool) -> Figure:
    """Relative error of a length on the sphere against the number of elements, for three degrees."""
    z0, z1 = torch.tensor([[0.5, 0.2]], dtype=torch.float64), torch.tensor([[2.0, 1.5]], dtype=torch.float64)
    exact = float(2 * ((_sphere(z0) - _sphere(z1)).norm() / 2).arcsin())
    whole = figure(3.2)
    ax = whole.subplots()
    counts = [4, 8, 16] if quick else [2, 4, 8, 16, 32, 64]
    for degree, color, marker in ((1, THIRD, "o"), (2, OTHER, "s"), (3, MAIN, "^")):
        errors = []
        for count in counts:
            solver = EnergySolver(count, count, degree, 2 * degree, tol=1e-9, length_tol=1.0, max_iter=40)
            errors.append(abs(float(geodesic(PullbackMetric(_sphere), z0, z1, solver=solver).length) / exact - 1))
        # Below this, rounding is all that is left.
        shown = [(n, error) for n, error in zip(counts, errors, strict=True) if error > 1e-13]
        label = f"degree {degree}, {2 * degree + 1} samples"
        ax.loglog(*zip(*shown, strict=True), marker, color=color, label=label, markersize=6)
        n = np.array([shown[0][0], shown[-1][0]])
        slope = shown[-1][1] * (n / shown[-1][0]) ** (-2.0 * degree)
        ax.loglog(n, slope, "-", color=color, linewidth=1, label=f"slope of $N^{{-{2 * degree}}}$")
    ax.set_xticks(counts, labels=[str(count) for count in counts])
    ax.minorticks_off()
    ax.set(xlabel="number of elements $N$", ylabel="relative error of the length")
    ax.set_title(f"two points of the unit sphere, {math.degrees(exact):.0f} degrees apart")
    ax.grid(color="0.9")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return whole


def _sphere(z: Tensor) -> Tensor:
    polar, azimuth = z.T
    return torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=1)
