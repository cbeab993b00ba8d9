"""The heavy search for the shortest curves: many starts, each for itself, the best continued; all is pooled.

What counts is the length by dense chords. Every length is an upper bound; a run can be repeated with another seed, and
keeps what is shorter.
"""

import hashlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.contest.dense_length import dense_length
from bench.gpu.models import Given
from bench.zoo import starts
from bench.zoo.continuation import Prepared, coarsened, own_segments
from bench.zoo.members import Member
from bench.zoo.pairs import Pairs, merged
from bench.zoo.starts import DEFAULT, GraphSettings
from geodesics import Curve, EnergySolver, GeodesicResult, InitialCurves, LBFGSSolver, Solver, geodesic

NUM_CHORDS = 20_000
# Rows solved at a time.
_ROWS = 64
# A first look at every start: what is compared need not be finished.
_FIRST = EnergySolver(max_segments=64, max_iter=8, max_meshes=2)
# Curves of a pair that are continued on meshes of so many elements: the shortest, as far as they differ at all. Coarse
# ones first, by L-BFGS alone, which goes on along axes that hardly matter to the metric.
_ROUNDS = ((16, 3), (64, 3), (128, 2), (256, 1), (512, 1))
_COARSE, _SEVERAL, _ITERATIONS = 16, 128, 400
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
    points = torch.cat([member.starts(DEFAULT).starts, member.starts(rich).starts])
    say(f"{member.name}: {len(points)} starts a pair, {time.process_time() - began:.0f} CPU s")
    curves, lengths = _solve_each(member, points)
    pooled = _solve(member, member.z0, member.z1, Given(points), _FIRST)
    curves.append(pooled.curve)
    lengths = torch.cat([lengths, pooled.length[None]])
    pairs = _kept(member, pairs, _shortest(curves, lengths), f"graph of {effort.nodes}, seed {effort.seed}")
    keep(pairs)
    say(f"{member.name}: {_known(pairs)}, first round, {time.process_time() - began:.0f} CPU s")
    earlier = _stored(member)
    if earlier is not None:
        curves.append(earlier)
        lengths = torch.cat([lengths, dense_length(member.problems(), earlier, NUM_CHORDS)[0][None]])
    open_pairs = torch.ones(len(pairs), dtype=torch.bool)
    for count, most in _ROUNDS:
        if count > effort.segments or not bool(open_pairs.any()):
            break
        before = lengths.amin(0)
        curves, lengths = _continue(member, curves, lengths, count, most, open_pairs)
        pairs = _kept(member, pairs, _shortest(curves, lengths), f"{count} segments, seed {effort.seed}")
        keep(pairs)
        _store(member, _shortest(curves, lengths))
        # What few elements did is not the end of any curve.
        open_pairs = (lengths.amin(0) < (1 - _FELL) * before) | (count < _SEVERAL)
        say(f"{member.name}: {_known(pairs)}, {count} segments, {time.process_time() - began:.0f} CPU s")
    pairs = replace(pairs, searches=(*pairs.searches, str(effort)))
    keep(pairs)
    return pairs


def _path(member: Member) -> Path:
    ends = torch.cat([member.z0, member.z1]).numpy().tobytes()
    return starts.CACHE / f"{member.name}-best-{hashlib.sha256(ends).hexdigest()[:12]}.npz"


def _store(member: Member, curve: Curve) -> None:
    """Keep the curves for the next search: it goes on with them."""
    path = _path(member)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, points=curve.points.numpy(), degree=curve.degree)


def _stored(member: Member) -> Curve | None:
    """The curves that an earlier search of the same pairs has kept."""
    if not _path(member).exists():
        return None
    with np.load(_path(member), allow_pickle=False) as archive:
        return Curve(torch.from_numpy(archive["points"]), None, int(archive["degree"]))


def _solve(member: Member, z0: Tensor, z1: Tensor, initial: InitialCurves, solver: Solver) -> GeodesicResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return geodesic(member.metric, z0, z1, solver=solver, initial=initial)


def _solve_each(member: Member, points: Tensor) -> tuple[list[Curve], Tensor]:
    """Every start for itself: S curves of all pairs, and their lengths ``(S, B)``, infinite where there is none."""
    S, B = points.shape[:2]
    flat = points.flatten(0, 1)
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
    """The ``most`` shortest curves of every pair on a mesh of ``count`` elements, continued where it is worth it.

    The shortest of all comes first, as it was: a mesh may be too coarse for it.
    """
    rank, shortest = lengths.argsort(0), lengths.amin(0)
    solvers: list[Solver] = [LBFGSSolver(count, max_iter=_ITERATIONS)]
    if count > _COARSE:
        solvers.append(EnergySolver(count, count, length_tol=1e-7, max_iter=40, max_meshes=max(1, count // 64)))
    new_curves, new_lengths = [_shortest(curves, lengths)], [shortest]
    for place in range(min(most, len(curves))):
        length = lengths.gather(0, rank[place][None])[0]
        worth = open_pairs & length.isfinite() & (length <= _HOPELESS * shortest)
        if place:
            better = lengths.gather(0, rank[place - 1][None])[0]
            worth &= (length - better).abs() > _DIFFERENT * length
        best = [curves[s][i : i + 1] for i, s in enumerate(rank[place].tolist())]
        fits = torch.tensor([own_segments(curve) <= count for curve in best])
        points = torch.cat([coarse_as(curve, count).points for curve in best])
        reached = length.where(fits, torch.inf)
        rows = worth.nonzero()[:, 0]
        if rows.numel():
            for solver in solvers:
                start = Prepared(Curve(points[rows], None, best[0].degree))
                result = _solve(member, points[rows, 0], points[rows, -1], start, solver)
                fell = result.length < reached[rows]
                moved = result.curve.with_segments(count).points  # both solvers keep the mesh's size
                points[rows] = torch.where(fell[:, None, None], moved, points[rows])
                reached[rows] = torch.where(fell, result.length, reached[rows])
        new_curves.append(Curve(points, None, best[0].degree))
        new_lengths.append(reached.where(worth, torch.inf))
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
