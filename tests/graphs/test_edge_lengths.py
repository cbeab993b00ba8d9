"""Edges of a graph, measured as finely as they need: exact lengths by quadrature, waves and walls between the ends."""

import numpy as np
import pytest
import torch
from problems import half_plane_tensor
from scipy.integrate import quad

from geodesics import FunctionMetric, GraphPaths, PullbackMetric
from geodesics.graphs.edge_lengths import edge_lengths
from geodesics.graphs.latent_graph import trapezoid


def waves(z):
    """A product of two curves, so flat: distances are those of the arcs."""
    return torch.cat([z, 0.5 * (2 * z).sin()], dim=1)


def arc(x):
    return quad(lambda u: (1 + np.cos(2 * u) ** 2) ** 0.5, 0, x, limit=5000)[0]


WAVES = PullbackMetric(waves)
HALF_PLANE = FunctionMetric(half_plane_tensor)


def measured(metric, start, end, spacing):
    by_speeds = trapezoid(end - start, metric.tensor(start), metric.tensor(end))
    return edge_lengths(metric, start, end, by_speeds, spacing)


@pytest.mark.parametrize("extent", [0.3, 3.0, 30.0, 300.0])
def test_long_edges_do_not_leap_over_waves(extent, normal):
    start = normal(30, 2)
    end = start + torch.tensor([extent, 0.0], dtype=torch.float64)
    exact = torch.tensor([arc(float(b)) - arc(float(a)) for a, b in zip(start[:, 0], end[:, 0], strict=True)])
    torch.testing.assert_close(measured(WAVES, start, end, 0.1).lengths, exact.double(), rtol=0.02, atol=0)


def test_edges_of_a_tensor_field(normal):
    """Vertical lines of the half-plane: log(y1 / y0), over five decades."""
    start = torch.stack([normal(20), torch.linspace(0.01, 1, 20, dtype=torch.float64)], dim=1)
    end = start * torch.tensor([1.0, 1.0], dtype=torch.float64)
    end[:, 1] = 100 * start[:, 1] ** 2 + 1
    lengths = measured(HALF_PLANE, start, end, 0.05).lengths
    torch.testing.assert_close(lengths, (end[:, 1] / start[:, 1]).log(), rtol=0.02, atol=0)


def test_a_wall_inside_a_short_edge_is_seen():
    """Speed 1 at both ends, and thirty times as much on the way: the halves meet on top of it."""
    metric = PullbackMetric(lambda z: torch.cat([z, 3 * torch.exp(-100 * z[:, :1] ** 2)], dim=1))
    start, end = (torch.tensor([[x, 0.0]], dtype=torch.float64) for x in (-0.6, 0.7))
    edge = measured(metric, start, end, 1.3)
    exact = quad(lambda x: (1 + (600 * x * np.exp(-100 * x * x)) ** 2) ** 0.5, -0.6, 0.7, points=[0.0], limit=500)[0]
    assert float(edge.lengths[0]) == pytest.approx(exact, rel=0.02)
    assert edge.values > 3


def test_no_edge_depends_on_its_batch(normal):
    start, end = normal(40, 2), normal(40, 2) * torch.logspace(-2, 2, 40, dtype=torch.float64)[:, None]
    end[5] = torch.nan
    order = torch.randperm(40)
    together = measured(WAVES, start, end, 0.2).lengths
    torch.testing.assert_close(
        measured(WAVES, start[order], end[order], 0.2).lengths, together[order], rtol=1e-13, atol=0
    )
    for i in (0, 5, 20, 39):
        alone = measured(WAVES, start[i : i + 1], end[i : i + 1], 0.2).lengths
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-13, atol=0)
    assert together[5].isinf()


def test_graph_distances_are_not_below_the_exact_ones_however_long_an_edge(normal):
    """Two groups far apart, copies of one point, and an outlier far from all."""
    near = 0.05 * normal(100, 2)
    outlier = torch.tensor([[200.0, -120.0]], dtype=torch.float64)
    z = torch.cat([near, near + 20.0, near[:1].expand(30, -1), outlier])
    points = z[[0, 1, 2, 100, 101, 230]]
    arcs = torch.tensor([[arc(float(x)) for x in row] for row in points], dtype=torch.float64)
    exact = (arcs[:, None] - arcs).norm(dim=-1)
    D = GraphPaths(WAVES, z, num_nodes=600, num_paths=1).distances(points)
    off = ~torch.eye(6, dtype=torch.bool)
    assert (D[off] >= 0.98 * exact[off]).all()
    assert (D[:3, 3:5] <= 1.1 * exact[:3, 3:5]).all()


def test_equal_points_are_at_distance_zero_and_near_ones_near(normal):
    metric = PullbackMetric(waves)
    z = normal(60, 2)
    graph = GraphPaths(metric, z, num_nodes=200, num_paths=1)
    step = 1e-4 * normal(3, 2)
    points = torch.cat([z[:3], z[:3], z[:3] + step])
    D = graph.distances(points)
    assert torch.equal(D, D.mT)
    i = torch.arange(3)
    assert (D[i, i + 3] == 0).all()
    assert (D.diagonal() == 0).all()
    torch.testing.assert_close(D[i, i + 6], metric.norm(z[:3], step), rtol=1e-3, atol=0)
    order = torch.randperm(9)
    torch.testing.assert_close(graph.distances(points[order]), D[order][:, order], rtol=1e-12, atol=1e-15)
    assert graph.distances(points[:1]).tolist() == [[0.0]]


def test_a_decoder_that_only_names_a_half_of_the_plane_is_refused(normal):
    """It has no derivative: its metric would be zero, and join points at distance zero."""
    metric = PullbackMetric(lambda z: torch.cat([z > 0, z <= 0], dim=1).to(z))
    with pytest.raises(ValueError, match=r"generator .* drops"):
        GraphPaths(metric, normal(60, 2), num_nodes=100, num_paths=1)


def test_a_metric_that_is_zero_is_told_and_joins_no_near_points(normal):
    """A tensor field that is zero everywhere."""
    metric = FunctionMetric(lambda z: 0 * torch.einsum("bi,bj->bij", z, z))
    z = normal(60, 2)
    with pytest.warns(UserWarning, match=r"the metric is zero at (\d+) of \1 nodes"):
        graph = GraphPaths(metric, z, num_nodes=100, num_paths=1)
    D = graph.distances(z[:8])
    assert ((D == 0) == torch.eye(8, dtype=torch.bool)).all()
