"""Feature maps h(z) under the affine output layers: a perceptron's hidden layers, and radial basis functions.

Both push tangents forward (dh_a = dh/dz_a for the d basis tangents at once) and pull a covector r back
through their second derivatives, sum_m r_m d2h_m/dz_a dz_b: all that value_and_jacobian and
contracted_hessian need of them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.activations import Activation, differentiate


class Trace(NamedTuple):
    """What one pass forward leaves behind.

    Attributes:
        value: features h, (B, m).
        tangent: dh/dz_a, (d, B, m).
        inner: per layer or per kernel, the tensors the second derivative needs.
    """

    value: Tensor
    tangent: Tensor
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
        h, tangent, inner = z, z.new_empty(0), []
        for index, (weight, bias) in enumerate(self._layers()):
            h, slope, curvature = differentiate(self.activation, torch.addmm(bias, h, weight.T))
            if index == 0:
                pushed = weight.T[:, None, :].expand(d, rows, weight.shape[0])
            else:
                pushed = (tangent.reshape(d * rows, -1) @ weight.T).reshape(d, rows, -1)
            tangent = slope * pushed
            if second_order:
                inner.append((slope, curvature, pushed))
        return Trace(h, tangent, tuple(inner))

    def contract(self, trace: Trace, r: Float[Tensor, "b m"]) -> Float[Tensor, "b d d"]:
        r"""Pull r back: sum_l sum_n r_{l,n} psi''_{l,n} dx_{l,n,a} dx_{l,n,b}, r_{l-1} = (r_l psi'_l) A_l."""
        total = r.new_zeros(r.shape[0], trace.tangent.shape[0], trace.tangent.shape[0])
        for (slope, curvature, pushed), (weight, _) in zip(
            reversed(trace.inner), reversed(self._layers()), strict=True
        ):
            total += weighted_gram(r * curvature, pushed)
            r = (r * slope) @ weight
        return total

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.get_buffer(f"weight{i}"), self.get_buffer(f"bias{i}")) for i in range(self.num_layers)]


class RadialFeatures(nn.Module):
    r"""Gaussian radial basis functions v_k(z) = exp(-lambda_k ||z - c_k||^2).

    Distances are summed from differences, not from ||z||^2 - 2 z.c + ||c||^2, which cancels where lambda is
    large.

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
        differences = z.T[:, :, None] - self.centers.T[:, None, :]
        return torch.exp(-self.bandwidths * differences.square().sum(0))

    def trace(self, z: Float[Tensor, "b d"], second_order: bool) -> Trace:
        """Features, tangents dv_a = -2 lambda (z - c)_a v, and the scaled differences -2 lambda (z - c)."""
        differences = z.T[:, :, None] - self.centers.T[:, None, :]
        v = torch.exp(-self.bandwidths * differences.square().sum(0))
        scaled = differences.mul_(-2 * self.bandwidths)
        return Trace(v, scaled * v, ((scaled, v),))

    def contract(self, trace: Trace, r: Float[Tensor, "b k"]) -> Float[Tensor, "b d d"]:
        r"""Pull r back: sum_k r_k v_k (4 lambda_k^2 delta_a delta_b - 2 lambda_k [a = b]), delta = z -
        c_k."""
        ((scaled, v),) = trace.inner
        weight = r * v
        total = weighted_gram(weight, scaled)
        total.diagonal(dim1=1, dim2=2).sub_(2 * (weight @ self.bandwidths)[:, None])
        return total


def weighted_gram(q: Float[Tensor, "b m"], tangent: Float[Tensor, "d b m"]) -> Float[Tensor, "b d d"]:
    """Weighted Gram matrices sum_m q_m t_{a,m} t_{b,m} of the tangents of each row."""
    rows = tangent.permute(1, 0, 2)
    return torch.bmm(q[:, None, :] * rows, rows.mT)
