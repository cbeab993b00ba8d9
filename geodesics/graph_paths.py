"""Initial curves from shortest paths on a graph of latent points: the cure for local minima.

From a straight line, minima 1-40 % too long are usual on learned metrics. A graph of encoded data and free nodes,
weighted by Riemannian length, gives starts in the right valleys, and alternatives to them.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from geodesics.curves import Curve
from geodesics.detours import Tree, alternatives
from geodesics.elements import make_elements
from geodesics.initial import straight
from geodesics.metrics import Metric

# Shortest-path trees are computed for this many end points at a time, a bound on memory.
_SOURCES = 128
_ROWS = 4096
_VERTICES = 257


class GraphPaths:
    """Shortest paths on a dense nearest-neighbour graph of latent points.

    Nodes are the given latent points and free nodes on lines between them, near and far, thinned to an even cover of
    the data's region. Of a node's many nearest candidates those are joined to it that are nearest by the metric: with
    condition numbers in the hundreds, the Euclidean neighbours miss the narrow valleys that geodesics run along. An
    edge's weight is the length of its two halves, measured by the metric, one number for both directions.
    Alternatives to the shortest path take its sensible detours, as many as fit into one path (`geodesics.detours`).

    The graph is built once; a problem's paths do not depend on the other problems of a call.

    Args:
        metric: the Riemannian metric.
        latents: latent points, usually the encoded data, ``(n, d)``.
        num_nodes: about how many nodes the graph gets.
        num_neighbors: neighbours by the metric joined to every node; half as many Euclidean ones come on top.
        num_candidates: Euclidean neighbours among which those are chosen.
        num_paths: paths per problem. Where they are several, the straight line comes on top: it costs next to
            nothing where it is hopeless, and a graph too coarse for the metric is no better.
        seed: of the free nodes.

    Attributes:
        nodes: ``(m, d)``.
        jacobians: points at which the metric tensor was computed to build the graph.
        values: points at which the generator's value was computed to build the graph.

    Raises:
        ValueError: when latents is not ``(n, d)`` and finite with n >= 2, or a number is below 1.
    """

    def __init__(
        self,
        metric: Metric,
        latents: Tensor,
        *,
        num_nodes: int = 32000,
        num_neighbors: int = 12,
        num_candidates: int = 60,
        num_paths: int = 3,
        seed: int = 0,
    ) -> None:
        if latents.ndim != 2 or len(latents) < 2 or not bool(latents.isfinite().all()):
            raise ValueError(f"latents must be finite and (n, d) with n >= 2; got {tuple(latents.shape)}")
        numbers = {"num_nodes": num_nodes, "num_neighbors": num_neighbors, "num_candidates": num_candidates}
        for name, value in (*numbers.items(), ("num_paths", num_paths)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        self.metric, self.num_neighbors, self.num_paths = metric, num_neighbors, num_paths
        with torch.no_grad():
            self.nodes = cover(latents.detach(), num_nodes, seed)
            self.tensors = torch.cat([metric.tensor(z) for z in self.nodes.split(_ROWS)])
            count = len(self.nodes)
            self._index = NearestNeighbors(n_neighbors=min(max(num_candidates, num_neighbors) + 1, count))
            self._index.fit(self.nodes.cpu().numpy())
            edges = self._neighbors(self.nodes, self.tensors)
            own = np.repeat(np.arange(count), edges.shape[1])
            pairs = np.unique(np.sort(np.stack([own, edges.ravel()], axis=1), axis=1), axis=0)
            self._pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            self._weights = self._lengths(self.nodes[self._pairs[:, 0]], self.nodes[self._pairs[:, 1]])
        self.jacobians, self.values = count, 3 * len(self._pairs)

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        """Batches of polylines from z0 to z1, num_paths of them, and the straight lines where that is more than one.

        Problems with fewer alternatives repeat the last of them.
        """
        ends, which = torch.unique(torch.cat([z0, z1]), dim=0, return_inverse=True)
        first, second = which.cpu().numpy().reshape(2, -1)
        joined = self._join(ends)
        positions = np.concatenate([self.nodes.cpu().numpy(), ends.cpu().numpy()])
        polylines: list[list[np.ndarray]] = [[] for _ in range(self.num_paths)]
        for rows in np.array_split(np.arange(len(z0)), -(-len(z0) // _SOURCES)):
            roots, tree = np.unique(np.concatenate([first[rows], second[rows]]), return_inverse=True)
            distance, previous = dijkstra(joined.graph, indices=len(self.nodes) + roots, return_predecessors=True)
            for i, j in tree.reshape(2, -1).T:
                there = joined.closed(distance[i], previous[i], roots[j])
                back = joined.closed(distance[j], previous[j], roots[i])
                source, target = int(len(self.nodes) + roots[i]), int(len(self.nodes) + roots[j])
                paths = alternatives(positions, there, back, source, target, self.num_paths)
                for s in range(self.num_paths):
                    polylines[s].append(_resample(positions[paths[min(s, len(paths) - 1)]]))
        curves = [Curve(torch.as_tensor(np.stack(lines)).to(z0)) for lines in polylines]
        if self.num_paths > 1:
            t = torch.linspace(0, 1, _VERTICES, dtype=z0.dtype, device=z0.device)
            curves.append(Curve(straight(z0, z1).evaluate(t)))
        return curves

    def distances(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
        """Lengths of shortest paths on the graph between all pairs of n points: `distance_matrix` at a glance.

        Every value is the length of a curve, up to quadrature on half edges, so it bounds the distance from above; how
        closely, the number of nodes decides. One shortest-path tree per point instead of one geodesic per pair. Not for
        points so near to one another that the graph has no node between them: each is joined to graph nodes only.

        Args:
            z: points ``(n, d)``, finite.

        Returns:
            Symmetric ``(n, n)`` with a zero diagonal, in the metric's unit; infinite where no path exists.

        Raises:
            ValueError: when z is not ``(n, d)`` of the nodes' dimension, or not finite.
        """
        if z.ndim != 2 or z.shape[1] != self.nodes.shape[1] or not bool(z.isfinite().all()):
            raise ValueError(f"z must be finite and (n, {self.nodes.shape[1]}); got {tuple(z.shape)}")
        if len(z) == 0:
            return z.new_zeros(0, 0)
        with torch.no_grad():
            joined = self._join(z)
        points = len(self.nodes) + np.arange(len(z))
        parts = np.array_split(points, -(-len(z) // _SOURCES))
        lengths = np.concatenate([joined.to_ends(dijkstra(joined.graph, indices=rows))[0] for rows in parts])
        np.fill_diagonal(lengths, 0.0)
        # Both trees hold the same path, its edges added up in two orders.
        return torch.as_tensor(np.minimum(lengths, lengths.T)).to(z)

    def _neighbors(self, z: Tensor, M: Tensor) -> np.ndarray:
        """Indices of the graph nodes to join to the points z: nearest by the metric, and nearest by Euclid."""
        near = torch.as_tensor(self._index.kneighbors(z.cpu().numpy(), return_distance=False), device=z.device)
        chosen = []
        for candidates, center, own in zip(near.split(_ROWS), z.split(_ROWS), M.split(_ROWS), strict=True):
            step = self.nodes[candidates] - center[:, None]
            here = torch.einsum("nki,nij,nkj->nk", step, own, step)
            there = torch.einsum("nki,nkij,nkj->nk", step, self.tensors[candidates], step)
            lengths = here.clamp(min=0).sqrt() + there.clamp(min=0).sqrt()
            by_metric = candidates.gather(1, lengths.argsort(1)[:, : self.num_neighbors + 1])
            chosen.append(torch.cat([by_metric, candidates[:, : self.num_neighbors // 2 + 1]], dim=1))
        return torch.cat(chosen).cpu().numpy()

    def _lengths(self, a: Tensor, b: Tensor) -> np.ndarray:
        """Lengths of straight edges, measured on their two halves."""
        halves = make_elements(1, 1, a)
        path_energy = self.metric.path_energy(halves)
        lengths = []
        for start, end in zip(a.split(_ROWS), b.split(_ROWS), strict=True):
            _, speed = path_energy.value(torch.stack([start, (start + end) / 2, end], dim=1), None)
            lengths.append((speed @ halves.weights).sum(1))
        total = torch.cat(lengths)
        return torch.where(total.isfinite(), total, torch.inf).clamp(min=torch.finfo(a.dtype).tiny).cpu().numpy()

    def _join(self, ends: Tensor) -> "_Joined":
        """The graph with ways from the end points into it, and none back: no path runs through another's end."""
        edges = self._neighbors(ends, self.metric.tensor(ends))
        own = np.repeat(np.arange(len(ends)), edges.shape[1])
        weights = self._lengths(ends[own], self.nodes[edges.ravel()])
        pairs, size = self._pairs, len(self.nodes) + len(ends)
        a = np.concatenate([pairs[:, 0], pairs[:, 1], own + len(self.nodes)])
        b = np.concatenate([pairs[:, 1], pairs[:, 0], edges.ravel()])
        w = np.concatenate([self._weights, self._weights, weights])
        # Duplicate entries would be summed: the end points' repeated neighbours are dropped first.
        _, first = np.unique(a.astype(np.int64) * size + b, return_index=True)
        graph = csr_matrix((w[first], (a[first], b[first])), shape=(size, size))
        return _Joined(graph, edges, weights.reshape(edges.shape))


class _Joined(NamedTuple):
    """A graph with end points, the nodes next to each of them ``(E, k)``, and the lengths of the edges to these."""

    graph: csr_matrix
    nodes: np.ndarray
    lengths: np.ndarray

    def closed(self, distance: np.ndarray, previous: np.ndarray, end: np.integer) -> Tree:
        """A tree of shortest paths with one of the end points added to it."""
        only = self._replace(nodes=self.nodes[end], lengths=self.lengths[end])
        node = self.graph.shape[0] - len(self.nodes) + end
        distance, previous = distance.copy(), previous.copy()
        distance[node], previous[node] = only.to_ends(distance)
        return Tree(distance, previous)

    def to_ends(self, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From distances of all nodes ``(..., m)``: those of the end points, and the node before each on its path."""
        through = distance[..., self.nodes] + self.lengths
        nearest = through.argmin(-1)
        before = np.broadcast_to(self.nodes, through.shape)
        found = (np.take_along_axis(x, nearest[..., None], -1)[..., 0] for x in (through, before))
        return next(found), next(found)


def _resample(path: np.ndarray) -> np.ndarray:
    """A polyline of a fixed number of vertices, at equal Euclidean steps."""
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    t = np.linspace(0, arc[-1], _VERTICES)
    return np.stack([np.interp(t, arc, x) for x in path.T], axis=1)


def cover(latents: Float[Tensor, "n d"], num_nodes: int, seed: int) -> Float[Tensor, "m d"]:
    """About ``num_nodes`` points that cover the region of the data evenly.

    Candidates are the data and random points on lines between data points, half of them near and half anywhere, a
    little beyond their ends too; they are thinned in random order to a minimal distance.
    """
    generator = torch.Generator().manual_seed(seed)
    count, device = len(latents), latents.device
    per_point = -(-2 * num_nodes // count)
    positions = latents.cpu().numpy()
    near = NearestNeighbors(n_neighbors=min(200, count)).fit(positions).kneighbors(positions, return_distance=False)
    local = torch.as_tensor(near).gather(1, torch.randint(0, near.shape[1], (count, per_point), generator=generator))
    anywhere = torch.randint(0, count, (count, per_point), generator=generator)
    partners = torch.cat([local, anywhere], dim=1).to(device)
    t = torch.rand(*partners.shape, 1, generator=generator, dtype=latents.dtype).to(device) * 1.6 - 0.3
    free = latents[:, None] + t * (latents[partners] - latents[:, None])
    candidates = torch.cat([latents, free.flatten(0, 1)])
    return _thin(candidates[torch.randperm(len(candidates), generator=generator).to(device)], num_nodes)


def _thin(points: Tensor, count: int) -> Tensor:
    """Drop points too near to an earlier one; the least distance grows until at most about ``count`` are left."""
    if len(points) <= count:
        return points
    positions = points.cpu().numpy()
    distances, _ = NearestNeighbors(n_neighbors=max(2, len(points) // count)).fit(positions).kneighbors(positions)
    radius = float(np.median(distances[:, -1]))
    kept = np.arange(len(points))
    while len(kept) > count:
        close = NearestNeighbors(radius=radius).fit(positions[kept]).radius_neighbors(return_distance=False)
        covered = np.zeros(len(kept), dtype=bool)
        for i, neighbors in enumerate(close):
            if not covered[i]:
                covered[neighbors[neighbors > i]] = True
        kept = kept[~covered]
        radius *= 1.15
    return points[torch.as_tensor(kept, device=points.device)]
