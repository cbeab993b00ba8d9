"""One level of resolution of the energy minimiser: placing starts, renewing meshes, the race between starts."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.curves import Curve
from geodesics.elements import Elements
from geodesics.mesh import allot_pieces, cell_arcs, distortion, equal_mixed_nodes, mixed_arc, speed_profile
from geodesics.newton import NewtonState, minimize
from geodesics.path_energy import PathEnergy
from geodesics.rows import take, write

# Nodes are moved when some element holds more than this many times its share of mixed arc length. Nodes that move leave
# their polynomials, which costs Newton a handful of steps.
_DISTORTED = 4.0
# No node moves more than this share of the curve's own latent length in one step.
_MAX_STEP_SHARE = 0.05
# Relative change of the discrete length between N and 2 N elements under which N elements see the initial curve.
_SEEN = 0.02
# Relative change of the discrete length under a move of the nodes above which a level is too coarse.
_RESOLVED = 5e-3
# Starts longer than the best of their problem by this factor after a minimisation are dropped.
_HOPELESS = 1.03
# So are starts that have become another one: equally long to this, with no node farther off than this share of it.
_SAME = 0.01
# Starts that begin longer than the best of their problem by this factor are not tried.
_FAR = 1.25


class Limits(NamedTuple):
    """What a level aims at: gradient and length tolerance, Newton steps per mesh, meshes."""

    tol: float
    length_tol: float
    max_iter: int
    max_meshes: int


class Trials(NamedTuple):
    """Curves on their way through one level, one row per start of a problem."""

    problem: Int[Tensor, " r"]
    start: Int[Tensor, " r"]
    points: Float[Tensor, "r n d"]
    iterations: Int[Tensor, " r"]
    jacobians: Int[Tensor, " r"]
    values: Int[Tensor, " r"]


def element_counts(first: int, last: int) -> list[int]:
    """Numbers of elements of the levels: N, 2 N, 4 N, then by turns 3/2 and 4/3 times the last."""
    counts = [first, 2 * first, 4 * first]
    while counts[-1] < last:
        counts += [counts[-1] * 3 // 2, counts[-1] * 2]
    return [count for count in counts if count <= last]


def place_starts(
    path_energy: PathEnergy, elements: Elements, starts: list[Curve], levels: list[int]
) -> tuple[dict[int, list[Trials]], Tensor]:
    """Give every start the coarsest mesh that sees what lies along it: N and 2 N elements agree on its length."""
    doublings = [count for count in levels if (count // levels[0]).bit_count() == 1 and count % levels[0] == 0]
    waiting: dict[int, list[Trials]] = {count: [] for count in levels}
    entries: dict[int, list[Tensor]] = {count: [] for count in levels}
    shortest = torch.full_like(starts[0].points[:, 0, 0], torch.inf)
    placing = torch.zeros_like(shortest, dtype=torch.long)
    for index, curve in enumerate(starts):
        rows = torch.arange(len(curve), device=curve.points.device)
        points, speed = _mesh_start(path_energy, elements, curve, levels[0])
        for count in doublings:
            placing[rows] += 2 * path_energy.samples(count)
            seen = torch.ones_like(rows, dtype=torch.bool)
            finer = points, speed
            if count != doublings[-1]:
                finer = _mesh_start(path_energy, elements, curve[rows], 2 * count)
                coarse, fine = ((s @ elements.weights).sum(1) for s in (speed, finer[1]))
                seen = ~((coarse - fine).abs() > _SEEN * fine)
            kept, rest = seen.nonzero()[:, 0], (~seen).nonzero()[:, 0]
            zero = torch.zeros_like(rows[kept])
            if kept.numel():
                waiting[count].append(Trials(rows[kept], zero + index, points[kept], *(zero.clone() for _ in range(3))))
                entries[count].append((speed[kept] @ elements.weights).sum(1))
                shortest = shortest.scatter_reduce(0, rows[kept], entries[count][-1].nan_to_num(torch.inf), "amin")
            if rest.numel() == 0:
                break
            rows, points, speed = rows[rest], finer[0][rest], finer[1][rest]
    for count in levels:
        for i, (trials, entry) in enumerate(zip(waiting[count], entries[count], strict=True)):
            promising = ~(entry > _FAR * shortest[trials.problem])
            waiting[count][i] = take(trials, promising.nonzero()[:, 0])
    return waiting, placing


def _mesh_start(path_energy: PathEnergy, elements: Elements, curve: Curve, count: int) -> tuple[Tensor, Tensor]:
    """Elements of equal mixed arc length on an initial curve, and its speeds there."""
    latent = (curve.points[:, 1:] - curve.points[:, :-1]).norm(dim=-1).unflatten(1, (-1, curve.degree)).sum(-1)
    arc = mixed_arc(latent, latent)
    points = equal_mixed_nodes(curve, arc, curve.knots, elements.degree, count)
    _, speed = path_energy.value(points, None)
    points = _move_nodes(elements, points, speed, count)
    return points, path_energy.value(points, None)[1]


def _move_nodes(elements: Elements, points: Tensor, speed: Tensor, count: int) -> Tensor:
    """Put the nodes of discrete curves at equal mixed arc length, ``count`` elements in all."""
    arc, times = cell_arcs(points, speed, elements)
    return equal_mixed_nodes(Curve(points, None, elements.degree), arc, times, elements.degree, count)


def minimise_level(
    path_energy: PathEnergy, elements: Elements, trials: Trials, limits: Limits, finest: bool, shortest: Tensor
) -> tuple[Trials, NewtonState, Tensor]:
    """Newton on one mesh after another; returns the last states, and which starts were dropped on the way.

    A problem leaves when it has converged on a mesh that fits; where moving the nodes changes the discrete length,
    the level is too coarse for it, and it leaves for the next one. No problem leaves with a longer curve than it
    brought.
    """
    rows = torch.arange(len(trials.points), device=trials.points.device)
    points, count = trials.points, count_segments(trials.points, elements)
    _, speed = path_energy.value(points, None)
    entry = (speed @ elements.weights).sum(1)
    fresh = trials.iterations == 0
    trials.values.add_(path_energy.samples(count))
    final: NewtonState | None = None
    dropped = torch.zeros_like(fresh)
    for mesh in range(limits.max_meshes):
        profile = speed_profile(speed, elements.weights)
        settle = (limits.length_tol / 200) ** 0.5
        state = minimize(path_energy, points, profile, limits.tol, limits.max_iter, _max_step(points), settle)
        trials.iterations[rows] += state.iterations
        trials.jacobians[rows] += state.jacobians
        trials.values[rows] += state.values
        if final is None:
            final = state
        else:
            write(final, rows, state)
        arc, _ = cell_arcs(state.points, state.model.speed, elements)
        distorted = distortion(arc, count) > _DISTORTED
        new = fresh[rows] & (mesh == 0)
        unfinished = ~state.converged & (state.minimum | ~settled(state, limits) | new)
        again = ~state.stalled & (unfinished | distorted)
        kept = again.nonzero()[:, 0]
        if kept.numel() == 0:
            break
        moved_points = _move_nodes(elements, state.points[kept], state.model.speed[kept], count)
        points = torch.where(distorted[kept, None, None], moved_points, state.points[kept])
        _, speed = path_energy.value(points, None)
        rows = rows[kept]
        trials.values[rows] += path_energy.samples(count)
        moved = (speed @ elements.weights).sum(1)
        in_race = _racing(trials.problem[rows], trials.start[rows], points, moved, shortest)
        dropped[rows] = ~in_race
        racing = in_race.nonzero()[:, 0]
        rows, points, speed, moved, kept = rows[racing], points[racing], speed[racing], moved[racing], kept[racing]
        if rows.numel() == 0:
            break
        if not finest:
            discrete = (2 * state.model.energy[kept]).sqrt()
            worse = ~(moved <= entry[rows])
            final.points[rows] = torch.where(worse[:, None, None], trials.points[rows], points)
            kept = (~worse & ((moved - discrete).abs() <= _RESOLVED * moved)).nonzero()[:, 0]
            rows, points, speed = rows[kept], points[kept], speed[kept]
            if kept.numel() == 0:
                break
    assert final is not None
    return trials._replace(points=final.points), final, dropped


def _racing(problem: Tensor, start: Tensor, points: Tensor, length: Tensor, shortest: Tensor) -> Tensor:
    """Which starts are worth more work: not much longer than the best of their problem, and not one of them again."""
    best = shortest.scatter_reduce(0, problem, length.nan_to_num(torch.inf), "amin")
    racing = ~is_hopeless(length, best[problem])
    count = int(start.max()) + 1 if len(start) else 0
    row_of = torch.full((len(shortest), count), -1, dtype=torch.long, device=problem.device)
    row_of[problem, start] = torch.arange(len(problem), device=problem.device)
    extent = (points[:, 1:] - points[:, :-1]).norm(dim=-1).sum(1)
    for a in range(count):
        for b in range(a + 1, count):
            first, second = row_of[:, a], row_of[:, b]
            pairs = ((first >= 0) & (second >= 0)).nonzero()[:, 0]
            i, j = first[pairs], second[pairs]
            apart = (points[i] - points[j]).norm(dim=-1).amax(1)
            same = (apart <= _SAME * extent[i]) & ((length[i] - length[j]).abs() <= _SAME * length[i])
            longer = torch.where(length[i] > length[j], i, j)
            racing[longer[same & racing[i] & racing[j]]] = False
    return racing


def count_segments(points: Tensor, elements: Elements) -> int:
    return (points.shape[1] - 1) // elements.degree


def _max_step(points: Tensor) -> Tensor:
    return _MAX_STEP_SHARE * (points[:, 1:] - points[:, :-1]).norm(dim=-1).sum(1)


def settled(state: NewtonState, limits: Limits) -> Tensor:
    """Whether a hundred more steps like the last would not change the length by its tolerance."""
    return ~state.converged & (state.decrement.square() <= limits.length_tol / 50)


def refine(
    elements: Elements, trials: Trials, speed: Float[Tensor, "r s g"], mismatch: Float[Tensor, "r s"], count: int
) -> Trials:
    """The same curves on ``count`` elements: some are cut, all stay the polynomials that they are."""
    arc, _ = cell_arcs(trials.points, speed, elements)
    per_element = (arc.shape[1] - 1) // speed.shape[1]
    share = arc[:, per_element::per_element] - arc[:, :-1:per_element]
    pieces = allot_pieces(share, speed @ elements.weights, mismatch, count)
    return trials._replace(points=Curve(trials.points, None, elements.degree).subdivide(pieces, count).points)


def is_hopeless(length: Float[Tensor, " r"], best: Float[Tensor, " r"]) -> Bool[Tensor, " r"]:
    """Whether a start is too much longer than the best of its problem to be worth more work."""
    return length > _HOPELESS * best
