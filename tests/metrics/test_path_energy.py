"""The discrete energies: derivatives against autograd, definite shifts, and agreement of the two kinds."""

import math
from itertools import pairwise

import pytest
import torch
from problems import CASES, sphere, sphere_tensor
from samples import scattered
from torch import nn

from geodesics import FunctionMetric, PullbackMetric, Stack
from geodesics.curves.elements import make_elements
from geodesics.metrics.path_energy import speed_profile

ELEMENTS = [(1, 1), (1, 3), (2, 4), (3, 4), (3, 6)]


def nodes_between(case, normal, degree, count, batch=2, noise=0.05):
    z0, z1 = case.problem.ends()
    t = torch.linspace(0, 1, count * degree + 1, dtype=z0.dtype)[:, None]
    return z0 + t * (z1 - z0) + noise * normal(batch, count * degree + 1, z0.shape[1])


def random_profile(normal, batch, count, quadrature):
    """Positive, of unit integral under the Gauss weights up to a factor, which no derivative minds."""
    return (0.3 * normal(batch, count, quadrature)).exp() / count


@pytest.mark.parametrize(("p", "m"), ELEMENTS)
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.problem.name in ("sphere", "disk", "linear3")],
    ids=lambda case: case.name,
)
def test_derivatives_are_those_of_the_value(case, p, m, normal):
    """Gradient and Hessian, assembled from element matrices, against autograd of `value`."""
    points = nodes_between(case, normal, p, 3)
    path_energy = case.metric.path_energy(make_elements(p, m, points))
    profile = random_profile(normal, 2, 3, m)
    model = path_energy.linearize(points, profile)
    value, speed = path_energy.value(points, profile)
    torch.testing.assert_close(model.energy, value)
    torch.testing.assert_close(model.speed, speed)
    d = points.shape[-1]
    hessian = scattered(model.hessian, p, d)
    for row in range(2):

        def energy(nodes, row=row):
            return path_energy.value(nodes.view(1, -1, d), profile[row : row + 1])[0][0]

        at = points[row].flatten()
        gradient = torch.autograd.functional.jacobian(energy, at)
        dense = torch.autograd.functional.hessian(energy, at)
        torch.testing.assert_close(model.gradient[row].flatten(), gradient, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(hessian[row], dense, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("p", "m"), [(1, 2), (3, 6)])
def test_derivatives_are_those_of_finite_differences(p, m, normal):
    """No autograd at all: central differences of `value` on a stochastic decoder."""
    generator = Stack(
        nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5)).double(),
        nn.Sequential(nn.Linear(2, 5), nn.Softplus()).double(),
    )
    points = normal(1, 2 * p + 1, 2)
    path_energy = PullbackMetric(generator).path_energy(make_elements(p, m, points))
    profile = random_profile(normal, 1, 2, m)
    model = path_energy.linearize(points, profile)
    h = 1e-4
    steps = h * torch.eye(points.numel(), dtype=torch.float64).view(-1, *points.shape[1:])
    ends = (points + steps, points - steps)
    many = profile.expand(len(steps), -1, -1)
    gradient = (path_energy.value(ends[0], many)[0] - path_energy.value(ends[1], many)[0]) / (2 * h)
    # h^2 times third and fourth derivatives of order one.
    torch.testing.assert_close(model.gradient[0].flatten(), gradient.detach(), rtol=1e-5, atol=1e-6)
    slopes = [path_energy.linearize(end, many).gradient.flatten(1) for end in ends]
    hessian = scattered(model.hessian, p, 2)[0]
    torch.testing.assert_close(hessian, ((slopes[0] - slopes[1]) / (2 * h)).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("p", "m"), ELEMENTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shifted_elements_are_positive_semi_definite(case, p, m, normal):
    """Far from any geodesic, where the exact element matrices are indefinite; below zero by rounding at
    most.
    """
    points = nodes_between(case, normal, p, 3, batch=4, noise=0.1)
    path_energy = case.metric.path_energy(make_elements(p, m, points))
    model = path_energy.linearize(points, random_profile(normal, 4, 3, m))
    for matrices in (model.shift, model.sliding, model.hessian + model.connection + model.shift):
        torch.testing.assert_close(matrices, matrices.mT, rtol=1e-9, atol=1e-9)
        eigenvalues = torch.linalg.eigvalsh((matrices + matrices.mT) / 2)
        assert (eigenvalues[..., 0] >= -1e-10 * eigenvalues[..., -1].clamp(min=1)).all()


def test_chord_energy_of_the_sphere():
    """p = m = 1: N equal steps along a great circle have chord length 2 N sin(theta / 2 N)."""
    theta, count = 1.3, 6
    points = torch.stack(
        [
            0.4 + torch.linspace(0, theta, count + 1, dtype=torch.float64),
            torch.full((count + 1,), 0.5).double(),
        ],
        dim=-1,
    )[None]
    value, speed = PullbackMetric(sphere).path_energy(make_elements(1, 1, points)).value(points, None)
    chords = 2 * count * math.sin(theta / (2 * count))
    assert float(speed.sum()) == pytest.approx(chords, rel=1e-14)
    assert float((2 * value).sqrt()) == pytest.approx(chords, rel=1e-14)


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 3), (3, 6)])
def test_weighted_energy_is_least_at_its_own_speed(p, m, normal):
    """``2 E >= L^2`` for any profile of unit integral, with equality at the profile of the speed
    (Cauchy-Schwarz).
    """
    points = torch.tensor([1.2, 0.0], dtype=torch.float64) + 0.3 * normal(3, 4 * p + 1, 2)
    elements = make_elements(p, m, points)
    path_energy = PullbackMetric(sphere).path_energy(elements)
    _, speed = path_energy.value(points, None)
    total = (speed @ elements.weights).sum(1)
    own = speed / total[:, None, None]
    torch.testing.assert_close(2 * path_energy.value(points, own)[0], total**2)
    other = random_profile(normal, 3, 4, m)
    other = other / (other @ elements.weights).sum(1)[:, None, None]
    assert (2 * path_energy.value(points, other)[0] > total**2).all()


def test_the_two_kinds_agree_as_elements_shrink():
    """One smooth curve on the sphere: interpolant and Gauss energy differ by O(N^-2m), m = 3 samples."""
    ends = torch.tensor([[0.6, 0.1], [1.6, 1.5]], dtype=torch.float64)
    gaps = []
    for count in (2, 4, 8, 16):
        t = torch.linspace(0, 1, count + 1, dtype=torch.float64)[:, None]
        points = ((1 - t) * ends[0] + t * ends[1])[None]
        elements = make_elements(1, 3, points)
        pullback = PullbackMetric(sphere).path_energy(elements).value(points, None)[0]
        general = FunctionMetric(sphere_tensor).path_energy(elements).value(points, None)[0]
        gaps.append(abs(float(pullback - general)))
    orders = [math.log2(a / b) for a, b in pairwise(gaps)]
    assert orders[-1] == pytest.approx(6, abs=0.1)


def test_profile_has_unit_integral_and_follows_the_speed(normal):
    weights = make_elements(3, 6, normal(1)).weights
    speed = normal(3, 4, 6).exp()
    speed[2] = 0
    profile = speed_profile(speed, weights)
    torch.testing.assert_close((profile @ weights).sum(1), torch.ones(3, dtype=torch.float64))
    assert (profile > 0).all()
    torch.testing.assert_close(speed_profile(1e6 * speed, weights), profile)


@pytest.mark.parametrize("metric", [PullbackMetric(sphere), FunctionMetric(sphere_tensor)])
def test_without_a_profile_the_energy_follows_its_own_speed(metric, normal):
    points = torch.tensor([1.2, 0.0], dtype=torch.float64) + 0.3 * normal(5, 7, 2)
    elements = make_elements(3, 4, points)
    path_energy = metric.path_energy(elements)
    model = path_energy.linearize(points, None)
    own = speed_profile(path_energy.value(points, None)[1], elements.weights)
    torch.testing.assert_close(model, path_energy.linearize(points, own))
    torch.testing.assert_close(model.profile, own)


@pytest.mark.parametrize("case", [case for case in CASES if case.problem.name == "sphere"], ids=lambda case: case.name)
def test_rows_are_independent(case, normal):
    points = nodes_between(case, normal, 3, 3, batch=4)
    path_energy = case.metric.path_energy(make_elements(3, 6, points))
    profile = random_profile(normal, 4, 3, 6)
    batched = path_energy.linearize(points, profile)
    order = torch.tensor([2, 0, 3, 1])
    permuted = path_energy.linearize(points[order], profile[order])
    alone = [path_energy.linearize(points[i : i + 1], profile[i : i + 1]) for i in range(4)]
    poisoned_points = points.clone()
    poisoned_points[1, 4] = torch.nan
    poisoned = path_energy.linearize(poisoned_points, profile)
    rest = torch.tensor([0, 2, 3])
    for name, field in zip(batched._fields, batched, strict=True):
        torch.testing.assert_close(torch.cat([getattr(model, name) for model in alone]), field)
        torch.testing.assert_close(getattr(permuted, name), field[order])
        torch.testing.assert_close(getattr(poisoned, name)[rest], field[rest])
    assert poisoned.energy[1].isnan()


@pytest.mark.parametrize("metric", [PullbackMetric(sphere), FunctionMetric(sphere_tensor)])
def test_small_chunks_change_nothing(metric, normal, monkeypatch):
    points = torch.tensor([1.2, 0.0], dtype=torch.float64) + 0.3 * normal(5, 7, 2)
    path_energy = metric.path_energy(make_elements(3, 4, points))
    profile = random_profile(normal, 5, 2, 4)
    whole = path_energy.linearize(points, profile), path_energy.value(points, profile)
    monkeypatch.setattr("geodesics.batches.rows._CACHED", 1)
    parts = path_energy.linearize(points, profile), path_energy.value(points, profile)
    torch.testing.assert_close(parts, whole)
