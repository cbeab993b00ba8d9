"""Curvature: closed forms, two independent formulas, invariance, and rows that do not meet."""

import pytest
import torch
from problems import EMBEDDED, disk_tensor, fisher_tensor, half_plane_tensor, sphere, sphere_tensor, torus, torus_tensor
from samples import points_near
from torch import nn

from geodesics import FunctionMetric, PullbackMetric, Stack, gaussian_curvature, sectional_curvature
from geodesics.metrics.curvature import general_curvature, pullback_curvature


def decoder(d, outputs=12):
    mean = nn.Sequential(nn.Linear(d, 9), nn.Tanh(), nn.Linear(9, outputs)).double()
    deviation = nn.Sequential(nn.Linear(d, outputs), nn.Softplus()).double()
    return Stack(mean, deviation)


def both_forms(tensor, embedding):
    return {"function": FunctionMetric(tensor), "pullback": PullbackMetric(embedding)}


@pytest.mark.parametrize("form", ["function", "pullback"])
def test_sphere_has_curvature_one(form, normal):
    z = torch.stack([0.3 + 2.5 * torch.rand(7, dtype=torch.float64), normal(7)], dim=-1)
    torch.testing.assert_close(gaussian_curvature(both_forms(sphere_tensor, sphere)[form], z), torch.ones_like(z[:, 0]))


@pytest.mark.parametrize("form", ["function", "pullback"])
def test_torus(form, normal):
    """K = cos v / (r (R + r cos v)), of both signs."""
    z = 2 * normal(9, 2)
    v = z[:, 1]
    assert v.cos().min() < 0 < v.cos().max()
    torch.testing.assert_close(gaussian_curvature(both_forms(torus_tensor, torus)[form], z), v.cos() / (2 + v.cos()))


@pytest.mark.parametrize(
    ("tensor", "expected"), [(half_plane_tensor, -1.0), (disk_tensor, -1.0), (fisher_tensor, -0.5)]
)
def test_hyperbolic_planes(tensor, expected, normal):
    z = torch.stack([0.2 * normal(5), 0.3 + 0.2 * torch.rand(5, dtype=torch.float64)], dim=-1)
    curvature = gaussian_curvature(FunctionMetric(tensor), z)
    torch.testing.assert_close(curvature, torch.full_like(curvature, expected))


def test_flat_in_every_chart(normal):
    """A linear decoder, and the plane in polar coordinates and as a rolled-up sheet of paper."""
    A = normal(9, 4)
    z, u, v = normal(5, 4), normal(5, 4), normal(5, 4)
    zero = torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(sectional_curvature(PullbackMetric(lambda z: z @ A.mT), z, u, v), zero)
    polar = lambda z: torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], dim=1)  # noqa: E731
    cylinder = lambda z: torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], dim=1)  # noqa: E731
    for chart in (polar, cylinder):
        for metric in (PullbackMetric(chart), FunctionMetric(PullbackMetric(chart).tensor)):
            torch.testing.assert_close(gaussian_curvature(metric, normal(5, 2) + 2), zero, rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_spheres_of_any_dimension_and_radius(d, normal):
    """Stereographic chart of a sphere of radius 3: 1/9 in every plane."""

    def chart(z):
        square = z.square().sum(1, keepdim=True)
        return 3 * torch.cat([2 * z, square - 1], dim=1) / (1 + square)

    z, u, v = normal(4, d), normal(4, d), normal(4, d)
    curvature = sectional_curvature(PullbackMetric(chart), z, u, v)
    torch.testing.assert_close(curvature, torch.full((4,), 1 / 9, dtype=torch.float64))
    conformal = FunctionMetric(lambda z: 36 / (1 + z.square().sum(1)).square()[:, None, None] * torch.eye(d).to(z))
    torch.testing.assert_close(sectional_curvature(conformal, z, u, v), curvature)


@pytest.mark.parametrize("problem", EMBEDDED, ids=lambda problem: problem.name)
def test_the_gauss_equation_is_the_tensors_form(problem, normal):
    z = points_near(problem, normal)
    u, v = normal(*z.shape), normal(*z.shape)
    by_tensor = general_curvature(problem.tensor, z, u, v)
    torch.testing.assert_close(pullback_curvature(problem.embedding, z, u, v), by_tensor, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("d", [2, 5])
def test_the_two_forms_agree_on_a_stochastic_decoder(normal, d):
    generator = decoder(d)
    z, u, v = normal(7, d), normal(7, d), normal(7, d)
    by_tensor = general_curvature(PullbackMetric(generator).tensor, z, u, v)
    assert by_tensor.abs().min() > 1e-4
    torch.testing.assert_close(pullback_curvature(generator, z, u, v), by_tensor, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["function", "pullback"])
def test_curvature_is_of_the_plane_alone(form, normal):
    generator = decoder(4)
    metric = {"function": FunctionMetric(PullbackMetric(generator).tensor), "pullback": PullbackMetric(generator)}[form]
    z, u, v = normal(6, 4), normal(6, 4), normal(6, 4)
    expected = sectional_curvature(metric, z, u, v)
    torch.testing.assert_close(sectional_curvature(metric, z, v, u), expected)
    torch.testing.assert_close(sectional_curvature(metric, z, 2 * u - v, 3 * v + u), expected, rtol=1e-7, atol=1e-9)


def test_curvature_does_not_depend_on_the_chart_and_scales_as_a_length_to_the_minus_two(normal):
    generator, A = decoder(3), normal(3, 3)
    z, u, v = normal(6, 3), normal(6, 3), normal(6, 3)
    inverse = torch.linalg.inv(A)
    expected = pullback_curvature(generator, z, u, v)
    changed = pullback_curvature(lambda y: generator(y @ A.mT), z @ inverse.mT, u @ inverse.mT, v @ inverse.mT)
    torch.testing.assert_close(changed, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(pullback_curvature(lambda z: 5 * generator(z), z, u, v), expected / 25)


@pytest.mark.parametrize("form", ["function", "pullback"])
def test_rows_do_not_meet_and_bad_rows_are_nan_alone(form, normal):
    """The pole, where the chart is singular; parallel vectors; a NaN point."""
    metric = both_forms(sphere_tensor, sphere)[form]
    z = torch.stack([torch.tensor([0.4, 0.0, 1.2, 0.9, 2.0], dtype=torch.float64), normal(5)], dim=1)
    u, v = normal(5, 2), normal(5, 2)
    v[2] = -2 * u[2]
    z[3] = torch.nan
    curvature = sectional_curvature(metric, z, u, v)
    assert curvature.isnan().tolist() == [False, True, True, True, False]
    order = torch.tensor([4, 2, 0, 3, 1])
    shuffled = sectional_curvature(metric, z[order], u[order], v[order])
    torch.testing.assert_close(shuffled, curvature[order], equal_nan=True)
    for i in (0, 4):
        torch.testing.assert_close(
            sectional_curvature(metric, z[i : i + 1], u[i : i + 1], v[i : i + 1])[0], curvature[i]
        )


def test_bad_input_is_named(unchecked_shapes):
    z = torch.ones(3, 3)
    with pytest.raises(ValueError, match=r"z must be \(B, 2\)"):
        gaussian_curvature(PullbackMetric(sphere), z)
    with pytest.raises(ValueError, match=r"z, u and v must all be \(B, d\) with d >= 2"):
        sectional_curvature(PullbackMetric(sphere), z[:, :1], z[:, :1], z[:, :1])
    with pytest.raises(ValueError, match="z, u and v"):
        sectional_curvature(PullbackMetric(sphere), z, z, z[:2])
