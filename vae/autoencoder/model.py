"""The variational autoencoder and its configuration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.arguments import check_counts, check_rows, check_type
from vae.autoencoder.activations import Activation
from vae.autoencoder.networks import (
    Activations,
    ConvolutionalArchitecture,
    DiagonalGaussian,
    GaussianNetwork,
    PerceptronArchitecture,
    convolutional_decoder,
    convolutional_encoder,
    drawn,
    perceptron,
)


@dataclass(frozen=True)
class VAEConfig:
    """What a VAE is made of; the defaults are those of "Latent Space Oddity" (D-64-32-2, tanh).

    Attributes:
        data_dim: D, the number of columns of the data.
        latent_dim: d.
        architecture: fully connected (default) or convolutional.
        activation: activation between the layers.
        mean_activation: activation of the decoder's mean; sigmoid for data in [0, 1], identity for any other.
        variance_activation: activation of both log variances, encoder's and decoder's. Softplus forces
            sigma^2 >= 1, which for data in [0, 1] is far more than their spread; identity lets the model
            learn a smaller one.
    """

    data_dim: int
    latent_dim: int = 2
    architecture: PerceptronArchitecture | ConvolutionalArchitecture = field(default_factory=PerceptronArchitecture)
    activation: Activation = Activation.TANH
    mean_activation: Activation = Activation.SIGMOID
    variance_activation: Activation = Activation.SOFTPLUS

    def __post_init__(self) -> None:
        check_counts(self, "data_dim", "latent_dim")
        for name in ("activation", "mean_activation", "variance_activation"):
            check_type(name, getattr(self, name), Activation)
        check_type("architecture", self.architecture, PerceptronArchitecture, ConvolutionalArchitecture)
        if isinstance(self.architecture, ConvolutionalArchitecture):
            channels, height, width = self.architecture.image_shape
            if channels * height * width != self.data_dim:
                raise ValueError(
                    f"data_dim must be C H W of image_shape {self.architecture.image_shape}; got {self.data_dim}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-serializable values."""
        values = asdict(self)
        for name in ("activation", "mean_activation", "variance_activation"):
            values[name] = values[name].value
        kind = "convolutional" if isinstance(self.architecture, ConvolutionalArchitecture) else "perceptron"
        return {**values, "architecture": {"kind": kind, **values["architecture"]}}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "VAEConfig":
        """Inverse of `to_dict`, also after a round through JSON (which turns tuples into lists)."""
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in values["architecture"].items()}
        kinds = {"convolutional": ConvolutionalArchitecture, "perceptron": PerceptronArchitecture}
        kind = kinds[str(sizes.pop("kind"))]
        names = ("activation", "mean_activation", "variance_activation")
        activations = {name: Activation(values[name]) for name in names}
        return VAEConfig(values["data_dim"], values["latent_dim"], kind(**sizes), **activations)


class VAE(nn.Module):
    """Variational autoencoder with Gaussian encoder q(z | x), Gaussian decoder p(x | z) and prior N(0, I).

    The model is that of Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, with a decoder that has a
    variance of its own as in Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018.

    Args:
        config: sizes and activations.
        generator: draws the initial weights; without one they come from torch's global generator.
    """

    def __init__(self, config: VAEConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_type("config", config, VAEConfig)
        self.config = config
        if generator is None:
            self.encoder, self.decoder = _encoder(config), _decoder(config)
        else:
            check_type("generator", generator, torch.Generator)
            self.encoder = drawn(partial(_encoder, config), generator)
            self.decoder = drawn(partial(_decoder, config), generator)

    def encode(self, x: Float[Tensor, "b D"]) -> DiagonalGaussian:
        """q(z | x) of each row of data (B, D): mean and log variance (B, d).

        Raises:
            ValueError: x is not (B, D), or not of the model's dtype and device.
        """
        check_rows("x", x, self.config.data_dim)
        return self._gaussian("x", self.encoder, x)

    def decode(self, z: Float[Tensor, "b d"]) -> DiagonalGaussian:
        """p(x | z) of each latent point (B, d): mean and log variance (B, D).

        Raises:
            ValueError: z is not (B, d), or not of the model's dtype and device.
        """
        check_rows("z", z, self.config.latent_dim)
        return self._gaussian("z", self.decoder, z)

    def reparametrize(self, posterior: DiagonalGaussian, generator: torch.Generator) -> Float[Tensor, "b d"]:
        """One sample z = mean + sigma eps per row, eps ~ N(0, I) drawn on the generator's own device.

        A CPU generator therefore gives the same eps whatever device the model is on.
        """
        mean = posterior.mean
        eps = torch.randn(mean.shape, dtype=mean.dtype, device=generator.device, generator=generator)
        return mean + posterior.standard_deviation * eps.to(mean.device)

    def forward(self, x: Float[Tensor, "b D"], generator: torch.Generator) -> tuple[DiagonalGaussian, DiagonalGaussian]:
        """Posterior q(z | x), and the likelihood p(x | z) at one sample z of it."""
        posterior = self.encode(x)
        return posterior, self.decode(self.reparametrize(posterior, generator))

    @staticmethod
    def _gaussian(name: str, network: nn.Module, x: Tensor) -> DiagonalGaussian:
        weight = next(network.parameters())
        if (x.dtype, x.device) != (weight.dtype, weight.device):
            model = f"{weight.dtype} on {weight.device}"
            raise ValueError(f"{name} must have the model's {model}; got {x.dtype} on {x.device}")
        mean, log_variance = network(x)
        return DiagonalGaussian(mean, log_variance)


def _encoder(config: VAEConfig) -> GaussianNetwork:
    activations = Activations(config.activation, Activation.IDENTITY, config.variance_activation)
    if isinstance(config.architecture, ConvolutionalArchitecture):
        return convolutional_encoder(config.architecture, config.latent_dim, activations)
    return perceptron((config.data_dim, *config.architecture.hidden, config.latent_dim), activations)


def _decoder(config: VAEConfig) -> GaussianNetwork:
    activations = Activations(config.activation, config.mean_activation, config.variance_activation)
    if isinstance(config.architecture, ConvolutionalArchitecture):
        return convolutional_decoder(config.architecture, config.latent_dim, activations)
    return perceptron((config.latent_dim, *config.architecture.hidden[::-1], config.data_dim), activations)
