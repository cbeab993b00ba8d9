"""One level of resolution of the energy minimizer: placing starts, renewing meshes."""

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.rows import take, write
from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements, make_elements
from geodesics.curves.mesh import allot_pieces, cell_arcs, distortion, equal_mixed_nodes, interpolate, mixed_arc
from geodesics.metrics.metric import Metric
from geodesics.metrics.path_energy import PathEnergy
from geodesics.minimization.newton import NewtonState, minimize

# Nodes are moved when some element holds more than this many times its share of mixed arc length. Nodes that move leave
# their polynomials, which costs Newton a handful of steps.
_DISTORTED = 4.0
# Relative change of the discrete length between N and 2 N elements under which N elements see the initial curve.
_SEEN = 0.02
# Starts that begin longer than the best of their problem by this factor are not tried.
_FAR = 1.25
# Elements above which a level gets fewer bursts unless they gain.
_FULL = 64
# Bursts go on while a step gains this share of the tolerance of the length, up to so many points with derivatives: the
# answer to slow progress is more of it, not a finer mesh.
_GAIN = 0.01
_MOST_JACOBIANS = 9000


class Limits(NamedTuple):
    """What a level aims at: gradient and length tolerance, Newton steps per burst, bursts."""

    tol: float
    length_tol: float
    max_iter: int
    max_bursts: int


class Discretization(NamedTuple):
    """The elements that curves are made of and their energy, with the solver's samples and with twice as many."""

    elements: Elements
    energy: PathEnergy
    finer: Elements
    finer_energy: PathEnergy


def discretize(metric: Metric, degree: int, num_samples: int, like: Tensor) -> Discretization:
    """Elements of a degree with so many samples, in the dtype and on the device of a tensor."""
    elements, finer = (make_elements(degree, count, like) for count in (num_samples, 2 * num_samples))
    return Discretization(elements, metric.path_energy(elements), finer, metric.path_energy(finer))


class Trials(NamedTuple):
    """Curves on their way through one level, one row per start of a problem."""

    problem: Int[Tensor, " r"]
    start: Int[Tensor, " r"]
    points: Float[Tensor, "r n d"]
    length: Float[Tensor, " r"]
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
    discretization: Discretization, starts: list[Curve], levels: list[int]
) -> tuple[dict[int, list[Trials]], Tensor]:
    """Give every start the coarsest mesh that sees what lies along it: N and 2 N elements agree on its length."""
    elements, path_energy = discretization[:2]
    doublings = [count for count in levels if (count // levels[0]).bit_count() == 1 and count % levels[0] == 0]
    waiting: dict[int, list[Trials]] = {count: [] for count in levels}
    entries: dict[int, list[Tensor]] = {count: [] for count in levels}
    shortest = torch.full_like(starts[0].points[:, 0, 0], torch.inf)
    placing = torch.zeros_like(shortest, dtype=torch.long)
    for index, curve in enumerate(starts):
        rows = (~_is_repeated(starts, index)).nonzero()[:, 0]
        if rows.numel() == 0:
            continue
        placed = _place(path_energy, elements, curve[rows], _by_latent_arc(curve[rows]), levels[0])
        placed = _place(path_energy, elements, curve[rows], placed.cells, levels[0])
        placing[rows] += 2 * path_energy.samples(levels[0])
        for count in doublings:
            seen, finer = torch.ones_like(rows, dtype=torch.bool), placed
            if count != doublings[-1]:
                finer = _place(path_energy, elements, curve[rows], placed.cells, 2 * count)
                placing[rows] += path_energy.samples(2 * count)
                seen = ~((placed.length - finer.length).abs() > _SEEN * finer.length)
            kept, rest = seen.nonzero()[:, 0], (~seen).nonzero()[:, 0]
            zero = torch.zeros_like(rows[kept])
            if kept.numel():
                unknown = torch.full_like(placed.length[kept], torch.inf)
                work = (zero.clone() for _ in range(3))
                waiting[count].append(Trials(rows[kept], zero + index, placed.points[kept], unknown, *work))
                entries[count].append(placed.length[kept])
                shortest = shortest.scatter_reduce(0, rows[kept], entries[count][-1].nan_to_num(torch.inf), "amin")
            if rest.numel() == 0:
                break
            rows = rows[rest]
            # What N elements did not see, their speeds placed badly.
            placed = _place(path_energy, elements, curve[rows], take(finer.cells, rest), 2 * count)
            placing[rows] += path_energy.samples(2 * count)
    for count in levels:
        for i, (trials, entry) in enumerate(zip(waiting[count], entries[count], strict=True)):
            promising = ~(entry > _FAR * shortest[trials.problem])
            waiting[count][i] = take(trials, promising.nonzero()[:, 0])
        waiting[count] = [trials for trials in waiting[count] if len(trials.problem)]
    return waiting, placing


def _is_repeated(starts: list[Curve], index: int) -> Tensor:
    """Whether a start is one of those before it again, problem by problem."""
    points = starts[index].points
    repeated = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for other in starts[:index]:
        if other.points.shape == points.shape:
            repeated |= (other.points == points).flatten(1).all(1)
    return repeated


class _Cells(NamedTuple):
    """Cumulative mixed arc length of an initial curve, from 0 to 1, at some of its times."""

    arc: Float[Tensor, "r k"]
    times: Float[Tensor, "r k"]


class _Placed(NamedTuple):
    """Elements on an initial curve, their discrete length, and the mixed arc length that their speeds tell."""

    points: Float[Tensor, "r n d"]
    length: Float[Tensor, " r"]
    cells: _Cells


def _by_latent_arc(curve: Curve) -> _Cells:
    """What there is before the first speed is known."""
    latent = (curve.points[:, 1:] - curve.points[:, :-1]).norm(dim=-1).unflatten(1, (-1, curve.degree)).sum(-1)
    return _Cells(mixed_arc(latent, latent), curve.knots)


def _place(path_energy: PathEnergy, elements: Elements, curve: Curve, cells: _Cells, count: int) -> _Placed:
    """Elements of equal mixed arc length."""
    points = equal_mixed_nodes(curve, *cells, elements.degree, count)
    _, speed = path_energy.value(points, None)
    even = torch.linspace(0, 1, count + 1, dtype=points.dtype, device=points.device).expand(len(points), -1)
    ends = interpolate(even, *cells)
    arc, local = cell_arcs(points, speed, elements)
    return _Placed(points, (speed @ elements.weights).sum(1), _Cells(arc, interpolate(local, even, ends)))


def _move_nodes(elements: Elements, points: Tensor, speed: Tensor, count: int) -> Tensor:
    """Put the nodes of discrete curves at equal mixed arc length, ``count`` elements in all."""
    arc, times = cell_arcs(points, speed, elements)
    return equal_mixed_nodes(Curve(points, None, elements.degree), arc, times, elements.degree, count)


class Bursts(NamedTuple):
    """Curves as a level leaves them, Newton's last state, and speeds at samples that it did not see."""

    trials: Trials
    state: NewtonState
    speed: Float[Tensor, "r s f"]


def minimize_level(discretization: Discretization, trials: Trials, limits: Limits, last: bool) -> Bursts:
    """Bursts of Newton steps on meshes of one size.

    After each burst the length is measured with samples twice as dense. A problem leaves when what its samples do not
    see is more than what is left to gain, for then the level is too coarse for it, when it has converged, and when its
    bursts are over and the last has gained little. Where
    it has settled, one more burst tries whether it converges, on a large mesh only if it is a minimum. No problem
    leaves with a longer curve than it brought.

    Args:
        discretization: what is minimized, and what it is compared with.
        trials: the curves.
        limits: what the level aims at.
        last: whether no level follows: then none is too coarse.
    """
    elements, path_energy, finer, finer_energy = discretization
    rows = torch.arange(len(trials.points), device=trials.points.device)
    points, count = trials.points, count_segments(trials.points, elements)
    polished = torch.zeros_like(rows, dtype=torch.bool)
    settle = torch.full_like(trials.length, (limits.length_tol / 200) ** 0.5)
    result: Bursts | None = None
    before: NewtonState | None = None
    for burst in itertools.count(1):
        state = minimize(path_energy, points, None, elements.weights, limits.tol, limits.max_iter, settle, before)
        _, dense = finer_energy.value(state.points, None)
        trials.iterations[rows] += state.iterations
        trials.jacobians[rows] += state.jacobians
        trials.values[rows] += state.values + finer_energy.samples(count)
        if result is None:
            result = Bursts(trials, state, dense)
        else:
            write(result.state, rows, state)
            result.speed[rows] = dense
        measured = dense @ finer.weights
        length, error = measured.sum(1), (measured - state.model.speed @ elements.weights).abs().sum(1)
        worse = (length > trials.length[rows]) & (not last)
        kept = (~worse).nonzero()[:, 0]
        trials.points[rows[kept]], trials.length[rows[kept]] = state.points[kept], length[kept]
        to_gain = (state.decrement.square() / 2).clamp(min=limits.length_tol / 2)
        coarse = (worse | (error > to_gain * length)) & (not last)
        arc, _ = cell_arcs(state.points, state.model.speed, elements)
        distorted = distortion(arc, count) > _DISTORTED
        hard = ~state.minimum & (2 * count > _FULL)
        ready = state.converged | (settled(state, limits) & (polished | hard))
        due = burst < min(limits.max_bursts, max(1, limits.max_bursts * _FULL // count))
        spent = trials.jacobians[rows] + limits.max_iter * path_energy.samples(count)
        gaining = (state.gain() > _GAIN * limits.length_tol) & (spent <= _MOST_JACOBIANS) & (limits.max_bursts > 1)
        kept = (~state.stalled & ~coarse & (~ready | distorted) & (gaining | due)).nonzero()[:, 0]
        if kept.numel() == 0:
            break
        polished = settled(state, limits)[kept]
        settle = torch.where(polished, 0.0, settle[kept])
        moved = _move_nodes(elements, state.points[kept], state.model.speed[kept], count)
        points = torch.where(distorted[kept, None, None], moved, state.points[kept])
        rows, before = rows[kept], take(state, kept)
    assert result is not None
    return result


def count_segments(points: Tensor, elements: Elements) -> int:
    return (points.shape[1] - 1) // elements.degree


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
