"""The connection: Christoffel symbols in closed form, and two forms of the geodesic equation."""

import pytest
import torch
from problems import CASES, EMBEDDED, half_plane_tensor, sphere, sphere_tensor
from samples import points_near
from torch import nn

from geodesics import (
    PullbackMetric,
    Stack,
    christoffel_symbols,
    exp_map,
    general_acceleration,
    pullback_acceleration,
)
from geodesics.metrics.connection import acceleration_by_products


def test_christoffel_symbols_of_the_half_plane(normal):
    """Gamma^x_xy = -1/y, Gamma^y_xx = 1/y, Gamma^y_yy = -1/y."""
    z = torch.stack([normal(5), normal(5).exp()], dim=-1)
    y = z[:, 1]
    expected = torch.zeros(5, 2, 2, 2, dtype=torch.float64)
    expected[:, 0, 0, 1] = expected[:, 0, 1, 0] = expected[:, 1, 1, 1] = -1 / y
    expected[:, 1, 0, 0] = 1 / y
    torch.testing.assert_close(christoffel_symbols(half_plane_tensor, z), expected)


@pytest.mark.parametrize("tensor", [sphere_tensor, PullbackMetric(sphere).tensor], ids=["function", "pullback"])
def test_christoffel_symbols_of_the_sphere(normal, tensor):
    """Gamma^theta_phiphi = -sin cos, Gamma^phi_thetaphi = cot."""
    z = torch.stack([0.3 + 2.5 * torch.rand(5, dtype=torch.float64), normal(5)], dim=-1)
    theta = z[:, 0]
    expected = torch.zeros(5, 2, 2, 2, dtype=torch.float64)
    expected[:, 0, 1, 1] = -theta.sin() * theta.cos()
    expected[:, 1, 0, 1] = expected[:, 1, 1, 0] = 1 / theta.tan()
    torch.testing.assert_close(christoffel_symbols(tensor, z), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_acceleration_is_minus_gamma_v_v_and_gamma_is_symmetric(case, normal):
    z = points_near(case.problem, normal)
    v = normal(*z.shape)
    gamma = christoffel_symbols(case.metric.tensor, z)
    torch.testing.assert_close(gamma, gamma.mT)
    acceleration = case.metric.acceleration(z, v)
    torch.testing.assert_close(acceleration, -torch.einsum("bkij,bi,bj->bk", gamma, v, v))
    torch.testing.assert_close(case.metric.acceleration(z, -3 * v), 9 * acceleration)


@pytest.mark.parametrize("problem", EMBEDDED, ids=lambda problem: problem.name)
def test_the_papers_form_is_the_pullback_form(problem, normal):
    z = points_near(problem, normal)
    v = normal(*z.shape)
    general = general_acceleration(PullbackMetric(problem.embedding).tensor, z, v)
    torch.testing.assert_close(general, pullback_acceleration(problem.embedding, z, v))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_two_forms_agree_on_a_stochastic_decoder(normal, d):
    mean = nn.Sequential(nn.Linear(d, 9), nn.Tanh(), nn.Linear(9, 12)).double()
    deviation = nn.Sequential(nn.Linear(d, 12), nn.Softplus()).double()
    generator = Stack(mean, deviation)
    z, v = normal(7, d), normal(7, d)
    general = general_acceleration(PullbackMetric(generator).tensor, z, v)
    # Rounding, times the condition number of M, which is below 1e4 here.
    torch.testing.assert_close(general, pullback_acceleration(generator, z, v), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layer", [nn.LayerNorm(9), nn.GLU()], ids=["layer norm", "glu"])
def test_the_two_forms_agree_where_torch_has_no_right_nested_forward_mode(normal, layer):
    """Both against differences of the metric, from which the acceleration follows."""
    torch.manual_seed(0)
    inner = nn.Linear(2, 9 if isinstance(layer, nn.LayerNorm) else 18)
    generator = nn.Sequential(inner, nn.Softplus(), layer, nn.Linear(9, 12), nn.Tanh()).double()
    tensor = PullbackMetric(generator).tensor
    z, v, h = normal(7, 2), normal(7, 2), 1e-4
    acceleration = pullback_acceleration(generator, z, v)
    torch.testing.assert_close(general_acceleration(tensor, z, v), acceleration, rtol=1e-9, atol=1e-9)
    dM = torch.stack([(tensor(z + h * e) - tensor(z - h * e)) / (2 * h) for e in torch.eye(2, dtype=z.dtype)])
    lowered = torch.einsum("kbij,bk,bj->bi", dM, v, v) - torch.einsum("kbij,bi,bj->bk", dM, v, v) / 2
    force = -torch.einsum("bij,bj->bi", tensor(z), acceleration)
    torch.testing.assert_close(force, lowered, rtol=1e-6, atol=1e-6)


def test_great_circles_solve_the_equation():
    """The derivative of the velocity along an exact great circle, in the chart, is the acceleration."""
    point = torch.tensor([0.8, 0.1, 0.5], dtype=torch.float64)
    e1 = point / point.norm()
    e2 = torch.linalg.cross(e1, torch.tensor([0.2, 1.0, -0.3], dtype=torch.float64))
    e2 = e2 / e2.norm()

    def chart(t):
        x, y, z = (t.cos()[:, None] * e1 + t.sin()[:, None] * e2).unbind(-1)
        return torch.stack([z.arccos(), torch.atan2(y, x)], dim=-1)

    t = torch.linspace(-0.5, 0.9, 7, dtype=torch.float64)
    ones = torch.ones_like(t)

    def velocity(t):
        return torch.func.jvp(chart, (t,), (ones,))[1]

    c, v, a = chart(t), velocity(t), torch.func.jvp(velocity, (t,), (ones,))[1]
    torch.testing.assert_close(pullback_acceleration(sphere, c, v), a)
    torch.testing.assert_close(general_acceleration(sphere_tensor, c, v), a)


def test_singular_rows_are_nan_and_alone():
    """At the pole the chart's metric is singular: NaN there, and the other rows as if alone."""
    z = torch.tensor([[0.7, 0.2], [0.0, 0.4], [1.1, -0.3]], dtype=torch.float64)
    v = torch.ones_like(z)
    for function in (
        lambda z, v: pullback_acceleration(sphere, z, v),
        lambda z, v: general_acceleration(sphere_tensor, z, v),
        lambda z, v: christoffel_symbols(sphere_tensor, z),
    ):
        batched = function(z, v)
        assert batched[1].isnan().all()
        for i in (0, 2):
            torch.testing.assert_close(batched[i : i + 1], function(z[i : i + 1], v[i : i + 1]))


def test_with_fewer_outputs_than_latents_outputs_move_on_straight_lines(normal):
    """The metric is singular everywhere: of all accelerations that keep the output's velocity, the smallest."""
    weights = normal(3, 2)

    def generator(z):
        return (z @ weights).tanh()

    z, v = 0.3 * normal(4, 3), normal(4, 3)
    a = pullback_acceleration(generator, z, v)
    torch.testing.assert_close(a, acceleration_by_products(generator, z, v))
    metric, t = PullbackMetric(generator), torch.linspace(0, 1, 5, dtype=torch.float64)
    outputs = torch.stack([generator(exp_map(metric, z[:1], 0.3 * s * v[:1]))[0] for s in t])
    torch.testing.assert_close(outputs.diff(dim=0), outputs.diff(dim=0).mean(0).expand(4, -1), rtol=1e-5, atol=1e-7)
