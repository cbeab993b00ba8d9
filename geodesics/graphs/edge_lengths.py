"""Lengths of straight edges, measured as finely as each of them needs.

Two chords tell the length of most edges to a percent. An edge along which the metric changes gets more of them, until
they tell the same. An edge that is long for the graph may lie across waves or walls that its halves leap over: it is
cut at the graph's own scale to begin with, and again until two measures agree that see different things, the chords,
which see values, and the speeds at the middles of the pieces, which see derivatives.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.curves.elements import make_elements
from geodesics.metrics.metric import Metric

# An edge is long above this many times the spacing of the nodes.
_LONG = 8
# By how much the speeds at the ends of an edge may differ from its chords: measured on digits, one edge in ten is above
# it, and of the others one in a thousand is off by more than 3 %.
_AGREE = 0.05
# By how much the chords may grow when pieces are halved, and differ from the speeds: chords are of second order.
_SETTLED = 0.02
_MOST_PIECES = 4096
# Vertices measured at a time, a bound on memory.
_VERTICES = 3 * 2**12


class Edges(NamedTuple):
    """Lengths, infinite where the metric is not finite, and their cost: values of the generator, and derivatives."""

    lengths: Float[Tensor, " n"]
    values: int
    jacobians: int


def edge_lengths(
    metric: Metric,
    start: Float[Tensor, "n d"],
    end: Float[Tensor, "n d"],
    trapezoid: Float[Tensor, " n"],
    spacing: float,
) -> Edges:
    """Lengths of straight edges, to about `_SETTLED` at worst where the metric is resolved by so many pieces.

    Args:
        metric: the Riemannian metric.
        start, end: of the edges.
        trapezoid: their lengths by the speeds at both ends.
        spacing: typical Euclidean length of an edge, to which long ones are cut to begin with.
    """
    extent = (end - start).norm(dim=1)
    pieces = torch.full_like(extent, 2.0)
    long = (extent > _LONG * spacing) & extent.isfinite()
    pieces[long] = torch.exp2((extent[long] / spacing).log2().ceil()).clamp(max=_MOST_PIECES / 2) / 2
    lengths = torch.full_like(extent, torch.inf)
    values = jacobians = 0
    for count in map(int, pieces.unique()):
        rows = (pieces == count).nonzero()[:, 0]
        lengths[rows] = _chords(metric, start[rows], end[rows], count)
        values += len(rows) * (count + 1)
    open_ = lengths.isfinite() & (long | ~((trapezoid - lengths).abs() <= _AGREE * lengths))
    while True:
        pieces[open_] *= 2
        open_ &= pieces <= _MOST_PIECES
        if not bool(open_.any()):
            return Edges(lengths, values, jacobians)
        for count in map(int, pieces[open_].unique()):
            rows = (open_ & (pieces == count)).nonzero()[:, 0]
            finer = _chords(metric, start[rows], end[rows], count)
            settled = (finer - lengths[rows]).abs() <= _SETTLED * finer
            lengths[rows] = finer
            values += len(rows) * (count + 1)
            leaping = (settled & long[rows]).nonzero()[:, 0]
            if leaping.numel():
                speeds = _speeds(metric, start[rows[leaping]], end[rows[leaping]], count)
                settled[leaping] = (speeds - finer[leaping]).abs() <= _SETTLED * finer[leaping]
                jacobians += len(leaping) * count
            # What is not finite is measured as well.
            open_[rows] = ~settled & finer.isfinite()


def polyline_lengths(metric: Metric, polylines: Float[Tensor, "n v d"]) -> Float[Tensor, " n"]:
    """Lengths of polylines, by their chords; infinite where the metric is not finite."""
    if len(polylines) == 0:
        return polylines.new_zeros(0)
    elements = make_elements(1, 1, polylines)
    path_energy = metric.path_energy(elements)
    chunk = max(1, _VERTICES // polylines.shape[1])
    parts = [path_energy.value(part, None)[1] @ elements.weights for part in polylines.split(chunk)]
    lengths = torch.cat(parts).sum(1)
    return torch.where(lengths.isfinite(), lengths, torch.inf)


def _chords(metric: Metric, start: Tensor, end: Tensor, count: int) -> Tensor:
    """By so many equal pieces, a few edges at a time."""
    t = torch.linspace(0, 1, count + 1, dtype=start.dtype, device=start.device)[:, None]
    chunk = max(1, _VERTICES // (count + 1))
    parts = zip(start.split(chunk), end.split(chunk), strict=True)
    return torch.cat([polyline_lengths(metric, a[:, None] + t * (b - a)[:, None]) for a, b in parts])


def _speeds(metric: Metric, start: Tensor, end: Tensor, count: int) -> Tensor:
    """By the midpoint rule in so many pieces."""
    t = (torch.arange(count, dtype=start.dtype, device=start.device) + 0.5)[:, None] / count
    chunk = max(1, _VERTICES // count)
    sums = []
    for a, b in zip(start.split(chunk), end.split(chunk), strict=True):
        step = (b - a)[:, None].expand(-1, count, -1)
        points = a[:, None] + t * step
        sums.append(metric.norm(points.flatten(0, 1), step.flatten(0, 1)).view(len(a), count).mean(1))
    return torch.cat(sums)
