"""Figure of the graph: its streamlines, a shortest path on it, and the geodesic that comes of that path."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from bench.figures.drawing import (
    MAIN,
    OTHER,
    THIRD,
    digits_geodesic,
    digits_graph,
    draw_curve,
    figure,
    heat_map,
    mark_ends,
)
from bench.problems.learned_metrics import digits_model
from geodesics import GraphPaths, log_measure

# A pair of digits whose geodesic follows streamlines; where it does, and half the side of the square enlarged.
PAIR = 12
_CENTER = torch.tensor([-1.1, -2.4], dtype=torch.float64)
_ZOOM = 0.5


def draw_graph(quick: bool) -> Figure:
    """The whole of it, and a part enlarged."""
    model, paths, result = digits_model(), digits_graph(quick), digits_geodesic(PAIR, quick)
    z0, z1 = result.curve.points[:, 0], result.curve.points[:, -1]
    (path,) = paths(z0, z1)
    lines = streamlines(paths)
    whole = figure(4.6)
    left, right = whole.subplots(1, 2, width_ratios=(1.2, 1))
    low, high = model.latents.amin(0) - 0.4, model.latents.amax(0) + 0.4
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    heat_map(left, lambda z: log_measure(model.metric, z), extent, 40 if quick else 250, "log measure", 0.85)
    corner = tuple((_CENTER - _ZOOM).tolist())
    left.add_patch(Rectangle(corner, 2 * _ZOOM, 2 * _ZOOM, fill=False, linewidth=1.2, edgecolor="black", zorder=5))
    near = [line for line in lines if np.abs(line - _CENTER.numpy()).max(1).min() < 1.2 * _ZOOM]
    label = "edge along a streamline"
    left.add_collection(LineCollection(lines, colors=THIRD, linewidths=0.5, rasterized=True))
    right.add_collection(LineCollection(near, colors=THIRD, linewidths=1.2, label=label))
    for ax in (left, right):
        draw_curve(ax, path, OTHER, label="shortest path on the graph")
        draw_curve(ax, result.curve, MAIN, label="geodesic")
        mark_ends(ax, z0[0], z1[0])
    _draw_neighbors(right, paths, _CENTER)
    nodes = paths.nodes[(paths.nodes - _CENTER).abs().amax(1) < _ZOOM]
    right.plot(*nodes.T.numpy(), ".", color="0.3", markersize=3.5, label="node", zorder=1)
    right.set(xlim=(corner[0], corner[0] + 2 * _ZOOM), ylim=(corner[1], corner[1] + 2 * _ZOOM))
    right.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal", title="the square, enlarged")
    left.set_title(f"a graph of {len(paths.nodes):,} nodes")
    whole.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return whole


def streamlines(paths: GraphPaths) -> list[np.ndarray]:
    """The curved edges of a graph, ``(v, 2)`` each: those between nodes that follow one another on a streamline."""
    edges = (paths.graph.polyline(np.array([i, i + 1])) for i in range(len(paths.nodes) - 1))
    return [edge for edge in edges if len(edge) > 2]


def _draw_neighbors(ax: Axes, paths: GraphPaths, near: Tensor) -> None:
    """The straight edges of the node nearest to a point."""
    node = int((paths.nodes - near).norm(dim=1).argmin())
    own = paths.nodes[node]
    ends = paths.nodes[paths.graph.join(own[None]).nodes[0]]
    edges = torch.stack([own.expand_as(ends), ends], dim=1).numpy()
    ax.add_collection(LineCollection(edges, colors="0.55", linewidths=0.8, label="straight edges of one node"))
    ax.plot(*own.tolist(), "D", color="0.3", markersize=5)
