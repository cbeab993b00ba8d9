"""Converter of published npz weights to this package's VAE and RBF precision."""

import zipfile
import zlib
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from vae.arguments import check_type
from vae.autoencoder.activations import Activation
from vae.autoencoder.model import VAE, VAEConfig
from vae.autoencoder.networks import PerceptronArchitecture
from vae.deviation.rbf import RBFPrecision
from vae.files.checkpoints import vae_of
from vae.files.tensor_files import check_regular, named_in_errors


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
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no npz, an entry is missing or not finite, or the shapes do not fit each other.
    """
    check_type("mean_activation", mean_activation, Activation)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64; got {dtype}")
    check_regular(path)
    with named_in_errors(path):
        entries = _entries(path, dtype)
        state = {name.removeprefix("VAE."): value for name, value in entries.items() if name.startswith("VAE.")}
        vae = vae_of(_config(state, mean_activation), state)
        weights, centers, bandwidths = (_entry(entries, f"RBF.{n}") for n in ("W_rbf", "centers_rbf", "lambdas_k"))
        return vae, RBFPrecision(centers, bandwidths.reshape(-1), weights, torch.full_like(weights[:, 0], xi))


def _entries(path: str | PathLike[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """All entries, which must be arrays of real numbers."""
    try:
        with zipfile.ZipFile(path):
            pass  # np.load would take an npy or a pickle as well
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as error:
        raise ValueError(f"must be an npz file; {error}") from error
    strange = [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]
    if strange:
        raise ValueError(f"must hold real numbers; {strange[0]} is of {arrays[strange[0]].dtype}")
    return {name: torch.from_numpy(np.asarray(array, np.float64)).to(dtype) for name, array in arrays.items()}


def _config(state: dict[str, Tensor], mean_activation: Activation) -> VAEConfig:
    hidden: list[int] = []
    while (name := f"encoder.layers.{2 * len(hidden)}.weight") in state:
        hidden.append(state[name].shape[0])
    latent_dim = _entry(state, "encoder.output_mu.0.weight").shape[0]
    data_dim = _entry(state, "decoder.output_mu.0.weight").shape[0]
    return VAEConfig(data_dim, latent_dim, PerceptronArchitecture(tuple(hidden)), mean_activation=mean_activation)


def _entry(entries: dict[str, Tensor], name: str) -> Tensor:
    if name not in entries:
        raise ValueError(f"must hold the entry {name}; it has {sorted(entries)}")
    return entries[name]
