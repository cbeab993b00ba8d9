"""Figure of two starts, each better in one half, and the curve that takes the better half of both."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.figures.drawing import MAIN, OTHER, THIRD, draw_curve, figure, heat_map, mark_ends
from geodesics import Curve, PullbackMetric, geodesic

ENDS = torch.tensor([[[-3.0, 0.0]], [[3.0, 0.0]]], dtype=torch.float64)
EXTENT = (-3.3, 3.3, -1.25, 1.25)


class Given:
    """Initial curves that are known."""

    def __init__(self, *curves: Curve) -> None:
        self.curves = curves

    def __call__(self, z0: Tensor, z1: Tensor) -> list[Curve]:
        return list(self.curves)


def hills(z: Tensor) -> Tensor:
    """Two hills with a gate between them, whose shorter sides are the lower one and the upper one."""
    x, y = z.T
    first = 3 * torch.exp(-4 * ((x + 1.5) ** 2 + (y - 0.3) ** 2))
    second = 3 * torch.exp(-4 * ((x - 1.5) ** 2 + (y + 0.3) ** 2))
    wall = 3 * torch.exp(-((x / 0.3) ** 2)) * (1 - torch.exp(-((y / 0.1) ** 2)))
    return torch.stack([x, y, first + second, wall], dim=1)


def bows() -> tuple[Curve, Curve]:
    """Starts over and under both hills, through the gate."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    bow = 0.9 * (torch.pi * (x + 3) / 3).sin() ** 2
    over, under = (Curve(torch.stack([x, side * bow], dim=1)[None]) for side in (1, -1))
    return over, under


def draw_recombination(quick: bool) -> Figure:
    """Both starts alone, and both together."""
    metric = PullbackMetric(hills)
    over, under = bows()
    whole = figure(5.4)
    above, below = whole.subplots(2, 1, sharex=True)
    for ax in (above, below):
        heat_map(ax, lambda z: hills(z)[:, 2:].sum(1), EXTENT, 60 if quick else 400, "height")
        mark_ends(ax, *ENDS[:, 0])
    above.set(xlabel="", title="each start alone")
    for start, color, name in ((over, OTHER, "over"), (under, THIRD, "under")):
        result = geodesic(metric, *ENDS, initial=Given(start))
        draw_curve(above, start, color, ":", label=f"start {name} the hills", width=1.4)
        draw_curve(above, result.curve, color, label=f"from it: length {float(result.length):.2f}")
    result = geodesic(metric, *ENDS, initial=Given(over, under))
    below.set_title("both starts together")
    draw_curve(below, over, OTHER, ":", width=1.4)
    draw_curve(below, under, THIRD, ":", width=1.4)
    draw_curve(below, result.curve, MAIN, label=f"from both: length {float(result.length):.2f}")
    handles = [ax.get_legend_handles_labels() for ax in (above, below)]
    whole.legend(
        handles[0][0] + handles[1][0], handles[0][1] + handles[1][1], loc="outside lower center", ncols=3, frameon=False
    )
    return whole
