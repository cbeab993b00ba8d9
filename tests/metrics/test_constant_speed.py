"""Points at equal Riemannian steps."""

import pytest
import torch
from problems import half_plane_tensor, sphere

from geodesics import Curve, FunctionMetric, PullbackMetric, constant_speed


def test_steps_on_a_vertical_line_are_geometric():
    """In the half-plane equal steps of log y: from 1 to 16 in 4 steps the ordinates are 1, 2, 4, 8, 16."""
    y = 2 ** torch.linspace(0, 4, 33, dtype=torch.float64)
    curve = Curve(torch.stack([torch.zeros(33, dtype=torch.float64), y], dim=-1)[None])
    points = constant_speed(FunctionMetric(half_plane_tensor), curve, 5)
    # Second order in cells of 1/512 of the curve.
    torch.testing.assert_close(points[0, :, 1], 2.0 ** torch.arange(5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_order_is_two():
    errors = []
    for count in (1, 2, 4, 8):
        y = torch.linspace(1, 2, count + 1, dtype=torch.float64)
        curve = Curve(torch.stack([torch.zeros_like(y), y], dim=-1)[None])
        points = constant_speed(FunctionMetric(half_plane_tensor), curve, 14)
        exact = 2 ** torch.linspace(0, 1, 14, dtype=torch.float64)
        errors.append(float((points[0, :, 1] - exact).square().mean().sqrt()))
    assert 3 < errors[0] / errors[1] < 5.5
    assert 40 < errors[0] / errors[3] < 100


def test_any_parametrization_gives_the_same_points():
    """One arc of the sphere with uneven elements and knots, against its own chords' equality."""
    t = torch.tensor([0.0, 0.1, 0.15, 0.5, 0.6, 1.0], dtype=torch.float64)
    points = torch.stack([torch.full_like(t, 0.9), 2 * t], dim=-1)
    fine = constant_speed(PullbackMetric(sphere), Curve(points[None]), 9)
    uneven = constant_speed(PullbackMetric(sphere), Curve(points[None], (t**2)[None]), 9)
    chords = (sphere(fine[0, 1:]) - sphere(fine[0, :-1])).norm(dim=-1)
    torch.testing.assert_close(chords, chords[:1].expand(8))
    torch.testing.assert_close(uneven, fine)


def test_ends_are_the_curves_own_and_a_point_stays(normal):
    points = normal(2, 4, 2)
    points[1] = points[1, :1]
    result = constant_speed(PullbackMetric(sphere), Curve(points), 5)
    torch.testing.assert_close(result[:, [0, -1]], points[:, [0, -1]])
    torch.testing.assert_close(result[1], points[1, :1].expand(5, 2))


def test_rows_are_independent(normal):
    points = normal(4, 7, 2)
    metric = PullbackMetric(sphere)
    batched = constant_speed(metric, Curve(points, degree=3), 6)
    alone = [constant_speed(metric, Curve(points[i : i + 1], degree=3), 6) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), batched)
    poisoned = points.clone()
    poisoned[2, 3] = torch.nan
    torch.testing.assert_close(constant_speed(metric, Curve(poisoned, degree=3), 6)[[0, 1, 3]], batched[[0, 1, 3]])


def test_one_point_is_refused(normal):
    with pytest.raises(ValueError, match="num_points must be at least 2; got 1"):
        constant_speed(PullbackMetric(sphere), Curve(normal(1, 2, 2)), 1)
