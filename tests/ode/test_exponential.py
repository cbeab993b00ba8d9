"""The exponential map: closed forms, invariants, and rows that cannot be integrated."""

import warnings

import pytest
import torch
from problems import (
    diagonal,
    disk_distance,
    disk_tensor,
    fisher_distance,
    fisher_tensor,
    half_plane_distance,
    half_plane_tensor,
    sphere,
    sphere_tensor,
    torus,
    torus_clairaut,
    torus_tensor,
)
from torch.func import jvp

from geodesics import FunctionMetric, PullbackMetric, exp_map
from geodesics.ode.exponential import geodesic_flow
from geodesics.ode.flow import default_tolerance

SPHERES = [pytest.param(m, id=n) for n, m in (("f", FunctionMetric(sphere_tensor)), ("p", PullbackMetric(sphere)))]
# Homogeneous spaces without conjugate points: the distance to the end is the length of the velocity.
UNIQUE = [
    pytest.param(half_plane_tensor, half_plane_distance, lambda x: torch.stack([x[:, 0], x[:, 1].exp()], 1), id="half"),
    pytest.param(fisher_tensor, fisher_distance, lambda x: torch.stack([x[:, 0], x[:, 1].exp()], 1), id="fisher"),
    pytest.param(disk_tensor, disk_distance, lambda x: x / (1.5 * x.norm(dim=1, keepdim=True) + 1), id="disk"),
]
# In x the speed is e^-x x', so that e^-x falls linearly and x blows up in finite time.
INCOMPLETE = FunctionMetric(lambda z: diagonal((-2 * z[:, 0]).exp(), torch.ones_like(z[:, 1])))


def great_circle(z, v):
    """``cos|u| x + sin|u| u/|u|`` with x = F(z), u = J v."""
    x, u = jvp(sphere, (z,), (v,))
    angle = u.norm(dim=1, keepdim=True)
    return angle.cos() * x + angle.sin() / angle * u


def around_equator(normal, count):
    return torch.stack([1.5 + 0.2 * normal(count), normal(count)], dim=1), 0.6 * normal(count, 2)


def decoder(normal, d=2, D=20):
    """A smooth random network with a metric of moderate condition number."""
    W, b, V = normal(16, d), normal(16), normal(D, 16) / 4
    return lambda z: (z @ W.mT + b).tanh() @ V.mT


@pytest.mark.parametrize("metric", SPHERES)
def test_geodesics_of_the_sphere_are_great_circles(metric, normal):
    z, v = around_equator(normal, 8)
    # The tolerance of 1e-9 holds per step; there are a few tens of them.
    torch.testing.assert_close(sphere(exp_map(metric, z, v)), great_circle(z, v), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("tensor", "distance", "chart"), UNIQUE)
def test_the_end_is_as_far_as_the_velocity_is_long(tensor, distance, chart, normal):
    metric = FunctionMetric(tensor)
    z = chart(normal(6, 2))
    v = normal(6, 2)
    v = v / metric.norm(z, v)[:, None] * torch.linspace(0.1, 3, 6, dtype=v.dtype)[:, None]
    torch.testing.assert_close(distance(z, exp_map(metric, z, v)), metric.norm(z, v), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("metric", [FunctionMetric(torus_tensor), PullbackMetric(torus)], ids=["f", "p"])
def test_clairauts_torus_geodesic(metric):
    dphi, length = torus_clairaut(0.8, 1.0)
    z = torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    rho = 2 + z[:, 1].cos()
    v = length * torch.stack([0.8 / rho**2, (1 - (0.8 / rho) ** 2).sqrt()], dim=1)
    expected = torch.tensor([[dphi, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(exp_map(metric, z, v), expected, rtol=0, atol=1e-8)


def test_geodesics_of_a_linear_decoder_are_straight(normal):
    A, z, v = normal(7, 3), normal(5, 3), normal(5, 3)
    torch.testing.assert_close(exp_map(PullbackMetric(lambda x: x @ A.mT), z, v), z + v)


def test_the_error_follows_the_tolerance(normal):
    z, v = around_equator(normal, 4)
    expected = great_circle(z, v)
    for tol in (1e-4, 1e-6, 1e-8, 1e-10):
        error = (sphere(exp_map(PullbackMetric(sphere), z, v, tol=tol)) - expected).norm(dim=1)
        assert error.max() < 10 * tol


def test_the_papers_form_gives_the_same_curve_as_the_pullback_form(normal):
    generator = decoder(normal)
    z, v = normal(3, 2), normal(3, 2)
    pullback = PullbackMetric(generator)
    general = FunctionMetric(pullback.tensor)
    torch.testing.assert_close(exp_map(general, z, v), exp_map(pullback, z, v), rtol=1e-7, atol=1e-8)


def test_speed_is_constant_and_the_flow_is_homogeneous_and_reversible(normal):
    metric = PullbackMetric(decoder(normal))
    z, v = normal(3, 2), normal(3, 2)
    times = torch.linspace(0, 1, 5, dtype=z.dtype)
    flow = geodesic_flow(metric, z, v, times)
    assert not flow.failed.any()
    assert (flow.drift < 1e-7).all()
    speed = metric.norm(flow.points.flatten(0, 1), flow.velocities.flatten(0, 1)).view(3, 5)
    torch.testing.assert_close(speed, metric.norm(z, v)[:, None].expand(3, 5), rtol=1e-7, atol=0)
    torch.testing.assert_close(flow.points[:, 2], exp_map(metric, z, v / 2), rtol=0, atol=1e-7)
    back = exp_map(metric, flow.points[:, -1], -flow.velocities[:, -1])
    torch.testing.assert_close(back, z, rtol=0, atol=1e-7)


def test_a_short_velocity_is_as_exact_as_a_long_one(normal):
    """The tolerance is relative to the displacement, not to the place."""
    z, v = around_equator(normal, 4)
    z, v = z + torch.tensor([0.0, 50.0]), 1e-5 * v
    u = jvp(sphere, (z,), (v,))[1]
    # exp_z(v) - z to second order in v: v + a / 2, third order is 1e-15. Rounding is that of z near 50.
    expected = v + PullbackMetric(sphere).acceleration(z, v) / 2
    assert u.norm(dim=1).max() < 1e-4
    torch.testing.assert_close(exp_map(PullbackMetric(sphere), z, v) - z, expected, rtol=0, atol=5e-14)


def test_velocity_zero_stays(normal):
    z, v = around_equator(normal, 3)
    v[1] = 0
    end = exp_map(PullbackMetric(sphere), z, v)
    assert torch.equal(end[1], z[1])
    assert end.isfinite().all()


def test_alone_batched_and_permuted_agree_to_the_tolerance(normal):
    metric = PullbackMetric(sphere)
    z, v = around_equator(normal, 6)
    v[3] *= 4  # a hard row: its neighbors take its short steps
    together = exp_map(metric, z, v)
    alone = torch.cat([exp_map(metric, z[i : i + 1], v[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    torch.testing.assert_close(exp_map(metric, z[order], v[order]), together[order], rtol=1e-9, atol=1e-9)


def test_rows_that_cannot_be_integrated_change_no_other_row(normal):
    z, v = normal(64, 2), normal(64, 2)
    # x(t) = x0 - log(1 - v t): finite while v < 1.
    v[:, 0].clamp_(max=0.8)
    poisoned = torch.tensor([3, 17, 30, 44, 63])
    v[3, 0], v[17, 0], z[30, 1], v[44, 1], v[63, 0] = 1.5, 100.0, torch.nan, torch.inf, 1.0001
    with pytest.warns(UserWarning, match="5 of 64 geodesics"):
        end = exp_map(INCOMPLETE, z, v, max_steps=100)
    assert end[poisoned].isnan().all()
    fine = torch.ones(64, dtype=torch.bool)
    fine[poisoned] = False
    expected = torch.stack([z[:, 0] - (1 - v[:, 0]).log(), z[:, 1] + v[:, 1]], dim=1)[fine]
    torch.testing.assert_close(end[fine], expected, rtol=1e-8, atol=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(exp_map(INCOMPLETE, z[fine], v[fine]), end[fine], rtol=1e-8, atol=1e-8)


def test_a_trial_step_over_the_edge_is_only_shortened():
    """A stage may leave the chart though the geodesic does not: NaN there must not be the end of the row."""

    def tensor(z):
        return torch.where((z[:, 1] > 0)[:, None, None], half_plane_tensor(z), torch.nan)

    z = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    v = torch.tensor([[0.0, -12.0]], dtype=torch.float64)
    # Straight down: y(t) = exp(-12 t).
    end = exp_map(FunctionMetric(tensor), z, v)
    torch.testing.assert_close(end[:, 1], torch.tensor([-12.0], dtype=z.dtype).exp(), rtol=0, atol=1e-8)


def test_a_row_is_given_its_steps_and_no_more(normal):
    z, v = around_equator(normal, 4)
    v[2] *= 100
    with pytest.warns(UserWarning, match="1 of 4"):
        end = exp_map(PullbackMetric(sphere), z, v, max_steps=40)
    assert end.isnan().all(dim=1).tolist() == [False, False, True, False]


def test_kinks_break_the_conservation_of_speed_and_are_reported():
    """F = (x, |x| y): smooth on both sides of x = 0, singular between; no finite wrong answer."""
    metric = PullbackMetric(lambda z: torch.stack([z[:, 0], z[:, 0].abs() * z[:, 1]], dim=1))
    z = torch.tensor([[-1.0, 0.3], [2.0, 0.1]], dtype=torch.float64)
    v = torch.tensor([[2.0, 0.0], [0.5, 0.2]], dtype=torch.float64)
    times = torch.linspace(0, 1, 3, dtype=z.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flow = geodesic_flow(metric, z, v, times)
    assert not flow.failed[1]
    assert flow.failed[0] or flow.drift[0] < default_tolerance(z.dtype) ** 0.5


def test_dtype_and_device_are_kept(normal, device, dtype):
    z, v = (x.to(device, dtype) for x in around_equator(normal, 4))
    end = exp_map(PullbackMetric(sphere), z, v)
    assert end.dtype == dtype
    assert end.device.type == device.type
    torch.testing.assert_close(sphere(end), great_circle(z, v), rtol=0, atol=50 * default_tolerance(dtype))


def test_an_empty_batch_is_answered():
    empty = torch.zeros(0, 2, dtype=torch.float64)
    assert exp_map(PullbackMetric(sphere), empty, empty).shape == (0, 2)


def test_bad_input_is_named():
    metric, z = PullbackMetric(sphere), torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"both be \(B, d\); got \(2, 2\) and \(3, 2\)"):
        exp_map(metric, z, torch.ones(3, 2))
    with pytest.raises(ValueError, match="share dtype"):
        exp_map(metric, z, z.double())
    with pytest.raises(ValueError, match="max_steps"):
        exp_map(metric, z, z, max_steps=0)
    with pytest.raises(ValueError, match="tol"):
        exp_map(metric, z, z, tol=0.0)
    for times in (torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, torch.inf])):
        with pytest.raises(ValueError, match="increase from 0"):
            geodesic_flow(metric, z, z, times)
    with pytest.raises(ValueError, match=r"times must be \(T,\)"):
        geodesic_flow(metric, z, z, torch.zeros(1))
