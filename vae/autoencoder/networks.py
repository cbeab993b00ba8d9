"""Encoder and decoder networks with a mean and a log-variance head on one trunk."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.arguments import check_counts, check_widths
from vae.autoencoder.activations import Activation

Network = TypeVar("Network", bound=nn.Module)


class DiagonalGaussian(NamedTuple):
    """Parameters of a normal distribution with diagonal covariance, one per row.

    Attributes:
        mean: (B, n), units of the variable.
        log_variance: log sigma^2, (B, n).
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def standard_deviation(self) -> Tensor:
        """sigma = exp(log_variance / 2), (B, n)."""
        return torch.exp(self.log_variance / 2)


@dataclass(frozen=True)
class PerceptronArchitecture:
    """Fully connected encoder D-hidden-d and its mirror image as decoder.

    Attributes:
        hidden: widths of the encoder's hidden layers, from the data inwards.
    """

    hidden: tuple[int, ...] = (64, 32)

    def __post_init__(self) -> None:
        check_widths("hidden", self.hidden)


@dataclass(frozen=True)
class ConvolutionalArchitecture:
    """Encoder of 3 x 3 convolutions with stride 2 and a dense layer, mirrored by transposed convolutions as
    decoder.

    Data stay flat, (B, C H W): images are cut out of the rows inside the network.

    Attributes:
        image_shape: (C, H, W).
        channels: output channels of the encoder's convolutions; each halves H and W, rounding up.
        dense: width of the dense layer between the convolutions and the latent space.
    """

    image_shape: tuple[int, int, int]
    channels: tuple[int, ...] = (16, 32)
    dense: int = 64

    def __post_init__(self) -> None:
        check_widths("image_shape", self.image_shape)
        check_widths("channels", self.channels)
        check_counts(self, "dense")
        if len(self.image_shape) != 3:
            raise ValueError(f"image_shape must be (C, H, W); got {self.image_shape}")


class GaussianNetwork(nn.Module):
    """A trunk `layers` with the heads `output_mu` and `output_logvar`: x -> N(mean(x), diag exp
    log_variance(x)).

    Args:
        layers: the trunk.
        output_mu: head of the mean.
        output_logvar: head of log sigma^2.
    """

    def __init__(self, layers: nn.Sequential, output_mu: nn.Sequential, output_logvar: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        self.output_mu = output_mu
        self.output_logvar = output_logvar

    def forward(self, x: Float[Tensor, "b n"]) -> DiagonalGaussian:
        """Mean and log variance, each (B, m), of every row (B, n)."""
        h = self.layers(x)
        return DiagonalGaussian(self.output_mu(h), self.output_logvar(h))


class Activations(NamedTuple):
    """The three activations of a network: between layers, and after either head."""

    hidden: Activation
    mean: Activation
    log_variance: Activation


def perceptron(widths: tuple[int, ...], activations: Activations) -> GaussianNetwork:
    """Fully connected network of the given widths, input first, the width of both heads last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out), activations.hidden.module()]
    heads = [
        nn.Sequential(nn.Linear(widths[-2], widths[-1]), activation.module())
        for activation in (activations.mean, activations.log_variance)
    ]
    return GaussianNetwork(nn.Sequential(*layers), *heads)


def convolutional_encoder(
    architecture: ConvolutionalArchitecture, latent_dim: int, activations: Activations
) -> GaussianNetwork:
    """Encoder (B, C H W) -> (B, latent_dim)."""
    sizes = _image_sizes(architecture)
    layers: list[nn.Module] = [nn.Unflatten(1, architecture.image_shape)]
    channels = (architecture.image_shape[0], *architecture.channels)
    for fan_in, fan_out in pairwise(channels):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), activations.hidden.module()]
    flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
    layers += [nn.Flatten(), nn.Linear(flat, architecture.dense), activations.hidden.module()]
    heads = [
        nn.Sequential(nn.Linear(architecture.dense, latent_dim), activation.module())
        for activation in (activations.mean, activations.log_variance)
    ]
    return GaussianNetwork(nn.Sequential(*layers), *heads)


def convolutional_decoder(
    architecture: ConvolutionalArchitecture, latent_dim: int, activations: Activations
) -> GaussianNetwork:
    """Decoder (B, latent_dim) -> (B, C H W), whose heads are the last transposed convolution each."""
    sizes = _image_sizes(architecture)[::-1]
    channels = (architecture.image_shape[0], *architecture.channels)[::-1]
    smallest = (channels[0], *sizes[0])
    layers: list[nn.Module] = [nn.Linear(latent_dim, architecture.dense), activations.hidden.module()]
    layers += [
        nn.Linear(architecture.dense, channels[0] * sizes[0][0] * sizes[0][1]),
        activations.hidden.module(),
    ]
    layers += [nn.Unflatten(1, smallest)]
    for i in range(len(channels) - 2):
        layers += [
            _upsampling(channels[i], channels[i + 1], sizes[i], sizes[i + 1]),
            activations.hidden.module(),
        ]
    heads = [
        nn.Sequential(_upsampling(channels[-2], channels[-1], sizes[-2], sizes[-1]), activation.module(), nn.Flatten())
        for activation in (activations.mean, activations.log_variance)
    ]
    return GaussianNetwork(nn.Sequential(*layers), *heads)


def drawn(make: Callable[[], Network], generator: torch.Generator) -> Network:
    """The network that `make` makes, on the generator's device and with weights drawn from it alone.

    The layers are made without memory first: made as usual, they would draw weights from torch's global generator.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device=generator.device)
    initialize(network, generator)
    return network


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default, from a given
    generator."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                bound = module.weight[0].numel() ** -0.5
                for parameter in module.parameters(recurse=False):
                    parameter.uniform_(-bound, bound, generator=generator)


def _image_sizes(architecture: ConvolutionalArchitecture) -> list[tuple[int, int]]:
    """(H, W) before the first and after each convolution of stride 2."""
    sizes = [architecture.image_shape[1:]]
    for _ in architecture.channels:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _upsampling(fan_in: int, fan_out: int, size: tuple[int, int], target: tuple[int, int]) -> nn.ConvTranspose2d:
    """Transposed convolution from `size` to `target`: 2 n - 1 pixels, and one more where the target is
    even."""
    padding = (target[0] - 2 * size[0] + 1, target[1] - 2 * size[1] + 1)
    return nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=padding)
