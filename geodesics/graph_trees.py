"""Approximate logarithms of many points at few, by one shortest-path tree per base point.

A geodesic costs thousands of generator values, a tree on a graph that is there already almost none. Its lengths bound
the distances from above, by some percent on a graph of 16,000 nodes: good enough to find the neighbourhood of a fit,
to know where a density has its mass, and to start geodesics from.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, vstack
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from geodesics.curves import Curve
from geodesics.graph_paths import GraphPaths

# Vertices of an initial curve.
_VERTICES = 129


class Joined(NamedTuple):
    """Points with the edges that join them to graph nodes, each point for itself.

    Attributes:
        points: ``(n, d)``.
        tensors: the metric at the points, ``(n, d, d)``.
        nodes: indices of the joined nodes, ``(n, e)``.
        lengths: of the edges, ``(n, e)``; infinite where the metric is NaN.
        reach: Euclidean length of the longest of them, ``(n,)``.
    """

    points: Float[Tensor, "n d"]
    tensors: Float[Tensor, "n d d"]
    nodes: Int[Tensor, "n e"]
    lengths: Float[Tensor, "n e"]
    reach: Float[Tensor, " n"]


class Forest(NamedTuple):
    """Shortest-path trees of K base points.

    Attributes:
        roots: the base points, joined to the graph.
        lengths: from the roots to all graph nodes, ``(K, m)``.
        previous: node before each node on its path, -1 at the first, ``(K, m)``.
        first: the first node of each node's path, ``(K, m)``.
    """

    roots: Joined
    lengths: Float[Tensor, "k m"]
    previous: Int[Tensor, "k m"]
    first: Int[Tensor, "k m"]


class GraphTrees:
    """Shortest-path trees on the graph of a `GraphPaths`; initial curves, one per problem, with a tree per start.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: GraphPaths) -> None:
        self.graph = graph
        a, b = graph._pairs.T
        both = np.concatenate([a, b]), np.concatenate([b, a])
        size = len(graph.nodes)
        self._edges = csr_matrix((np.concatenate([graph._weights, graph._weights]), both), shape=(size, size))

    def join(self, z: Float[Tensor, "n d"]) -> Joined:
        """Join points to graph nodes near to them; edges by the trapezoidal rule, from metric tensors at both ends."""
        graph = self.graph
        M = torch.cat([graph.metric.tensor(part) for part in z.split(4096)])
        usable = (z.isfinite().all(1) & M.isfinite().all(-1).all(-1))[:, None]
        there = torch.where(usable, z, graph.nodes[:1])
        nodes = torch.as_tensor(graph._neighbors(there, torch.where(usable[..., None], M, graph.tensors[:1])))
        nodes = nodes.to(z.device)
        step = graph.nodes[nodes] - there[:, None]
        lengths = _trapezoid(step, M[:, None], graph.tensors[nodes])
        lengths = torch.where(usable & lengths.isfinite(), lengths, torch.inf)
        return Joined(z, M, nodes, lengths, step.norm(dim=-1).amax(1))

    def grow(self, z0: Float[Tensor, "k d"]) -> Forest:
        """One tree per base point; its edges into the graph have one direction, so no other tree runs through it."""
        roots = self.join(z0)
        size, count = len(self.graph.nodes), len(z0)
        own, node, length = _finite_edges(roots)
        into = csr_matrix((length, (own, node)), shape=(count, size))
        wide = vstack([csr_matrix((self._edges.data, self._edges.indices, self._edges.indptr), (size, size)), into])
        square = csr_matrix((wide.data, wide.indices, wide.indptr), shape=(size + count, size + count))
        distance, previous = dijkstra(square, indices=size + np.arange(count), return_predecessors=True)
        distance, previous = distance[:, :size], previous[:, :size].astype(np.int64)
        itself = np.broadcast_to(np.arange(size), previous.shape)
        starts = (previous >= size) | (previous < 0)
        previous = np.where(starts, -1, previous)
        first = np.where(starts, itself, previous)
        while True:  # every turn doubles the steps taken towards the root
            further = np.take_along_axis(first, first, axis=1)
            if (further == first).all():
                break
            first = further
        like = z0.device
        return Forest(
            roots,
            torch.as_tensor(distance).to(z0),
            torch.as_tensor(previous, device=like),
            torch.as_tensor(first, device=like),
        )

    def logarithms(self, forest: Forest, targets: Joined, base: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Approximate logarithms of target i at base point ``base[i]``; NaN where no path leads there.

        As long in the metric as the shortest path, in the direction of the path's first edge.
        """
        length, last = self._last(forest, targets, base)
        roots = forest.roots
        z0, M = roots.points[base], roots.tensors[base]
        first = forest.first[base, last]
        direct = last < 0
        step = torch.where(direct[:, None], targets.points, self.graph.nodes[first]) - z0
        norm = torch.einsum("ni,nij,nj->n", step, M, step).sqrt()
        v = step * torch.where(norm > 0, length / norm, 0.0)[:, None]
        return torch.where(length.isfinite()[:, None], v, torch.nan)

    def node_logarithms(self, forest: Forest) -> Float[Tensor, "k m d"]:
        """Approximate logarithms of all graph nodes at all base points."""
        M = forest.roots.tensors
        step = self.graph.nodes[forest.first] - forest.roots.points[:, None]
        norm = torch.einsum("kni,kij,knj->kn", step, M, step).sqrt()
        v = step * torch.where(norm > 0, forest.lengths / norm, 0.0)[..., None]
        return torch.where(forest.lengths.isfinite()[..., None], v, torch.nan)

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        """The shortest path of every problem; problems of one start share its tree."""
        starts, base = torch.unique(z0, dim=0, return_inverse=True)
        forest, targets = self.grow(starts), self.join(z1)
        _, last = self._last(forest, targets, base)
        nodes = self.graph.nodes.cpu().numpy()
        previous = forest.previous.cpu().numpy()
        problems = zip(base.tolist(), last.tolist(), z0.cpu().numpy(), z1.cpu().numpy(), strict=True)
        lines = []
        for k, node, a, b in problems:
            path = []
            while node >= 0:
                path.append(node)
                node = int(previous[k, node])
            lines.append(_resample(np.concatenate([a[None], nodes[path[::-1]], b[None]])))
        return [Curve(torch.as_tensor(np.stack(lines)).to(z0))]

    def _last(self, forest: Forest, targets: Joined, base: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths of the shortest paths, and the last node of each: -1 for a straight edge to a near base point."""
        through = forest.lengths[base[:, None], targets.nodes] + targets.lengths
        length, place = through.min(1)
        last = targets.nodes.gather(1, place[:, None])[:, 0]
        step = targets.points - forest.roots.points[base]
        direct = _trapezoid(step, targets.tensors, forest.roots.tensors[base])
        near = (step.norm(dim=-1) <= targets.reach) & (direct <= length)
        return torch.where(near, direct, length), torch.where(near | length.isinf(), -1, last)


def _trapezoid(step: Tensor, M: Tensor, N: Tensor) -> Tensor:
    """Length of a short straight step between points with metric tensors M and N."""
    start, end = (torch.einsum("...i,...ij,...j->...", step, m, step).clamp(min=0).sqrt() for m in (M, N))
    return (start + end) / 2


def _finite_edges(joined: Joined) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, node and length of the edges, none twice: a sparse matrix would add them up."""
    own = np.repeat(np.arange(len(joined.points)), joined.nodes.shape[1])
    node, length = joined.nodes.flatten().cpu().numpy(), joined.lengths.flatten().cpu().numpy()
    _, kept = np.unique(own * (node.max(initial=0) + 1) + node, return_index=True)
    kept = kept[np.isfinite(length[kept])]
    tiny = np.finfo(length.dtype).tiny
    return own[kept], node[kept], np.maximum(length[kept], tiny)


def _resample(path: np.ndarray) -> np.ndarray:
    """A polyline of a fixed number of vertices, at equal Euclidean steps."""
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    t = np.linspace(0, arc[-1], _VERTICES)
    return np.stack([np.interp(t, arc, x) for x in path.T], axis=1)
