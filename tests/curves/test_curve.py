"""Piecewise polynomial curves: evaluation is exact, and splitting and reversing change nothing."""

import numpy as np
import pytest
import torch
from samples import random_curve, uneven

from geodesics import Curve
from geodesics.curves.elements import lobatto_nodes

DEGREES = [1, 2, 3, 5]


def nodes_of(curve):
    """Times of all nodes."""
    inner = torch.as_tensor(lobatto_nodes(curve.degree)[:-1])
    width = curve.knots[:, 1:] - curve.knots[:, :-1]
    times = (curve.knots[:, :-1, None] + width[..., None] * inner).flatten(1)
    return torch.cat([times, curve.knots[:, -1:]], dim=1)


@pytest.mark.parametrize("degree", DEGREES)
def test_a_polynomial_of_the_degree_is_reproduced(degree, rng):
    polynomial = np.polynomial.Polynomial(torch.randn(degree + 1, generator=rng, dtype=torch.float64).numpy())
    knots = uneven(4, 2)
    shape = Curve(torch.zeros(2, 4 * degree + 1, 1, dtype=torch.float64), knots, degree)
    curve = Curve(torch.as_tensor(polynomial(nodes_of(shape).numpy()))[..., None], knots, degree)
    t = torch.linspace(0, 1, 23, dtype=torch.float64)
    expected = torch.as_tensor(polynomial(t.numpy()))[None, :, None].expand(2, -1, -1)
    slopes = torch.as_tensor(polynomial.deriv()(t.numpy()))[None, :, None].expand(2, -1, -1)
    torch.testing.assert_close(curve.evaluate(t), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(curve.derivative(t), slopes, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degree", DEGREES)
def test_nodes_are_on_the_curve_and_ends_are_exact(degree, normal):
    curve = random_curve(normal, degree)
    torch.testing.assert_close(curve.evaluate(nodes_of(curve)), curve.points, rtol=1e-11, atol=1e-11)
    ends = curve.evaluate(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, curve.points[:, [0, -1]], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("degree", DEGREES)
def test_derivative_is_that_of_finite_differences(degree, normal, rng):
    curve = random_curve(normal, degree)
    t = torch.rand(3, 9, generator=rng, dtype=torch.float64) * 0.98 + 0.01
    h = 1e-5
    near = (t[..., None] - curve.knots[:, None, :]).abs().amin(-1) < h
    central = (curve.evaluate(t + h) - curve.evaluate(t - h)) / (2 * h)
    # Central differences: h^2 times a third derivative below 1e4, and rounding over h.
    torch.testing.assert_close(curve.derivative(t)[~near], central[~near], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("degree", DEGREES)
def test_cutting_and_reversing_leave_the_curve_unchanged(degree, normal):
    curve = random_curve(normal, degree)
    t = torch.linspace(0, 1, 31, dtype=torch.float64)
    halved = curve.with_segments(2 * curve.num_segments)
    assert halved.num_segments == 2 * curve.num_segments
    torch.testing.assert_close(halved.evaluate(t), curve.evaluate(t), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(curve.reverse().evaluate(1 - t), curve.evaluate(t), rtol=1e-11, atol=1e-11)
    twice = curve.reverse().reverse()
    torch.testing.assert_close(twice.points, curve.points)
    torch.testing.assert_close(twice.knots, curve.knots)


@pytest.mark.parametrize("degree", DEGREES)
def test_elements_cut_unevenly_leave_the_curve_unchanged(degree, normal):
    """Every row has its own pieces; no row touches another, a batch of none included."""
    curve = random_curve(normal, degree)
    n = curve.num_segments
    pieces = torch.ones(3, n, dtype=torch.long)
    pieces[0, 0], pieces[1, n - 1], pieces[2, n // 2] = 4, 4, 4
    cut = curve.subdivide(pieces, n + 3)
    t = torch.linspace(0, 1, 31, dtype=torch.float64)
    assert cut.num_segments == n + 3
    torch.testing.assert_close(cut.evaluate(t), curve.evaluate(t), rtol=1e-11, atol=1e-11)
    assert (cut.knots.diff(dim=1) > 0).all()
    alone = curve[1:2].subdivide(pieces[1:2], n + 3)
    torch.testing.assert_close(alone.points, cut.points[1:2])
    even = curve.with_segments(2 * n)
    torch.testing.assert_close(even.evaluate(t), curve.evaluate(t), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(even.knots[:, ::2], curve.knots)
    assert curve.with_segments(1).num_segments == n
    torch.testing.assert_close(curve.with_segments(n).knots, curve.knots)
    assert curve[:0].with_segments(n + 1).num_segments == n + 1


def test_times_may_be_shared_or_per_row(normal):
    curve = random_curve(normal, 3)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    torch.testing.assert_close(curve.evaluate(t), curve.evaluate(t.expand(3, -1)))
    rows = torch.stack([t, t.flip(0), t**2])
    torch.testing.assert_close(curve.evaluate(rows)[2], curve[2:3].evaluate(t**2)[0])


def test_rows_are_independent(normal):
    """A slice, an index tensor, a mask; a NaN curve harms only itself."""
    curve = random_curve(normal, 2, batch=4)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    whole = curve.evaluate(t)
    for rows in (slice(1, 3), torch.tensor([3, 0, 2]), torch.tensor([True, False, True, False])):
        torch.testing.assert_close(curve[rows].evaluate(t), whole[rows])
        assert len(curve[rows]) == len(whole[rows])
    points, knots = curve.points.clone(), curve.knots.clone()
    points[1] = torch.nan
    knots[1] = torch.nan
    torch.testing.assert_close(Curve(points, knots, 2).evaluate(t)[[0, 2, 3]], whole[[0, 2, 3]])


def test_equal_knots_by_default(normal):
    curve = Curve(normal(2, 7, 2), degree=3)
    torch.testing.assert_close(curve.knots, torch.tensor([[0, 0.5, 1]] * 2, dtype=torch.float64))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("points", "knots", "degree", "message"),
    [
        ((2, 6, 2), None, 3, r"points must be \(B, N \* degree \+ 1, d\); got \(2, 6, 2\), degree 3"),
        ((2, 1, 2), None, 1, "points must be"),
        ((2, 4, 2), None, 0, "degree must be at least 1; got 0"),
        ((2, 4, 2), (2, 5), 1, r"knots must be \(B, N \+ 1\) = \(2, 4\); got \(2, 5\)"),
        ((2, 4, 2), (1, 4), 1, "knots must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(points, knots, degree, message):
    with pytest.raises(ValueError, match=message):
        Curve(torch.zeros(points), None if knots is None else torch.zeros(knots), degree)


@pytest.mark.usefixtures("unchecked_shapes")
def test_times_of_another_batch_are_refused(normal):
    with pytest.raises(ValueError, match="t must be"):
        random_curve(normal, 1).evaluate(torch.zeros(2, 5, dtype=torch.float64))
