"""The best of several curves, piece by piece."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from geodesics import Curve, PullbackMetric, geodesic
from geodesics.minimization.recombination import recombine

FLAT = PullbackMetric(lambda z: z)


def measured(vertices: Tensor) -> Tensor:
    """Lengths between the vertices in flat space."""
    return vertices.diff(dim=-2).norm(dim=-1)


def bows(*heights: float, count: int = 101) -> Tensor:
    """A curve from (0, 0) along the x axis that leaves it in unit intervals by so much, ``(k, 2)``."""
    x = torch.linspace(0, len(heights), count * len(heights) - len(heights) + 1, dtype=torch.float64)
    height = torch.tensor(heights, dtype=torch.float64)[x.long().clamp(max=len(heights) - 1)]
    return torch.stack([x, height * (torch.pi * x).sin().square()], dim=1)


def test_of_two_curves_each_gives_its_better_part():
    one, other = bows(0, 1, 0), bows(1, 0, 0)
    points = torch.stack([one, other])[:, None]
    found = recombine(FLAT, points, measured(points))
    assert float(measured(found.curve.points).sum()) == pytest.approx(3, rel=1e-9)
    torch.testing.assert_close(found.curve.points[0, [0, -1]], one[[0, -1]])
    assert int(found.values) > 0


def test_a_way_may_change_several_times():
    """Five parts, three curves, each best in some of them only."""
    points = torch.stack([bows(0, 1, 1, 1, 0), bows(1, 0, 1, 0, 1), bows(-1, -1, 0, -1, -1)])[:, None]
    found = recombine(FLAT, points, measured(points))
    assert float(measured(found.curve.points).sum()) == pytest.approx(5, rel=1e-9)


def test_curves_that_never_meet_inside_are_taken_whole():
    points = torch.stack([bows(0.8), bows(-0.5), bows(1.0)])[:, None]
    found = recombine(FLAT, points, measured(points))
    assert found.start.tolist() == [1]
    assert float(measured(found.curve.points).sum()) == pytest.approx(float(measured(points[1]).sum()), rel=1e-12)


def test_no_generator_is_called_on_nothing():
    """Curves that never meet, and a start too long to be tried: batches of no rows break decoders that reshape."""

    def reshaping(z):
        return z.view(z.shape[0], 2, -1).flatten(1)

    metric = PullbackMetric(reshaping)
    points = torch.stack([bows(0.8), bows(-0.5)])[:, None]
    assert recombine(metric, points, measured(points)).start.tolist() == [1]
    z0, z1 = points[0, :, 0], points[0, :, -1]
    far = Curve(torch.stack([z0, z0 + 50, z0 - 50, z1 + 50, z1], dim=1))
    near = Curve(torch.stack([z0, z1], dim=1))
    assert float(geodesic(metric, z0, z1, initial=lambda a, b: [near, far]).length) == pytest.approx(1)


def test_no_step_across_a_wall():
    """A narrow ridge between two curves 0.02 apart: stepping over costs more than it saves."""
    metric = PullbackMetric(lambda z: torch.cat([z, 5 * torch.exp(-((z[:, 1:] / 0.003) ** 2))], dim=1))
    one, other = bows(0, 1), bows(1, 0)
    one[:, 1] += 0.01 * (torch.pi * one[:, 0] / 2).sin()
    other[:, 1] = -other[:, 1] - 0.01 * (torch.pi * other[:, 0] / 2).sin()
    points = torch.stack([one, other])[:, None]
    free, walled = (recombine(m, points, measured(points)) for m in (FLAT, metric))
    assert float(measured(free.curve.points).sum()) < 2.1
    assert float(measured(walled.curve.points).sum()) == pytest.approx(float(measured(points).sum(2).min()), rel=1e-12)


def wiggles(normal, starts, problems, count=200):
    """Random smooth curves between common ends ``(S, B, k, 2)``, which cross one another many times."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    waves = torch.stack([(torch.pi * n * t).sin() / n for n in range(1, 9)])
    y = 0.2 * normal(starts, problems, 8) @ waves
    return torch.stack([t.expand_as(y), y], dim=-1)


def test_the_same_as_dijkstra(normal):
    """On the graph of all pieces and all short steps to a nearest vertex, of which the library looks at the best."""
    points = wiggles(normal, 3, 20)
    found = measured(recombine(FLAT, points, measured(points)).curve.points).sum(1)
    assert (found <= measured(points).sum(2).amin(0) + 1e-12).all()
    count = points.shape[2]
    for problem in range(20):
        z = points[:, problem]
        index = np.arange(3 * count).reshape(3, count)
        a, b = [index[:, :-1].ravel()], [index[:, 1:].ravel()]
        for i in range(3):
            for j in range(3):
                if i != j:
                    distance, nearest = torch.cdist(z[i], z[j]).min(1)
                    short = (distance < 0.01).numpy()
                    a.append(index[i][short])
                    b.append(index[j][nearest[short]])
        a, b = np.concatenate(a), np.concatenate(b)
        flat = z.flatten(0, 1)
        apart = (flat[a] - flat[b]).norm(dim=1).numpy() + 1e-15
        graph = coo_matrix((apart, (a, b))).tocsr()
        best = dijkstra(graph, indices=0)[index[:, -1]].min()
        assert float(found[problem]) <= 1.02 * best


def test_alone_batched_and_permuted_agree(normal):
    points = wiggles(normal, 2, 6)
    whole = recombine(FLAT, points, measured(points))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = recombine(FLAT, points[:, order], measured(points[:, order]))
    torch.testing.assert_close(permuted.curve.points, whole.curve.points[order], rtol=0, atol=0)
    for row in range(6):
        alone = recombine(FLAT, points[:, row : row + 1], measured(points[:, row : row + 1])).curve.points[0]
        torch.testing.assert_close(whole.curve.points[row, : len(alone)], alone, rtol=0, atol=0)
        assert (whole.curve.points[row, len(alone) :] == alone[-1]).all()


def test_curves_of_nan_are_left_out(normal):
    points = wiggles(normal, 2, 3)
    points[0, 1], points[:, 2] = torch.nan, torch.nan
    found = recombine(FLAT, points, measured(points))
    torch.testing.assert_close(found.curve.points[1, :200], points[1, 1])
    assert found.curve.points[2].isnan().all()
    alone = recombine(FLAT, points[:, :1], measured(points[:, :1])).curve.points[0]
    torch.testing.assert_close(found.curve.points[0, : len(alone)], alone, rtol=0, atol=0)


def test_two_starts_that_are_both_wrong_once_make_a_right_one():
    """Two hills with a gate between them: each start goes round one of them by the long way."""

    def hills(z):
        x, y = z.T
        first = 3 * torch.exp(-4 * ((x + 1.5).square() + (y - 0.3).square()))
        second = 3 * torch.exp(-4 * ((x - 1.5).square() + (y + 0.3).square()))
        wall = 3 * torch.exp(-((x / 0.3) ** 2)) * (1 - torch.exp(-((y / 0.1) ** 2)))
        return torch.stack([x, y, first + second, wall], dim=1)

    metric = PullbackMetric(hills)
    ends = torch.tensor([[[-3.0, 0.0]], [[3.0, 0.0]]], dtype=torch.float64)
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)

    def way(left, right):
        bow = (torch.pi * (x + 3) / 3).sin().square()
        return Curve(torch.stack([x, 0.9 * bow * torch.where(x < 0, left, right)], dim=1)[None])

    class Given:
        def __init__(self, *curves):
            self.curves = curves

        def __call__(self, z0, z1):
            return list(self.curves)

    over, under, right = way(1.0, 1.0), way(-1.0, -1.0), way(-1.0, 1.0)
    alone = [geodesic(metric, *ends, initial=Given(curve)).length for curve in (over, under, right)]
    both = geodesic(metric, *ends, initial=Given(over, under))
    assert float(alone[2]) < 0.99 * min(float(alone[0]), float(alone[1]))
    assert both.converged.all()
    assert abs(float(both.length - alone[2])) <= float(both.length_error)
