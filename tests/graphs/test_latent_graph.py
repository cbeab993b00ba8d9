"""Streamlines of the cheapest direction, and a graph whose edges follow them."""

import math

import numpy as np
import pytest
import torch

from geodesics import FunctionMetric, GraphPaths, PullbackMetric
from geodesics.graphs.cover import cover
from geodesics.graphs.latent_graph import LatentGraph
from geodesics.graphs.streamlines import trace


def rings(z):
    """Uncertainty that depends on the radius alone, and steeply: circles are cheap, rays are dear."""
    return torch.cat([z, 30 * z.norm(dim=1, keepdim=True)], dim=1)


METRIC = PullbackMetric(rings)


def annulus(n=1500):
    rng = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(n, generator=rng, dtype=torch.float64)
    radius = 0.5 + torch.rand(n, generator=rng, dtype=torch.float64)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


@pytest.fixture(scope="module")
def graph():
    return LatentGraph(METRIC, annulus(), num_nodes=3000, num_neighbors=12, num_candidates=60, seed=0)


def test_streamlines_stay_on_level_sets():
    """On circles, to second order in the step: half the step, a quarter of the drift."""
    seeds = annulus(20)
    drift = []
    for step, count in ((0.05, 12), (0.025, 24)):
        lines = trace(METRIC.tensor, seeds, METRIC.tensor(seeds), step, count)
        assert lines.points.shape == (20, 2 * count + 1, 2)
        assert lines.known.all()
        torch.testing.assert_close(lines.points[:, count], seeds, rtol=0, atol=0)
        torch.testing.assert_close(lines.points.diff(dim=1).norm(dim=2), torch.full((20, 2 * count), step).double())
        torch.testing.assert_close(lines.tensors[3], METRIC.tensor(lines.points[3]))
        drift.append(float((lines.points.norm(dim=2) - seeds.norm(dim=1, keepdim=True)).abs().max()))
    assert drift[1] < 0.003
    assert drift[1] < drift[0] / 3
    # Both ways round: the ends are at opposite sides of the seed.
    ahead, back = lines.points[:, -1] - seeds, lines.points[:, 0] - seeds
    assert ((ahead * back).sum(1) < 0).all()


def test_a_streamline_ends_where_the_metric_does():
    """Not a number right of x = 0.3: one line stops there, and the others do not notice."""

    def tensor(z):
        form = torch.diag(torch.tensor([1.0, 100.0], dtype=z.dtype)).expand(len(z), 2, 2)
        return torch.where((z[:, 0] > 0.3)[:, None, None], torch.nan, form)

    seeds = torch.tensor([[0.0, 0.0], [-5.0, 1.0]], dtype=torch.float64)
    lines = trace(tensor, seeds, tensor(seeds), 0.1, 5)
    assert lines.known[1].all()
    inside = lines.points[0, :, 0] < 0.3 - 1e-9
    assert torch.equal(lines.known[0], inside)
    assert 5 < int(inside.sum()) < 11
    assert lines.points.isfinite().all()


def test_paths_follow_the_bends_that_straight_edges_cut(graph):
    """Quarter circles, on which a chord pays for its sagitta thirty times: 1.8 quarters with straight edges alone."""
    angle = torch.linspace(0, 2 * math.pi, 9, dtype=torch.float64)[:8]
    z = torch.stack([angle.cos(), angle.sin()], dim=1)
    paths = GraphPaths(METRIC, annulus(), num_nodes=3000)
    found = paths.distances(z)
    quarter = found[torch.arange(8), (torch.arange(8) + 2) % 8] / (math.pi / 2)
    assert (quarter > 0.99).all()
    assert (quarter < 1.6).all()
    assert float(quarter.median()) < 1.45


def test_curved_edges_are_on_circles_and_as_long(graph):
    key = graph._curved[:-1]
    a, b = graph.nodes[key // len(graph.nodes)], graph.nodes[key % len(graph.nodes)]
    ways = torch.as_tensor(graph._ways)
    assert len(ways) > 1000
    assert float((ways.norm(dim=2) - a.norm(dim=1, keepdim=True)).abs().max()) < 0.01
    whole = torch.cat([a[:, None], ways, b[:, None]], dim=1)
    arcs = whole.diff(dim=1).norm(dim=2).sum(1)
    weights = torch.as_tensor(np.asarray(graph._edges[key // len(graph.nodes), key % len(graph.nodes)]))[0]
    assert (weights >= arcs * (1 - 1e-9)).all()
    assert float((weights / arcs).median()) < 1.05
    chords = torch.linalg.norm(rings(b) - rings((a + b) / 2), dim=1) + torch.linalg.norm(
        rings(a) - rings((a + b) / 2), dim=1
    )
    assert float((weights / chords).median()) < 0.9


def test_a_polyline_has_the_vertices_of_its_curved_edges_in_order(graph):
    size = len(graph.nodes)
    key = int(graph._curved[5])
    i, j = key // size, key % size
    way = graph._ways[5]
    there = graph.polyline(np.array([i, j]))
    np.testing.assert_array_equal(there, np.concatenate([graph.nodes[[i]], way, graph.nodes[[j]]]))
    np.testing.assert_array_equal(graph.polyline(np.array([j, i])), there[::-1])
    np.testing.assert_array_equal(graph.polyline(np.array([i])), graph.nodes[[i]])
    assert graph.polyline(np.array([], dtype=np.int64)).shape == (0, 2)
    assert np.linalg.norm(np.diff(there, axis=0), axis=1).max() < 0.1


def test_an_isotropic_metric_gets_an_even_cover():
    """No direction is cheaper: the nodes are the cover, and no edge is curved."""
    z = annulus()
    graph = LatentGraph(PullbackMetric(lambda z: 3 * z), z, 800, 8, 30, 0)
    assert torch.equal(graph.nodes, cover(z, 800, 0))
    assert len(graph._ways) == 0


def test_no_generator_is_called_on_nothing():
    """No streamline and no curved edge in an isotropic metric: batches of no rows break decoders that reshape."""
    metric = PullbackMetric(lambda z: z.view(z.shape[0], 2, -1).flatten(1))
    assert len(LatentGraph(metric, annulus(100), 200, 6, 20, 0).nodes) > 50


def test_streamlines_run_only_where_a_direction_is_cheaper():
    """Stretched a hundred times along y right of x = 0.2, and not at all on the left."""

    def tensor(z):
        dear = torch.where(z[:, 0] > 0.2, 1e4, 1.0).to(z)
        return torch.diag_embed(torch.stack([torch.ones_like(dear), dear], dim=1))

    z = annulus()
    graph = LatentGraph(FunctionMetric(tensor), z, 2000, 8, 30, 0)
    key = graph._curved[:-1]
    starts, ends = graph.nodes[key // len(graph.nodes)], graph.nodes[key % len(graph.nodes)]
    assert len(key) > 300
    # Lines along x, each from a seed on the right, three nodes far at most.
    assert float((starts[:, 1] - ends[:, 1]).abs().max()) < 1e-9
    assert float(((starts + ends)[:, 0] / 2).min()) > -0.9
    left = graph.nodes[graph.nodes[:, 0] < -0.9]
    whole = cover(z, 2000, 0)
    expected = (whole[:, 0] < -0.9).sum()
    assert abs(len(left) - int(expected)) < 0.25 * int(expected)
    gaps = torch.cdist(left, left).fill_diagonal_(torch.inf).amin(1)
    assert float(gaps.min()) > 0.5 * float(gaps.median())


def test_work_is_counted():
    calls = 0

    def tensor(z):
        nonlocal calls
        calls += len(z)
        return torch.diag_embed(torch.stack([1 + 0 * z[:, 0], 400 + 0 * z[:, 0]], dim=1))

    graph = LatentGraph(FunctionMetric(tensor), annulus(200), 300, 6, 30, 0)
    # Lengths of edges of a metric without a generator come from its tensors at quadrature points.
    assert graph.jacobians < calls <= graph.jacobians + graph.values


def test_a_metric_that_is_finite_nowhere_is_refused():
    nowhere = FunctionMetric(lambda z: torch.full((len(z), 2, 2), torch.nan, dtype=z.dtype))
    with pytest.raises(ValueError, match="finite at fewer than 2 points of the cover"):
        GraphPaths(nowhere, annulus(50), num_nodes=40)
