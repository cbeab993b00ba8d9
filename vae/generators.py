"""The VAE's generators, exchangeable in one word: mean, mean and own deviation, mean and RBF's.

Each is a row-wise callable (B, d) -> (B, n) that holds a frozen copy of the weights, so training on or moving
the VAE afterwards changes nothing here; `generator.to(torch.float64)` or `.to("cuda")` converts the copy
alone.
"""

import copy
from abc import ABC
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from vae.features import PerceptronFeatures, RadialFeatures
from vae.links import INVERSE_SQUARE_ROOT, deviation_link, mean_link
from vae.model import VAE
from vae.networks import PerceptronArchitecture
from vae.parts import AffinePart, AutodiffPart, Part, hessian_by_autodiff, jacobian_by_autodiff
from vae.rbf import RBFPrecision

# Bytes of one block of outputs: what measured best on a CPU with 2 MB of second-level cache per core, and on
# a GPU what bounds the scratch memory.
CPU_BLOCK = 1_600_000
GPU_BLOCK = 256_000_000


class DecoderGenerator(nn.Module, ABC):
    """Base of the generators: columns of several parts side by side, evaluated in blocks of rows.

    Blocks bound memory and keep the intermediate products in cache; rows never meet, so they change nothing.

    Attributes:
        latent_dim: d.
        output_dim: n, the number of columns.
    """

    def __init__(self, latent_dim: int, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.parts = nn.ModuleList(parts)
        self.output_dim = sum(part.output_dim for part in self._parts())
        self.requires_grad_(False)
        self.eval()

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """F(z), differentiable in z.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device.
        """
        self._check(z)
        outputs = [part(z) for part in self._parts()]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def value_and_jacobian(
        self, z: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "d b n"]]:
        """F(z) and its Jacobian J[a] = dF/dz_a, tangent axis first, by the hand-written chain rule.

        Where z is being differentiated or vmapped, forward-mode automatic differentiation takes over: the
        fast form writes into preallocated memory, which no derivative could follow. Cost: 1 + d matrix
        products per head.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device.
        """
        self._check(z)
        if _is_differentiated(z):
            return jacobian_by_autodiff(self, z)
        value = z.new_empty(z.shape[0], self.output_dim)
        jacobian = z.new_empty(z.shape[1], z.shape[0], self.output_dim)
        with torch.no_grad():
            scratch, blocks = self._blocks(z)
            for rows in blocks:
                column = 0
                for part in self._parts():
                    columns = slice(column, column + part.output_dim)
                    part.write_jacobian(z[rows], value[rows, columns], jacobian[:, rows, columns], scratch)
                    column = columns.stop
        return value, jacobian

    def contracted_hessian(self, z: Float[Tensor, "b d"], w: Float[Tensor, "b n"]) -> Float[Tensor, "b d d"]:
        """Hessian in z of sum_o w_o F_o(z) for each row, w held constant.

        By the hand-written chain rule, at a cost of 2 + d matrix products per head; no (B, n, d, d) tensor is
        formed. Where z or w is being differentiated or vmapped, automatic differentiation takes over as in
        `value_and_jacobian`.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device, or w not (B, n).
        """
        self._check(z)
        if w.shape != (z.shape[0], self.output_dim):
            raise ValueError(f"w must be (B, n) = {(z.shape[0], self.output_dim)}; got {tuple(w.shape)}")
        if _is_differentiated(z) or _is_differentiated(w):
            return hessian_by_autodiff(self, z, w)
        hessian = z.new_zeros(z.shape[0], z.shape[1], z.shape[1])
        with torch.no_grad():
            scratch, blocks = self._blocks(z)
            for rows in blocks:
                column = 0
                for part in self._parts():
                    columns = slice(column, column + part.output_dim)
                    hessian[rows] += part.contracted_hessian(z[rows], w[rows, columns], scratch)
                    column = columns.stop
        return hessian

    def _parts(self) -> list[Part]:
        return list(self.parts)  # type: ignore[arg-type]  # ModuleList forgets what its members are

    def _blocks(self, z: Tensor) -> tuple[Tensor, list[slice]]:
        """Scratch memory for the parts, and the blocks of rows that fit it."""
        rows, d = z.shape
        bytes_per_row = z.element_size() * max(part.output_dim for part in self._parts())
        size = min(rows, max(16, (CPU_BLOCK if z.device.type == "cpu" else GPU_BLOCK) // bytes_per_row))
        scratch = z.new_empty(2 * (1 + d) * size * bytes_per_row // z.element_size())
        return scratch, [slice(start, min(start + size, rows)) for start in range(0, rows, max(size, 1))]

    def _check(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"z must be (B, {self.latent_dim}); got {tuple(z.shape)}")
        own = next(self.buffers(), None)
        own = next(self.parameters()) if own is None else own
        if z.dtype != own.dtype or z.device != own.device:
            raise ValueError(
                f"z must be {own.dtype} on {own.device} as the generator; got {z.dtype} on {z.device}"
            )


class MeanGenerator(DecoderGenerator):
    """The decoder's mean alone, F(z) = mu(z): (B, d) -> (B, D).

    Args:
        vae: the model; its decoder is copied.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__(vae.config.latent_dim, [_decoder_part(vae, with_deviation=False)])


class VAEGenerator(DecoderGenerator):
    """Mean and standard deviation of the VAE's own decoder, F(z) = (mu(z), sigma(z)): (B, d) -> (B, 2 D).

    Args:
        vae: the model; its decoder is copied.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__(vae.config.latent_dim, [_decoder_part(vae, with_deviation=True)])


class RBFGenerator(DecoderGenerator):
    """The VAE's mean with the RBF network's standard deviation, F(z) = (mu(z), beta(z)^(-1/2)): (B, d) -> (B,
    2 D).

    Args:
        vae: the model; its decoder is copied.
        rbf: the precision; copied.

    Raises:
        ValueError: the two disagree on d or D.
    """

    def __init__(self, vae: VAE, rbf: RBFPrecision) -> None:
        expected, given = (
            (vae.config.latent_dim, vae.config.data_dim),
            (rbf.centers.shape[1], rbf.weights.shape[0]),
        )
        if expected != given:
            raise ValueError(f"vae and rbf must agree on (d, D); got {expected} and {given}")
        head = (rbf.weights, rbf.xi, INVERSE_SQUARE_ROOT)
        deviation = AffinePart(RadialFeatures(rbf.centers, rbf.bandwidths), [head])
        super().__init__(vae.config.latent_dim, [_decoder_part(vae, with_deviation=False), deviation])


def _decoder_part(vae: VAE, with_deviation: bool) -> AffinePart | AutodiffPart:
    config = vae.config
    if not isinstance(config.architecture, PerceptronArchitecture):
        decoder = copy.deepcopy(vae.decoder)
        if with_deviation:
            return AutodiffPart(decoder, _mean_and_deviation, 2 * config.data_dim)
        return AutodiffPart(decoder, _mean, config.data_dim)
    heads = [(vae.decoder.output_mu, mean_link(config.mean_activation))]
    if with_deviation:
        heads.append((vae.decoder.output_logvar, deviation_link(config.variance_activation)))
    features = PerceptronFeatures(vae.decoder.layers, config.activation)
    return AffinePart(features, [(head[0].weight, head[0].bias, link) for head, link in heads])  # type: ignore[misc]


def _mean(decoder: nn.Module, z: Tensor) -> Tensor:
    mean: Tensor = decoder(z).mean
    return mean


def _mean_and_deviation(decoder: nn.Module, z: Tensor) -> Tensor:
    likelihood = decoder(z)
    return torch.cat([likelihood.mean, likelihood.standard_deviation], dim=1)


def _is_differentiated(x: Tensor) -> bool:
    """Whether a derivative or a vmap follows x: then in-place forms would drop it."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return True
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad.unpack_dual(x).tangent is not None
