"""Loss against torch's distributions and closed forms."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae import DiagonalGaussian, annealing, gaussian_nll, kl_to_prior, vae_loss


def test_nll_is_twice_the_log_density_without_its_constant(normal):
    x, mean, log_variance = normal(7, 5), normal(7, 5), normal(7, 5)
    density = Normal(mean, torch.exp(log_variance / 2)).log_prob(x).sum(1)
    torch.testing.assert_close(
        gaussian_nll(x, DiagonalGaussian(mean, log_variance)), -2 * density - 5 * math.log(2 * math.pi)
    )


def test_kl_matches_torch_and_vanishes_at_the_prior(normal):
    mean, log_variance = normal(7, 3), normal(7, 3)
    expected = kl_divergence(Normal(mean, torch.exp(log_variance / 2)), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_prior(DiagonalGaussian(mean, log_variance)), expected)
    zero = torch.zeros(2, 3)
    assert torch.equal(kl_to_prior(DiagonalGaussian(zero, zero)), torch.zeros(2))


def test_loss_by_hand():
    # One datum x = 1 with mu = 0, sigma^2 = 4; posterior mean 2, variance 1, whose divergence is 2^2 / 2 = 2.
    x, four = torch.tensor([[1.0]]), torch.tensor([[math.log(4.0)]])
    likelihood = DiagonalGaussian(torch.zeros(1, 1), four)
    posterior = DiagonalGaussian(torch.tensor([[2.0]]), torch.zeros(1, 1))
    torch.testing.assert_close(
        vae_loss(x, posterior, likelihood, 0.5), torch.tensor([0.5 * (math.log(4) + 0.25) + 0.5 * 2])
    )


@pytest.mark.parametrize(("epoch", "r"), [(0, 0.0), (10, 1 / 3), (15, 0.5), (30, 1.0), (89, 1.0)])
def test_annealing_is_linear_over_the_first_third(epoch, r):
    assert annealing(epoch, 90) == pytest.approx(r)
