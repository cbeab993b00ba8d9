"""A graph of latent points, its edges weighted by Riemannian length.

Nodes cover the data region evenly where no direction is much cheaper than another, and elsewhere lie on streamlines of
the cheapest one. Neighbors on a streamline are joined along it, by a curved edge; besides, every node is joined to
those that are nearest to it by the metric among many candidates: with condition numbers in the hundreds, the Euclidean
neighbors miss the narrow valleys that geodesics run along.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from geodesics.graphs.cover import cover
from geodesics.graphs.edge_lengths import edge_lengths, polyline_lengths
from geodesics.graphs.shared_trees import SharedTrees
from geodesics.graphs.streamlines import Streamlines, trace
from geodesics.metrics.metric import Metric

# Streamlines run where the metric's condition number is above this.
_STRETCHED = 10
# Nodes on either side of a streamline's seed.
_SIDE = 3
# The node next to another on a streamline is as far as about this many nodes are round it.
_REACH = 30
# Streamlines end this many times the spacing of their seeds away from them.
_MARGIN = 2
_ROWS = 4096


class Joined(NamedTuple):
    """Points with the edges that join them to graph nodes, each point for itself.

    Attributes:
        points: ``(n, d)``.
        tensors: the metric at the points, ``(n, d, d)``.
        nodes: indices of the joined nodes, ``(n, e)``.
        lengths: of the edges, ``(n, e)``; infinite where the metric is not finite.
        reach: Euclidean length of the longest of them, ``(n,)``.
    """

    points: Float[Tensor, "n d"]
    tensors: Float[Tensor, "n d d"]
    nodes: Int[Tensor, "n e"]
    lengths: Float[Tensor, "n e"]
    reach: Float[Tensor, " n"]

    def take(self, which: np.ndarray) -> "Joined":
        """Some of the points."""
        return Joined(*(field[torch.as_tensor(which, device=field.device)] for field in self))


class LatentGraph:
    """Nodes, edges and curved edges; shortest-path trees on them.

    Args:
        metric: the Riemannian metric.
        latents: latent points, ``(n, d)``.
        num_nodes: about how many nodes the graph gets.
        num_neighbors: neighbors by the metric joined to every node; half as many Euclidean ones come on top.
        num_candidates: Euclidean neighbors among which those are chosen.
        seed: of the cover.

    Attributes:
        nodes: ``(m, d)``.
        tensors: the metric at the nodes, ``(m, d, d)``.
        jacobians: points at which the metric, or a speed, was computed.
        values: points at which lengths of edges were measured.
    """

    def __init__(
        self,
        metric: Metric,
        latents: Float[Tensor, "n d"],
        num_nodes: int,
        num_neighbors: int,
        num_candidates: int,
        seed: int,
    ) -> None:
        self.metric, self.num_neighbors = metric, num_neighbors
        seeds, seed_tensors = self._finite(cover(latents, -(-num_nodes // (2 * _SIDE + 1)), seed))
        if len(seeds) < 2:
            raise ValueError("the metric is finite at fewer than 2 points of the cover of the latents")
        stretched = _condition(seed_tensors) > _STRETCHED
        near = NearestNeighbors(n_neighbors=1).fit(seeds.cpu().numpy())

        def isotropic(z: Tensor) -> Tensor:
            return ~stretched[torch.as_tensor(near.kneighbors(z.cpu().numpy())[1][:, 0], device=z.device)]

        even, even_tensors = seeds[:0], seed_tensors[:0]
        if not bool(stretched.all()):
            even, even_tensors = self._finite(cover(latents, num_nodes, seed, isotropic))
        lines = _streamlines(self._tensor, seeds, seed_tensors, stretched, near)
        stride = (lines.points.shape[1] - 1) // (2 * _SIDE)
        on_line = lines.known[:, ::stride]
        self.nodes = torch.cat([lines.points[:, ::stride][on_line], even])
        self.tensors = torch.cat([lines.tensors[:, ::stride][on_line], even_tensors])
        count = len(self.nodes)
        self._positions = self.nodes.cpu().numpy()
        self._index = NearestNeighbors(n_neighbors=min(max(num_candidates, num_neighbors) + 1, count))
        self._index.fit(self._positions)

        curved, ways = _curved_edges(lines.points, on_line, stride)
        keys = _keys(curved, count)
        order = np.argsort(keys)
        # Sorted, and one more that no pair of nodes has, for those beyond the last.
        self._curved = np.append(keys[order], count * count)
        self._ways = ways[:, 1:-1].cpu().numpy()[order]
        straight = _neighbor_pairs(self._neighbors(self.nodes, self.tensors))
        # Between neighbors on a line the curved edge replaces the straight one.
        straight = straight[~np.isin(_keys(straight, count), keys)]
        a, b = torch.as_tensor(straight, device=self.nodes.device).T
        step = self.nodes[b] - self.nodes[a]
        self._spacing = float(step.norm(dim=1).median())
        by_speeds = trapezoid(step, self.tensors[a], self.tensors[b])
        measured = edge_lengths(metric, self.nodes[a], self.nodes[b], by_speeds, self._spacing)
        lengths = torch.cat([measured.lengths, polyline_lengths(metric, ways)]).cpu().numpy()
        first, second = np.concatenate([straight, curved]).T
        weights = np.tile(np.maximum(lengths, np.finfo(lengths.dtype).tiny), 2)
        both = np.concatenate([first, second]), np.concatenate([second, first])
        self._edges = csr_matrix((weights, both), shape=(count, count))
        tensors = len(even) + len(seeds) + 2 * lines.known.numel() - 2 * len(lines.known)
        self.jacobians = tensors + measured.jacobians
        self.values = measured.values + ways.shape[:2].numel()

    @torch.no_grad()
    def join(self, z: Float[Tensor, "n d"]) -> Joined:
        """Join points to the nodes near to them."""
        M = self._tensor(z)
        usable = (z.isfinite().all(1) & M.isfinite().flatten(1).all(1))[:, None]
        there = torch.where(usable, z, self.nodes[:1])
        nodes = self._neighbors(there, torch.where(usable[..., None], M, self.tensors[:1]))
        own = torch.arange(len(z), device=z.device).repeat_interleave(nodes.shape[1])
        to = nodes.flatten()
        lengths = self._edges_between(there[own], M[own], self.nodes[to], self.tensors[to]).view(nodes.shape)
        lengths = torch.where(usable, lengths, torch.inf)
        reach = (self.nodes[nodes] - there[:, None]).norm(dim=-1).amax(1)
        return Joined(z, M, nodes, lengths, reach)

    @torch.no_grad()
    def direct(self, joined: Joined, i: Int[Tensor, " p"], j: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """Lengths of straight edges between pairs of joined points; infinite where the metric is zero at both."""
        lengths = self._edges_between(joined.points[i], joined.tensors[i], joined.points[j], joined.tensors[j])
        return torch.where(_is_zero(joined.tensors[i]) & _is_zero(joined.tensors[j]), torch.inf, lengths)

    @property
    def num_zero(self) -> int:
        """Nodes at which the metric is zero in every direction."""
        return int(_is_zero(self.tensors).sum())

    def trees(self, roots: Joined) -> tuple[np.ndarray, np.ndarray]:
        """Shortest paths from every root to all nodes; no path runs through another root.

        Returns:
            The distances of the nodes, infinite where no path leads to them, and the node before each on its path, -1
            where that is the root, both ``(k, m)``.
        """
        size, count = len(self.nodes), len(roots.points)
        own = np.repeat(np.arange(count), roots.nodes.shape[1])
        node, length = roots.nodes.flatten().cpu().numpy(), roots.lengths.flatten().cpu().numpy()
        _, kept = np.unique(own * size + node, return_index=True)  # an edge may be there twice
        kept = kept[np.isfinite(length[kept])]
        into = np.maximum(length[kept], np.finfo(length.dtype).tiny)
        edges = self._edges
        rows = np.concatenate([edges.indptr, edges.nnz + np.bincount(own[kept], minlength=count).cumsum()])
        entries = np.concatenate([edges.data, into]), np.concatenate([edges.indices, node[kept]]), rows
        graph = csr_matrix(entries, shape=(size + count, size + count))
        distance, previous = dijkstra(graph, indices=size + np.arange(count), return_predecessors=True)
        previous = previous[:, :size].astype(np.int64)
        return distance[:, :size], np.where((previous < 0) | (previous >= size), -1, previous)

    def shared_trees(self, z: Float[Tensor, "n d"]) -> SharedTrees:
        """Shortest paths from the nodes nearest to some points."""
        roots = np.unique(self._index.kneighbors(z.cpu().numpy(), 1, return_distance=False))
        distance, previous = dijkstra(self._edges, indices=roots, return_predecessors=True)
        return SharedTrees(distance, np.maximum(previous, -1))

    def polyline(self, path: np.ndarray) -> np.ndarray:
        """Vertices ``(v, d)`` along a path of nodes, those inside of its curved edges among them."""
        nodes = self._positions[path]
        keys = _keys(np.stack([path[:-1], path[1:]], axis=1), len(self.nodes))
        place = np.searchsorted(self._curved, keys)
        pieces: list[np.ndarray] = []
        done = 0
        for k in np.flatnonzero(self._curved[place] == keys):
            way = self._ways[place[k]]
            pieces += [nodes[done : k + 1], way if path[k] < path[k + 1] else way[::-1]]
            done = int(k) + 1
        return np.concatenate([*pieces, nodes[done:]])

    def _finite(self, z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d d"]]:
        """Those of the points where the metric is finite, and the metric there."""
        M = self._tensor(z)
        finite = M.isfinite().flatten(1).all(1)
        return z[finite], M[finite]

    def _tensor(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d d"]:
        if len(z) == 0:  # decoders that reshape raise on no rows
            return z.new_zeros(0, z.shape[1], z.shape[1])
        return torch.cat([self.metric.tensor(part) for part in z.split(_ROWS)])

    def _edges_between(self, a: Tensor, M: Tensor, b: Tensor, N: Tensor) -> Float[Tensor, " n"]:
        """Lengths of straight edges between points with metric tensors M and N."""
        return edge_lengths(self.metric, a, b, trapezoid(b - a, M, N), self._spacing).lengths

    def _neighbors(self, z: Float[Tensor, "n d"], M: Float[Tensor, "n d d"]) -> Int[Tensor, "n e"]:
        """Indices of the graph nodes to join to the points z: nearest by the metric, and nearest by Euclid."""
        near = torch.as_tensor(self._index.kneighbors(z.cpu().numpy(), return_distance=False), device=z.device)
        chosen = []
        for candidates, center, own in zip(near.split(_ROWS), z.split(_ROWS), M.split(_ROWS), strict=True):
            step = self.nodes[candidates] - center[:, None]
            lengths = trapezoid(step, own[:, None], self.tensors[candidates])
            by_metric = candidates.gather(1, lengths.argsort(1)[:, : self.num_neighbors + 1])
            chosen.append(torch.cat([by_metric, candidates[:, : self.num_neighbors // 2 + 1]], dim=1))
        return torch.cat(chosen)


def trapezoid(step: Float[Tensor, "*#n d"], M: Float[Tensor, "*#n d d"], N: Float[Tensor, "*#n d d"]) -> Tensor:
    """Length of a short straight step between points with metric tensors M and N."""
    start, end = (torch.einsum("...i,...ij,...j->...", step, m, step).clamp(min=0).sqrt() for m in (M, N))
    return (start + end) / 2


def _is_zero(M: Float[Tensor, "n d d"]) -> Bool[Tensor, " n"]:
    return (M == 0).flatten(1).all(1)


def _condition(M: Float[Tensor, "n d d"]) -> Float[Tensor, " n"]:
    """Condition numbers; infinite where the metric vanishes along some direction."""
    eigenvalues = torch.linalg.eigvalsh(M)
    return eigenvalues[:, -1] / eigenvalues[:, 0].clamp(min=0)


def _streamlines(
    tensor: Callable[[Tensor], Tensor],
    seeds: Float[Tensor, "n d"],
    seed_tensors: Float[Tensor, "n d d"],
    stretched: Bool[Tensor, " n"],
    index: NearestNeighbors,
) -> Streamlines:
    """Streamlines through the seeds where the metric is stretched, as far as they stay near the seeds."""
    d = seeds.shape[1]
    spacing = float(np.median(index.kneighbors(seeds.cpu().numpy(), 2)[0][:, 1]))
    # Nodes are so many times as many as seeds, and share the same space.
    step = spacing * (2 * _SIDE + 1) ** (-1 / d)
    stride = max(1, round(_REACH ** (1 / d)))
    lines = trace(tensor, seeds[stretched], seed_tensors[stretched], step, _SIDE * stride)
    if len(lines.points) == 0:
        return lines
    away = index.kneighbors(lines.points.flatten(0, 1).cpu().numpy())[0].reshape(lines.points.shape[:2])
    inside = lines.known & torch.as_tensor(away <= _MARGIN * spacing, device=seeds.device)
    middle = _SIDE * stride
    ahead = inside[:, middle:].long().cumprod(1)
    back = inside[:, : middle + 1].flip(1).long().cumprod(1).flip(1)
    return lines._replace(known=torch.cat([back, ahead[:, 1:]], dim=1).bool())


def _curved_edges(
    points: Float[Tensor, "n v d"], on_line: Bool[Tensor, "n p"], stride: int
) -> tuple[np.ndarray, Float[Tensor, "c w d"]]:
    """Edges along streamlines: pairs of nodes, and their vertices from the first to the second."""
    number = torch.full(on_line.shape, -1, device=on_line.device)
    number[on_line] = torch.arange(int(on_line.sum()), device=on_line.device)
    both = on_line[:, :-1] & on_line[:, 1:]
    pairs = torch.stack([number[:, :-1][both], number[:, 1:][both]], dim=1)
    pieces = points.unfold(1, stride + 1, stride).movedim(-1, 2)
    return pairs.cpu().numpy(), pieces[both]


def _neighbor_pairs(neighbors: Int[Tensor, "n e"]) -> np.ndarray:
    """Every pair of a node and a neighbor once, the smaller index first, none of a node with itself."""
    count = len(neighbors)
    own = np.arange(count).repeat(neighbors.shape[1])
    keys = np.unique(_keys(np.stack([own, neighbors.flatten().cpu().numpy()], axis=1), count))
    pairs = np.stack([keys // count, keys % count], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _keys(pairs: np.ndarray, count: int) -> np.ndarray:
    """One number per unordered pair of nodes."""
    return pairs.min(axis=1).astype(np.int64) * count + pairs.max(axis=1)
