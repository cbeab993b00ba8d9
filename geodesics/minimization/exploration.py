"""From several starts per problem to one: a look into every valley, then the best of all, piece by piece."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.curves.elements import Elements
from geodesics.curves.mesh import cell_arcs, interpolate
from geodesics.metrics.metric import Metric
from geodesics.minimization.levels import Discretization, Limits, Trials, minimize_level, place_starts
from geodesics.minimization.recombination import recombine

# Vertices at which curves are compared. Geodesics ride in narrow valleys, and a polyline cuts their bends.
_VERTICES = 513
# Newton steps of a burst, and elements at most: what is compared need not be finished.
_STEPS = 4
_ELEMENTS = 64


class Explored(NamedTuple):
    """One start per problem, where most of it came from, and the work that it took, each ``(B,)``."""

    curve: Curve
    start: Int[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    jacobians: Int[Tensor, " b"]
    values: Int[Tensor, " b"]


def explore(
    metric: Metric, discretization: Discretization, starts: list[Curve], levels: list[int], limits: Limits
) -> Explored:
    """One burst of Newton steps from every start on its first mesh, then the shortest way along all of the curves.

    Starts are not rivals: of two that part ways twice, each may be the shorter once. A burst is enough to tell which,
    and on a mesh that is still coarse more of them would make the curve worse: nodes begin to slide through walls.
    """
    zero = torch.zeros(len(starts[0]), dtype=torch.long, device=starts[0].points.device)
    if len(starts) == 1:
        return Explored(starts[0], zero, zero.clone(), zero.clone(), zero.clone())
    levels = [count for count in levels if count <= max(_ELEMENTS, levels[0])]
    waiting, placing = place_starts(discretization, starts, levels)
    vertices = starts[0].points.new_full((len(starts), len(zero), _VERTICES, starts[0].points.shape[-1]), torch.nan)
    lengths = torch.full_like(vertices[:, :, 1:, 0], torch.nan)
    spent = torch.zeros(3, len(zero), dtype=torch.long, device=zero.device)
    brief = limits._replace(max_bursts=1, max_iter=min(_STEPS, limits.max_iter))
    for count in levels:
        if waiting[count]:
            trials = Trials(*(torch.cat(field) for field in zip(*waiting[count], strict=True)))
            burst = minimize_level(discretization, trials, brief, last=True)
            pieces = _pieces(discretization.finer, burst.trials.points, burst.speed)
            vertices[trials.start, trials.problem], lengths[trials.start, trials.problem] = pieces
            work = torch.stack([trials.iterations, trials.jacobians, trials.values])
            spent.scatter_add_(1, trials.problem.expand(3, -1), work)
    found = recombine(metric, vertices, lengths)
    known = found.curve.points.isfinite().all(2).all(1)[:, None, None]
    t = torch.linspace(0, 1, found.curve.points.shape[1], dtype=vertices.dtype, device=vertices.device)
    points = torch.where(known, found.curve.points, starts[0].evaluate(t))
    return Explored(Curve(points), found.start, spent[0], spent[1], spent[2] + placing + found.values)


def _pieces(
    finer: Elements, points: Float[Tensor, "r n d"], speed: Float[Tensor, "r s f"]
) -> tuple[Float[Tensor, "r k d"], Float[Tensor, "r k1"]]:
    """Vertices at equal mixed arc length on curves, and the lengths of the curves between them."""
    arc, times = cell_arcs(points, speed, finer)
    wanted = torch.linspace(0, 1, _VERTICES, dtype=arc.dtype, device=arc.device).expand(len(points), -1)
    at = interpolate(wanted, arc, times)
    run = (speed * finer.weights).flatten(1).cumsum(1)
    passed = interpolate(at, times, torch.cat([torch.zeros_like(run[:, :1]), run], dim=1))
    return Curve(points, None, finer.degree).evaluate(at), passed.diff(dim=1)
