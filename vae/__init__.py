"""Stochastic generators of "Latent Space Oddity": VAE, RBF precision, training, data, files.

Names are loaded when they are asked for (PEP 562), so `import vae` alone brings neither torch nor
scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vae.autoencoder.activations import Activation
    from vae.autoencoder.loss import annealing, gaussian_nll, kl_to_prior, vae_loss
    from vae.autoencoder.model import VAE, VAEConfig
    from vae.autoencoder.networks import ConvolutionalArchitecture, DiagonalGaussian, PerceptronArchitecture
    from vae.deviation.neural_field import NeuralField
    from vae.deviation.neural_field_fit import NeuralFieldConfig, fit_neural_field, fit_neural_field_to_vae
    from vae.deviation.rbf import RBFPrecision
    from vae.deviation.rbf_fit import RBFConfig, fit_rbf, fit_rbf_to_vae
    from vae.deviation.rbf_selection import DeviationScore, RBFCandidate, RBFSelection, score_deviation, select_rbf
    from vae.files.checkpoints import (
        load_neural_field,
        load_optimizer,
        load_rbf,
        load_vae,
        save_neural_field,
        save_optimizer,
        save_rbf,
        save_vae,
    )
    from vae.files.datasets import Dataset, from_arrays, load_digits, load_fashion_mnist, load_mnist, read_idx
    from vae.files.published_weights import load_published
    from vae.generators.plugins import MeanGenerator, NeuralFieldGenerator, RBFGenerator, VAEGenerator
    from vae.training import EpochRecord, TrainingConfig, TrainingResult, train_vae

__all__ = [
    "VAE",
    "Activation",
    "ConvolutionalArchitecture",
    "Dataset",
    "DeviationScore",
    "DiagonalGaussian",
    "EpochRecord",
    "MeanGenerator",
    "NeuralField",
    "NeuralFieldConfig",
    "NeuralFieldGenerator",
    "PerceptronArchitecture",
    "RBFCandidate",
    "RBFConfig",
    "RBFGenerator",
    "RBFPrecision",
    "RBFSelection",
    "TrainingConfig",
    "TrainingResult",
    "VAEConfig",
    "VAEGenerator",
    "annealing",
    "fit_neural_field",
    "fit_neural_field_to_vae",
    "fit_rbf",
    "fit_rbf_to_vae",
    "from_arrays",
    "gaussian_nll",
    "kl_to_prior",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "load_neural_field",
    "load_optimizer",
    "load_published",
    "load_rbf",
    "load_vae",
    "read_idx",
    "save_neural_field",
    "save_optimizer",
    "save_rbf",
    "save_vae",
    "score_deviation",
    "select_rbf",
    "train_vae",
    "vae_loss",
]

_MODULES = {
    "autoencoder.activations": ("Activation",),
    "files.checkpoints": (
        "load_neural_field",
        "load_optimizer",
        "load_rbf",
        "load_vae",
        "save_neural_field",
        "save_optimizer",
        "save_rbf",
        "save_vae",
    ),
    "files.datasets": ("Dataset", "from_arrays", "load_digits", "load_fashion_mnist", "load_mnist", "read_idx"),
    "generators.plugins": ("MeanGenerator", "NeuralFieldGenerator", "RBFGenerator", "VAEGenerator"),
    "autoencoder.loss": ("annealing", "gaussian_nll", "kl_to_prior", "vae_loss"),
    "autoencoder.model": ("VAE", "VAEConfig"),
    "autoencoder.networks": ("ConvolutionalArchitecture", "DiagonalGaussian", "PerceptronArchitecture"),
    "deviation.neural_field": ("NeuralField",),
    "deviation.neural_field_fit": ("NeuralFieldConfig", "fit_neural_field", "fit_neural_field_to_vae"),
    "files.published_weights": ("load_published",),
    "deviation.rbf": ("RBFPrecision",),
    "deviation.rbf_fit": ("RBFConfig", "fit_rbf", "fit_rbf_to_vae"),
    "deviation.rbf_selection": ("DeviationScore", "RBFCandidate", "RBFSelection", "score_deviation", "select_rbf"),
    "training": ("EpochRecord", "TrainingConfig", "TrainingResult", "train_vae"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'vae' has no attribute {name!r}")
    return getattr(import_module(f"vae.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
