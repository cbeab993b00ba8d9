"""Outputs of decoders as rows: images are flattened, a normal distribution is its mean beside its deviation.

Anything else is refused in words: what came, and what would do.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from geodesics.batches.arguments import check_kept
from geodesics.batches.threads import forward_mode

_ASKED = "generator must map (B, d) to (B, D)"


@dataclass(frozen=True)
class Rows:
    """A generator whose outputs become rows ``(B, D)``: see `as_rows`."""

    generator: Callable[[Tensor], Any]

    def __call__(self, z: Tensor) -> Tensor:
        with unvalidated():
            return as_rows(z, self.generator(z))


def is_rows(z: Tensor, output: object) -> bool:
    """Whether an output is rows as it is."""
    return isinstance(output, Tensor) and output.ndim == 2 and len(output) == len(z)


def as_rows(z: Tensor, output: object) -> Tensor:
    """Rows ``(B, D)`` of what a decoder gave for the points z ``(B, d)``.

    Images ``(B, C, H, W)``, and all outputs of more than two axes, are flattened. A `torch.distributions.Normal`, also
    in an `Independent`, becomes its mean beside its standard deviation, whose pullback metric is the expected metric
    of the stochastic generator (see `Stack`).

    Raises:
        TypeError: when the output is something else: a tuple, a dictionary, another distribution, an array.
        ValueError: when it has another number of rows, no columns, or another dtype or device than z.
    """
    if isinstance(output, Independent):
        output = output.base_dist
    if isinstance(output, Normal):
        return torch.cat([as_rows(z, output.loc), as_rows(z, output.scale)], dim=1)
    if not isinstance(output, Tensor):
        raise TypeError(f"{_ASKED}; got {tuple(z.shape)} -> {_described(output)}")
    if output.layout != torch.strided:
        raise TypeError(f"{_ASKED}, dense; got {output.layout}: call .to_dense()")
    if output.ndim < 2 or len(output) != len(z) or 0 in output.shape[1:]:
        raise ValueError(f"{_ASKED}; got {tuple(z.shape)} -> {tuple(output.shape)}")
    check_kept("generator", z, output)
    return output if output.ndim == 2 else output.flatten(1)


@contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions are made without a look at their parameters, which derivatives that are vmapped cannot have.

    The switch belongs to the process, hence the lock.
    """
    with forward_mode():
        kept = Distribution._validate_args
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            Distribution.set_default_validate_args(kept)


def _described(output: object) -> str:
    """What came, and how its part is passed."""
    if output is None:
        return "None: does it return its output?"
    if isinstance(output, Distribution):
        return f"{type(output).__name__}: pass lambda z: decoder(z).mean"
    kind = type(output).__name__
    names = [str(name) for name in output] if isinstance(output, Mapping) else list(getattr(output, "_fields", ()))
    if not names and hasattr(output, "__dict__"):
        names = [name for name, value in vars(output).items() if isinstance(value, Tensor)]
    if names and not isinstance(output, Mapping):
        return f"{kind} of {', '.join(names)}: pass one of them, as lambda z: decoder(z).{names[0]}"
    if names:
        return f"{kind} of {', '.join(names)}: pass one of them, as lambda z: decoder(z)[{names[0]!r}]"
    if isinstance(output, tuple | list):
        return f"{kind} of {len(output)}: pass one of them, as lambda z: decoder(z)[0]"
    return f"{kind}: it must be written in operations of torch"
