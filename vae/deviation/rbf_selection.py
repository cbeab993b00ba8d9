"""Choice of the RBF network's centers and bandwidth from held-out data, without a picture, in any latent dimension."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from vae.autoencoder.loss import gaussian_nll
from vae.autoencoder.model import VAE
from vae.autoencoder.networks import DiagonalGaussian
from vae.deviation.rbf import RBFPrecision
from vae.deviation.rbf_fit import RBFConfig, fit_rbf_to_vae

# Points off the data per held-out latent that are tried; those that land near other latents are dropped.
_TRIES = 8
# Points at a time for distances to all latents: a bound on memory.
_ROWS = 1024


class DeviationScore(NamedTuple):
    """How well a standard deviation does at held-out data, and how much it grows off the data.

    Attributes:
        log_likelihood: mean over the held-out rows of log N(x; mu(z), sigma(z)^2) at their latents z, nats per row.
        standard_error: of that mean.
        contrast: mean of log sigma off the data less its mean at the held-out latents; 0 means that the deviation
            does not know where the data are, log 10 that it is ten times larger off them.
    """

    log_likelihood: float
    standard_error: float
    contrast: float


class RBFCandidate(NamedTuple):
    """One line of `select_rbf`'s table.

    Attributes:
        config: the options tried.
        score: of the network fitted with them.
        admitted: whether its log-likelihood is within one standard error of the best.
    """

    config: RBFConfig
    score: DeviationScore
    admitted: bool


class RBFSelection(NamedTuple):
    """What `select_rbf` chose, and the table of all candidates in the order given.

    Attributes:
        config: the options chosen.
        precision: the network fitted with them.
        table: one line per candidate.
    """

    config: RBFConfig
    precision: RBFPrecision
    table: tuple[RBFCandidate, ...]


def select_rbf(
    vae: VAE,
    x_train: Float[Tensor, "n D"],
    x_validation: Float[Tensor, "m D"],
    candidates: Sequence[RBFConfig],
    seed: int = 0,
    progress: bool = True,
) -> RBFSelection:
    """The most cautious RBF network among those that held-out data do not contradict.

    Kernels too narrow, or too few, leave held-out latents in the dark: sigma rises to xi^(-1/2) there, and the
    likelihood of the held-out data falls by many nats. Kernels too wide cost little likelihood, but sigma no longer
    rises between and around the data, and geodesics need not follow them. So: of all candidates whose held-out
    log-likelihood is within one standard error of the best (the one-standard-error rule of Breiman et al.,
    *Classification and Regression Trees*, 1984), the one whose sigma grows most off the data. No picture is needed,
    so the rule works in any latent dimension.

    Args:
        vae: the trained model.
        x_train: data to fit the networks to, (N, D), usually the model's training data.
        x_validation: held-out data, (M, D), that neither the model nor a network has seen.
        candidates: the options to try, for instance
            ``[RBFConfig(k, a) for k in (32, 64, 128) for a in (1.0, 1.5, 2.0, 3.0)]``.
        seed: of the points off the data.
        progress: whether to show a progress bar.

    Returns:
        The options chosen, their network, and the table. Cost: one fit per candidate.

    Raises:
        ValueError: there are no candidates, or no point off the data is found.
    """
    if not candidates:
        raise ValueError("candidates must name at least one RBFConfig; got none")
    away = points_off_the_data(vae, x_train, x_validation, torch.Generator().manual_seed(seed))
    bar = tqdm(candidates, unit="fit", disable=not progress)
    networks = [fit_rbf_to_vae(vae, x_train, config) for config in bar]
    scores = [_score(vae, network.standard_deviation, x_validation, away) for network in networks]
    best = max(scores)
    least = best.log_likelihood - best.standard_error
    table = tuple(
        RBFCandidate(config, score, score.log_likelihood >= least)
        for config, score in zip(candidates, scores, strict=True)
    )
    chosen = max(range(len(table)), key=lambda i: (table[i].admitted, table[i].score.contrast))
    return RBFSelection(candidates[chosen], networks[chosen], table)


def score_deviation(
    vae: VAE,
    deviation: Callable[[Tensor], Tensor],
    x_train: Float[Tensor, "n D"],
    x_validation: Float[Tensor, "m D"],
    seed: int = 0,
) -> DeviationScore:
    """Score of any standard deviation, an RBF network's, a neural field's or the decoder's own, as `select_rbf` does.

    Args:
        vae: the model that encodes the data and whose mean is used.
        deviation: (B, d) -> (B, D), for instance ``rbf.standard_deviation``.
        x_train: as in `select_rbf`; only tells where the data are.
        x_validation: as in `select_rbf`.
        seed: of the points off the data.

    Raises:
        ValueError: no point off the data is found.
    """
    away = points_off_the_data(vae, x_train, x_validation, torch.Generator().manual_seed(seed))
    return _score(vae, deviation, x_validation, away)


def points_off_the_data(
    vae: VAE, x_train: Float[Tensor, "n D"], x_validation: Float[Tensor, "m D"], rng: torch.Generator
) -> Float[Tensor, "k d"]:
    """Latent points just off the data, by the standard of held-out latents.

    A held-out latent lies within r of the nearest training latent, r the 99 % quantile over all of them. Points drawn
    at 3 r from a held-out latent, in a random direction, are kept where the nearest training latent is farther than r:
    they are where no held-out latent would be, yet not far out. In a plane full of data many tries land on other data,
    in 32 dimensions hardly any.

    Args:
        vae: encodes the data.
        x_train: (N, D).
        x_validation: (M, D).
        rng: on the CPU.

    Raises:
        ValueError: all tries land on data.
    """
    with torch.no_grad():
        latents, held_out = vae.encode(x_train).mean, vae.encode(x_validation).mean
    radius = nearest_distance(held_out, latents).quantile(0.99)
    start = held_out.repeat(_TRIES, 1)
    direction = torch.randn(start.shape, generator=rng, dtype=torch.float64).to(start)
    tries = start + 3 * radius * torch.nn.functional.normalize(direction, dim=1)
    kept = tries[nearest_distance(tries, latents) > radius]
    if len(kept) == 0:
        raise ValueError(f"x_validation must leave room around it: none of {len(tries)} points is off the data")
    return kept


def nearest_distance(z: Float[Tensor, "b d"], latents: Float[Tensor, "n d"]) -> Float[Tensor, " b"]:
    """Distance of each point to the nearest latent, (B,)."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, latents, compute_mode=mode).amin(1) for part in z.split(_ROWS)])


def _score(vae: VAE, deviation: Callable[[Tensor], Tensor], x: Tensor, away: Tensor) -> DeviationScore:
    with torch.no_grad():
        z = vae.encode(x).mean
        log_deviation = deviation(z).log()
        nll = gaussian_nll(x, DiagonalGaussian(vae.decode(z).mean, 2 * log_deviation))
        contrast = deviation(away).log().mean() - log_deviation.mean()
    rows = -0.5 * (nll + x.shape[1] * math.log(2 * math.pi))
    error = rows.std() / len(rows) ** 0.5
    return DeviationScore(rows.mean().item(), error.item(), contrast.item())
