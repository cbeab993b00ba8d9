"""The best of several curves, piece by piece.

Curves from different starts are local minima that share stretches and part ways in between: one is the shorter here,
the other there. The shortest way along all of them, with a step from curve to curve wherever two come near one another,
is no longer than any; S curves with k places where they part stand for S^k ways.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import rows_in_memory
from geodesics.curves.curve import Curve
from geodesics.curves.elements import make_elements
from geodesics.metrics.metric import Metric

# A curve may be left for another one where that is no farther off than this share of its latent length.
_NEAR = 0.05
# Rounds of steps from curve to curve, and what a step has to gain, as a share of the length: where curves run side by
# side, the way would change from one to the other at every vertex.
_STEPS = 16
_GAIN = 1e-4
# Numbers that a vertex is taken to need, which bounds how many problems are worked on at a time.
_NUMBERS = 12


class Recombined(NamedTuple):
    """The shortest ways along several curves.

    Attributes:
        curve: polylines.
        start: the curve that most vertices are of, ``(B,)``.
        values: points at which the generator's value was computed, ``(B,)``.
    """

    curve: Curve
    start: Int[Tensor, " b"]
    values: Int[Tensor, " b"]


class _Crossing(NamedTuple):
    """Where curves ``first`` and ``second`` are near: vertex i of the one and ``partner[:, i]`` of the other."""

    first: int
    second: int
    partner: Int[Tensor, "b k"]
    length: Float[Tensor, "b k"]


class _Ways(NamedTuple):
    """Shortest ways found so far, for every vertex; the leading axes are ``(B, S, k)``.

    Attributes:
        entry: length of the shortest way that comes to the curve at this vertex.
        origin: the vertex of the other curve that it comes from, counted over all curves, -1 where the way begins.
        length: of the shortest way to this vertex.
        boarded: the vertex at which that came to this curve.
    """

    entry: Tensor
    origin: Tensor
    length: Tensor
    boarded: Tensor


def recombine(metric: Metric, points: Float[Tensor, "s b k d"], length: Float[Tensor, "s b k1"]) -> Recombined:
    """Shortest ways along S curves of B problems, each curve run forwards only.

    A step from a curve to another is measured as a straight line, on its two halves.

    Args:
        metric: the Riemannian metric.
        points: vertices on the curves; curves of NaN are left out.
        length: of the curves between the vertices.

    Returns:
        Per problem one polyline through vertices of the curves, padded with its end; the first curve where all are NaN.
    """
    rows = rows_in_memory(points, _NUMBERS * points.shape[0] * points.shape[2])
    split = zip(points.split(rows, dim=1), length.split(rows, dim=1), strict=True)
    vertices, start, values = zip(*(_recombine(metric, *part) for part in split), strict=True)
    longest = max(part.shape[1] for part in vertices)
    padded = [torch.cat([part, part[:, -1:].expand(-1, longest - part.shape[1], -1)], dim=1) for part in vertices]
    return Recombined(Curve(torch.cat(padded)), torch.cat(start), torch.cat(values))


def _recombine(metric: Metric, points: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, starts and values of `recombine`, for as many problems as fit into memory."""
    points, length = points.movedim(0, 1), length.movedim(0, 1).nan_to_num(torch.inf)
    count = points.shape[2]
    shortest, alone = length.sum(2).min(1)
    crossings, values = _crossings(metric, points, _GAIN * shortest)
    passed = torch.cat([torch.zeros_like(length[:, :, :1]), length.cumsum(2)], dim=2)
    entry = torch.full_like(passed, torch.inf)
    entry[:, :, 0] = 0
    origin = torch.full_like(entry, -1, dtype=torch.long)
    ways = _along(passed, entry, origin)
    for _ in range(_STEPS):
        for crossing in crossings:
            _step(crossing, ways, count)
        ways = _along(passed, ways.entry, ways.origin)
    path = _walk(ways, alone, count)
    start = torch.stack([(path // count == s).sum(1) for s in range(points.shape[1])]).argmax(0)
    vertices = points.flatten(1, 2).gather(1, path[:, :, None].expand(-1, -1, points.shape[3]))
    return vertices, start, values


def _crossings(metric: Metric, points: Tensor, toll: Tensor) -> tuple[list[_Crossing], Int[Tensor, " b"]]:
    """Where two curves are near one another, and the points at which the generator's value was computed."""
    num_problems, num_starts = points.shape[:2]
    extent = points.diff(dim=2).norm(dim=-1).sum(2)
    halves = make_elements(1, 2, points)
    path_energy = metric.path_energy(halves)
    values = torch.zeros(num_problems, dtype=torch.long, device=points.device)
    found = []
    for a in range(num_starts):
        for b in range(a + 1, num_starts):
            near, partner = _nearest(points[:, a], points[:, b], _NEAR * extent[:, a])
            rows, i = near.nonzero(as_tuple=True)
            if rows.numel() == 0:
                continue
            step = torch.stack([points[rows, a, i], points[rows, b, partner[rows, i]]], dim=1)
            _, speed = path_energy.value(step, None)
            length = torch.full_like(points[:, a, :, 0], torch.inf)
            length[rows, i] = ((speed @ halves.weights)[:, 0] + toll[rows]).nan_to_num(torch.inf)
            values += path_energy.samples(1) * near.sum(1)
            found.append(_Crossing(a, b, partner, length))
    return found, values


def _nearest(
    one: Float[Tensor, "b k d"], other: Float[Tensor, "b k d"], radius: Float[Tensor, " b"]
) -> tuple[Bool[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The nearest vertex of the other curve, and whether to step over there.

    Both are nearest to one another and within the radius, and the vertices before and after are farther apart: curves
    that run side by side need no more than that.
    """
    parts = []
    for rows in torch.arange(len(one), device=one.device).split(rows_in_memory(one, one.shape[1] ** 2)):
        apart = torch.cdist(one[rows], other[rows])
        distance, partner = apart.min(2)
        # One vertex for each, ties or not; argmin along that axis takes twice as long.
        mutual = apart.min(1).indices.gather(1, partner) == torch.arange(one.shape[1], device=one.device)
        before, here, after = distance[:, :-2], distance[:, 1:-1], distance[:, 2:]
        lowest = ((here < before) & (here <= after)) | ((here <= before) & (here < after))
        near = torch.zeros_like(mutual)
        near[:, 1:-1] = mutual[:, 1:-1] & lowest & (here <= radius[rows, None])
        parts.append((near, partner))
    near, partner = (torch.cat(part) for part in zip(*parts, strict=True))
    return near, partner


def _along(passed: Tensor, entry: Tensor, origin: Tensor) -> _Ways:
    """The shortest ways to all vertices from those by which the curves are entered: ``min_j entry_j + p_k - p_j``."""
    ahead, boarded = (entry - passed).nan_to_num(torch.inf, torch.inf).cummin(2)
    return _Ways(entry, origin, (ahead + passed).nan_to_num(torch.inf), boarded)


def _step(crossing: _Crossing, ways: _Ways, count: int) -> None:
    """Enter curves from one another where that makes the way to a vertex shorter, in place."""
    a, b, partner, step = crossing
    there, back = ways.length[:, a] + step, ways.length[:, b].gather(1, partner) + step
    # Vertices that are nearest to one another come in pairs, so none is written twice.
    known = ways.length.minimum(ways.entry)
    rows, i = (there < known[:, b].gather(1, partner)).nonzero(as_tuple=True)
    j = partner[rows, i]
    ways.entry[rows, b, j], ways.origin[rows, b, j] = there[rows, i], a * count + i
    rows, i = (back < known[:, a]).nonzero(as_tuple=True)
    ways.entry[rows, a, i], ways.origin[rows, a, i] = back[rows, i], b * count + partner[rows, i]


def _walk(ways: _Ways, alone: Int[Tensor, " b"], count: int) -> Int[Tensor, "b n"]:
    """Vertices of the shortest ways to the last vertex of any curve, counted over all curves, padded with the last.

    Ways of too many pieces are given up for the one curve ``alone``.
    """
    boarded, origin = ways.boarded.flatten(1), ways.origin.flatten(1)
    last = ways.length[:, :, -1].argmin(1) * count + count - 1
    going = torch.ones_like(last, dtype=torch.bool)
    firsts, sizes = [], []
    for _ in range(2 * _STEPS):
        first = last // count * count + boarded.gather(1, last[:, None])[:, 0]
        firsts.append(first)
        sizes.append(torch.where(going, last - first + 1, 0))
        before = origin.gather(1, first[:, None])[:, 0]
        going = going & (before >= 0)
        last = torch.where(going, before, last)
    begin, size = torch.stack(firsts[::-1], dim=1), torch.stack(sizes[::-1], dim=1)
    whole = torch.zeros_like(size)
    whole[:, -1] = count
    begin = torch.where(going[:, None], (alone * count)[:, None], begin)
    total = torch.where(going[:, None], whole, size).cumsum(1)
    position = torch.arange(int(total[:, -1].max()), device=last.device).expand(len(last), -1)
    position = position.minimum(total[:, -1:] - 1).contiguous()
    piece = torch.searchsorted(total, position, right=True)
    started = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=1).gather(1, piece)
    return begin.gather(1, piece) + position - started
