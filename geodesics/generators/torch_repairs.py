"""Torch operations that do not survive being differentiated forward twice, by their formulas.

Torch derives a forward derivative from a hand-written rule per operation, and some rules are wrong once they are
themselves differentiated: those of layer and instance normalization take the mean and the variance for constants
(pytorch issue 196700), without a word. The gated linear unit has no such rule at all, fused attention and distances not
even a forward derivative, and that of group normalization fails on what a transpose leaves behind. Geodesics need
derivatives of derivatives: the acceleration is one, and shooting differentiates it once more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from geodesics.batches.threads import forward_mode


class ByFormula(TorchFunctionMode):
    """Inside ``with ByFormula():`` those operations are computed from elementary ones, right at every order.

    The values differ by rounding. It sees what is called from Python, so ``nn.LayerNorm`` in any module or function;
    it does not see into modules made by ``torch.jit``, which `check_generator` tells. As derivatives are taken inside,
    it is entered by one thread at a time: see `geodesics.batches.threads`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.formulas, self.alone = _formulas(), ExitStack()

    def __enter__(self) -> "ByFormula":
        self.alone.enter_context(forward_mode())
        self.alone.enter_context(torch.inference_mode(False))
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)
        finally:
            self.alone.close()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.formulas.get(func, func)(*args, **(kwargs or {}))


def layer_norm(
    input: Tensor,  # noqa: A002  these are the names that torch calls by
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last axes, as `torch.nn.functional.layer_norm`."""
    return _affine(_standardized(input, range(-len(normalized_shape), 0), eps), weight, bias)


def instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `layer_norm` over the axes after the channels; torch's own where there are running statistics."""
    if running_mean is not None or not use_input_stats:
        return functional.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    space = range(2, input.ndim)
    per_channel = (-1, *(1 for _ in space))
    weight, bias = (None if t is None else t.reshape(per_channel) for t in (weight, bias))
    return _affine(_standardized(input, space, eps), weight, bias)


def group_norm(
    input: Tensor,  # noqa: A002
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """As `layer_norm` over groups of channels and the axes after them, of inputs with any strides."""
    x = input.reshape(len(input), num_groups, -1)
    per_channel = (-1, *(1 for _ in range(2, input.ndim)))
    weight, bias = (None if t is None else t.reshape(per_channel) for t in (weight, bias))
    return _affine(_standardized(x, (-1,), eps).reshape(input.shape), weight, bias)


def cdist(
    x1: Tensor, x2: Tensor, p: float | int = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary"
) -> Tensor:
    """Distances of all rows of x1 ``(..., P, M)`` to all rows of x2 ``(..., R, M)``, as `torch.cdist`.

    Where two points are equal the Euclidean distance has a kink, but its square has none: there the root is taken of a
    number that is almost zero, which keeps the derivatives of the square.
    """
    gap = x1[..., :, None, :] - x2[..., None, :, :]
    if p == 2:
        return _root(gap.square().sum(-1))
    size = gap.abs()
    if p == 0:
        return (size > 0).to(gap).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == torch.inf:
        return size.amax(-1)
    total = size.pow(p).sum(-1)
    apart = total > 0
    return torch.where(apart, total, torch.ones_like(total)).pow(1 / p) * apart


def norm(
    input: Tensor,  # noqa: A002
    p: float | int | str | None = "fro",
    dim: int | tuple[int, ...] | list[int] | None = None,
    keepdim: bool = False,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """As `torch.norm`; Euclidean norms as the distances of `cdist`, whose squares are smooth at zero."""
    plain = dim is not None and out is None and dtype is None and not input.is_complex()
    if plain and (p in (None, "fro") or _is_euclidean(p, dim)):
        return _root(input.square().sum(dim, keepdim=keepdim))
    return torch.norm(input, p, dim, keepdim, out, dtype)


def vector_norm(
    x: Tensor,
    ord: float | int = 2,  # noqa: A002
    dim: int | tuple[int, ...] | list[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """As `torch.linalg.vector_norm`, in the manner of `norm`."""
    if ord == 2 and dim is not None and out is None and dtype is None and not x.is_complex():
        return _root(x.square().sum(dim, keepdim=keepdim))
    return torch.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype, out=out)


def linalg_norm(
    A: Tensor,
    ord: float | int | str | None = None,  # noqa: A002
    dim: int | tuple[int, ...] | list[int] | None = None,
    keepdim: bool = False,
    *,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """As `torch.linalg.norm`, in the manner of `norm`."""
    if dim is None or out is not None or not (ord is None or _is_euclidean(ord, dim)):
        return torch.linalg.norm(A, ord, dim, keepdim, out=out, dtype=dtype)
    return vector_norm(A, 2, dim, keepdim, dtype=dtype)


def _is_euclidean(p: object, dim: int | tuple[int, ...] | list[int] | None) -> bool:
    """Whether this is the norm of vectors, not of matrices, with p = 2."""
    return p == 2 and (isinstance(dim, int) or (dim is not None and len(dim) == 1))


def _root(squares: Tensor) -> Tensor:
    nothing = torch.finfo(squares.dtype).tiny ** (1 / 3)  # its powers down to -5/2 are finite
    return torch.where(squares > 0, squares, squares + nothing).sqrt()


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002
    """``max(0, min(6, x + 3)) / 6``, as `torch.nn.functional.hardsigmoid`; the argument is never written to."""
    return functional.relu6(input + 3) / 6


def glu(input: Tensor, dim: int = -1) -> Tensor:  # noqa: A002
    """``a sigmoid(b)`` of the two halves, as `torch.nn.functional.glu`."""
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _standardized(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) * (variance + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@cache
def _formulas() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """The formula of each function, which `torch.compile` leaves alone: inside of two transforms it fails on them."""
    attentions = (functional.scaled_dot_product_attention, functional.multi_head_attention_forward)
    return {
        functional.layer_norm: torch.compiler.disable(layer_norm),
        torch.layer_norm: torch.compiler.disable(layer_norm),
        functional.instance_norm: torch.compiler.disable(instance_norm),
        functional.group_norm: torch.compiler.disable(group_norm),
        torch.group_norm: torch.compiler.disable(group_norm),
        **{function: torch.compiler.disable(norm) for function in (torch.norm, torch.Tensor.norm)},
        torch.linalg.vector_norm: torch.compiler.disable(vector_norm),
        torch.linalg.norm: torch.compiler.disable(linalg_norm),
        torch.cdist: torch.compiler.disable(cdist),
        functional.hardsigmoid: torch.compiler.disable(hardsigmoid),
        functional.glu: torch.compiler.disable(glu),
        # Torch's own, from elementary operations instead of one kernel.
        **{function: torch.compiler.disable(sdpa_kernel(SDPBackend.MATH)(function)) for function in attentions},
    }
