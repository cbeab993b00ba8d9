"""What a length between two points cannot be less than, known without any curve.

The pullback length of a curve is that of its image, and no curve in the output space is shorter than the chord of its
ends. Two values of the generator so hold every solver's answer to a bound that needs no derivative: a decoder that
drops its derivatives (detached, in inference mode, rounded) has a metric that is zero, and images that are apart.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodesics.metrics.connection import MANY_AXES
from geodesics.metrics.metric import Metric

# Rounding of a difference of two outputs, in units of the last place of their norms: measured, at most 4 for the models
# of `bench` in float32, whose outputs are sums of hundreds of terms.
_ROUNDING = 64
# Share of a length that its error may excuse.
_EXCUSED = 0.01
# Random directions that a trace is estimated from.
_PROBES = 8
# Values of the generator per pair.
CHORD_VALUES = 2


@runtime_checkable
class Embedded(Protocol):
    """A metric that is the pullback of a map to a Euclidean space, see `PullbackMetric.chord`."""

    def chord(self, z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
        """``||F(z1) - F(z0)||`` and ``||F(z0)|| + ||F(z1)||`` of pairs of points, ``(B,)`` both."""


def is_too_short(
    metric: Metric,
    z0: Float[Tensor, "b d"],
    z1: Float[Tensor, "b d"],
    length: Float[Tensor, " b"],
    length_error: Float[Tensor, " b"],
) -> Bool[Tensor, " b"]:
    """Whether a length is less than the chord by more than its own error and rounding; never without an embedding.

    An error above a hundredth of the length excuses no more than that, and one that is not finite nothing. Cost: two
    values of the generator per pair.
    """
    if not isinstance(metric, Embedded):
        return torch.zeros_like(length, dtype=torch.bool)
    chord, size = metric.chord(z0, z1)
    rounding = _ROUNDING * torch.finfo(length.dtype).eps * (size + length)
    excuse = torch.where(length_error.isfinite(), length_error, 0.0).minimum(_EXCUSED * length)
    return chord > length + excuse + rounding


def underflows(length: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Whether a length is zero, or so small that its square loses digits: energies are squares."""
    limits = torch.finfo(length.dtype)
    return length.square() < limits.tiny / limits.eps


def is_rounding(length: Float[Tensor, " b"], size: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Whether a length is that of rounding in a step of some size."""
    return length <= _ROUNDING * torch.finfo(length.dtype).eps * size


def step_size(metric: Metric, z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """How long the straight step would be along the metric's dearest direction, at the dearer end.

    It tells a decoder without derivatives, or one whose squares underflow, from one that does not use some axis: there
    the distance along that axis is zero, and a length under rounding of this size is nothing else. One metric tensor
    per end; above 64 dimensions its trace is estimated, from eight random directions that are the same for all rows.
    """
    ends = [_trace(metric, z).clamp(min=0).sqrt() for z in (z0, z1)]
    return torch.maximum(*ends) * (z1 - z0).norm(dim=1)


def _trace(metric: Metric, z: Tensor) -> Tensor:
    if z.shape[1] <= MANY_AXES:
        return metric.tensor(z).diagonal(dim1=1, dim2=2).sum(1)
    generator = torch.Generator(z.device).manual_seed(0)
    v = torch.randn(_PROBES, z.shape[1], generator=generator, dtype=z.dtype, device=z.device)
    return sum((metric.norm(z, probe.expand_as(z)).square() for probe in v), torch.zeros_like(z[:, 0])) / _PROBES
