"""The protocols of generators, and the stack."""

import pytest
import torch
from torch import nn

from geodesics import Generator, HessianGenerator, JacobianGenerator, PullbackMetric, Stack


class Doubled:
    """F(z) = 2 z with its own Jacobian, which is told apart from the true one by a sign."""

    def __call__(self, z):
        return 2 * z

    def value_and_jacobian(self, z):
        d = z.shape[1]
        return 2 * z, -2 * torch.eye(d, dtype=z.dtype)[:, None, :].expand(d, *z.shape)


def test_stack_concatenates_the_outputs_in_order(normal):
    z = normal(5, 2)
    stacked = Stack(torch.sin, lambda z: z.sum(-1, keepdim=True), torch.cos)(z)
    torch.testing.assert_close(stacked, torch.cat([z.sin(), z.sum(-1, keepdim=True), z.cos()], dim=1))


def test_ensemble_has_the_sum_of_the_metrics(normal):
    z = normal(4, 3)
    members = [nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5)).double() for _ in range(3)]
    total = sum(PullbackMetric(member).tensor(z) for member in members)
    torch.testing.assert_close(PullbackMetric(Stack(*members)).tensor(z), total)


def test_stack_holds_the_modules_it_is_given():
    mean, deviation = nn.Linear(2, 3), nn.BatchNorm1d(2)
    stack = Stack(mean, torch.sin, deviation)
    assert {*stack.parameters()} == {*mean.parameters(), *deviation.parameters()}
    stack.eval()
    assert not deviation.training
    assert stack.double()(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_an_empty_stack_is_refused():
    with pytest.raises(ValueError, match="at least one generator"):
        Stack()


def test_protocols_are_seen_by_structure():
    assert isinstance(torch.sin, Generator)
    assert isinstance(Doubled(), JacobianGenerator)
    assert not isinstance(Doubled(), HessianGenerator)
    assert not isinstance(nn.Linear(2, 3), JacobianGenerator)


def test_a_generators_own_jacobian_is_used(normal):
    metric = PullbackMetric(Doubled())
    torch.testing.assert_close(metric.tensor(normal(3, 2)), 4 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
