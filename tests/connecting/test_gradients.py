"""Tests of derivatives of distances: closed forms and differences of distances."""

import pytest
import torch
from torch import nn

from geodesics import EnergySolver, PullbackMetric, Straight, distance, geodesic, log_map

TIGHT = EnergySolver(num_segments=16, length_tol=1e-10)


def sphere(z):
    """The unit sphere by stereographic projection."""
    square = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, square - 1], dim=1) / (1 + square)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double()


def test_gradients_in_both_ends_are_those_of_the_closed_form(normal):
    z0, z1 = (0.5 * normal(4, 2)).requires_grad_(), (0.5 * normal(4, 2)).requires_grad_()
    exact = (sphere(z0) * sphere(z1)).sum(1).arccos()
    lengths = distance(PullbackMetric(sphere), z0, z1, solver=TIGHT, differentiable=True)
    torch.testing.assert_close(lengths, exact, rtol=1e-9, atol=0)
    found, wanted = (torch.autograd.grad(y.sum(), (z0, z1)) for y in (lengths, exact))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_gradients_in_all_weights_are_those_of_differences(normal):
    net, step = network(), 1e-5
    z0, z1 = normal(3, 2), normal(3, 2)
    metric = PullbackMetric(net)
    distance(metric, z0, z1, solver=TIGHT, differentiable=True).sum().backward()
    for weights in net.parameters():
        if weights is net[2].bias:
            assert weights.grad is None or weights.grad.abs().max() < 1e-12  # a shift of the outputs changes no length
            continue
        direction = normal(*weights.shape)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weights += sign * step * direction
                ends.append(distance(metric, z0, z1, solver=TIGHT).sum())
                weights -= sign * step * direction
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float((weights.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


def test_values_are_those_without_gradients_to_the_bit(normal):
    z0, z1 = normal(3, 2), normal(3, 2)
    metric = PullbackMetric(network())
    assert torch.equal(distance(metric, z0, z1, differentiable=True).detach(), distance(metric, z0, z1))


def test_equal_and_lost_ends_spoil_no_gradient(normal):
    z0 = normal(4, 2)
    z1 = normal(4, 2)
    z0[1], z1[2] = torch.nan, z0[2]
    z0.requires_grad_()
    with pytest.warns(UserWarning, match="1 of 4"):
        lengths = distance(PullbackMetric(network()), z0, z1, differentiable=True)
    assert lengths.isnan().tolist() == [False, True, False, False]
    (gradient,) = torch.autograd.grad(lengths.nansum(), z0)
    assert gradient[[0, 3]].abs().min() > 0
    assert not gradient[[1, 2]].any()


def test_second_derivatives_are_refused(normal):
    z0 = normal(2, 2).requires_grad_()
    lengths = distance(PullbackMetric(network()), z0, normal(2, 2), differentiable=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        torch.autograd.grad(lengths.sum(), z0, create_graph=True)


def test_nothing_else_carries_a_gradient(normal):
    z0, z1 = normal(2, 2).requires_grad_(), normal(2, 2).requires_grad_()
    metric = PullbackMetric(network())
    result = geodesic(metric, z0, z1, initial=Straight())
    assert not any(x.requires_grad for x in (*result[1:], result.curve.points, result.curve.knots))
    assert not log_map(metric, z0, z1).requires_grad
    assert not distance(metric, z0, z1).requires_grad
