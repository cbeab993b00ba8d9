"""Parts of a generator: a block of output columns with its value, Jacobian and contracted Hessian.

`AffinePart` covers perceptron decoders and RBF networks by hand-written rules, `AutodiffPart` everything else
(a convolutional decoder) by torch.func.
"""

import math
from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae.features import PerceptronFeatures, RadialFeatures
from vae.links import Link


@runtime_checkable
class Part(Protocol):
    """A block of a generator's output columns; all methods are row-wise."""

    output_dim: int

    def __call__(self, z: Tensor) -> Tensor:
        """Values, (B, output_dim), differentiable."""
        ...

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F into `value` (B, output_dim) and dF/dz into `jacobian` (d, B, output_dim); both may be
        strided.

        `scratch` is flat memory of at least 2 (1 + d) B output_dim elements, reused from block to block:
        temporaries of this size go back to the operating system when freed, and the page faults then cost
        more than the products.
        """
        ...

    def contracted_hessian(self, z: Tensor, w: Tensor, scratch: Tensor) -> Tensor:
        """sum_o w_o d2F_o/dz_a dz_b, (B, d, d), for w (B, output_dim); scratch as in `write_jacobian`."""
        ...


class AffinePart(nn.Module):
    r"""Outputs phi_i(A_i h(z) + b_i) of one or more heads i over shared features h.

    The bias rides in the matrix product as a column next to A against a column of ones next to h (zeros next
    to dh/dz), which saves a pass over the D outputs.

    Args:
        features: h, (B, d) -> (B, m).
        heads: per head its weight A (D_i, m), bias b (D_i,) and link phi.
    """

    def __init__(
        self, features: PerceptronFeatures | RadialFeatures, heads: list[tuple[Tensor, Tensor, Link]]
    ) -> None:
        super().__init__()
        self.features = features
        self.links = tuple(link for _, _, link in heads)
        self.output_dim = sum(weight.shape[0] for weight, _, _ in heads)
        for i, (weight, bias, _) in enumerate(heads):
            self.register_buffer(f"weight{i}", torch.cat([weight, bias[:, None]], dim=1).detach())

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Values F(z)."""
        h = self.features(z)
        outputs = [
            link.value(torch.addmm(weight[:, -1], h, weight[:, :-1].T)) for weight, link in self._heads()
        ]
        return torch.cat(outputs, dim=1)

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F and dF/dz = phi'(u) A dh/dz: per head one matrix product into a block that stays in
        cache."""
        d, rows = z.shape[1], z.shape[0]
        jet = self._augmented(*self.features.trace(z, second_order=False)[:2])
        column = 0
        for weight, link in self._heads():
            columns = slice(column, column + weight.shape[0])
            u = _carve(scratch, 0, 1 + d, rows, weight.shape[0])
            torch.mm(jet, weight.T, out=u.view(jet.shape[0], -1))
            link.first_order(u[0], value[:, columns])
            torch.mul(u[1:], u[0], out=jacobian[:, :, columns])
            column = columns.stop

    def contracted_hessian(self, z: Tensor, w: Tensor, scratch: Tensor) -> Tensor:
        """sum_o w_o (phi''_o du_oa du_ob + phi'_o A_o d2h_ab): the second term pulls (w phi') A back through
        h."""
        d, rows = z.shape[1], z.shape[0]
        trace = self.features.trace(z, second_order=True)
        jet = self._augmented(trace.value, trace.tangent)
        total, pulled, column = z.new_zeros(rows, d, d), torch.zeros_like(trace.value), 0
        for weight, link in self._heads():
            columns = slice(column, column + weight.shape[0])
            u = _carve(scratch, 0, 1 + d, rows, weight.shape[0])
            spare = _carve(scratch, u.numel(), 1 + d, rows, weight.shape[0])
            torch.mm(jet, weight.T, out=u.view(jet.shape[0], -1))
            slope, curvature = link.second_order(u[0], spare[0])
            pulled.addmm_(slope.mul_(w[:, columns]), weight[:, :-1])
            torch.mul(u[1:], curvature.mul_(w[:, columns]), out=spare[1:])
            total += torch.bmm(spare[1:].transpose(0, 1), u[1:].permute(1, 2, 0))
            column = columns.stop
        return total + self.features.contract(trace, pulled)

    def _augmented(self, value: Tensor, tangent: Tensor) -> Tensor:
        d, rows, m = tangent.shape
        jet = value.new_empty(1 + d, rows, m + 1)
        jet[0, :, :m], jet[0, :, m] = value, 1
        jet[1:, :, :m], jet[1:, :, m] = tangent, 0
        return jet.view((1 + d) * rows, m + 1)

    def _heads(self) -> list[tuple[Tensor, Link]]:
        return [(self.get_buffer(f"weight{i}"), link) for i, link in enumerate(self.links)]


class AutodiffPart(nn.Module):
    """Any row-wise function of a module, differentiated by torch.func (no second formula to keep right).

    Args:
        module: the network; used as it is, so hand over a frozen copy in eval mode.
        function: (module, z) -> outputs (B, D), row-wise.
        output_dim: D.
    """

    def __init__(
        self, module: nn.Module, function: Callable[[nn.Module, Tensor], Tensor], output_dim: int
    ) -> None:
        super().__init__()
        self.module = module
        self.function = function
        self.output_dim = output_dim

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """Values F(z)."""
        return self.function(self.module, z)

    def write_jacobian(self, z: Tensor, value: Tensor, jacobian: Tensor, scratch: Tensor) -> None:
        """Write F and dF/dz, by d forward-mode derivatives."""
        computed, columns = jacobian_by_autodiff(self, z)
        value.copy_(computed)
        jacobian.copy_(columns)

    def contracted_hessian(self, z: Tensor, w: Tensor, scratch: Tensor) -> Tensor:
        """sum_o w_o d2F_o/dz_a dz_b, by d forward-mode derivatives of one gradient."""
        return hessian_by_autodiff(self, z, w)


def jacobian_by_autodiff(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """F (B, D) and dF/dz (d, B, D) of a row-wise function by forward mode, vmapped over the d basis
    tangents."""
    derivative = torch.func.vmap(lambda tangent: torch.func.jvp(function, (z,), (tangent,))[:2])
    values, tangents = derivative(_basis(z))
    return values[0], tangents


def hessian_by_autodiff(function: Callable[[Tensor], Tensor], z: Tensor, w: Tensor) -> Tensor:
    """sum_o w_o d2F_o/dz_a dz_b (B, d, d) of a row-wise function: forward mode over the gradient of sum(w *
    F)."""
    gradient = torch.func.grad(lambda points: (w * function(points)).sum())
    columns = torch.func.vmap(lambda tangent: torch.func.jvp(gradient, (z,), (tangent,))[1])(_basis(z))
    return cast(Tensor, columns.permute(1, 0, 2).contiguous())


def _carve(scratch: Tensor, start: int, *shape: int) -> Tensor:
    return scratch[start : start + math.prod(shape)].view(shape)


def _basis(z: Tensor) -> Tensor:
    """The d basis tangents of every row, (d, B, d)."""
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None, :].expand(-1, z.shape[0], -1)
