"""Stochastic generators of "Latent Space Oddity": VAE, RBF precision, training, data, files.

Names are loaded when they are asked for (PEP 562), so `import vae` alone brings neither torch nor
scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vae.activations import Activation
    from vae.checkpoints import load_optimizer, load_rbf, load_vae, save_optimizer, save_rbf, save_vae
    from vae.data import Dataset, from_arrays, load_digits, load_fashion_mnist, load_mnist, read_idx
    from vae.generators import MeanGenerator, RBFGenerator, VAEGenerator
    from vae.loss import annealing, gaussian_nll, kl_to_prior, vae_loss
    from vae.model import VAE, VAEConfig
    from vae.networks import ConvolutionalArchitecture, DiagonalGaussian, PerceptronArchitecture
    from vae.published import load_published
    from vae.rbf import RBFPrecision
    from vae.rbf_fit import RBFConfig, fit_rbf, fit_rbf_to_vae
    from vae.training import EpochRecord, TrainingConfig, TrainingResult, train_vae

__all__ = [
    "VAE",
    "Activation",
    "ConvolutionalArchitecture",
    "Dataset",
    "DiagonalGaussian",
    "EpochRecord",
    "MeanGenerator",
    "PerceptronArchitecture",
    "RBFConfig",
    "RBFGenerator",
    "RBFPrecision",
    "TrainingConfig",
    "TrainingResult",
    "VAEConfig",
    "VAEGenerator",
    "annealing",
    "fit_rbf",
    "fit_rbf_to_vae",
    "from_arrays",
    "gaussian_nll",
    "kl_to_prior",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_optimizer",
    "load_published",
    "load_rbf",
    "load_vae",
    "read_idx",
    "save_optimizer",
    "save_rbf",
    "save_vae",
    "train_vae",
    "vae_loss",
]

_MODULES = {
    "activations": ("Activation",),
    "checkpoints": ("load_optimizer", "load_rbf", "load_vae", "save_optimizer", "save_rbf", "save_vae"),
    "data": ("Dataset", "from_arrays", "load_digits", "load_fashion_mnist", "load_mnist", "read_idx"),
    "generators": ("MeanGenerator", "RBFGenerator", "VAEGenerator"),
    "loss": ("annealing", "gaussian_nll", "kl_to_prior", "vae_loss"),
    "model": ("VAE", "VAEConfig"),
    "networks": ("ConvolutionalArchitecture", "DiagonalGaussian", "PerceptronArchitecture"),
    "published": ("load_published",),
    "rbf": ("RBFPrecision",),
    "rbf_fit": ("RBFConfig", "fit_rbf", "fit_rbf_to_vae"),
    "training": ("EpochRecord", "TrainingConfig", "TrainingResult", "train_vae"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vae' has no attribute {name!r}")
    return getattr(import_module(f"vae.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
