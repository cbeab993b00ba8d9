"""What the zoo's models are made of: data, networks, deviations. The spread is wide on purpose."""

from dataclasses import dataclass
from enum import Enum

from vae import Activation, ConvolutionalArchitecture, PerceptronArchitecture, RBFConfig


class Source(Enum):
    """Where the data come from; the value is the name in a file."""

    DIGITS = "digits"  # 8 x 8, bundled with scikit-learn
    FASHION = "fashion-mnist"  # 28 x 28, averaged to 14 x 14
    MNIST = "mnist"  # the test images, averaged to 14 x 14
    SHEET = "sheet"  # points on a wavy sheet with a hole in R^3


class Kind(Enum):
    """The generator: which deviation is stacked on the mean, and what happens to the code first."""

    RBF = "rbf"  # F = (mu, sigma) with sigma by the RBF network
    OWN = "own"  # F = (mu, sigma) with the decoder's own sigma
    NORMALIZED = "normalized"  # the same of z / |z|: the metric is singular along the radius


@dataclass(frozen=True)
class Recipe:
    """One model.

    Attributes:
        name: of the model and its files.
        source: the data.
        classes: labels to keep; None for all.
        latent_dim: d.
        kind: of the generator.
        activation: between layers.
        variance_activation: of both log variances; softplus keeps sigma^2 >= 1 and collapses the code.
        architecture: of encoder and decoder.
        rbf: options of the RBF fit; None for the decoder's own deviation.
        epochs: of the training.
        learning_rate: of Adam.
        noise: standard deviation of the noise added in training, data units.
        pairs: number of geodesic problems, half of them held out.
        seed: of the training.
    """

    name: str
    source: Source
    classes: tuple[int, ...] | None
    latent_dim: int
    kind: Kind
    activation: Activation
    architecture: PerceptronArchitecture | ConvolutionalArchitecture
    rbf: RBFConfig | None = None
    variance_activation: Activation = Activation.IDENTITY
    epochs: int = 300
    learning_rate: float = 1e-3
    noise: float = 0.1
    pairs: int = 16
    seed: int = 0


def _dense(*hidden: int) -> PerceptronArchitecture:
    return PerceptronArchitecture(hidden)


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "two_digits",
        Source.DIGITS,
        (3, 8),
        2,
        Kind.RBF,
        Activation.TANH,
        _dense(32, 16),
        RBFConfig(16, 0.7, 1e-4),
        epochs=3000,
        noise=0.05,
        pairs=20,
        seed=1,
    ),
    Recipe(
        "four_digits",
        Source.DIGITS,
        (1, 4, 7, 9),
        3,
        Kind.RBF,
        Activation.RELU,
        _dense(48, 32),
        RBFConfig(64, 0.5, 1e-5),
        epochs=800,
        pairs=20,
        seed=2,
    ),
    Recipe(
        "ten_digits",
        Source.DIGITS,
        None,
        8,
        Kind.RBF,
        Activation.SILU,
        _dense(64, 32),
        RBFConfig(128, 1.0, 1e-6),
        epochs=600,
        seed=3,
    ),
    Recipe("own_deviation", Source.DIGITS, None, 16, Kind.OWN, Activation.TANH, _dense(64, 32), epochs=1000, seed=4),
    Recipe(
        "normalized",
        Source.DIGITS,
        None,
        8,
        Kind.NORMALIZED,
        Activation.SILU,
        _dense(64, 32),
        RBFConfig(48, 1.0, 1e-5),
        epochs=800,
        seed=5,
    ),
    Recipe(
        "collapsed",
        Source.MNIST,
        (0, 1),
        2,
        Kind.RBF,
        Activation.TANH,
        _dense(32, 16),
        RBFConfig(64, 1.5, 1e-7),
        variance_activation=Activation.SOFTPLUS,
        epochs=800,
        pairs=20,
        seed=6,
    ),
    Recipe(
        "sheet",
        Source.SHEET,
        None,
        2,
        Kind.RBF,
        Activation.TANH,
        _dense(32, 32),
        RBFConfig(32, 1.0, 1e-4),
        epochs=600,
        noise=0.02,
        pairs=20,
        seed=7,
    ),
    Recipe(
        "three_garments",
        Source.FASHION,
        (0, 1, 7),
        2,
        Kind.RBF,
        Activation.TANH,
        _dense(64, 32),
        RBFConfig(64, 1.0, 1e-6),
        Activation.SOFTPLUS,
        epochs=400,
        noise=0.05,
        pairs=20,
        seed=8,
    ),
    Recipe(
        "ten_garments",
        Source.FASHION,
        None,
        32,
        Kind.RBF,
        Activation.RELU,
        _dense(
            64,
        ),
        RBFConfig(128, 3.0, 1e-7),
        epochs=150,
        noise=0.05,
        seed=9,
    ),
    Recipe(
        "convolutional",
        Source.MNIST,
        None,
        3,
        Kind.RBF,
        Activation.SILU,
        ConvolutionalArchitecture((1, 14, 14), (4, 8), 24),
        RBFConfig(64, 1.5, 1e-6),
        epochs=150,
        noise=0.05,
        pairs=20,
        seed=10,
    ),
    Recipe(
        "two_images",
        Source.MNIST,
        (4, 9),
        16,
        Kind.RBF,
        Activation.TANH,
        _dense(48, 32),
        RBFConfig(32, 3.0, 1e-5),
        epochs=200,
        seed=11,
    ),
)


def recipe(name: str) -> Recipe:
    """The recipe of a model."""
    return next(one for one in RECIPES if one.name == name)
