"""The damped Newton minimizer on the discrete energy."""

from itertools import pairwise

import pytest
import torch
from problems import half_plane_tensor, sphere, torus

from geodesics import FunctionMetric, PullbackMetric
from geodesics.curves.elements import elevate, make_elements
from geodesics.minimization.directions import longest_move
from geodesics.minimization.newton import minimize, newton_decrement

METRICS = {"pullback": PullbackMetric(sphere), "function": FunctionMetric(half_plane_tensor)}


def starts(normal, batch=4, degree=3, count=4, noise=0.05):
    """Disturbed straight lines in a region that is in the chart of both metrics."""
    a, b = torch.tensor([[0.3, 0.6], [1.4, 1.7]], dtype=torch.float64)
    t = torch.linspace(0, 1, count * degree + 1, dtype=torch.float64)[:, None]
    points = a + t * (b - a) + noise * normal(batch, count * degree + 1, 2)
    points[:, 0], points[:, -1] = a, b + 0.1 * normal(batch, 2)
    return points


def run(metric, points, tol=1e-10, max_iter=40, degree=3, samples=6):
    elements = make_elements(degree, samples, points)
    count = (points.shape[1] - 1) // degree
    profile = points.new_full((len(points), count, samples), 1 / count)
    settle = points.new_zeros(len(points))
    return minimize(metric.path_energy(elements), points, profile, elements.weights, tol, max_iter, settle)


@pytest.mark.parametrize("name", METRICS)
def test_the_end_is_stationary_and_a_minimum(name, normal):
    points = starts(normal)
    state = run(METRICS[name], points)
    assert state.converged.all()
    assert state.minimum.all()
    assert not state.stalled.any()
    # Interior nodes only; at the ends the gradient is the momentum, which does not vanish.
    assert float(state.model.gradient[:, 1:-1].abs().max()) < 1e-9
    assert torch.equal(state.points[:, [0, -1]], points[:, [0, -1]])
    disturbed = state.points.clone()
    disturbed[:, 1:-1] += 1e-3 * normal(*disturbed[:, 1:-1].shape)
    energy = METRICS[name].path_energy(make_elements(3, 6, points))
    assert (energy.value(disturbed, state.model.profile)[0] > state.model.energy).all()


@pytest.mark.parametrize("name", METRICS)
def test_convergence_is_quadratic(name, normal):
    """The scale-free gradient of successive steps: d_(k+1) <= C d_k^2 once it is small, C of order one here."""
    points = starts(normal, batch=1)
    decrements = [float(run(METRICS[name], points, tol=1e-13, max_iter=k).decrement[0]) for k in range(1, 9)]
    pairs = [(a, b) for a, b in pairwise(decrements) if 1e-6 < a < 0.1]
    assert pairs
    assert all(b < 10 * a * a + 1e-12 for a, b in pairs)


@pytest.mark.parametrize("name", METRICS)
def test_energy_never_rises(name, normal):
    """Far off, where the exact Hessian is indefinite, every accepted step still decreases the energy."""
    points = starts(normal, noise=0.12)
    energies = [run(METRICS[name], points, max_iter=k).model.energy for k in range(1, 12)]
    for before, after in pairwise(energies):
        assert (after <= before * (1 + 1e-14)).all()


def test_a_linear_decoder_takes_one_step(normal):
    """A quadratic energy: Newton is exact at once, and nodes end on the straight line at equal steps."""
    A = normal(5, 2)
    points = starts(normal, noise=0.0)
    t = torch.linspace(0, 1, 13, dtype=torch.float64)[:, None]
    points = points[:, :1] + t * (points[:, -1:] - points[:, :1]) + 0.005 * normal(*points.shape)
    state = run(PullbackMetric(lambda z: z @ A.mT), points, max_iter=2, tol=1e-6)
    assert state.converged.all()
    ends = points[:, [0, -1]]
    shared = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    expected = ends[:, :1] + shared * (ends[:, 1:] - ends[:, :1])
    torch.testing.assert_close(state.points[:, ::3], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_no_point_moves_further_than_a_share_of_the_length(noise, normal):
    """A twentieth, in the metric; twice as far where the Hessian is positive definite and foretells the gain."""
    points = starts(normal, noise=noise)
    points[:, 1:-1] += 0.4 * torch.linspace(0, torch.pi, 13, dtype=torch.float64).sin()[1:-1, None]
    energy = METRICS["pullback"].path_energy(make_elements(3, 6, points))
    profile = points.new_full((4, 4, 6), 1 / 4)
    before = energy.linearize(points, profile)
    state = run(METRICS["pullback"], points, max_iter=1)
    moves = longest_move(energy, before, state.points - points)
    bound = 0.05 * (2 * before.energy).sqrt()
    assert bool(state.minimum.all()) == (noise == 0.0)
    assert (moves <= torch.where(state.minimum, 2, 1) * bound * (1 + 1e-12)).all()
    assert (moves > 0.99 * bound).any()


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_the_unit_of_an_axis_changes_nothing(name, noise, normal):
    """Stretched by a million, an axis asks for other numbers and the same steps, damped ones and cut ones too."""
    unit = torch.tensor([1e6, 1.0], dtype=torch.float64)
    stretched = {
        "pullback": PullbackMetric(lambda z: sphere(z / unit)),
        "function": FunctionMetric(lambda z: half_plane_tensor(z / unit) / unit[:, None] / unit),
    }
    points = starts(normal, noise=noise)
    for steps in (1, 3, 8):
        plain = run(METRICS[name], points, max_iter=steps)
        other = run(stretched[name], points * unit, max_iter=steps)
        torch.testing.assert_close(other.points / unit, plain.points, rtol=1e-6, atol=1e-6)
        assert torch.equal(other.damping.theta, plain.damping.theta)


@pytest.mark.parametrize("name", METRICS)
def test_alone_batched_and_permuted_agree(name, normal):
    points = starts(normal, batch=5)
    points[1:3] += 0.05 * normal(2, *points.shape[1:]) * (points - points[:, :1])[1:3]
    batched = run(METRICS[name], points)
    alone = torch.cat([run(METRICS[name], points[i : i + 1]).points for i in range(5)])
    torch.testing.assert_close(alone, batched.points, rtol=1e-9, atol=1e-9)
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = run(METRICS[name], points[order])
    torch.testing.assert_close(permuted.points, batched.points[order], rtol=1e-9, atol=1e-9)
    assert torch.equal(permuted.iterations, batched.iterations[order])


@pytest.mark.parametrize("name", METRICS)
def test_a_nan_row_harms_only_itself(name, normal):
    points = starts(normal, batch=4)
    expected = run(METRICS[name], points)
    poisoned = points.clone()
    poisoned[2, 5] = torch.nan
    state = run(METRICS[name], poisoned)
    rest = [0, 1, 3]
    torch.testing.assert_close(state.points[rest], expected.points[rest])
    assert torch.equal(state.iterations[rest], expected.iterations[rest])
    assert not state.converged[2]
    assert state.stalled[2]


def equator(dphi, height=0.0):
    """Cubic elements on the outer equator of the torus (2, 1), which is stationary at any length."""
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    polyline = torch.stack([dphi[:, None] * t, torch.full((len(dphi), 9), height, dtype=torch.float64)], dim=-1)
    return elevate(elevate(polyline, 1), 2)


def test_nothing_rests_at_a_saddle():
    """The outer equator is minimal for longitudes up to pi / sqrt 3 = 1.81: beyond, a way beside it is shorter."""
    dphi = torch.tensor([1.75, 1.88, 3.0], dtype=torch.float64)
    state = run(PullbackMetric(torus), equator(dphi), max_iter=40)
    assert state.converged.all()
    assert state.minimum.all()
    length = (2 * state.model.energy).sqrt()
    assert float(length[0]) == pytest.approx(3 * 1.75, rel=1e-5)
    off = state.points[..., 1].abs().amax(1)
    assert float(off[0]) < 1e-6
    assert (off[1:] > 0.05).all()
    assert (length[1:] < 3 * dphi[1:] * (1 - 1e-5)).all()


def test_without_a_metric_on_an_axis_there_is_a_minimum_all_the_same(normal):
    """Normalized codes: the metric vanishes along the radius, and with it the Hessian, up to the elements' error."""
    a, b = torch.tensor([[1.0, 0.2, -0.1], [0.3, 1.1, 0.6]], dtype=torch.float64)
    t = torch.linspace(0, 1, 13, dtype=torch.float64)[:, None]
    points = a + t * (b - a) + 0.05 * normal(4, 13, 3)
    points[:, 0], points[:, -1] = a, b
    state = run(PullbackMetric(lambda z: torch.nn.functional.normalize(z, dim=1)), points, tol=1e-7)
    assert state.converged.all()
    assert state.minimum.all()
    angle = torch.arccos((a @ b) / (a.norm() * b.norm()))
    torch.testing.assert_close((2 * state.model.energy).sqrt(), angle.expand(4), rtol=1e-5, atol=0)


def test_decrement_predicts_the_gain(normal):
    """Its square is the relative energy that the minimum lies below; half of that, the relative length."""
    state = run(METRICS["pullback"], starts(normal))
    points = state.points.clone()
    points[:, 1:-1] += 1e-3 * normal(*points[:, 1:-1].shape)
    energy = METRICS["pullback"].path_energy(make_elements(3, 6, points))
    before, _ = energy.value(points, state.model.profile)
    gain = (before - state.model.energy) / before
    predicted = newton_decrement(energy, points, state.model.profile)[0].square()
    # The model's next term is relatively of the size of the disturbance.
    torch.testing.assert_close(predicted, gain, rtol=0.1, atol=0)


def test_work_is_counted(normal):
    """One linearization at the start and one per accepted step; at least one value per step."""
    points = starts(normal)
    state = run(METRICS["pullback"], points)
    samples = 4 * 6 + 1
    assert torch.equal(state.jacobians, (state.iterations + 1) * samples)
    assert (state.values >= state.iterations * samples).all()
