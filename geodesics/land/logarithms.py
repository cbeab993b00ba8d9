"""Logarithms of data and nodes at the means of a LAND fit: along geodesics, or approximately, from trees on a graph."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import take
from geodesics.connecting.geodesic import Solver
from geodesics.connecting.moving_ends import MovingEnds
from geodesics.curves.initial import InitialCurves
from geodesics.graphs.latent_graph import Joined
from geodesics.graphs.tree_logarithms import GraphTrees
from geodesics.land.nodes import Nodes
from geodesics.metrics.metric import Metric


@runtime_checkable
class Logarithms(Protocol):
    """Logarithms at the means of some components, R of them."""

    def data(self, means: Float[Tensor, "r d"], rows: Int[Tensor, " r"]) -> Float[Tensor, "r n d"]:
        """Of the data; NaN where there is none, or it does not matter."""

    def nodes(self, means: Float[Tensor, "r d"], rows: Int[Tensor, " r"], nodes: Nodes) -> Float[Tensor, "r s d"]:
        """Of the components' nodes; NaN where there is none."""


class TreeLogarithms:
    """Approximate logarithms: as long as shortest paths on a graph, in the direction of their first edges.

    Args:
        trees: of the graph.
        z: data ``(n, d)``.
        joined: the components' nodes, joined to the graph, flat ``(K S, ...)``.
    """

    def __init__(self, trees: GraphTrees, z: Float[Tensor, "n d"], joined: Joined) -> None:
        self._trees, self._z, self._joined = trees, trees.graph.join(z), joined

    def data(self, means: Tensor, rows: Tensor) -> Tensor:
        """See `Logarithms`."""
        n, count = len(self._z.points), len(rows)
        every = torch.arange(n, device=means.device).repeat(count)
        return self._look(means, take(self._z, every), n)

    def nodes(self, means: Tensor, rows: Tensor, nodes: Nodes) -> Tensor:
        """See `Logarithms`."""
        size = nodes.points.shape[1]
        own = (rows[:, None] * size + torch.arange(size, device=means.device)).flatten()
        return self._look(means, take(self._joined, own), size)

    def _look(self, means: Tensor, targets: Joined, size: int) -> Tensor:
        base = torch.arange(len(means), device=means.device).repeat_interleave(size)
        return self._trees.logarithms(self._trees.grow(means), targets, base).view(len(means), size, -1)


class GeodesicLogarithms:
    """Logarithms along geodesics, each of which starts from the last one of its pair.

    Args:
        metric: the Riemannian metric.
        z: data ``(n, d)``.
        wanted: pairs of component and point that matter, ``(K, n)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: as in `geodesic`.
    """

    def __init__(
        self,
        metric: Metric,
        z: Float[Tensor, "n d"],
        wanted: Bool[Tensor, "k n"],
        solver: Solver | None,
        initial: InitialCurves | None,
        chunk_size: int | None,
    ) -> None:
        self._z, self._wanted = z, wanted
        self._settings = (solver, initial, chunk_size)
        self._metric = metric
        self._data_ends = MovingEnds(metric, wanted.numel(), z, *self._settings)
        self._node_ends: MovingEnds | None = None
        self._known: Nodes | None = None
        self._earlier = 0

    @property
    def solved(self) -> int:
        """Geodesics solved so far."""
        return self._data_ends.solved + self._earlier + (0 if self._node_ends is None else self._node_ends.solved)

    def data(self, means: Tensor, rows: Tensor) -> Tensor:
        """See `Logarithms`."""
        k, i = self._wanted[rows].nonzero(as_tuple=True)
        found = self._data_ends.logarithms(rows[k] * len(self._z) + i, means[k], self._z[i])
        v = means.new_full((len(rows), *self._z.shape), torch.nan)
        v[k, i] = found.vectors
        return v

    def nodes(self, means: Tensor, rows: Tensor, nodes: Nodes) -> Tensor:
        """See `Logarithms`."""
        count, size, d = nodes.points.shape
        if self._node_ends is None or nodes is not self._known:
            self._earlier += 0 if self._node_ends is None else self._node_ends.solved
            self._node_ends, self._known = MovingEnds(self._metric, count * size, means, *self._settings), nodes
        pairs = rows[:, None] * size + torch.arange(size, device=means.device)
        base = means.repeat_interleave(size, 0)
        found = self._node_ends.logarithms(pairs.flatten(), base, nodes.points[rows].view(-1, d))
        return found.vectors.view(-1, size, d)
