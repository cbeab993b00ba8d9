"""Feature maps h(z) under the affine output layers: a perceptron's hidden layers, and radial basis functions.

Both push tangents forward (dh_a = dh/dz_a for the d basis tangents at once) and pull a covector r back
through their second derivatives, sum_m r_m d2h_m/dz_a dz_b: all that value_and_jacobian and
contracted_hessian need of them.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.autoencoder.activations import Activation, differentiate


class Trace(NamedTuple):
    """What one pass forward leaves behind.

    Attributes:
        jet: features and tangents, (1 + d, B, m): ``jet[0]`` is h and ``jet[1 + a]`` is dh/dz_a.
        inner: per layer or per kernel, the tensors the second derivative needs.
    """

    jet: Tensor
    inner: tuple[tuple[Tensor, ...], ...]


class PerceptronFeatures(nn.Module):
    r"""Hidden layers h_l = psi(A_l h_{l-1} + b_l) of a multilayer perceptron, h_0 = z.

    Args:
        layers: alternating `nn.Linear` and activation modules, at least one pair; its tensors are copied.
        activation: psi, the activation between them.
    """

    def __init__(self, layers: nn.Sequential, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.num_layers = len(linears)
        for i, layer in enumerate(linears):
            self.register_buffer(f"weight{i}", layer.weight.detach().clone())
            self.register_buffer(f"bias{i}", layer.bias.detach().clone())

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """Features h(z)."""
        psi = self.activation.module()
        for weight, bias in self._layers():
            z = psi(torch.nn.functional.linear(z, weight, bias))
        return z

    def trace(self, z: Float[Tensor, "b d"], second_order: bool) -> Trace:
        """Features, their tangents and, for `contract`, what the layers' second derivatives need."""
        d, rows = z.shape[1], z.shape[0]
        layers, inner = self._layers(), []
        jet, pushed = z, z.new_empty(0)
        for index, (weight, bias) in enumerate(layers):
            if index == 0:
                x, pushed = torch.addmm(bias, z, weight.T), weight.T[:, None, :].expand(d, rows, len(weight))
            else:
                u = (jet.flatten(0, 1) @ weight.T).unflatten(0, (1 + d, rows))
                x, pushed = u[0].add_(bias), u[1:]
            h, slope, curvature = differentiate(self.activation, x)
            jet = z.new_empty(1 + d, rows, len(weight))
            jet[0] = h
            torch.mul(slope, pushed, out=jet[1:])
            if second_order:
                inner.append((slope, curvature, pushed))
        return Trace(jet, tuple(inner))

    def push(
        self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]]:
        """Features, and their derivative along v."""
        for weight, bias in self._layers():
            z, slope, _ = differentiate(self.activation, torch.addmm(bias, z, weight.T))
            v = slope.mul_(v @ weight.T)
        return z, v

    def contract(self, trace: Trace, r: Float[Tensor, "b m"]) -> Float[Tensor, "b d d"]:
        r"""Pull r back: sum_l sum_n r_{l,n} psi''_{l,n} dx_{l,n,a} dx_{l,n,b}, r_{l-1} = (r_l psi'_l) A_l."""
        (first_weight, _), *layers = self._layers()
        (_, first_curvature, _), *inner = trace.inner
        pulled = []
        for (slope, curvature, pushed), (weight, _) in zip(reversed(inner), reversed(layers), strict=True):
            pulled.append(weighted_gram(r * curvature, pushed))
            r = (r * slope) @ weight
        # The first layer's tangents are its weights, the same for every row: one product does.
        squares = (first_weight[:, :, None] * first_weight[:, None, :]).flatten(1)
        total = ((r * first_curvature) @ squares).unflatten(1, (first_weight.shape[1], -1))
        return sum(pulled, total)

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.get_buffer(f"weight{i}"), self.get_buffer(f"bias{i}")) for i in range(self.num_layers)]


class RadialFeatures(nn.Module):
    r"""Gaussian radial basis functions v_k(z) = exp(-lambda_k ||z - c_k||^2).

    Distances are summed from differences, not from ||z||^2 - 2 z.c + ||c||^2, which cancels where lambda is
    large; one coordinate after the other, for a sum over a leading axis of length d is ten times slower.

    Args:
        centers: c, (K, d), latent units; copied.
        bandwidths: lambda, (K,), inverse squared latent units; copied.
    """

    centers: Tensor
    bandwidths: Tensor

    def __init__(self, centers: Float[Tensor, "k d"], bandwidths: Float[Tensor, " k"]) -> None:
        super().__init__()
        self.register_buffer("centers", centers.detach().clone())
        self.register_buffer("bandwidths", bandwidths.detach().clone())

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Features v(z)."""
        squared = (z[:, 0, None] - self.centers[:, 0]).square()
        for a in range(1, z.shape[1]):
            difference = z[:, a, None] - self.centers[:, a]
            squared.addcmul_(difference, difference)  # no derivative needs what these in-place forms overwrite
        return _exponential(squared.mul_(-self.bandwidths), overwrite=False)

    def trace(self, z: Float[Tensor, "b d"], second_order: bool) -> Trace:
        """Features, tangents dv_a = -2 lambda (z - c)_a v, and the scaled differences -2 lambda (z - c)."""
        jet = z.new_empty(1 + z.shape[1], z.shape[0], len(self.bandwidths))
        v, tangent = jet[0], jet[1:]
        differences = torch.empty_like(tangent) if second_order else tangent
        torch.sub(z.T[:, :, None], self.centers.T[:, None, :], out=differences)
        torch.mul(differences[0], differences[0], out=v)
        for difference in differences[1:]:
            v.addcmul_(difference, difference)
        _exponential(v.mul_(-self.bandwidths), overwrite=True)
        scaled = differences.mul_(-2 * self.bandwidths)
        torch.mul(scaled, v, out=tangent)
        return Trace(jet, ((scaled, v),) if second_order else ())

    def push(
        self, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Features, and their derivative along v."""
        difference = z[:, 0, None] - self.centers[:, 0]
        squared, along = difference.square(), difference * v[:, 0, None]
        for a in range(1, z.shape[1]):
            torch.sub(z[:, a, None], self.centers[:, a], out=difference)
            squared.addcmul_(difference, difference)
            along.addcmul_(difference, v[:, a, None])
        h = _exponential(squared.mul_(-self.bandwidths), overwrite=True)
        return h, along.mul_(-2 * self.bandwidths).mul_(h)

    def contract(self, trace: Trace, r: Float[Tensor, "b k"]) -> Float[Tensor, "b d d"]:
        r"""Pull r back: sum_k r_k v_k (4 lambda_k^2 delta_a delta_b - 2 lambda_k [a = b]), delta = z -
        c_k."""
        ((scaled, v),) = trace.inner
        weight = r * v
        total = weighted_gram(weight, scaled)
        total.diagonal(dim1=1, dim2=2).sub_(2 * (weight @ self.bandwidths)[:, None])
        return total


def _exponential(x: Tensor, overwrite: bool) -> Tensor:
    """exp(x) for x <= 0; zero, with its derivatives, where it is below the root of the smallest normal number.

    Where it underflows the C library's exp takes fifty times as long, and denormal numbers slow down all that is made
    of them. No derivative follows where x is overwritten.
    """
    least = math.log(torch.finfo(x.dtype).tiny) / 2
    bounded = x.clamp_(min=least) if overwrite else x.clamp(min=least)
    return nn.functional.threshold(bounded.exp_(), math.exp(0.999 * least), 0.0, inplace=overwrite)


def weighted_gram(q: Float[Tensor, "b m"], tangent: Float[Tensor, "d b m"]) -> Float[Tensor, "b d d"]:
    """Weighted Gram matrices sum_m q_m t_{a,m} t_{b,m} of the tangents of each row."""
    return torch.bmm((q * tangent).transpose(0, 1), tangent.permute(1, 2, 0))
