"""The heavy search for the shortest curves: many starts, each for itself, the best continued; all is pooled.

What counts is the length by dense chords. Every length is an upper bound; a run can be repeated with another seed, and
keeps what is shorter.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.contest.dense_length import dense_length
from bench.gpu.models import Given
from bench.zoo.continuation import Prepared, coarsened, own_segments
from bench.zoo.members import Member
from bench.zoo.pairs import Pairs, merged
from bench.zoo.starts import DEFAULT, GraphSettings
from geodesics import Curve, EnergySolver, GeodesicResult, InitialCurves, geodesic

NUM_CHORDS = 20_000
# Rows solved at a time.
_ROWS = 64
# A first look at every start: what is compared need not be finished.
_FIRST = EnergySolver(max_segments=64, max_iter=8, max_meshes=2)
# Curves of a pair that are continued on meshes of so many elements: the shortest, as far as they differ at all.
_ROUNDS = ((64, 3), (128, 2), (256, 1), (512, 1))
_DIFFERENT = 1e-3
# No curve that is longer than the shortest by more than this is continued, no pair that fell by less than that.
_HOPELESS, _FELL = 1.1, 5e-4


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        nodes: of the richer graph.
        paths: of the richer graph.
        seed: of its nodes.
        segments: elements of the finest mesh.
    """

    nodes: int = 80_000
    paths: int = 6
    seed: int = 1
    segments: int = 256

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.paths} paths, seed {self.seed}, {self.segments} segments"


def search(member: Member, effort: Effort, keep: Callable[[Pairs], None], say: Callable[[str], None]) -> Pairs:
    """Look for shorter curves of all pairs of a member.

    Args:
        member: metric and pairs.
        effort: how hard to look.
        keep: called with the pairs whenever some may have become shorter.
        say: takes a line about each step.
    """
    pairs = member.pairs
    began = time.process_time()
    rich = GraphSettings(effort.nodes, effort.paths, None, effort.seed)
    starts = torch.cat([member.starts(DEFAULT).starts, member.starts(rich).starts])
    say(f"{member.name}: {len(starts)} starts a pair, {time.process_time() - began:.0f} CPU s")
    curves, lengths = _solve_each(member, starts)
    pooled = _solve(member, member.z0, member.z1, Given(starts), _FIRST)
    curves.append(pooled.curve)
    lengths = torch.cat([lengths, pooled.length[None]])
    pairs = _kept(member, pairs, _shortest(curves, lengths), f"graph of {effort.nodes}, seed {effort.seed}")
    keep(pairs)
    say(f"{member.name}: {_known(pairs)}, first round, {time.process_time() - began:.0f} CPU s")
    open_pairs = torch.ones(len(pairs), dtype=torch.bool)
    for count, most in _ROUNDS:
        if count > effort.segments or not bool(open_pairs.any()):
            break
        before = lengths.amin(0)
        curves, lengths = _continue(member, curves, lengths, count, most, open_pairs)
        pairs = _kept(member, pairs, _shortest(curves, lengths), f"{count} segments, seed {effort.seed}")
        keep(pairs)
        # What 64 elements did is not the end of any curve.
        open_pairs = (lengths.amin(0) < (1 - _FELL) * before) | (count == _ROUNDS[0][0])
        say(f"{member.name}: {_known(pairs)}, {count} segments, {time.process_time() - began:.0f} CPU s")
    pairs = replace(pairs, searches=(*pairs.searches, str(effort)))
    keep(pairs)
    return pairs


def _solve(member: Member, z0: Tensor, z1: Tensor, starts: InitialCurves, solver: EnergySolver) -> GeodesicResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return geodesic(member.metric, z0, z1, solver=solver, initial=starts)


def _solve_each(member: Member, starts: Tensor) -> tuple[list[Curve], Tensor]:
    """Every start for itself: S curves of all pairs, and their lengths ``(S, B)``, infinite where there is none."""
    S, B = starts.shape[:2]
    flat = starts.flatten(0, 1)
    curves, lengths = [], []
    for rows in torch.arange(S * B).split(_ROWS):
        result = _solve(member, flat[rows, 0], flat[rows, -1], Given(flat[None, rows]), _FIRST)
        curves.append(result.curve.with_segments(_FIRST.max_segments))
        lengths.append(result.length)
    whole = Curve(torch.cat([curve.points for curve in curves]), None, _FIRST.degree)
    length = torch.cat(lengths).nan_to_num(torch.inf).view(S, B)
    return [whole[s * B : (s + 1) * B] for s in range(S)], length


def _continue(
    member: Member, curves: list[Curve], lengths: Tensor, count: int, most: int, open_pairs: Tensor
) -> tuple[list[Curve], Tensor]:
    """The ``most`` shortest curves of every pair on a mesh of ``count`` elements, continued where it is worth it."""
    rank, shortest = lengths.argsort(0), lengths.amin(0)
    solver = EnergySolver(count, count, length_tol=1e-7, max_iter=40, max_meshes=3 * max(1, count // 64))
    new_curves, new_lengths = [], []
    for place in range(min(most, len(curves))):
        length = lengths.gather(0, rank[place][None])[0]
        worth = open_pairs & length.isfinite() & (length <= _HOPELESS * shortest)
        if place:
            better = lengths.gather(0, rank[place - 1][None])[0]
            worth &= (length - better).abs() > _DIFFERENT * length
        best = [curves[s][i : i + 1] for i, s in enumerate(rank[place].tolist())]
        points = torch.cat([coarse_as(curve, count).points for curve in best])
        reached = length.clone()
        rows = worth.nonzero()[:, 0]
        if rows.numel():
            starts = Prepared(Curve(points[rows], None, best[0].degree))
            result = _solve(member, points[rows, 0], points[rows, -1], starts, solver)
            fell = result.length < length[rows]
            moved = result.curve.with_segments(count).points
            points[rows] = torch.where(fell[:, None, None], moved, points[rows])
            reached[rows] = torch.where(fell, result.length, length[rows])
        new_curves.append(Curve(points, None, best[0].degree))
        new_lengths.append(reached.where(worth | (place == 0), torch.inf))
    return new_curves, torch.stack(new_lengths)


def coarse_as(curve: Curve, count: int) -> Curve:
    """A single curve on ``count`` elements, exactly where its own elements are no more than that."""
    own = own_segments(curve)
    return coarsened(curve, own).with_segments(count) if own <= count else coarsened(curve, count)


def _shortest(curves: list[Curve], lengths: Tensor) -> Curve:
    chosen = lengths.argmin(0).tolist()
    count = max(curve.num_segments for curve in curves)
    best = [curves[s][i : i + 1].with_segments(count) for i, s in enumerate(chosen)]
    return Curve(torch.cat([curve.points for curve in best]), None, best[0].degree)


def _kept(member: Member, pairs: Pairs, curve: Curve, by: str) -> Pairs:
    length, error = dense_length(member.problems(), curve, NUM_CHORDS)
    return merged(pairs, length, error, by)


def _known(pairs: Pairs) -> str:
    return f"{int(pairs.best.isfinite().sum())} of {len(pairs)} lengths known, sum {float(pairs.best.sum()):.6g}"
