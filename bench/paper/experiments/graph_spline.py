"""The solver of the published re-implementations: shortest path on a kNN graph, smoothed, with a cubic spline.

After the graph solver of "geometric_ml" (Arvanitidis), as it was used for "Latent Space Oddity" by others. Kept as
it was published but for its edges, which are undirected here unless they are asked to be as published.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from geodesics import Curve, Metric, length

_EDGES = 4096
# Where the four nodes of a cubic element of `Curve` lie: the Gauss-Lobatto points.
_LOBATTO = np.array([0.0, (1 - 5**-0.5) / 2, (1 + 5**-0.5) / 2, 1.0])


class SplineGraph(NamedTuple):
    """A nearest-neighbor graph of latent points.

    Attributes:
        nodes: (n, d).
        weights: lengths of edges, symmetric, (n, n).
        one_way: share of edges that only one of their ends counts among its neighbors.
    """

    nodes: Float[Tensor, "n d"]
    weights: csr_matrix
    one_way: float


def build_graph(metric: Metric, nodes: Float[Tensor, "n d"], num_neighbors: int, halved: bool = False) -> SplineGraph:
    """Join every node to its Euclidean neighbors by edges weighted with their Riemannian length.

    Args:
        metric: the Riemannian metric.
        nodes: encoded images.
        num_neighbors: of every node.
        halved: as published, the mean of the weights in both directions, where an edge that has one direction only
            counts zero for the other: half its length. False: its length.
    """
    points = nodes.numpy()
    # Asked without points, it leaves out each point itself.
    near = NearestNeighbors(n_neighbors=num_neighbors).fit(points).kneighbors(return_distance=False)
    own = np.repeat(np.arange(len(points)), num_neighbors)
    ends = torch.stack([nodes[own], nodes[near.ravel()]], dim=1)
    lengths = torch.cat([length(metric, Curve(part))[0] for part in ends.split(_EDGES)])
    # An edge of no weight would be no edge in a sparse matrix.
    lengths = lengths.clamp(min=torch.finfo(lengths.dtype).tiny).numpy()
    directed = csr_matrix((lengths, (own, near.ravel())), shape=(len(points), len(points)))
    both = directed.maximum(directed.T)
    two_way = directed.minimum(directed.T)  # zero, so absent, where one direction is
    one_way = 1 - two_way.nnz / both.nnz
    return SplineGraph(nodes, ((directed + directed.T) / 2 if halved else both).tocsr(), one_way)


def shortest_paths(
    graph: SplineGraph, first: np.ndarray, second: np.ndarray
) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Nodes of the shortest path of each pair of nodes, None where there is none, and its length by the weights."""
    sources, place = np.unique(first, return_inverse=True)
    distance, previous = dijkstra(graph.weights, directed=False, indices=sources, return_predecessors=True)
    paths: list[np.ndarray | None] = []
    for row, start, end in zip(place, first, second, strict=True):
        path = [int(end)]
        while path[-1] != start and previous[row, path[-1]] >= 0:
            path.append(int(previous[row, path[-1]]))
        paths.append(np.array(path[::-1]) if path[-1] == start else None)
    return paths, distance[place, second]


def smooth(path: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Every inner vertex moved to the mean of itself and its two neighbors, once."""
    inner = (path[:-2] + path[1:-1] + path[2:]) / 3
    return np.concatenate([path[:1], inner, path[-1:]])


def spline(path: Float[np.ndarray, "n d"]) -> Curve:
    """The cubic spline through vertices at equal times, as the same curve in the library's form: one problem."""
    times = np.linspace(0, 1, len(path))
    if len(path) == 2:
        return Curve(torch.as_tensor(path)[None])
    own = (times[:-1, None] + np.diff(times)[:, None] * _LOBATTO[:-1]).ravel()
    points = CubicSpline(times, path)(np.append(own, 1.0))
    return Curve(torch.as_tensor(points)[None], torch.as_tensor(times)[None], 3)


class Found(NamedTuple):
    """Curves of a batch of pairs, None where the graph has no path, and what the graph says they are long."""

    curves: list[Curve | None]
    graph_length: Float[np.ndarray, " b"]


def connect_by_spline(graph: SplineGraph, first: Tensor, second: Tensor) -> Found:
    """Paths between pairs of nodes, smoothed, as splines."""
    paths, distance = shortest_paths(graph, first.numpy(), second.numpy())
    nodes = graph.nodes.numpy()
    return Found([None if path is None else spline(smooth(nodes[path])) for path in paths], distance)


def connect_by_polyline(graph: SplineGraph, first: Tensor, second: Tensor) -> Found:
    """Paths between pairs of nodes as they are."""
    paths, distance = shortest_paths(graph, first.numpy(), second.numpy())
    return Found([None if path is None else Curve(graph.nodes[path][None]) for path in paths], distance)


def certified_lengths(metric: Metric, curves: list[Curve | None]) -> Float[Tensor, " b"]:
    """Length of each curve by `geodesics.length`; NaN where there is none."""
    lengths = [torch.full((1,), torch.nan).double() if c is None else length(metric, c)[0] for c in curves]
    return torch.cat(lengths)
