"""Ways out of saddles: the lowest mode of the second variation, followed both ways by values alone.

Newton's damped steps come to rest at a saddle: the gradient vanishes there, and damping takes out the very direction
that leads away. The mode is found by inverse iteration with the least shifted matrix that can be factorized, with nodes
held along the curve, so that it is one of geometry and no sliding of nodes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.rows import take
from geodesics.metrics.path_energy import Linearization, PathEnergy, mean_metric
from geodesics.minimization.block_cholesky import solve_chain
from geodesics.minimization.directions import longest_move

_BISECTIONS = 8
_INVERSE_ITERATIONS = 4
# Moves that are tried, as shares of the bound on a step.
_MOVES = (1.0, -1.0, 0.25, -0.25)
_LEAST_THETA = 1e-4


class Escape(NamedTuple):
    """The best curve along the lowest mode, its speeds and energy, infinite where there is none; values computed."""

    points: Float[Tensor, "r n d"]
    speed: Float[Tensor, "r s g"]
    energy: Float[Tensor, " r"]
    tried: Int[Tensor, " r"]


def escape_saddles(
    energy: PathEnergy, model: Linearization, points: Float[Tensor, "r n d"], reach: float, bar: Float[Tensor, " r"]
) -> Escape:
    """Follow the lowest mode of the second variation where it is negative.

    Args:
        energy: the discrete energy.
        model: its linearization at the points.
        points: nodes of R curves.
        reach: longest move of a point, as a share of the curve's length, in the metric.
        bar: energy that has to be gone under ``(R,)``.

    Returns:
        The best of a few moves both ways along the mode; of infinite energy where none is under the bar.
    """
    best = Escape(
        points.clone(), model.speed.clone(), torch.full_like(bar, torch.inf), torch.zeros_like(bar, dtype=torch.long)
    )
    held = model.hessian + model.connection + model.sliding
    definite = solve_chain(held, model.gradient)[1]
    rows = (~definite & bar.isfinite()).nonzero()[:, 0]
    if rows.numel() == 0:
        return best
    part = take(model, rows)
    mode = _lowest_mode(held[rows], part)
    length = (2 * part.energy).sqrt()
    mode = mode * (reach * length / longest_move(energy, part, mode))[:, None, None]
    for share in _MOVES:
        moved = points[rows] + share * mode
        reached, speed = energy.value(moved, part.profile)
        good = reached < best.energy[rows].minimum(bar[rows])
        best.tried[rows] += 1
        at = rows[good]
        best.points[at], best.speed[at], best.energy[at] = moved[good], speed[good], reached[good]
    return best


def _lowest_mode(held: Float[Tensor, "r s m m"], model: Linearization) -> Float[Tensor, "r n d"]:
    """By inverse iteration, from waves that no symmetry is orthogonal to, in the curve's mean metric."""
    mean = mean_metric(model.metric)
    high = torch.ones_like(model.energy)
    low = torch.full_like(high, _LEAST_THETA)
    for _ in range(_BISECTIONS):
        middle = (high * low).sqrt()
        ok = solve_chain(held + middle[:, None, None, None] * model.shift, model.gradient)[1]
        high, low = torch.where(ok, middle, high), torch.where(ok, low, middle)
    matrix = held + high[:, None, None, None] * model.shift
    n, d = model.gradient.shape[1:]
    index = torch.arange(1, n * d + 1, dtype=high.dtype, device=high.device)
    rise = torch.sin(torch.pi * torch.linspace(0, 1, n, dtype=high.dtype, device=high.device))
    mode = ((0.618 * index.square()).sin().view(n, d) * rise[:, None]).expand(len(high), -1, -1)
    for _ in range(_INVERSE_ITERATIONS):
        size = torch.einsum("bnd,bdk,bnk->b", mode, mean, mode).sqrt()
        mode, _ = solve_chain(matrix, (mode / size[:, None, None]) @ mean)
    return mode
