"""Decoders of every common activation, with gradients off and weights that ask for them, as users bring them."""

import pytest
import torch
from torch import nn

from geodesics import (
    CollocationSolver,
    FunctionMetric,
    PullbackMetric,
    ShootingSolver,
    check_generator,
    christoffel_symbols,
    exp_map,
    geodesic,
    sectional_curvature,
)

ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU, nn.GELU, nn.SiLU, nn.Mish]


@pytest.fixture(params=ACTIVATIONS, ids=lambda activation: activation.__name__)
def decoder(request):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 6), request.param(), nn.Linear(6, 5)).double()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("solver", [None, ShootingSolver(), CollocationSolver()], ids=["energy", "shooting", "ode"])
def test_solvers_agree_with_the_exponential_map(decoder, normal, solver):
    metric, z, v = PullbackMetric(decoder), normal(2, 2), 0.2 * normal(2, 2)
    ends = exp_map(metric, z, v)
    result = geodesic(metric, z, ends, solver=solver)
    assert bool((result.status <= 1).all())
    assert not result.length.requires_grad
    torch.testing.assert_close(result.length, metric.norm(z, v), rtol=1e-5, atol=0)


def test_second_derivatives_are_those_with_gradients_on(decoder, normal):
    metric, z, u, v = PullbackMetric(decoder), normal(3, 2), normal(3, 2), normal(3, 2)

    def answers():
        field = FunctionMetric(metric.tensor)
        return (
            metric.acceleration(z, v),
            field.acceleration(z, v),
            sectional_curvature(metric, z, u, v),
            sectional_curvature(field, z, u, v),
            christoffel_symbols(metric.tensor, z),
        )

    with torch.enable_grad():
        expected = answers()
    found = answers()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.detach())
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[2], found[3], rtol=1e-6, atol=1e-9)


def test_check_generator_is_content(decoder, normal):
    assert check_generator(decoder, normal(4, 2)).ok
