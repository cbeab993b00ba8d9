"""Multiple shooting: its linear algebra, its steps, and the boundary-value problems it solves."""

import math

import pytest
import torch
from problems import CASES, sphere, sphere_distance
from torch.func import jacfwd

from geodesics import Curve, EnergySolver, PullbackMetric, exp_map, geodesic, length, log_map
from geodesics.curves.quintics import hermite, raised, subdivided
from geodesics.ode.block_bidiagonal import solve_two_point
from geodesics.ode.flow import default_tolerance
from geodesics.ode.multiple_shooting import ShootingOptions, shoot
from geodesics.ode.runge_kutta import step, step_derivative


def straight(z0, z1):
    return Curve(torch.stack([z0, z1], dim=1))


def decoder(normal, d):
    """A smooth random network on which straight lines are far from geodesic."""
    W, b = normal(24, d) * 1.5 / d**0.5, normal(24) / 2
    V, U = normal(24, 24) * 0.3, normal(20, 24) / 5
    return lambda z: ((z @ W.mT + b).tanh() @ V.mT).tanh() @ U.mT


@pytest.fixture
def sphere_pairs(normal):
    z0 = torch.stack([1.5 + 0.2 * normal(6), normal(6)], dim=1)
    return z0, z0 + 0.5 * normal(6, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_chains_are_solved_like_the_dense_system(count, normal):
    m, half = 4, 2
    A, r = normal(2, count, m, m), normal(2, count, m)
    x = solve_two_point(A, r)
    dense = torch.zeros(2, (count + 1) * m, (count + 1) * m, dtype=A.dtype)
    load = torch.zeros(2, (count + 1) * m, dtype=A.dtype)
    for k in range(count):
        rows = slice(k * m, (k + 1) * m)
        dense[:, rows, rows] = A[:, k]
        dense[:, rows, (k + 1) * m : (k + 2) * m] = -torch.eye(m, dtype=A.dtype)
        load[:, rows] = r[:, k]
    for j in range(half):
        dense[:, count * m + j, j] = 1
        dense[:, count * m + half + j, count * m + j] = 1
    expected = torch.linalg.solve(dense, load)
    torch.testing.assert_close(x.flatten(1), expected, rtol=1e-9, atol=1e-9)


def test_chains_that_grow_and_decay_by_many_decades_keep_their_digits(normal):
    """The blocks of x'' = x over steps of 4: their product reaches 1e104, where condensing has no digits."""
    count, grow = 60, torch.tensor([[math.cosh(4), math.sinh(4)], [math.sinh(4), math.cosh(4)]]).double()
    A = grow.expand(1, count, 2, 2).contiguous()
    expected = normal(1, count + 1, 2)
    expected[:, 0, 0] = expected[:, -1, 0] = 0
    r = (A @ expected[:, :-1, :, None])[..., 0] - expected[:, 1:]
    torch.testing.assert_close(solve_two_point(A, r), expected, rtol=1e-8, atol=1e-8)


def pendulum(y):
    return torch.stack([y[:, 1], -y[:, 0].sin()], dim=1)


def test_steps_are_of_order_eight_with_exact_derivatives(normal):
    y = normal(3, 2)

    def integrate(count):
        state, h = y, torch.full((3,), 4 / count, dtype=y.dtype)
        for _ in range(count):
            state, _ = step(pendulum, state, h)
        return state

    reference = integrate(128)
    error = [(integrate(count) - reference).norm(dim=1).max() for count in (8, 16)]
    assert math.log2(error[0] / error[1]) > 7.5
    h = torch.tensor([0.0, 0.3, 1.0], dtype=y.dtype)
    expected = jacfwd(lambda x: step(pendulum, x, h)[0])(y)
    torch.testing.assert_close(step_derivative(pendulum, y, h), torch.einsum("iaib->iab", expected))
    assert torch.equal(step(pendulum, y, h)[0][0], y[0])


def test_the_error_of_a_step_is_estimated(normal):
    y, h = normal(4, 2), torch.full((4,), 1.0, dtype=torch.float64)
    new, estimate = step(pendulum, y, h)
    fine = y
    for _ in range(16):
        fine, _ = step(pendulum, fine, h / 16)
    ratio = estimate.norm(dim=1) / (new - fine).norm(dim=1)
    assert ratio.min() > 0.1
    assert ratio.max() < 1e3


def test_quintics_reproduce_quintics_and_pieces_are_the_same_curve(normal):
    powers = torch.arange(6, dtype=torch.float64)
    coefficients = normal(2, 6, 3)
    steps = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64)
    knots = torch.cat([torch.zeros(2, 1, dtype=steps.dtype), steps.cumsum(1)], dim=1)

    def derivative(t, order):
        factor = torch.ones_like(powers)
        for i in range(order):
            factor = factor * (powers - i)
        return (factor * t[..., None] ** (powers - order).clamp(min=0)) @ coefficients

    curve = hermite(*(derivative(knots, order) for order in range(3)), steps)
    t = torch.linspace(0, 1, 29, dtype=steps.dtype).expand(2, -1)
    torch.testing.assert_close(curve.evaluate(t), derivative(t, 0))
    pieces = torch.tensor([[1, 4, 1], [3, 1, 2]])
    cut = subdivided(curve, pieces)
    assert cut.num_segments == 6
    torch.testing.assert_close(cut.evaluate(t), curve.evaluate(t))
    low = Curve(normal(2, 7, 3), knots[:, :3] / knots[:, 2:3], 3)
    torch.testing.assert_close(raised(low).evaluate(t), low.evaluate(t))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_closed_forms_from_the_straight_line(case):
    z0, z1 = case.problem.ends()
    result = shoot(case.metric, straight(z0, z1), ShootingOptions())
    assert result.converged.all()
    measured, _ = length(case.metric, result.curve)
    expected = torch.full_like(measured, case.problem.distance)
    # The curve is of order h^6, its length of the square of the error of its speed.
    torch.testing.assert_close(measured, expected, rtol=1e-10, atol=0)
    # The velocity is exact to the tolerance, its norm is the distance, and its exponential the other end.
    torch.testing.assert_close(case.metric.norm(z0, result.velocity0), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(exp_map(case.metric, z0, result.velocity0), z1, rtol=0, atol=1e-7)
    start = result.curve.derivative(torch.zeros(1, dtype=z0.dtype))[:, 0]
    torch.testing.assert_close(start, result.velocity0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [2, 3])
def test_both_families_agree_on_a_smooth_decoder(d, normal):
    metric = PullbackMetric(decoder(normal, d))
    z0, z1 = normal(4, d), normal(4, d)
    energy = geodesic(metric, z0, z1, solver=EnergySolver(num_segments=32))
    assert energy.converged.all()
    result = shoot(metric, energy.curve, ShootingOptions())
    assert result.converged.all()
    assert (result.residual < 1e-9).all()
    measured, _ = length(metric, result.curve)
    torch.testing.assert_close(measured, energy.length, rtol=1e-6, atol=0)
    assert (measured <= energy.length * (1 + 1e-10)).all()
    torch.testing.assert_close(metric.norm(z0, result.velocity0), measured, rtol=1e-7, atol=0)
    torch.testing.assert_close(exp_map(metric, z0, result.velocity0), z1, rtol=0, atol=1e-6)


def test_segments_are_added_until_the_steps_are_short_enough(sphere_pairs):
    z0, z1 = sphere_pairs
    metric = PullbackMetric(sphere)
    short = shoot(metric, straight(z0, z1), ShootingOptions(num_segments=1, max_segments=1))
    assert not short.converged.any()
    assert (short.step_error > 1e-9).any()
    assert short.velocity0.isnan().all()
    assert torch.equal(short.curve.points[:, -1], z1)
    grown = shoot(metric, straight(z0, z1), ShootingOptions(num_segments=1))
    assert grown.converged.all()
    assert (grown.step_error <= default_tolerance(z0.dtype)).all()


def test_a_looser_tolerance_and_fewer_iterations_are_obeyed(sphere_pairs):
    metric, curve = PullbackMetric(sphere), straight(*sphere_pairs)
    tight, loose = (shoot(metric, curve, ShootingOptions(tol=tol)) for tol in (1e-11, 1e-4))
    assert tight.converged.all()
    assert loose.converged.all()
    assert (loose.evaluations < tight.evaluations).all()
    assert ((tight.velocity0 - loose.velocity0).abs() < 1e-2).all()
    never = shoot(metric, curve, ShootingOptions(max_iter=1, max_segments=8))
    assert not never.converged.any()
    assert (never.iterations == 1).all()
    assert torch.equal(never.curve.points[:, 0], sphere_pairs[0])


def test_alone_batched_and_permuted_agree_to_rounding(sphere_pairs):
    metric = PullbackMetric(sphere)
    curve = straight(*sphere_pairs)
    together = shoot(metric, curve, ShootingOptions())
    assert together.converged.all()
    for i in range(len(curve)):
        alone = shoot(metric, curve[i : i + 1], ShootingOptions())
        torch.testing.assert_close(alone.velocity0[0], together.velocity0[i], rtol=1e-12, atol=1e-12)
        assert alone.iterations[0] == together.iterations[i]
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = shoot(metric, curve[order], ShootingOptions())
    torch.testing.assert_close(permuted.velocity0, together.velocity0[order], rtol=1e-12, atol=1e-12)


def test_poisoned_and_trivial_rows_change_no_other_row(sphere_pairs):
    metric = PullbackMetric(sphere)
    z0, z1 = (z.clone() for z in sphere_pairs)
    expected = shoot(metric, straight(z0, z1), ShootingOptions())
    z1[1], z1[4, 0] = z0[1], torch.nan
    result = shoot(metric, straight(z0, z1), ShootingOptions())
    assert result.converged.tolist() == [True, True, True, True, False, True]
    assert result.failed.tolist() == [False, False, False, False, True, False]
    assert result.velocity0[4].isnan().all()
    # Cutting a curve of length zero leaves rounding.
    assert result.velocity0[1].abs().max() < 1e-14
    half = torch.full((1,), 0.5, dtype=z0.dtype)
    torch.testing.assert_close(result.curve.evaluate(half)[1, 0], z0[1])
    fine = torch.tensor([0, 2, 3, 5])
    torch.testing.assert_close(result.velocity0[fine], expected.velocity0[fine], rtol=1e-12, atol=1e-12)


def test_dtype_and_device_are_kept(sphere_pairs, device, dtype):
    z0, z1 = (z.to(device, dtype) for z in sphere_pairs)
    metric = PullbackMetric(sphere)
    result = shoot(metric, straight(z0, z1), ShootingOptions())
    assert result.velocity0.dtype == result.curve.points.dtype == dtype
    assert result.velocity0.device.type == device.type
    assert result.converged.all()
    tolerance = 10 * default_tolerance(dtype)
    torch.testing.assert_close(metric.norm(z0, result.velocity0), sphere_distance(z0, z1), rtol=tolerance, atol=0)


def test_log_map_is_the_inverse_of_exp_map_at_the_accuracy_of_its_solver(sphere_pairs):
    z0, z1 = sphere_pairs
    metric = PullbackMetric(sphere)
    v = log_map(metric, z0, z1, solver=EnergySolver(num_segments=32))
    torch.testing.assert_close(metric.norm(z0, v), sphere_distance(z0, z1), rtol=1e-7, atol=0)
    torch.testing.assert_close(exp_map(metric, z0, v), z1, rtol=0, atol=1e-3)


def test_log_map_marks_the_rows_that_did_not_converge(sphere_pairs):
    z0, z1 = (z.clone() for z in sphere_pairs)
    z1[2], z1[3] = z0[2], torch.nan
    with pytest.warns(UserWarning, match="logarithms are NaN") as caught:
        v = log_map(PullbackMetric(sphere), z0, z1, solver=EnergySolver())
    assert [str(w.message) for w in caught] == ["1 of 6 geodesics did not converge; their logarithms are NaN"]
    assert v.isnan().any(dim=1).tolist() == [False, False, False, True, False, False]
    assert (v[2] == 0).all()


def test_bad_options_are_named():
    for options, message in (
        ({"num_segments": 0}, "num_segments"),
        ({"max_iter": 0}, "max_iter"),
        ({"num_segments": 8, "max_segments": 4}, "max_segments"),
        ({"tol": 0.0}, "tol"),
    ):
        with pytest.raises(ValueError, match=message):
            ShootingOptions(**options)
