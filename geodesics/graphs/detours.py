"""Alternatives to a shortest path on a graph: detours, and paths that take several of them at once.

Where a chain of edges lies both in the tree of shortest paths from one end and in that from the other, the way through
it is locally a shortest path. Such plateaus are the sensible alternatives of route planning (Abraham, Delling, Goldberg
and Werneck 2013, "Alternative routes in road networks", who credit the method to Cambridge Vehicle Information
Technology). Each stands for a detour: it leaves the shortest path at one node and comes back at another. Detours that
do not overlap go into one path, for the minimizer puts the best pieces of all its curves together.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

# A detour is longer than what it replaces by this factor at most: lengths on the graph are rough.
_STRETCH = 1.25
# It is off the shortest path by this share of its Euclidean length at least,
_OFF = 0.02
# and its plateau is this share of the detour at least.
_PLATEAU = 0.15
# Of the detours of one path, one that shares more than this share of its nodes with another is the same.
_SHARED = 0.5


class Tree(NamedTuple):
    """Shortest paths from one node: the distance of every node, and the node before it, negative for none."""

    distance: np.ndarray
    previous: np.ndarray

    def path(self, node: int) -> np.ndarray:
        """Nodes from the root to a node."""
        path = [node]
        while self.previous[path[-1]] >= 0:
            path.append(self.previous[path[-1]])
        return np.array(path[::-1])


class Detour(NamedTuple):
    """Nodes that replace those of the shortest path from its ``first``-th to its ``last``-th."""

    stretch: float
    first: int
    last: int
    nodes: np.ndarray


def alternatives(
    positions: np.ndarray, from_source: Tree, from_target: Tree | None, source: int, target: int, count: int
) -> list[np.ndarray]:
    """The shortest path, and up to ``count - 1`` paths of detours, as node indices.

    Args:
        positions: of the nodes, ``(n, d)``.
        from_source, from_target: trees of shortest paths from both ends; one path needs only the first.
        source, target: the ends.
        count: paths wanted.
    """
    if source == target or not np.isfinite(from_source.distance[target]):
        return [np.array([source, target])]  # no way, or no way through the graph: the straight line
    shortest = from_source.path(target)
    if count == 1 or from_target is None:
        return [shortest]
    rows: list[list[Detour]] = [[] for _ in range(count - 1)]
    for detour in _detours(positions, from_source, from_target, shortest):
        for row in rows:
            if all(detour.first >= other.last or detour.last <= other.first for other in row):
                row.append(detour)
                break
            if any(_is_same(detour, other) for other in row):
                break
    return [shortest, *(_taking(shortest, row) for row in rows if row)]


def _detours(positions: np.ndarray, from_source: Tree, from_target: Tree, shortest: np.ndarray) -> list[Detour]:
    """All detours worth a look, the least stretched first."""
    rank = np.full(len(positions), -1)
    rank[shortest] = np.arange(len(shortest))
    everyone = np.arange(len(positions))
    before = np.where(from_source.previous >= 0, from_source.previous, everyone)
    after = np.where(from_target.previous >= 0, from_target.previous, everyone)
    linked = (before != everyone) & (after[before] == everyone)
    head = _last(np.where(linked, before, everyone))
    # Length of a plateau from its head to each of its nodes; its own length is the largest.
    known = everyone[np.isfinite(from_source.distance)]
    length = np.zeros(len(positions))
    np.maximum.at(length, head[known], from_source.distance[known] - from_source.distance[head[known]])
    leaves = rank[_last(np.where(rank >= 0, everyone, before))]
    comes = rank[_last(np.where(rank >= 0, everyone, after))]
    through = from_source.distance + from_target.distance
    whole = from_source.distance[shortest[-1]]
    usable = (head == everyone) & (rank < 0) & np.isfinite(through) & (leaves >= 0) & (comes > leaves)
    heads = everyone[usable]
    along = from_source.distance[shortest]
    replaced = along[comes[heads]] - along[leaves[heads]]
    own = through[heads] - whole + replaced
    good = (own <= _STRETCH * replaced) & (length[heads] >= _PLATEAU * own)
    heads, stretch = heads[good], own[good] / replaced[good]
    on_plateau = np.isin(head, heads)
    off = np.zeros(len(positions))
    extent = np.linalg.norm(np.diff(positions[shortest], axis=0), axis=1).sum()
    if on_plateau.any():
        np.maximum.at(off, head[on_plateau], cKDTree(positions[shortest]).query(positions[on_plateau])[0])
    found = []
    for i in np.argsort(stretch, kind="stable"):
        node = int(heads[i])
        if off[node] >= _OFF * extent:
            first, last = int(leaves[node]), int(comes[node])
            there, back = from_source.path(node), from_target.path(node)[::-1]
            nodes = np.concatenate([there[list(there).index(shortest[first]) :], back[1:]])
            found.append(Detour(float(stretch[i]), first, last, nodes[: list(nodes).index(shortest[last]) + 1]))
    return found


def _last(following: np.ndarray) -> np.ndarray:
    """Where every node ends when it goes to the following one again and again; ends follow themselves."""
    while True:
        further = following[following]
        if np.array_equal(further, following):
            return following
        following = further


def _is_same(one: Detour, other: Detour) -> bool:
    return len(np.intersect1d(one.nodes, other.nodes)) > _SHARED * min(len(one.nodes), len(other.nodes))


def _taking(shortest: np.ndarray, detours: list[Detour]) -> np.ndarray:
    """The shortest path with all of its detours that do not overlap."""
    path, done = [], 0
    for detour in sorted(detours, key=lambda one: one.first):
        path += [shortest[done : detour.first], detour.nodes[:-1]]
        done = detour.last
    return np.concatenate([*path, shortest[done:]])
