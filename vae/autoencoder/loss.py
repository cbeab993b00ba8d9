"""Loss of the VAE: Gaussian negative log-likelihood, Kullback-Leibler divergence and its annealing."""

import torch
from jaxtyping import Float
from torch import Tensor

from vae.autoencoder.networks import DiagonalGaussian


def gaussian_nll(x: Float[Tensor, "b n"], distribution: DiagonalGaussian) -> Float[Tensor, " b"]:
    r"""Negative log-likelihood of each row, up to constants.

    $$\sum_j \log \sigma_j^2 + (x_j - \mu_j)^2 / \sigma_j^2$$

    This is $-2 \log p(x) - n \log 2\pi$: the full negative log-likelihood in nats is half of (this + n
    log 2 pi).

    Args:
        x: data, (B, n).
        distribution: mean and log variance, (B, n) each.

    Returns:
        (B,).
    """
    mean, log_variance = distribution
    return (log_variance + (x - mean).square() * torch.exp(-log_variance)).sum(dim=1)


def kl_to_prior(posterior: DiagonalGaussian) -> Float[Tensor, " b"]:
    r"""Kullback-Leibler divergence of each row's posterior from the prior N(0, I), in nats.

    .. math:: \frac12 \sum_i (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B.

    Args:
        posterior: mean and log variance, (B, d) each.

    Returns:
        (B,), non-negative.
    """
    mean, log_variance = posterior
    return 0.5 * (mean.square() + torch.exp(log_variance) - 1 - log_variance).sum(dim=1)


def annealing(epoch: int, epochs: int) -> float:
    """Factor r of the divergence in an epoch: linear from 0 to 1 over the first third of the epochs, then 1.

    Args:
        epoch: counted from 0.
        epochs: in the whole training.
    """
    return min(1.0, 3 * epoch / epochs)


def vae_loss(
    x: Float[Tensor, "b D"], posterior: DiagonalGaussian, likelihood: DiagonalGaussian, r: float
) -> Float[Tensor, " b"]:
    """Loss of each row, nll / 2 + r KL: at r = 1 the negative evidence lower bound without its D log(2 pi) /
    2.

    Args:
        x: data, (B, D).
        posterior: q(z | x), parameters (B, d).
        likelihood: p(x | z) at a sample z of the posterior, parameters (B, D).
        r: annealing factor in [0, 1].

    Returns:
        (B,), nats.
    """
    return 0.5 * gaussian_nll(x, likelihood) + r * kl_to_prior(posterior)
