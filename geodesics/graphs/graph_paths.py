"""Initial curves from shortest paths on a graph of latent points: the cure for local minima.

From a straight line, minima 1-40 % too long are usual on learned metrics. A graph of the data's region, weighted by
Riemannian length, gives starts in the right valleys, and alternatives to them.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_ends,
    check_finite,
    check_fits,
    check_metric,
    check_points,
    check_seed,
)
from geodesics.curves.curve import Curve
from geodesics.curves.initial import straight
from geodesics.graphs.detours import Tree, alternatives
from geodesics.graphs.latent_graph import LatentGraph
from geodesics.graphs.shared_trees import SharedTrees
from geodesics.metrics.metric import Metric

# Shortest-path trees are computed for this many end points at a time, a bound on memory.
_SOURCES = 128
_VERTICES = 257
# Other points that a point is joined to directly, at most.
_NEAR = 16


class GraphPaths:
    """Shortest paths on a dense graph of latent points.

    Nodes cover the data's region and a margin round it. Where some direction is much cheaper than another they lie on
    its streamlines, short pieces of level sets of the uncertainty, with curved edges along them. Every node is also
    joined to those that are nearest to it by the metric among many candidates. Alternatives to the shortest path take
    its sensible detours, as many as fit into one path (`geodesics.graphs.detours`).

    The graph is built once; a problem's paths do not depend on the other problems of a call.

    Args:
        metric: the Riemannian metric.
        latents: latent points, usually the encoded data, ``(n, d)``.
        num_nodes: about how many nodes the graph gets.
        num_neighbors: neighbors by the metric joined to every node; half as many Euclidean ones come on top.
        num_candidates: Euclidean neighbors among which those are chosen.
        num_paths: paths per problem. Where they are several, the straight line comes on top: it costs next to
            nothing where it is hopeless, and a graph too coarse for the metric is no better.
        num_trees: None grows the trees of shortest paths that a problem needs. A number grows as many beforehand, from
            nodes amid the latents, and looks for paths in these: for many problems with one path each, where a path
            that is no shortest one now and then will do.
        seed: of the nodes.

    Attributes:
        graph: the graph.
        nodes: its nodes, ``(m, d)``.
        jacobians: points at which the metric tensor was computed to build it.
        values: points at which the generator's value was computed to build it.

    Raises:
        ValueError: when latents is not ``(n, d)`` and finite with n >= 2, a number is below 1, num_trees is given for
            several paths, or the metric is finite nowhere.
    """

    def __init__(
        self,
        metric: Metric,
        latents: Float[Tensor, "n d"],
        *,
        num_nodes: int = 40000,
        num_neighbors: int = 12,
        num_candidates: int = 60,
        num_paths: int = 3,
        num_trees: int | None = None,
        seed: int = 0,
    ) -> None:
        check_metric(metric)
        check_points("latents", latents, least=2)
        check_finite("latents", latents)
        numbers = {"num_nodes": num_nodes, "num_neighbors": num_neighbors, "num_candidates": num_candidates}
        for name, value in (*numbers.items(), ("num_paths", num_paths), ("num_trees", num_trees)):
            if value is not None or name != "num_trees":
                check_count(name, value)
        if num_trees is not None and num_paths > 1:
            raise ValueError(f"num_trees is for num_paths=1; got num_paths={num_paths}")
        check_seed(seed)
        check_fits(metric, latents)
        self.num_paths = num_paths
        with torch.no_grad():
            self.graph = LatentGraph(metric, latents.detach(), **numbers, seed=seed)
        if zero := self.graph.num_zero:
            warnings.warn(
                f"the metric is zero at {zero} of {len(self.graph.nodes)} nodes: does the decoder drop its "
                "derivatives? Lengths there mean nothing",
                stacklevel=2,
            )
        self._shared: SharedTrees | None = None
        if num_trees is not None:
            some = np.random.default_rng(seed).choice(len(latents), min(num_trees, len(latents)), replace=False)
            self._shared = self.graph.shared_trees(latents[some])
        self.nodes, self.jacobians, self.values = self.graph.nodes, self.graph.jacobians, self.graph.values

    def __call__(self, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> list[Curve]:
        """Batches of polylines from z0 to z1, num_paths of them, and the straight lines where that is more than one.

        Problems with fewer alternatives repeat the last of them.
        """
        self._check_fits("z0", z0)
        check_ends(z0, z1)
        if len(z0) == 0:
            nothing = Curve(z0.new_zeros(0, _VERTICES, z0.shape[1]))
            return [nothing] * (self.num_paths + (self.num_paths > 1))
        ends, which = torch.unique(torch.cat([z0, z1]), dim=0, return_inverse=True)
        with torch.no_grad():
            joined = self.graph.join(ends)
        edges = joined.nodes.cpu().numpy(), joined.lengths.cpu().numpy()
        first, second = which.cpu().numpy().reshape(2, -1)
        if self._shared is not None:
            starts, stops = z0.cpu().numpy(), z1.cpu().numpy()
            found = zip(starts, stops, self._shared.paths(*edges, first, second), strict=True)
            ways = [np.concatenate([a[None], self.graph.polyline(nodes), b[None]]) for a, b, nodes in found]
            return [Curve(torch.as_tensor(np.stack([resample(way, _VERTICES) for way in ways])).to(z0))]
        positions = torch.cat([self.graph.nodes, ends]).cpu().numpy()
        polylines: list[list[np.ndarray]] = [[] for _ in range(self.num_paths)]
        for rows in np.array_split(np.arange(len(z0)), -(-len(z0) // _SOURCES)):
            # Alternatives take the trees of both ends, one path that of the first.
            roots = np.unique(np.concatenate([first[rows], second[rows]]) if self.num_paths > 1 else first[rows])
            distance, previous = self.graph.trees(joined.take(roots))
            tree = {int(root): row for row, root in enumerate(roots)}
            for i, j in np.stack([first[rows], second[rows]], axis=1).astype(int):
                source, target = len(self.nodes) + int(i), len(self.nodes) + int(j)
                there = self._closed(distance[tree[i]], previous[tree[i]], edges, source, target)
                back = None
                if self.num_paths > 1:
                    back = self._closed(distance[tree[j]], previous[tree[j]], edges, target, source)
                paths = alternatives(positions, there, back, source, target, self.num_paths)
                for s in range(self.num_paths):
                    path = paths[min(s, len(paths) - 1)]
                    way = [positions[path[:1]], self.graph.polyline(path[1:-1]), positions[path[-1:]]]
                    polylines[s].append(resample(np.concatenate(way), _VERTICES))
        curves = [Curve(torch.as_tensor(np.stack(lines)).to(z0)) for lines in polylines]
        if self.num_paths > 1:
            t = torch.linspace(0, 1, _VERTICES, dtype=z0.dtype, device=z0.device)
            curves.append(Curve(straight(z0, z1).evaluate(t)))
        return curves

    def distances(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
        """Lengths of shortest paths on the graph between all pairs of n points: `distance_matrix` at a glance.

        Every value is the length of a curve, up to quadrature along edges, so it bounds the distance from above; how
        closely, the number of nodes decides. No value is below the distance by more than 2 % of it, however long an
        edge: edges are measured the finer the longer they are, and the more the metric changes along them (a wall
        thinner than a graph's edge and than its 4,096th part may be missed). One shortest-path tree per point instead
        of one geodesic per pair; points nearer to one another than to some of their graph nodes are joined directly.
        Equal points are at distance zero. Where the metric is zero, as of a decoder that drops its derivatives, lengths
        mean nothing; the class warns of it when it is built.

        Args:
            z: points ``(n, d)``, finite.

        Returns:
            Symmetric ``(n, n)`` with a zero diagonal, in the metric's unit; infinite where no path exists.

        Raises:
            ValueError: when z is not ``(n, d)`` of the nodes' dimension, or not finite.
        """
        self._check_fits("z", z)
        check_finite("z", z)
        if len(z) == 0:
            return z.new_zeros(0, 0)
        z, which = torch.unique(z, dim=0, return_inverse=True)
        joined = self.graph.join(z)
        nodes, edges = joined.nodes.cpu().numpy(), joined.lengths.cpu().numpy()
        rows = []
        for points in np.array_split(np.arange(len(z)), -(-len(z) // _SOURCES)):
            distance, _ = self.graph.trees(joined.take(points))
            rows += [(row[nodes] + edges).min(1) for row in distance]
        lengths = torch.as_tensor(np.stack(rows)).to(z)
        i, j = self._near_pairs(z, joined.reach)
        lengths[i, j] = lengths[i, j].minimum(self.graph.direct(joined, i, j))
        lengths.fill_diagonal_(0.0)
        # Both trees hold the same path, its edges added up in two orders.
        return lengths.minimum(lengths.mT)[which][:, which]

    def _near_pairs(self, z: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of points that are nearer to each other than the first is to some of its graph nodes."""
        count = min(_NEAR + 1, len(z))
        positions = z.cpu().numpy()
        away, near = NearestNeighbors(n_neighbors=count).fit(positions).kneighbors(positions)
        near, away = (torch.as_tensor(x, device=z.device) for x in (near, away))
        own = torch.arange(len(z), device=z.device)[:, None]
        i, place = ((away <= reach[:, None]) & (near != own)).nonzero(as_tuple=True)
        return i, near[i, place]

    def _check_fits(self, name: str, z: Tensor) -> None:
        """Raise unless the points are of the nodes' dimension, dtype and device."""
        check_points(name, z)
        like = self.nodes
        if z.shape[1] != like.shape[1]:
            raise ValueError(f"{name} must be (n, {like.shape[1]}) as the latents; got {tuple(z.shape)}")
        if z.dtype != like.dtype or z.device != like.device:
            raise ValueError(
                f"{name} must be {like.dtype} on {like.device} as the latents; got {z.dtype} on {z.device}"
            )

    def _closed(
        self,
        distance: np.ndarray,
        previous: np.ndarray,
        edges: tuple[np.ndarray, np.ndarray],
        root: int,
        end: int,
    ) -> Tree:
        """The tree of a root with that root and one end point added, at their places after the nodes.

        Args:
            distance, previous: the tree, as `LatentGraph.trees` gives it.
            edges: nodes that the end points are joined to, and lengths of the edges, ``(E, e)`` both.
            root, end: two of the end points.
        """
        count = len(edges[0])
        distance = np.concatenate([distance, np.full(count, np.inf)])
        previous = np.concatenate([np.where(previous < 0, root, previous), np.full(count, -1)])
        previous[np.isinf(distance)] = -1
        nodes, lengths = (x[end - len(self.nodes)] for x in edges)
        through = distance[nodes] + lengths
        nearest = through.argmin()
        distance[root], distance[end] = 0.0, through[nearest]
        previous[end] = nodes[nearest] if np.isfinite(through[nearest]) else -1
        return Tree(distance, previous)


def resample(path: np.ndarray, vertices: int) -> np.ndarray:
    """A polyline of a fixed number of vertices, at equal Euclidean steps."""
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    t = np.linspace(0, arc[-1], vertices)
    return np.stack([np.interp(t, arc, x) for x in path.T], axis=1)
