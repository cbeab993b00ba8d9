"""Short paths on a graph in trees that are there already: for many problems with ends of their own.

A tree of shortest paths from a node holds a path between any two others, through the last node that their ways to the
root have in common. With some hundred trees from nodes amid the data, the shortest of these is a shortest path of the
graph for most pairs, and seldom longer by much; it costs a look at the ends instead of a tree. Distances through a
landmark bound those on road networks in the same way (Goldberg and Harrelson 2005, "Computing the shortest path: A*
search meets graph theory").
"""

from collections.abc import Iterator

import numpy as np

# Trees that are walked for a problem, the nearest roots first.
_WALKED = 4
# Problems looked at together, a bound on memory.
_ROWS = 128


class SharedTrees:
    """Trees of shortest paths from some nodes of a graph.

    Args:
        distance: of the nodes from the roots, infinite where no path leads, ``(k, m)``.
        previous: the node before each on its path, -1 at the root, ``(k, m)``.
    """

    def __init__(self, distance: np.ndarray, previous: np.ndarray) -> None:
        self._distance, self._previous = distance, previous

    def paths(
        self, nodes: np.ndarray, lengths: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Nodes of the paths between pairs of points, one array per pair, empty where no tree reaches both, and where
        both are the same point.

        Args:
            nodes: that every point is joined to, ``(n, e)``.
            lengths: of these edges, infinite where there is none, ``(n, e)``.
            first, second: the points of each pair, ``(b,)``.
        """
        for rows in np.array_split(np.arange(len(first)), -(-len(first) // _ROWS)):
            (to_first, at_first), (to_second, at_second) = (
                self._reach(nodes[points], lengths[points]) for points in (first[rows], second[rows])
            )
            through = np.where(first[rows] == second[rows], np.inf, to_first + to_second)
            roots = through.argsort(0, kind="stable")[:_WALKED]
            for i, nearest in enumerate(roots.T):
                yield self._shortest(through[:, i], at_first[:, i], at_second[:, i], nearest)

    def _reach(self, nodes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances of b points from the roots, and the node that each path comes by, ``(k, b)`` both."""
        through = self._distance[:, nodes] + lengths
        best = through.argmin(2)[..., None]
        by = np.take_along_axis(np.broadcast_to(nodes, through.shape), best, 2)
        return np.take_along_axis(through, best, 2)[..., 0], by[..., 0]

    def _shortest(self, through: np.ndarray, start: np.ndarray, end: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """The shortest of the paths from node ``start[k]`` to ``end[k]`` in the trees k of some roots."""
        shortest, found = np.inf, np.zeros(0, dtype=np.int64)
        for k in map(int, roots[np.isfinite(through[roots])]):
            there, back = (_to_root(self._previous[k], int(node)) for node in (start[k], end[k]))
            common = there[-1]
            while there and back and there[-1] == back[-1]:
                common = there.pop()
                back.pop()
            length = float(through[k] - 2 * self._distance[k, common])
            if length < shortest:
                shortest, found = length, np.array([*there, common, *back[::-1]])
        return found


def _to_root(previous: np.ndarray, node: int) -> list[int]:
    """The nodes of a path, from its end to the root."""
    way = []
    while node >= 0:
        way.append(node)
        node = int(previous[node])
    return way
