"""Converter of published npz weights to this package's VAE and RBF precision."""

from os import PathLike

import numpy as np
import torch
from torch import Tensor

from vae.autoencoder.activations import Activation
from vae.autoencoder.model import VAE, VAEConfig
from vae.autoencoder.networks import PerceptronArchitecture
from vae.deviation.rbf import RBFPrecision


def load_published(
    path: str | PathLike[str],
    xi: float = 1e-6,
    mean_activation: Activation = Activation.SIGMOID,
    dtype: torch.dtype = torch.float32,
) -> tuple[VAE, RBFPrecision]:
    """VAE and RBF precision from an npz file of a re-implementation of "Latent Space Oddity".

    The layout is a flattened state dict. For each of `VAE.encoder` and `VAE.decoder`:
    `layers.{0,2,...}.weight` and `.bias`, `output_mu.0.*`, `output_logvar.0.*`, weights (out, in) as in
    `torch.nn.Linear`; for the RBF network `RBF.W_rbf` (D, K), `RBF.centers_rbf` (K, d) and `RBF.lambdas_k`
    (K, 1), with sigma = (W v + xi)^(-1/2) and v_k = exp(-lambda_k ||z - c_k||^2). Sizes are read off the
    weights. What the file does not say: tanh between layers and softplus on both log variances, which are
    fixed here, and the arguments below.

    Args:
        path: the npz file.
        xi: precision far from the data, the same for each output.
        mean_activation: sigmoid for a model of images in [0, 1]; identity for one of unbounded data, such as
            a surface in R^3.
        dtype: of the result; asked for here and not converted later, xi is exact in it.

    Raises:
        ValueError: an entry is missing, or the shapes do not fit each other.
    """
    with np.load(path, allow_pickle=False) as archive:
        entries = {name: torch.from_numpy(archive[name]).to(dtype) for name in archive.files}
    state = {name.removeprefix("VAE."): value for name, value in entries.items() if name.startswith("VAE.")}
    config = _config(state, mean_activation)
    vae = VAE(config).to(dtype)
    try:
        vae.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"path must hold the weights of a VAE of {config}; {error}") from error
    weights, centers, bandwidths = (_entry(entries, f"RBF.{n}") for n in ("W_rbf", "centers_rbf", "lambdas_k"))
    return vae.eval(), RBFPrecision(centers, bandwidths.reshape(-1), weights, torch.full_like(weights[:, 0], xi))


def _config(state: dict[str, Tensor], mean_activation: Activation) -> VAEConfig:
    hidden: list[int] = []
    while (name := f"encoder.layers.{2 * len(hidden)}.weight") in state:
        hidden.append(state[name].shape[0])
    latent_dim = _entry(state, "encoder.output_mu.0.weight").shape[0]
    data_dim = _entry(state, "decoder.output_mu.0.weight").shape[0]
    return VAEConfig(data_dim, latent_dim, PerceptronArchitecture(tuple(hidden)), mean_activation=mean_activation)


def _entry(entries: dict[str, Tensor], name: str) -> Tensor:
    if name not in entries:
        raise ValueError(f"path must hold the entry {name}; it has {sorted(entries)}")
    return entries[name]
