"""Length and energy by quadrature: orders, the error estimate, and what no parametrization may change."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import CASES, half_plane_tensor, sphere
from samples import random_curve, uneven

from geodesics import Curve, FunctionMetric, PullbackMetric, energy, length
from geodesics.metrics.lengths import element_lengths, kronrod_rule

EUCLID = PullbackMetric(lambda z: z)


def unit_line(count):
    """[0, 1] in `count` segments."""
    return Curve(torch.linspace(0, 1, count + 1, dtype=torch.float64)[None, :, None])


def straight_in(case, count=1):
    """The straight line between the ends of a problem, in `count` segments."""
    z0, z1 = case.problem.ends()
    t = torch.linspace(0, 1, count + 1, dtype=z0.dtype)[:, None]
    return Curve((z0 + t * (z1 - z0))[None])


def test_kronrod_rule_is_exact_to_degree_22_and_its_gauss_rule_to_13():
    nodes, kronrod, gauss = kronrod_rule()
    for k in range(23):
        assert kronrod @ nodes**k == pytest.approx(1 / (k + 1), rel=1e-14)
    for k in range(14):
        assert gauss @ nodes**k == pytest.approx(1 / (k + 1), rel=1e-14)
    assert (np.diff(nodes) > 0).all()


def test_length_and_energy_of_a_parabola():
    """(x, x^2) from 0 to r: the length is r sqrt(1 + 4 r^2) / 2 + asinh(2 r) / 4, the energy 1/2 (1 + 4 r^2
    / 3) r^2.
    """
    r = 1.5
    curve = Curve(torch.tensor([[[0.0, 0.0], [r / 2, r * r / 4], [r, r * r]]], dtype=torch.float64), degree=2)
    total, error = length(EUCLID, curve)
    exact = r * math.sqrt(1 + 4 * r * r) / 2 + math.asinh(2 * r) / 4
    assert abs(float(total) - exact) <= float(error)
    assert float(total) == pytest.approx(exact, rel=1e-7)
    assert float(energy(EUCLID, curve)) == pytest.approx((r**2 + 4 * r**4 / 3) / 2, rel=1e-14)


def test_length_of_a_parallel_and_a_meridian():
    """On the sphere a parallel at colatitude theta is sin theta per unit of longitude; a meridian is its
    angle.
    """
    ends = torch.tensor([[[0.7, 0.0], [0.7, 2.0]], [[0.3, 1.0], [1.4, 1.0]]], dtype=torch.float64)
    total, _ = length(PullbackMetric(sphere), Curve(ends))
    expected = torch.tensor([2 * math.sin(0.7), 1.1], dtype=torch.float64)
    torch.testing.assert_close(total, expected, rtol=1e-14, atol=0)


def test_length_of_a_horocycle_and_a_vertical_line():
    """In the half-plane: horizontal lines have length dx / y, vertical ones |log(y1 / y0)|."""
    ends = torch.tensor([[[0.0, 0.5], [3.0, 0.5]], [[1.0, 0.5], [1.0, 4.0]]], dtype=torch.float64)
    total, error = length(FunctionMetric(half_plane_tensor), Curve(ends))
    expected = torch.tensor([6.0, math.log(8)], dtype=torch.float64)
    assert ((total - expected).abs() <= error).all()


@pytest.mark.parametrize("num_points", [1, 2, 3])
def test_energy_has_the_order_of_its_gauss_rule(num_points):
    """``1/y^2`` along a vertical line, exact energy 1/2 (1 / y0 - 1 / y1) (y1 - y0); order 2 * num_points in
    1 / N.
    """
    exact = (1 / 0.5 - 1 / 1.5) / 2
    errors = []
    for count in (8, 16, 32):
        points = torch.tensor([[0.0, 0.5]]) + torch.linspace(0, 1, count + 1)[:, None] * torch.tensor([[0.0, 1.0]])
        value = energy(FunctionMetric(half_plane_tensor), Curve(points.double()[None]), num_points)
        errors.append(abs(float(value) - exact))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2 * num_points, abs=0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_estimate_covers_the_truth(case):
    """The 15-point value against 64 segments of it."""
    total, error = length(case.metric, straight_in(case))
    truth, rest = length(case.metric, straight_in(case, 64))
    assert (total - truth).abs() <= error + rest


@pytest.mark.parametrize("kind", ["wall", "jump", "kink"])
def test_error_estimate_covers_the_truth_on_hard_speeds(kind):
    """A wall of 1/30 of an element, a jump and a kink of the speed, which no rule of high order integrates."""
    speed = {
        "wall": lambda x: 1 + 50 * torch.exp(-(((x - 0.37) * 30) ** 2)),
        "jump": lambda x: 1 + (x > 0.37).to(x),
        "kink": lambda x: 1 + (x - 0.37).abs(),
    }[kind]
    metric = FunctionMetric(lambda z: speed(z[:, :1, None]).square())
    truth, _ = length(metric, unit_line(4096))
    for count in (1, 2, 3, 8):
        total, error = length(metric, unit_line(count))
        assert float((total - truth).abs()) <= float(error) + 1e-6, count


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.problem.name in ("sphere", "torus", "half_plane")],
    ids=lambda case: case.name,
)
def test_squared_length_is_at_most_twice_the_energy(case, degree, normal):
    z0, z1 = case.problem.ends()
    t = torch.linspace(0, 1, 4 * degree + 1, dtype=z0.dtype)[:, None]
    points = z0 + t * (z1 - z0) + 0.1 * normal(5, 4 * degree + 1, 2)
    curve = Curve(points, uneven(4, 5), degree)
    total, error = length(case.metric, curve)
    assert (total - error > 0).all()
    # Sixteen Gauss points: the energy's own error is far below the gap, which is one per cent at least here.
    assert ((total - error) ** 2 < 2 * energy(case.metric, curve, 16)).all()


def test_equality_at_constant_speed():
    """On a straight line in flat space and on a parallel of the sphere L^2 = 2 E."""
    ends = torch.tensor([[[0.7, 0.0], [0.7, 2.0]]], dtype=torch.float64)
    for metric in (EUCLID, PullbackMetric(sphere)):
        curve = Curve(ends)
        torch.testing.assert_close(length(metric, curve)[0] ** 2, 2 * energy(metric, curve), rtol=1e-13, atol=0)


def test_length_does_not_depend_on_the_parametrization(normal):
    """Other knots, more elements, the other direction, and a nonlinear change of parameter within elements."""
    metric = PullbackMetric(sphere)
    points = 0.1 * normal(2, 13, 2) + torch.tensor([1.2, 0.0], dtype=torch.float64)
    points = points + torch.linspace(0, 1, 13, dtype=torch.float64)[:, None]
    curve = Curve(points, uneven(4, 2), 3)
    total, error = length(metric, curve)
    for other in (Curve(points, None, 3), curve.with_segments(2 * curve.num_segments), curve.reverse()):
        value, rest = length(metric, other)
        assert ((value - total).abs() <= error + rest).all()
    # A straight segment run as t^2: the middle node of degree 2 pulled to a quarter.
    a, b = points[:, 0], points[:, 1]
    straight = length(metric, Curve(torch.stack([a, b], dim=1)))
    bent = length(metric, Curve(torch.stack([a, a + (b - a) / 4, b], dim=1), degree=2))
    assert ((straight[0] - bent[0]).abs() <= straight[1] + bent[1]).all()


def test_isometries_change_no_length(normal):
    """A rotation of R^3 after the embedding; z -> (a z + b) / (c z + d), which preserves the half-plane."""
    rotation = torch.linalg.qr(normal(3, 3)).Q
    curve = random_curve(normal, 3)
    torch.testing.assert_close(
        length(PullbackMetric(lambda z: sphere(z) @ rotation), curve)[0],
        length(PullbackMetric(sphere), curve)[0],
    )

    def moebius(z):
        w = torch.complex(z[:, 0], z[:, 1])
        image = (2 * w + 1) / (3 * w + 2)
        return torch.stack([image.real, image.imag], dim=-1)

    def pulled_back(z):
        columns = [torch.func.jvp(moebius, (z,), (e.expand_as(z),))[1] for e in torch.eye(2, dtype=z.dtype)]
        J = torch.stack(columns, dim=-1)
        return J.mT @ half_plane_tensor(moebius(z)) @ J

    upper = Curve(torch.stack([curve.points[..., 0], curve.points[..., 1].exp()], dim=-1))
    torch.testing.assert_close(
        length(FunctionMetric(pulled_back), upper)[0], length(FunctionMetric(half_plane_tensor), upper)[0]
    )


def test_element_lengths_add_up(normal):
    curve = random_curve(normal, 3)
    measured = element_lengths(EUCLID, curve)
    torch.testing.assert_close(measured.length.sum(1), length(EUCLID, curve)[0])
    assert (measured.error >= 0).all()


def test_rows_are_independent(normal):
    curve = random_curve(normal, 2, batch=4)
    metric = PullbackMetric(sphere)
    for function in (
        lambda c: length(metric, c)[0],
        lambda c: length(metric, c)[1],
        lambda c: energy(metric, c),
    ):
        batched = function(curve)
        torch.testing.assert_close(torch.cat([function(curve[i : i + 1]) for i in range(4)]), batched)
        order = torch.tensor([2, 3, 0, 1])
        torch.testing.assert_close(function(curve[order]), batched[order])
        points = curve.points.clone()
        points[1] = torch.nan
        poisoned = function(Curve(points, curve.knots, 2))
        assert poisoned[1].isnan()
        torch.testing.assert_close(poisoned[[0, 2, 3]], batched[[0, 2, 3]])
