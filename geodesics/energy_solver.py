"""Geodesics by direct minimisation of the curve energy: adaptive meshes around damped Newton.

One level of resolution is one batch. A problem starts at the coarsest level that sees what lies along its initial
curve, is minimised there, gets its nodes moved where the curve needs them, and is measured by an independent
quadrature; it is done when the gradient and the length error are under their tolerances, and goes to twice the number
of elements otherwise. Several starts of one problem compete: what is clearly longer than the best is dropped early.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.curves import Curve
from geodesics.elements import Elements, elevate, make_elements
from geodesics.mesh import cell_arcs, distortion, equal_mixed_nodes, mixed_arc, speed_profile
from geodesics.metrics import Metric
from geodesics.newton import NewtonState, minimize, newton_decrement
from geodesics.path_energy import PathEnergy
from geodesics.quadrature import KRONROD_POINTS, element_lengths
from geodesics.rows import take, write
from geodesics.solution import GeodesicResult, Status

# A mesh is renewed when some element holds more than this many times its share of mixed arc length.
_DISTORTED = 2.0
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


@dataclass(frozen=True)
class EnergySolver:
    """Options of the energy minimiser.

    Args:
        num_segments: N of the coarsest mesh, elements per curve.
        max_segments: N of the finest mesh that may be used.
        degree: polynomial degree p of an element; the length is accurate to order ``N^(-2 p)`` on smooth metrics.
        num_samples: generator samples per element, m >= p. Twice the degree keeps walls visible (docs, how it works).
        tol: tolerance on the scale-free gradient; None for ``eps^(3/8)``, 1.4e-6 in float64: the
            relative length still to be gained is then under 1e-12.
        length_tol: tolerance on the length error estimate, relative to the length.
        max_iter: Newton steps per mesh.
        max_meshes: meshes tried per level.

    Raises:
        ValueError: on options outside their range.
    """

    num_segments: int = 8
    max_segments: int = 128
    degree: int = 3
    num_samples: int = 6
    tol: float | None = None
    length_tol: float = 2e-3
    max_iter: int = 8
    max_meshes: int = 3

    def __post_init__(self) -> None:
        for name in ("num_segments", "degree", "max_iter", "max_meshes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.max_segments < self.num_segments:
            raise ValueError(f"max_segments must be at least num_segments; got {self.max_segments}")
        if self.num_samples < self.degree:
            raise ValueError(f"num_samples must be at least degree; got {self.num_samples} < {self.degree}")
        if self.length_tol <= 0 or (self.tol is not None and self.tol <= 0):
            raise ValueError("tol and length_tol must be positive")

    def gradient_tol(self, dtype: torch.dtype) -> float:
        """The tolerance on the scale-free gradient for a floating-point type."""
        return self.tol if self.tol is not None else torch.finfo(dtype).eps ** 0.375

    def solve(self, metric: Metric, starts: list[Curve]) -> GeodesicResult:
        """Minimise from all starts; the shortest certified curve of every problem wins."""
        finished, placing = minimise_energy(metric, starts, self)
        return best_of(finished, placing, self)


class Trials(NamedTuple):
    """Curves on their way through one level, one row per start of a problem."""

    problem: Int[Tensor, " r"]
    start: Int[Tensor, " r"]
    points: Float[Tensor, "r n d"]
    iterations: Int[Tensor, " r"]
    jacobians: Int[Tensor, " r"]
    values: Int[Tensor, " r"]


class Minimised(NamedTuple):
    """Curves at the end of one level, measured."""

    trials: Trials
    speed: Float[Tensor, "r s g"]
    knots: Float[Tensor, "r k"]
    length: Float[Tensor, " r"]
    length_error: Float[Tensor, " r"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    converged: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]
    settled: Bool[Tensor, " r"]


def minimise_energy(
    metric: Metric, starts: list[Curve], options: EnergySolver
) -> tuple[list[Minimised], Int[Tensor, " b"]]:
    """Minimise the energy from every start of every problem.

    Args:
        metric: the Riemannian metric.
        starts: S batches of B initial curves.
        options: the solver.

    Returns:
        Finished curves, one entry per level of resolution, coarsest first, every problem in at least one of them;
        and the points at which the generator's value was computed to place the starts, per problem.
    """
    elements = make_elements(options.degree, options.num_samples, starts[0].points)
    path_energy = metric.path_energy(elements)
    waiting, placing = _place_starts(path_energy, elements, starts, options)
    shortest = torch.full_like(starts[0].points[:, 0, 0], torch.inf)
    finished: list[Minimised] = []
    for count in sorted(waiting):
        if not waiting[count]:
            continue
        trials = Trials(*(torch.cat(field) for field in zip(*waiting[count], strict=True)))
        finest = 2 * count not in waiting
        trials, state, dropped = _minimise_level(path_energy, elements, trials, options, finest, shortest)
        done = _measure(metric, elements, trials, state, options)
        upper = torch.where(done.length.isfinite(), done.length + done.length_error, torch.inf)
        shortest = shortest.scatter_reduce(0, trials.problem, upper, "amin")
        hopeless = done.length - done.length_error > _HOPELESS * shortest[trials.problem]
        final = _resolved(done, options) | dropped | hopeless | ~done.length.isfinite()
        if not finest:
            rows = (~final).nonzero()[:, 0]
            if rows.numel():
                waiting[2 * count].append(_refine(elements, take(done, rows)))
            done = take(done, final.nonzero()[:, 0])
        finished.append(done)
    return finished, placing


def _resolved(done: Minimised, options: EnergySolver) -> Tensor:
    return (done.converged | done.settled) & (done.length_error <= options.length_tol * done.length)


def _settled(state: NewtonState, options: EnergySolver) -> Tensor:
    """Whether a hundred more steps like the last would not change the length by its tolerance."""
    return ~state.converged & (state.decrement.square() <= options.length_tol / 50)


def _place_starts(
    path_energy: PathEnergy, elements: Elements, starts: list[Curve], options: EnergySolver
) -> tuple[dict[int, list[Trials]], Tensor]:
    """Give every start the coarsest mesh that sees what lies along it: N and 2 N elements agree on its length."""
    levels = [options.num_segments]
    while 2 * levels[-1] <= options.max_segments:
        levels.append(2 * levels[-1])
    waiting: dict[int, list[Trials]] = {count: [] for count in levels}
    entries: dict[int, list[Tensor]] = {count: [] for count in levels}
    shortest = torch.full_like(starts[0].points[:, 0, 0], torch.inf)
    placing = torch.zeros_like(shortest, dtype=torch.long)
    for index, curve in enumerate(starts):
        rows = torch.arange(len(curve), device=curve.points.device)
        points, speed = _mesh_start(path_energy, elements, curve, levels[0])
        for count in levels:
            placing[rows] += 2 * path_energy.samples(count)
            seen = torch.ones_like(rows, dtype=torch.bool)
            finer = points, speed
            if count != levels[-1]:
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


def _minimise_level(
    path_energy: PathEnergy, elements: Elements, trials: Trials, options: EnergySolver, finest: bool, shortest: Tensor
) -> tuple[Trials, NewtonState, Tensor]:
    """Newton on one mesh after another; returns the last states, and which starts were dropped on the way.

    A problem leaves when it has converged on a mesh that fits; where moving the nodes changes the discrete length,
    the level is too coarse for it, and it leaves for the next one. No problem leaves with a longer curve than it
    brought.
    """
    tol = options.gradient_tol(trials.points.dtype)
    rows = torch.arange(len(trials.points), device=trials.points.device)
    points, count = trials.points, _num_segments(trials.points, elements)
    _, speed = path_energy.value(points, None)
    entry = (speed @ elements.weights).sum(1)
    fresh = trials.iterations == 0
    trials.values.add_(path_energy.samples(count))
    final: NewtonState | None = None
    dropped = torch.zeros_like(fresh)
    for mesh in range(options.max_meshes):
        profile = speed_profile(speed, elements.weights)
        state = minimize(path_energy, points, profile, tol, options.max_iter, _max_step(points))
        trials.iterations[rows] += state.iterations
        trials.jacobians[rows] += state.jacobians
        trials.values[rows] += state.values
        if final is None:
            final = state
        else:
            write(final, rows, state)
        arc, _ = cell_arcs(state.points, state.model.speed, elements)
        new = fresh[rows] & (mesh == 0)
        unfinished = ~state.converged & (state.minimum | ~_settled(state, options) | new)
        again = ~state.stalled & (unfinished | (distortion(arc, count) > _DISTORTED))
        kept = again.nonzero()[:, 0]
        if kept.numel() == 0:
            break
        points = _move_nodes(elements, state.points[kept], state.model.speed[kept], count)
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
    racing = ~(length > _HOPELESS * best[problem])
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


def _num_segments(points: Tensor, elements: Elements) -> int:
    return (points.shape[1] - 1) // elements.degree


def _max_step(points: Tensor) -> Tensor:
    return _MAX_STEP_SHARE * (points[:, 1:] - points[:, :-1]).norm(dim=-1).sum(1)


def _measure(
    metric: Metric, elements: Elements, trials: Trials, state: NewtonState, options: EnergySolver
) -> Minimised:
    """Certify the lengths by an independent quadrature, and time the knots for constant speed.

    The error estimate adds up the quadrature's own error, the distance to the solver's discrete length, and the
    length that elements of one degree more would save.
    """
    measured = element_lengths(metric, Curve(trials.points, None, elements.degree))
    length = measured.length.sum(1)
    discrete = (2 * state.model.energy).sqrt()
    rounding = 8 * torch.finfo(length.dtype).eps * length
    richer = make_elements(elements.degree + 1, max(elements.num_samples, elements.degree + 1), trials.points)
    richer_energy = metric.path_energy(richer)
    profile = state.profile
    if richer.num_samples != elements.num_samples:
        profile = (profile @ elements.weights)[..., None].expand(-1, -1, richer.num_samples)
    saving = newton_decrement(richer_energy, elevate(trials.points, elements.degree), profile).square() / 2
    times = measured.length.cumsum(1) / length[:, None]
    knots = torch.cat([torch.zeros_like(times[:, :1]), times[:, :-1], torch.ones_like(times[:, :1])], dim=1)
    count = measured.length.shape[1]
    spent = KRONROD_POINTS * count + richer_energy.samples(count)
    return Minimised(
        trials._replace(jacobians=trials.jacobians + spent),
        state.model.speed,
        knots,
        length,
        measured.error.sum(1) + (length - discrete).abs() + saving * length + rounding,
        state.decrement,
        state.minimum,
        state.converged,
        state.stalled,
        _settled(state, options),
    )


def _refine(elements: Elements, done: Minimised) -> Trials:
    """The same curves on meshes of twice as many elements."""
    points = done.trials.points
    finer = _move_nodes(elements, points, done.speed, 2 * _num_segments(points, elements))
    return done.trials._replace(points=finer)


def status_of(done: Minimised, options: EnergySolver) -> Int[Tensor, " r"]:
    """The `Status` of finished curves."""
    tol = options.gradient_tol(done.length.dtype)
    status = torch.full_like(done.trials.problem, int(Status.CONVERGED))
    verdicts = (
        (done.length_error > options.length_tol * done.length, Status.UNRESOLVED),
        (~done.converged, Status.MAX_ITER),
        (~done.converged & done.stalled, Status.STALLED),
        (done.settled & (done.length_error <= options.length_tol * done.length), Status.SETTLED),
        (~done.converged & ~done.minimum & (done.gradient <= 10 * tol), Status.NOT_MINIMUM),
        (~done.length.isfinite(), Status.FAILED),
    )
    for holds, verdict in verdicts:
        status = torch.where(holds, int(verdict), status)
    return status


def best_of(finished: list[Minimised], placing: Int[Tensor, " b"], options: EnergySolver) -> GeodesicResult:
    """The shortest finished curve of every problem, all on the finest mesh used, with the work of all its starts."""
    num_problems = len(placing)
    lengths = torch.cat([done.length + done.length_error for done in finished]).nan_to_num(torch.inf)
    problem = torch.cat([done.trials.problem for done in finished])
    order = torch.argsort(lengths, stable=True)
    winner = torch.full((num_problems,), len(order), device=order.device)
    winner = winner.scatter_reduce(0, problem[order], torch.arange(len(order), device=order.device), "amin")
    chosen = order[winner]
    finest = max(done.knots.shape[1] - 1 for done in finished)
    curves = []
    for done in finished:
        curve = Curve(done.trials.points, done.knots, options.degree)
        while curve.num_segments < finest:
            curve = curve.split()
        curves.append(curve)
    points = torch.cat([curve.points for curve in curves])[chosen]
    knots = torch.cat([curve.knots for curve in curves])[chosen]

    def total(name: str) -> Tensor:
        spent = torch.cat([getattr(done.trials, name) for done in finished])
        return torch.zeros(num_problems, dtype=spent.dtype, device=spent.device).scatter_add(0, problem, spent)

    def pick(values: list[Tensor]) -> Tensor:
        return torch.cat(values)[chosen]

    length = pick([done.length for done in finished])
    return GeodesicResult(
        Curve(points, knots, options.degree),
        length,
        pick([done.length_error for done in finished]),
        length.square() / 2,
        pick([status_of(done, options) for done in finished]),
        pick([done.gradient for done in finished]),
        pick([done.minimum for done in finished]),
        total("iterations"),
        total("jacobians"),
        total("values") + placing,
        pick([done.trials.start for done in finished]),
    )
