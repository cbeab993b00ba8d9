"""Generators whose last layer is affine: the same metric from fewer outputs.

The pullback metric knows the outputs by the inner products of their differences alone. For ``F(z) = A h(z) + b`` with A
``(D, m)`` and the factorization ``A = Q R``, Q of orthonormal columns, ``R h(z)`` has the same inner products and
min(D, m) outputs: neither a Jacobian nor a chord D wide is ever needed.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from geodesics.generators.protocols import Generator, Stack


@runtime_checkable
class ReducibleGenerator(Protocol):
    """A generator that knows an isometric one with fewer outputs."""

    def reduced(self) -> Generator:
        """Return a generator whose outputs have the same inner products of differences, itself if there is none."""


def reduced(generator: Generator) -> Generator:
    """A generator of the same pullback metric, up to rounding, with as few outputs as are easily had.

    An `nn.Sequential` that ends in an `nn.Linear` of more outputs than inputs, a `ReducibleGenerator`, and a `Stack` of
    such; any other is returned as it is. The weights are those of now, and no gradient flows to them.
    """
    if isinstance(generator, ReducibleGenerator):
        return generator.reduced()
    if isinstance(generator, Stack):
        return Stack(*(reduced(part) for part in generator.generators))
    if type(generator) is nn.Sequential and len(generator) and _is_plain(generator):
        last = generator[-1]
        # A subclass or a hook may do something else than the layer's weights say.
        if type(last) is nn.Linear and last.out_features > last.in_features and _is_plain(last):
            return _Reduced(nn.Sequential(*list(generator)[:-1]), reduced_weight(last.weight))
    return generator


def reduced_weight(weight: Tensor) -> Tensor:
    """R ``(min(D, m), m)`` of ``A = Q R`` for a weight A ``(D, m)``."""
    with torch.inference_mode(False):  # autograd is to keep it
        return torch.linalg.qr(weight.detach(), mode="r").R


class _Reduced:
    """``R h(z)``."""

    def __init__(self, features: nn.Sequential, weight: Tensor) -> None:
        self.features, self.weight = features, weight

    def __call__(self, z: Tensor) -> Tensor:
        return self.features(z) @ self.weight.mT


def _is_plain(module: nn.Module) -> bool:
    return not (module._forward_hooks or module._forward_pre_hooks)
