"""Neural field for the decoder's precision: a small perceptron, fitted to be unsure away from the data."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.arguments import check_floating, check_rows
from vae.autoencoder.activations import Activation
from vae.autoencoder.networks import drawn


class NeuralField(nn.Module):
    r"""Precision of the decoder as a perceptron of the latent point.

    .. math:: \beta(z) = \exp u(z) + \xi, \quad \sigma = \beta^{-1/2}, \quad u(z) = A h(z) + b, \quad
        h_l = \tanh(A_l h_{l-1} + b_l), \quad h_0 = (z - m) / s

    Positive by construction; where u is low sigma levels off at xi^(-1/2), as the RBF network's does. A perceptron
    alone is sure of itself wherever it likes: `fit_neural_field` is what makes it unsure away from the data. An
    interchangeable alternative to `RBFPrecision`, without centers and bandwidths.

    Args:
        latent_dim: d.
        data_dim: D.
        hidden: widths of the hidden layers.
        shift: m, (d,), latent units; usually the mean of the encoded data.
        scale: s, (d,), latent units, positive; usually their standard deviation.
        xi: precision far from the data, inverse squared data units, positive.
        generator: draws the initial weights.

    Raises:
        ValueError: a size below 1, no hidden layer, or a shift or scale that is not a finite (d,), or a
            scale or xi that is not positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        hidden: tuple[int, ...],
        shift: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        xi: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not hidden or min(latent_dim, data_dim, *hidden) < 1:
            raise ValueError(f"sizes must be positive, hidden not empty; got {(latent_dim, data_dim, hidden)}")
        for name, tensor in (("shift", shift), ("scale", scale)):
            check_floating(name, tensor)
            if tensor.shape != (latent_dim,) or not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} must be finite and ({latent_dim},); got {tuple(tensor.shape)}")
        if not (bool((scale > 0).all()) and 0 < xi < math.inf):
            raise ValueError(f"scale and xi must be positive and finite; got {float(scale.min())} at least, and {xi}")
        self.latent_dim, self.data_dim, self.hidden, self.xi = latent_dim, data_dim, tuple(hidden), xi
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.layers = drawn(lambda: _hidden_layers((latent_dim, *hidden)), generator)
        self.head = drawn(lambda: nn.Linear(hidden[-1], data_dim), generator)
        self.to(device=shift.device, dtype=shift.dtype)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Precision beta(z), inverse squared data units.

        Raises:
            ValueError: z is not (B, d).
        """
        return torch.exp(self._log_precision(z)) + self.xi

    def log_variance(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """log sigma^2(z) = -log beta(z), without overflow."""
        u = self._log_precision(z)
        return -torch.logaddexp(u, torch.full_like(u, math.log(self.xi)))

    def standard_deviation(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """sigma(z) = beta(z)^(-1/2), data units."""
        return torch.rsqrt(self(z))

    def _log_precision(self, z: Tensor) -> Tensor:
        """u(z)."""
        check_rows("z", z, self.latent_dim)
        u: Tensor = self.head(self.layers((z - self.shift) / self.scale))
        return u

    def unscaled_layers(self) -> nn.Sequential:
        """Hidden layers as functions of z itself, a copy: shift and scale go into the first layer's weights."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        sizes = first.in_features, first.out_features
        folded = nn.utils.skip_init(nn.Linear, *sizes, device=first.weight.device, dtype=first.weight.dtype)
        with torch.no_grad():
            folded.weight.copy_(first.weight / self.scale)
            folded.bias.copy_(first.bias - folded.weight @ self.shift)
        return nn.Sequential(folded, *list(self.layers)[1:])


def _hidden_layers(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), Activation.TANH.module()]
    return nn.Sequential(*layers)
