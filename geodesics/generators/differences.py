"""Derivatives by differences of values, and others compared with them.

For decoders that torch cannot differentiate, differences of several steps are extrapolated to step zero in a Romberg
table; each row takes the entry of the table that agrees best with its neighbors (Ridders, Advances in Engineering
Software 4, 1982). So no step has to be guessed: measured in float64, smooth decoders lose about four of their digits.

For all others they say whether derivatives are those of the values. Only gross contradictions count: a derivative
contradicts differences where those of two successive steps agree with one another and not with it, at most of the
points. Kinks, walls and rounding make differences disagree with one another, and say nothing. Outputs that change in
steps, as rounding and argmax make them, are those that change while their derivative is exactly zero everywhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from geodesics.generators.protocols import Generator

# Largest step, relative to the size of a point, ratio of steps, and number of steps.
_LARGEST, _RATIO, _STEPS = 0.1, 0.3, 6
# Least size of a point.
_LEAST_SIZE = 1e-2
# Points that are compared; one where the outputs are so many that memory counts.
_POINTS, _MANY_OUTPUTS = 3, 2**14
# Steps relative to the latents' spread, longest first.
LONGEST = 0.3
_PROBE_STEPS = {torch.float64: (LONGEST, 3e-2, 3e-3, 3e-4, 3e-5), torch.float32: (LONGEST, 1e-1, 3e-2, 1e-2, 3e-3)}
# Steps of differences of first derivatives.
_SECOND_STEPS = {torch.float64: (1e-2, 1e-3, 1e-4), torch.float32: (1e-1, 3e-2, 1e-2)}
# Rows that are looked at where derivatives are zero at all others.
_WIDE = 32
# Rounding of values in units of the last place of the largest output.
_ROUNDING = 64.0
# Relative differences of two steps that say "the same", and of a derivative that say "near" and "another".
_SAME = {torch.float64: 2e-3, torch.float32: 2e-2}
_NEAR = {torch.float64: 5e-3, torch.float32: 5e-2}
_OTHER = {torch.float64: 2e-2, torch.float32: 1e-1}
# Share of contradicting outputs, and of outputs that change in steps, from which a decoder is at fault.
_SHARE, _STEPPED = 1e-2, 0.25


def derivative_along(function: Callable[..., Tensor], z: Tensor, v: Tensor, *extras: Tensor) -> tuple[Tensor, Tensor]:
    """The derivative of a row-wise function along v, and its estimated error.

    Args:
        function: from points ``(n, d)``, and what else belongs to the rows, to ``(n, m)``.
        z: points ``(B, d)``.
        v: directions ``(B, d)``.
        extras: tensors ``(B, ...)`` that the function takes besides points.

    Returns:
        The derivatives ``(B, m)`` and the norms of their errors ``(B,)``. Twelve evaluations per row.
    """
    rows = len(z)
    size = (z.norm(dim=1) / z.shape[1] ** 0.5).clamp(min=_LEAST_SIZE)
    speed = v.norm(dim=1)
    # A direction of length zero has derivative zero, whatever the step.
    longest = _LARGEST * size / torch.where(speed > 0, speed / v.shape[1] ** 0.5, torch.ones_like(speed))
    steps = longest * _RATIO ** torch.arange(_STEPS, dtype=z.dtype, device=z.device)[:, None]
    offsets = steps[:, :, None] * v
    points = torch.cat([z + offsets, z - offsets]).flatten(0, 1)
    values = function(points, *(extra.repeat(2 * _STEPS, *([1] * (extra.ndim - 1))) for extra in extras))
    ahead, behind = values.unflatten(0, (2, _STEPS, rows))
    column = (ahead - behind) / (2 * steps[:, :, None])
    best, error = column[-1], torch.full_like(size, torch.inf)
    for order in range(1, _STEPS):
        factor = _RATIO ** (-2.0 * order)
        finer = (factor * column[1:] - column[:-1]) / (factor - 1)
        gaps = torch.maximum((finer - column[1:]).norm(dim=-1), (finer - column[:-1]).norm(dim=-1)).detach()
        for entry, gap in zip(finer, gaps, strict=True):
            better = gap < error
            best, error = torch.where(better[:, None], entry, best), torch.where(better, gap, error)
        column = finer
    return best, error


class Differences:
    """First derivatives from values alone. Some 12 d evaluations."""

    words = "differences"

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) ``(B, D)`` and the derivatives along tangents ``(t, B, d)``, as ``(t, B, D)``."""
        return generator(z), torch.stack([self.along(generator, z, tangent) for tangent in tangents])

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        """J(z) v, ``(B, D)``."""
        return derivative_along(generator, z, v)[0]


class DifferencesOfFirst:
    """Second derivatives from differences of first ones.

    Args:
        along: ``(generator, z, v) -> J v``, how first derivatives are had.
        transposed: ``(generator, z, w) -> J^T w``.
    """

    words = "differences of first derivatives"

    def __init__(
        self,
        along: Callable[[Generator, Tensor, Tensor], Tensor],
        transposed: Callable[[Generator, Tensor, Tensor], Tensor],
    ) -> None:
        self.first, self.transposed = along, transposed

    def along(self, generator: Generator, z: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """J v and F''[u, v], ``(B, D)`` both."""
        second, _ = derivative_along(lambda point, along: self.first(generator, point, along), z, u, v)
        return self.first(generator, z, v), second

    def contracted(self, generator: Generator, z: Tensor, w: Tensor, tangents: Tensor) -> Tensor:
        """H(w) t for tangents t ``(t, B, d)``, as ``(t, B, d)``."""

        def gradient(point: Tensor, weights: Tensor) -> Tensor:
            return self.transposed(generator, point, weights)

        return torch.stack([derivative_along(gradient, z, tangent, w)[0] for tangent in tangents])


class Probe(NamedTuple):
    """Points, directions and values of a generator, for comparisons.

    Attributes:
        z: points ``(n, d)``, near rows of the latents, but at none of the kinks that people put into rows, as zero is.
        v: directions ``(n, d)``, of the latents' spread.
        F: values ``(n, D)``.
        slopes: central differences by step ``(s, n, D)``.
        rounding: what they are rounded by ``(s, n, 1)``.
        far: values a long step away ``(n, D)``.
        writes: whether the generator writes into its argument.
    """

    z: Tensor
    v: Tensor
    F: Tensor
    slopes: Tensor
    rounding: Tensor
    far: Tensor
    writes: bool


def probe(generator: Generator, latents: Tensor) -> Probe | None:
    """Values around a few of the latents ``(B, d)``; None where they say nothing: not finite, or rows are coupled."""
    if latents.dtype not in _PROBE_STEPS:
        return None
    z, v = _points(latents)
    if not len(z):
        return None
    with torch.no_grad():
        around = z.clone()
        untouched = _version(around)
        F = generator(around)
        writes = _version(around) != untouched or bool((around != z).any())
        if not isinstance(F, Tensor) or F.ndim != 2 or len(F) != len(z) or F.dtype != z.dtype:
            return None
        if F.shape[1] > _MANY_OUTPUTS:
            z, v, F = z[:1], v[:1], F[:1]
        steps = torch.tensor(_PROBE_STEPS[z.dtype], dtype=z.dtype, device=z.device)[:, None, None]
        offsets = torch.cat([steps, -steps, torch.zeros_like(steps[:1])]) * v
        around = z + offsets
        if F.shape[1] > _MANY_OUTPUTS:
            values = torch.stack([generator(points) for points in around])
        else:
            values = generator(around.flatten(0, 1)).unflatten(0, offsets.shape[:2])
        ahead, behind, again = values[: len(steps)], values[len(steps) : -1], values[-1]
    same = ((F - again).abs() <= _rounding(F)) | ~F.isfinite()
    if not bool(same.all() & F.isfinite().all(1).any()):
        return None
    slopes = (ahead - behind) / (2 * steps)
    far = ahead[0] if bool((latents != 0).any()) else F  # a step that is long compared with nothing says nothing
    return Probe(z, v, F, slopes, _rounding(F) / steps, far, writes)


def contradicts(slopes: Tensor, rounding: Tensor, found: Tensor, *, strict: bool = False) -> bool:
    """Whether derivatives ``(n, D)`` are grossly others than differences ``(s, n, D)`` for too many outputs.

    Strictly, all differences have to agree with one another, and not two: where a single output counts, two of sums
    over many kinks may agree by chance.
    """
    gap, size = (slopes - found).abs(), slopes.abs() + found.abs().nan_to_num()
    same, dtype = _SAME[found.dtype], found.dtype
    near = gap <= _NEAR[dtype] * size + rounding
    a, b = slopes[:-1], slopes[1:]
    larger = torch.maximum(a.abs(), b.abs())
    settled = ((a - b).abs() <= same * larger) & (rounding[1:] <= same * larger)
    other = settled & ~(gap[1:] <= _OTHER[dtype] * size[1:])  # a derivative that is NaN is another
    told = other.all(0) if strict else other.any(0)
    wrong = (told & ~near.any(0)).sum(0) > len(found) / 2
    return int(wrong.sum()) > _SHARE * len(wrong)


def is_stepped(seen: Probe, here: Tensor, there: Tensor) -> bool:
    """Whether outputs change in steps: their derivatives at both ends of a long step are exactly zero."""
    flat = (here == 0).all(0) & (there == 0).all(0)
    changed = ((seen.far - seen.F).abs() > _rounding(seen.F)).any(0)
    stepped, smooth = int((flat & changed).sum()), int((~flat).sum())
    return stepped > _STEPPED * (stepped + smooth)


def wide_points(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Points and directions all over the latents, for those whose derivative is zero at the others ``(n, d)``."""
    z, v = _points(latents)
    rows = latents.detach()[latents.isfinite().all(1)][:_WIDE]
    noise = torch.rand(_WIDE, z.shape[1], dtype=z.dtype, generator=torch.Generator().manual_seed(1)).to(z)
    around = z[torch.arange(_WIDE, device=z.device) % len(z)] + 2 * v.abs().amax(0) * (2 * noise - 1)
    points = torch.cat([rows, around])
    return points, v[:1].expand_as(points)


def second_differences(along: Callable[[Tensor, Tensor], Tensor], seen: Probe) -> tuple[Tensor, Tensor]:
    """Differences of first derivatives along v by step ``(s, n, D)``, and their rounding ``(s, n, 1)``."""
    steps = torch.tensor(_SECOND_STEPS[seen.z.dtype], dtype=seen.z.dtype, device=seen.z.device)[:, None, None]
    offsets = torch.cat([steps, -steps]) * seen.v
    points, directions = (seen.z + offsets).flatten(0, 1), seen.v.repeat(len(offsets), 1)
    with torch.enable_grad():  # torch's second forward derivative of SiLU and Mish asks for it
        ahead, behind = along(points, directions).detach().unflatten(0, (2, len(steps), -1))
    return (ahead - behind) / (2 * steps), _rounding(ahead[-1]) / steps


def _rounding(values: Tensor) -> Tensor:
    """What outputs ``(n, D)`` are rounded by, ``(n, 1)``; they are sums of terms of the size of the largest."""
    size = values.abs().nan_to_num(posinf=0.0).amax(1, keepdim=True)
    return _ROUNDING * torch.finfo(values.dtype).eps * size


def _version(z: Tensor) -> int:
    """How often a tensor has been written to, where that is counted."""
    return 0 if z.is_inference() else z._version


def _points(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Points near rows of the latents, and directions; the same in every run."""
    z = latents.detach()[:4096]
    z = z[z.isfinite().all(1)]
    if not len(z):
        return z, z
    rows = z[torch.linspace(0, len(z) - 1, _POINTS, device=z.device).long()]
    size = z.abs().mean(0)
    size = torch.where(size > 0, size, size.mean())
    size = torch.where(size > 0, size, torch.ones_like(size))
    spread = z.std(0, correction=0)
    spread = torch.where(spread > 1e-3 * size, spread, size)
    # Relative to the points, so that none leaves the domain on one side of zero, as that of scales.
    scale = torch.minimum(spread, torch.maximum(rows.abs(), 1e-2 * spread))
    noise = torch.rand(2, *rows.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0)).to(z)
    jitter = torch.tensor([1e-2, 1e-1, 0.2], dtype=z.dtype, device=z.device)[:, None]
    return rows + jitter * scale * (2 * noise[0] - 1), scale * (2 * noise[1] - 1)
