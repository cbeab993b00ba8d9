"""Parts of a generator: a block of output columns with its value, Jacobian and contracted second derivative.

`AffinePart` covers perceptron decoders and RBF networks by hand-written rules, `AutodiffPart` everything else
(a convolutional decoder) by torch.func.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodesics import forward_mode
from vae.generators.feature_maps import PerceptronFeatures, RadialFeatures, weighted_gram
from vae.generators.output_links import IDENTITY, Link

Contraction = Callable[[Tensor], Tensor]


@runtime_checkable
class Part(Protocol):
    """A block of a generator's output columns; all methods are row-wise.

    Attributes:
        output_dim: number of columns.
        width: of the widest array that it works with, in numbers per row and tangent.
    """

    output_dim: int
    width: int

    def __call__(self, z: Tensor) -> Tensor:
        """Values, (B, output_dim), differentiable."""
        ...

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F into `value` (B, output_dim) and dF/dz into `jacobian` (d, B, output_dim); both may be
        strided.

        `scratch` is flat memory of at least (1 + d) B output_dim elements, reused from block to block:
        temporaries of this size go back to the operating system when freed, and the page faults then cost
        more than the products.
        """
        ...

    def directional_derivative(self, z: Tensor, v: Tensor) -> Tensor:
        """The derivative of F along v, (B, output_dim)."""
        ...

    def second_order(self, z: Tensor, value: Tensor, jacobian: Tensor) -> Contraction:
        """Write F and dF/dz as `write_jacobian` does, and return w -> sum_o w_o d2F_o/dz_a dz_b, (B, d, d), for w
        (B, output_dim), which remembers what both have in common.
        """
        ...

    def reduced(self) -> "Part":
        """A part whose outputs have the same inner products of differences, fewer where that is easily had."""
        ...


class AffinePart(nn.Module):
    r"""Outputs phi_i(A_i h(z) + b_i) of one or more heads i over shared features h.

    Args:
        features: h, (B, d) -> (B, m).
        heads: per head its weight A (D_i, m), bias b (D_i,) and link phi.
    """

    def __init__(self, features: PerceptronFeatures | RadialFeatures, heads: list[tuple[Tensor, Tensor, Link]]) -> None:
        super().__init__()
        self.features = features
        self.links = tuple(link for _, _, link in heads)
        self.output_dim = sum(weight.shape[0] for weight, _, _ in heads)
        self.width = max(size for weight, _, _ in heads for size in weight.shape)
        for i, (weight, bias, _) in enumerate(heads):
            self.register_buffer(f"weight{i}", weight.detach().clone())
            self.register_buffer(f"bias{i}", bias.detach().clone())

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Values F(z)."""
        h = self.features(z)
        outputs = [link.value(torch.addmm(bias, h, weight.T)) for _, weight, bias, link in self._heads()]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F and dF/dz = phi'(u) A dh/dz: per head one matrix product into a block that stays in
        cache."""
        jet = self.features.trace(z, second_order=False).jet
        for columns, weight, bias, link in self._heads():
            u = scratch[: jet.shape[0] * len(z) * len(weight)].view(*jet.shape[:2], -1)
            torch.mm(jet.flatten(0, 1), weight.T, out=u.flatten(0, 1))
            link.first_order(u[0].add_(bias), value[:, columns])
            torch.mul(u[1:], u[0], out=jacobian[:, :, columns])

    def directional_derivative(self, z: Tensor, v: Tensor) -> Tensor:
        """phi'(u) A dh/dv, two matrix products per head."""
        h, dh = self.features.push(z, v)
        outputs = []
        for _, weight, bias, link in self._heads():
            u, du = torch.addmm(bias, h, weight.T), dh @ weight.T
            link.first_order(u, torch.empty_like(u))
            outputs.append(du.mul_(u))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def second_order(self, z: Tensor, value: Tensor, jacobian: Tensor) -> Contraction:
        """As `write_jacobian`; then sum_o w_o (phi''_o du_oa du_ob + phi'_o A_o d2h_ab).

        The second term pulls (w phi') A back through h, one product more; du is that of the Jacobian.
        """
        trace = self.features.trace(z, second_order=True)
        jet, pieces = trace.jet, []
        for columns, weight, bias, link in self._heads():
            u = torch.mm(jet.flatten(0, 1), weight.T).unflatten(0, jet.shape[:2])
            slope, curvature = link.second_order(u[0].add_(bias), value[:, columns], torch.empty_like(u[0]))
            torch.mul(u[1:], slope, out=jacobian[:, :, columns])
            pieces.append((columns, weight, slope, curvature, u[1:]))

        def contract(w: Tensor) -> Tensor:
            pulled = [(slope * w[:, columns]) @ weight for columns, weight, slope, _, _ in pieces]
            total = self.features.contract(trace, sum(pulled[1:], pulled[0]))
            for columns, _, _, curvature, du in pieces:
                total += weighted_gram(curvature * w[:, columns], du)
            return total

        return contract

    def reduced(self) -> "AffinePart":
        """Heads without a link, F = A h + b, become R h with A = Q R, Q of orthonormal columns: m outputs, not D."""
        heads = []
        for _, weight, bias, link in self._heads():
            if link is IDENTITY and weight.shape[0] > weight.shape[1]:
                weight = torch.linalg.qr(weight, mode="r").R
                bias = weight.new_zeros(len(weight))
            heads.append((weight, bias, link))
        return AffinePart(self.features, heads)

    def _heads(self) -> Iterator[tuple[slice, Tensor, Tensor, Link]]:
        """Columns, weight, bias and link of every head."""
        column = 0
        for i, link in enumerate(self.links):
            weight = self.get_buffer(f"weight{i}")
            yield slice(column, column + len(weight)), weight, self.get_buffer(f"bias{i}"), link
            column += len(weight)


class AutodiffPart(nn.Module):
    """Any row-wise function of a module, differentiated by torch.func (no second formula to keep right).

    Args:
        module: the network; used as it is, so hand over a frozen copy in eval mode.
        function: (module, z) -> outputs (B, D), row-wise.
        output_dim: D.
    """

    def __init__(self, module: nn.Module, function: Callable[[nn.Module, Tensor], Tensor], output_dim: int) -> None:
        super().__init__()
        self.module = module
        self.function = function
        self.output_dim = self.width = output_dim

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Values F(z)."""
        return self.function(self.module, z)

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F and dF/dz, by d forward-mode derivatives."""
        computed, columns = jacobian_by_autodiff(self, z)
        value.copy_(computed)
        jacobian.copy_(columns)

    def directional_derivative(self, z: Tensor, v: Tensor) -> Tensor:
        """The derivative of F along v, by one forward-mode pass."""
        with forward_mode():
            return torch.func.jvp(self, (z,), (v,))[1]

    def second_order(self, z: Tensor, value: Tensor, jacobian: Tensor) -> Contraction:
        """As `write_jacobian`; then d forward-mode derivatives of one gradient."""
        self.write_jacobian(z, value, jacobian, z)
        return lambda w: hessian_by_autodiff(self, z, w)

    def reduced(self) -> "AutodiffPart":
        """Itself: nothing is known of its last layer."""
        return self


def jacobian_by_autodiff(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """F (B, D) and dF/dz (d, B, D) of a row-wise function by forward mode, vmapped over the d basis
    tangents."""
    derivative = torch.func.vmap(lambda tangent: torch.func.jvp(function, (z,), (tangent,))[:2])
    with forward_mode():
        values, tangents = derivative(_basis(z))
    return values[0], tangents


def hessian_by_autodiff(function: Callable[[Tensor], Tensor], z: Tensor, w: Tensor) -> Tensor:
    """sum_o w_o d2F_o/dz_a dz_b (B, d, d) of a row-wise function: forward mode over the gradient of sum(w *
    F)."""
    gradient = torch.func.grad(lambda points: (w * function(points)).sum())
    with forward_mode():
        columns = torch.func.vmap(lambda tangent: torch.func.jvp(gradient, (z,), (tangent,))[1])(_basis(z))
    return cast(Tensor, columns.permute(1, 0, 2).contiguous())


def _basis(z: Tensor) -> Tensor:
    """The d basis tangents of every row, (d, B, d)."""
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None, :].expand(-1, z.shape[0], -1)
