"""The VAE's generators, exchangeable in one word: mean, with own deviation, with RBF's, with a neural field's.

Each is a row-wise callable (B, d) -> (B, n) that holds a frozen copy of the weights, so training on or moving
the VAE afterward changes nothing here; `generator.to(torch.float64)` or `.to("cuda")` converts the copy
alone.
"""

import copy
from abc import ABC
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from geodesics import forward_mode
from vae.arguments import check_rows, check_type
from vae.autoencoder.activations import Activation
from vae.autoencoder.model import VAE
from vae.autoencoder.networks import PerceptronArchitecture
from vae.deviation.neural_field import NeuralField
from vae.deviation.rbf import RBFPrecision
from vae.generators.feature_maps import PerceptronFeatures, RadialFeatures
from vae.generators.output_columns import (
    AffinePart,
    AutodiffPart,
    Contraction,
    Part,
    hessian_by_autodiff,
    jacobian_by_autodiff,
)
from vae.generators.output_links import INVERSE_SQUARE_ROOT, deviation_link, log_precision_link, mean_link

# Bytes of one block of the widest arrays with their tangents, per thread: on a CPU with 2 MB of second-level cache per
# core passes over much more take up to three times as long; on a GPU what bounds the scratch memory. Values alone need
# about one more array than there are.
CPU_BLOCK = 2_400_000
GPU_BLOCK = 512_000_000


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
        if _is_differentiated(z):
            return torch.cat([part(z) for part in self._parts()], dim=1)
        value = z.new_empty(z.shape[0], self.output_dim)
        with torch.no_grad():
            for rows in self._blocks(z, 2 * self._widest()):
                for columns, part in self._columns():
                    value[rows, columns] = part(z[rows])
        return value

    def value_and_jacobian(self, z: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "d b n"]]:
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
            blocks = self._blocks(z, (1 + z.shape[1]) * self._widest())
            size = max((block.stop - block.start for block in blocks), default=0)
            scratch = z.new_empty((1 + z.shape[1]) * size * self._widest())
            for rows in blocks:
                for columns, part in self._columns():
                    part.write_jacobian(z[rows], value[rows, columns], jacobian[:, rows, columns], scratch)
        return value, jacobian

    def directional_derivative(self, z: Float[Tensor, "b d"], v: Tensor) -> Float[Tensor, "b n"]:
        """J(z) v for v (B, d) by the hand-written chain rule, at a cost of two matrix products per head.

        Where z or v is being differentiated or vmapped, automatic differentiation takes over as in
        `value_and_jacobian`.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device, or v not of its shape.
        """
        self._check(z)
        if v.shape != z.shape:
            raise ValueError(f"v must be (B, d) = {tuple(z.shape)} as z; got {tuple(v.shape)}")
        if _is_differentiated(z) or _is_differentiated(v):
            with forward_mode():
                derivative: Tensor = torch.func.jvp(self, (z,), (v,))[1]
            return derivative
        pushed = z.new_empty(z.shape[0], self.output_dim)
        with torch.no_grad():
            for rows in self._blocks(z, 2 * self._widest()):
                for columns, part in self._columns():
                    pushed[rows, columns] = part.directional_derivative(z[rows], v[rows])
        return pushed

    def second_order(self, z: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "d b n"], Contraction]:
        """F(z), J[a] = dF/dz_a, and the function w -> Hessian in z of sum_o w_o F_o(z), (B, n) -> (B, d, d).

        For weights that depend on F: the products that the Jacobian and the Hessian share are done once, and kept
        until the function is let go, about as much memory again as F and J take twice. Not differentiable.
        Cost: 1 + d matrix products per head, and one more for the Hessian.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device.
        """
        self._check(z)
        value = z.new_empty(z.shape[0], self.output_dim)
        jacobian = z.new_empty(z.shape[1], z.shape[0], self.output_dim)
        pieces: list[tuple[slice, slice, Contraction]] = []
        with torch.no_grad():
            outputs = max(part.output_dim for part in self._parts())
            for rows in self._blocks(z, (1 + z.shape[1]) * outputs):  # it keeps more anyway
                for columns, part in self._columns():
                    contract = part.second_order(z[rows], value[rows, columns], jacobian[:, rows, columns])
                    pieces.append((rows, columns, contract))

        def contract_all(w: Tensor) -> Tensor:
            self._check_weights(z, w)
            hessian = z.new_zeros(z.shape[0], z.shape[1], z.shape[1])
            with torch.no_grad():
                for rows, columns, contract in pieces:
                    hessian[rows] += contract(w[rows, columns])
            return hessian

        return value, jacobian, contract_all

    def contracted_hessian(self, z: Float[Tensor, "b d"], w: Float[Tensor, "b n"]) -> Float[Tensor, "b d d"]:
        """Hessian in z of sum_o w_o F_o(z) for each row, w held constant.

        By the hand-written chain rule, at a cost of 2 + d matrix products per head; no (B, n, d, d) tensor is
        formed. Where z or w is being differentiated or vmapped, automatic differentiation takes over as in
        `value_and_jacobian`.

        Raises:
            ValueError: z is not (B, d) in the generator's dtype and on its device, or w not (B, n).
        """
        self._check(z)
        self._check_weights(z, w)
        if _is_differentiated(z) or _is_differentiated(w):
            return hessian_by_autodiff(self, z, w)
        hessian = z.new_empty(z.shape[0], z.shape[1], z.shape[1])
        for rows in self._blocks(z, (1 + z.shape[1]) * self._widest()):
            hessian[rows] = self.second_order(z[rows])[2](w[rows])
        return hessian

    def reduced(self) -> "DecoderGenerator":
        """A generator of the same pullback metric, up to rounding, with m outputs in place of the D of every mean
        that is affine in m features; itself where there is none. Its weights are copies.
        """
        parts = [part.reduced() for part in self._parts()]
        narrower = sum(part.output_dim for part in parts) < self.output_dim
        return _IsometricGenerator(self.latent_dim, parts) if narrower else self  # type: ignore[arg-type]

    def _parts(self) -> list[Part]:
        return list(self.parts)  # type: ignore[arg-type]  # ModuleList forgets what its members are

    def _columns(self) -> Iterator[tuple[slice, Part]]:
        """Every part with its columns."""
        column = 0
        for part in self._parts():
            yield slice(column, column + part.output_dim), part
            column += part.output_dim

    def _widest(self) -> int:
        return max(part.width for part in self._parts())

    def _blocks(self, z: Tensor, numbers: int) -> list[slice]:
        """Blocks of rows of so many numbers each that fit the block size."""
        rows = len(z)
        budget = CPU_BLOCK * torch.get_num_threads() if z.device.type == "cpu" else GPU_BLOCK
        size = max(16, budget // (z.element_size() * numbers))
        count = -(-rows // size)
        return [slice(i * rows // count, (i + 1) * rows // count) for i in range(count)]

    def _check_weights(self, z: Tensor, w: Tensor) -> None:
        if w.shape != (z.shape[0], self.output_dim):
            raise ValueError(f"w must be (B, n) = {(z.shape[0], self.output_dim)}; got {tuple(w.shape)}")

    def _check(self, z: Tensor) -> None:
        check_rows("z", z, self.latent_dim)
        own = next(self.buffers(), None)
        own = next(self.parameters()) if own is None else own
        if z.dtype != own.dtype or z.device != own.device:
            raise ValueError(f"z must be {own.dtype} on {own.device} as the generator; got {z.dtype} on {z.device}")


class _IsometricGenerator(DecoderGenerator):
    """What `DecoderGenerator.reduced` returns."""


class MeanGenerator(DecoderGenerator):
    """The decoder's mean alone, F(z) = mu(z): (B, d) -> (B, D).

    Args:
        vae: the model; its decoder is copied.
    """

    def __init__(self, vae: VAE) -> None:
        check_type("vae", vae, VAE)
        super().__init__(vae.config.latent_dim, [_decoder_part(vae, with_deviation=False)])


class VAEGenerator(DecoderGenerator):
    """Mean and standard deviation of the VAE's own decoder, F(z) = (mu(z), sigma(z)): (B, d) -> (B, 2 D).

    Args:
        vae: the model; its decoder is copied.
    """

    def __init__(self, vae: VAE) -> None:
        check_type("vae", vae, VAE)
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
        check_type("rbf", rbf, RBFPrecision)
        _check_sizes(vae, "rbf", (rbf.centers.shape[1], rbf.weights.shape[0]))
        head = (rbf.weights, rbf.xi, INVERSE_SQUARE_ROOT)
        deviation = AffinePart(RadialFeatures(rbf.centers, rbf.bandwidths), [head])
        super().__init__(vae.config.latent_dim, [_decoder_part(vae, with_deviation=False), deviation])


class NeuralFieldGenerator(DecoderGenerator):
    """The VAE's mean with a neural field's standard deviation, F(z) = (mu(z), sigma(z)): (B, d) -> (B, 2 D).

    Args:
        vae: the model; its decoder is copied.
        field: the standard deviation; copied.

    Raises:
        ValueError: the two disagree on d or D.
    """

    def __init__(self, vae: VAE, field: NeuralField) -> None:
        check_type("field", field, NeuralField)
        _check_sizes(vae, "field", (field.latent_dim, field.data_dim))
        features = PerceptronFeatures(field.unscaled_layers(), Activation.TANH)
        head = (field.head.weight, field.head.bias, log_precision_link(field.xi))
        mean = _decoder_part(vae, with_deviation=False)
        super().__init__(vae.config.latent_dim, [mean, AffinePart(features, [head])])


def _check_sizes(vae: VAE, name: str, given: tuple[int, int]) -> None:
    check_type("vae", vae, VAE)
    expected = (vae.config.latent_dim, vae.config.data_dim)
    if expected != given:
        raise ValueError(f"vae and {name} must agree on (d, D); got {expected} and {given}")


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
    if x.requires_grad and torch.is_grad_enabled():
        return True
    try:
        return forward_ad.unpack_dual(x).tangent is not None
    except RuntimeError:  # another thread left forward mode in between: then x, of this thread, was not in it
        return False
