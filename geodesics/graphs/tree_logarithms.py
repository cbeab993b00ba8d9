"""Approximate logarithms of many points at few, by one shortest-path tree per base point.

A geodesic costs thousands of generator values, a tree on a graph that is there already almost none. Its lengths bound
the distances from above, by some percent on a graph of 16,000 nodes: good enough to find the neighborhood of a fit,
to know where a density has its mass, and to start geodesics from.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.graphs.graph_paths import resample
from geodesics.graphs.latent_graph import Joined, LatentGraph, trapezoid

# Vertices of an initial curve.
_VERTICES = 129


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
    """Shortest-path trees on a latent graph; initial curves, one per problem, with a tree per start.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: LatentGraph) -> None:
        self.graph = graph

    def grow(self, z0: Float[Tensor, "k d"]) -> Forest:
        """One tree per base point."""
        roots = self.graph.join(z0)
        distance, previous = self.graph.trees(roots)
        itself = np.broadcast_to(np.arange(previous.shape[1]), previous.shape)
        first = np.where(previous < 0, itself, previous)
        while True:  # every turn doubles the steps taken toward the root
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
        forest, targets = self.grow(starts), self.graph.join(z1)
        _, last = self._last(forest, targets, base)
        previous = forest.previous.cpu().numpy()
        problems = zip(base.tolist(), last.tolist(), z0.cpu().numpy(), z1.cpu().numpy(), strict=True)
        lines = []
        for k, node, a, b in problems:
            path = []
            while node >= 0:
                path.append(node)
                node = int(previous[k, node])
            way = self.graph.polyline(np.array(path[::-1], dtype=np.int64))
            lines.append(resample(np.concatenate([a[None], way, b[None]]), _VERTICES))
        return [Curve(torch.as_tensor(np.stack(lines)).to(z0))]

    def _last(self, forest: Forest, targets: Joined, base: Tensor) -> tuple[Tensor, Tensor]:
        """Lengths of the shortest paths, and the last node of each: -1 for a straight edge to a near base point."""
        through = forest.lengths[base[:, None], targets.nodes] + targets.lengths
        length, place = through.min(1)
        last = targets.nodes.gather(1, place[:, None])[:, 0]
        step = targets.points - forest.roots.points[base]
        direct = trapezoid(step, targets.tensors, forest.roots.tensors[base])
        near = (step.norm(dim=-1) <= targets.reach) & (direct <= length)
        return torch.where(near, direct, length), torch.where(near | length.isinf(), -1, last)
