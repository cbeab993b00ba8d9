"""Detours from a shortest path, on graphs drawn by hand."""

from itertools import pairwise

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from geodesics.graphs.detours import Tree, alternatives


def street(*excess: float, blocks: int = 6):
    """A straight road of nodes 0, 1, ..., with one loop road of so much more length per section of ``blocks`` edges.

    Section i has its loop on the side y = +1 or -1 in turns; a loop has as many inner nodes as its section.
    """
    count = blocks * len(excess) + 1
    positions = [(x, 0.0) for x in range(count)]
    edges = [(x, x + 1, 1.0) for x in range(count - 1)]
    for section, more in enumerate(excess):
        first, side = section * blocks, 1 - 2 * (section % 2)
        loop = [first, *range(len(positions), len(positions) + blocks - 1), first + blocks]
        positions += [(first + i, side) for i in range(1, blocks)]
        edges += [(a, b, (1 + more)) for a, b in pairwise(loop)]
    return np.array(positions, dtype=float), edges, count - 1


def paths(positions, edges, source, target, count):
    a, b, w = (np.array(column) for column in zip(*edges, strict=True))
    size = len(positions)
    graph = coo_matrix((w, (a.astype(int), b.astype(int))), shape=(size, size)).tocsr()
    distance, previous = dijkstra(graph, directed=False, indices=[source, target], return_predecessors=True)
    trees = (Tree(distance[i], previous[i]) for i in range(2))
    return alternatives(positions, *trees, source, target, count)


def lengths(found, edges):
    weight = {frozenset((a, b)): w for a, b, w in edges}
    return [sum(weight[frozenset((int(a), int(b)))] for a, b in pairwise(p)) for p in found]


def test_one_path_takes_all_detours_that_do_not_overlap():
    positions, edges, last = street(0.05, 0.1, 0.2)
    found = paths(positions, edges, 0, last, 3)
    assert len(found) == 2
    assert found[0].tolist() == list(range(last + 1))
    # 18 edges, each a detour's.
    np.testing.assert_allclose(lengths(found, edges), [18, 6 * (1.05 + 1.1 + 1.2)])
    assert [path[0] for path in found] == [0, 0]
    assert [path[-1] for path in found] == [last, last]


def test_detours_too_long_or_too_near_are_left_out():
    positions, edges, last = street(0.05, 0.4, 0.1)
    positions[positions[:, 1] > 0, 1] *= 0.01  # the first and the third run along the road
    assert len(paths(positions, edges, 0, last, 3)) == 1
    positions, edges, last = street(0.05, 0.4, 0.1)
    found = paths(positions, edges, 0, last, 3)
    np.testing.assert_allclose(lengths(found, edges), [18, 6 * (1.05 + 1 + 1.1)])


def test_detours_of_one_section_go_into_paths_of_their_own():
    positions, edges, last = street(0.05)
    loop = [0, *range(len(positions), len(positions) + 5), 6]
    positions = np.concatenate([positions, [(i, -2.0) for i in range(1, 6)]])
    edges = edges + [(a, b, 1.1) for a, b in pairwise(loop)]
    found = paths(positions, edges, 0, last, 3)
    np.testing.assert_allclose(lengths(found, edges), [6, 6.3, 6.6])
    assert len(paths(positions, edges, 0, last, 2)) == 2
    assert len(paths(positions, edges, 0, last, 1)) == 1


def test_without_a_way_the_ends_are_joined():
    positions = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert [path.tolist() for path in paths(positions, [(0, 1, 1.0)], 0, 2, 3)] == [[0, 2]]
