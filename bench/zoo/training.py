"""Training of the zoo's models: one command for all, about a minute a model on one core."""

import time
from pathlib import Path

import torch
from torch import Tensor

from bench.zoo.data import load
from bench.zoo.models import FOLDER, path_of, save_model
from bench.zoo.pairs import Pairs, draw, pairs_path, store
from bench.zoo.recipes import Kind, Recipe, Source
from vae import VAE, Activation, Dataset, TrainingConfig, VAEConfig, fit_rbf, gaussian_nll, train_vae

# Encoded points that are stored with a model, so many or of so many numbers; graphs and pairs are drawn from them.
MOST_LATENTS, MOST_NUMBERS = 1500, 16_000
# Noise on normalized codes in training, latent units of the sphere of radius 1.
_CODE_NOISE = 0.1


def train(recipe: Recipe, root: Path | None, folder: Path = FOLDER) -> str:
    """Train a model, write its file and its pairs without lengths, and say how good it is.

    Args:
        recipe: the model.
        root: folder of the images.
        folder: where the files go.
    """
    began = time.process_time()
    data = load(recipe, root)
    vae = (_normalized if recipe.kind is Kind.NORMALIZED else _variational)(recipe, data.x)
    vae = vae.double().eval()
    x = data.x.double()
    with torch.no_grad():
        latents = vae.encode(x).mean
        code = torch.nn.functional.normalize(latents, dim=1) if recipe.kind is Kind.NORMALIZED else latents
        likelihood = vae.decode(code)
        lost = (likelihood.mean - x).square().sum() / (x - x.mean(0)).square().sum()
    rbf = fit_rbf(code, likelihood.log_variance.exp(), recipe.rbf) if recipe.rbf is not None else None
    most = min(MOST_LATENTS, MOST_NUMBERS // recipe.latent_dim)
    kept = torch.randperm(len(x), generator=torch.Generator().manual_seed(recipe.seed))[:most].sort().values
    # Pairs are drawn from what the file holds: float32.
    latents = latents[kept].float()
    save_model(path_of(recipe.name, folder), vae, recipe.kind, rbf, latents)
    store(pairs_path(recipe.name, folder), _pairs(recipe, latents.double(), data, kept))
    seconds = time.process_time() - began
    return f"{recipe.name}: {1 - lost:.1%} of the variance explained, {len(x)} rows, {seconds:.0f} CPU s"


def _variational(recipe: Recipe, x: Tensor) -> VAE:
    training = TrainingConfig(recipe.epochs, learning_rate=recipe.learning_rate, noise=recipe.noise, seed=recipe.seed)
    return train_vae(x, _config(recipe, x), training, progress=False).vae


def _config(recipe: Recipe, x: Tensor) -> VAEConfig:
    mean = Activation.IDENTITY if recipe.source is Source.SHEET else Activation.SIGMOID
    sizes = recipe.architecture, recipe.activation, mean, recipe.variance_activation
    return VAEConfig(x.shape[1], recipe.latent_dim, *sizes)


def _normalized(recipe: Recipe, x: Tensor) -> VAE:
    """An autoencoder whose codes are normalized before they are decoded, by the likelihood of noisy data."""
    rng = torch.Generator().manual_seed(recipe.seed)
    vae = VAE(_config(recipe, x), rng)
    optimizer = torch.optim.Adam(vae.parameters(), lr=recipe.learning_rate)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x), generator=rng).split(128):
            code = torch.nn.functional.normalize(vae.encode(x[rows]).mean, dim=1)
            code = torch.nn.functional.normalize(code + _CODE_NOISE * torch.randn(code.shape, generator=rng), dim=1)
            noisy = x[rows] + recipe.noise * torch.randn(len(rows), x.shape[1], generator=rng)
            optimizer.zero_grad()
            gaussian_nll(noisy, vae.decode(code)).mean().backward()
            optimizer.step()
    return vae


def _pairs(recipe: Recipe, latents: Tensor, data: Dataset, kept: Tensor) -> Pairs:
    return draw(latents, data.labels[kept], recipe.pairs, recipe.seed)
