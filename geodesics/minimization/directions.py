"""Newton directions: the first matrix of a ladder that is positive definite, from exact to fully damped.

The exact Hessian of a real path energy is strongly indefinite far from the minimum, and damping it with a multiple of
its Gauss-Newton part shortens the steps by orders of magnitude. So what is not positive is taken out part by part:

1. the exact Hessian: quadratic convergence;
2. near the end the Hessian of geometry, ``hessian + connection``: what the chart alone makes indefinite, as around
   singular metrics, is none the less a minimum;
3. the same with nodes held along the curve and tied to their places (`tether`), plus ``theta * shift``: element
   matrices are positive semi-definite at theta = 1 by construction. theta falls toward 0 as full steps succeed.

Where steps had to be cut, nodes are tied in 1 and 2 as well. A factorization at theta = 0 without ties certifies a
strict local minimum: no conjugate point inside the curve.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodesics.batches.rows import take
from geodesics.metrics.path_energy import Linearization, PathEnergy, mean_metric
from geodesics.minimization.block_cholesky import solve_chain
from geodesics.minimization.tether import tether_blocks

_FIRST_THETA = 0.005
_FACTORIZATIONS = 12
# Share of a node's own stiffness that holds it along the curve while steps are damped.
_SLIDING = 0.1
# A node may move so much further in the curve's mean metric than in the metric at its place.
_MEAN = 5.0
# Weight of the tether wherever nodes are held.
_TETHER = 0.1
# Share of the energy under which a tether is none: the second variation is judged without it.
_NO_TETHER = 1e-8


class Damping(NamedTuple):
    """What R problems remember of steps that failed.

    Attributes:
        theta: weight of the shift.
        ridge: extra multiple of the positive semi-definite matrix, raised while no step decreases the energy.
        tether: weight of the tether, raised where steps had to be cut.
    """

    theta: Float[Tensor, " r"]
    ridge: Float[Tensor, " r"]
    tether: Float[Tensor, " r"]


class Direction(NamedTuple):
    """Directions of R problems.

    Attributes:
        step: moves of the nodes, meaningless where nothing was factorized.
        theta: weight of the shift.
        factored: whether some matrix of the ladder is positive definite.
        plain: whether neither shift nor ridge was needed for that.
        exact: whether it was not tied either.
    """

    step: Float[Tensor, "r n d"]
    theta: Float[Tensor, " r"]
    factored: Bool[Tensor, " r"]
    plain: Bool[Tensor, " r"]
    exact: Bool[Tensor, " r"]


def find_direction(
    model: Linearization,
    points: Float[Tensor, "r n d"],
    damping: Damping,
    decrement: Float[Tensor, " r"],
    near: Bool[Tensor, " r"],
) -> Direction:
    """Newton directions by the first matrix of the ladder that can be factorized.

    Args:
        model: linearization of R curves.
        points: their nodes.
        damping: where on the ladder to begin; zeros for the exact Hessian.
        decrement: scale-free gradient where it was last known, infinite elsewhere.
        near: whether the Hessian of geometry may be used with no node held: near the end alone, for far from it nodes
            would slide through walls.
    """
    load = -model.gradient
    step, theta = torch.zeros_like(load), damping.theta.clone()
    factored = torch.zeros_like(near)
    # Rungs of the ladder: 0 exact, 1 of geometry, 2 held.
    stage = torch.where(theta + damping.ridge > 0, 2, 0)
    blocks, strength = tether_blocks(model, points, decrement)
    rows = torch.arange(len(load), device=load.device)
    for _ in range(_FACTORIZATIONS):
        tied = _tied(damping.tether, stage) * strength
        part = take(model, rows)
        matrix = _matrix(part, stage[rows], theta[rows], damping.ridge[rows])
        matrix = matrix + _weigh(tied[rows] * part.energy) * blocks[rows]
        step[rows], factored[rows] = solve_chain(matrix, load[rows])
        rows = (~factored).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        raised = (3 * theta[rows]).clamp(min=_FIRST_THETA)
        raised = torch.where(theta[rows] < 1, raised.clamp(max=1), 1.5 * theta[rows])
        theta[rows] = torch.where(stage[rows] == 2, raised, theta[rows])
        stage[rows] = torch.where((stage[rows] == 0) & near[rows], 1, 2)
    plain = (theta == 0) & (damping.ridge == 0)
    return Direction(step, theta, factored, plain, plain & (_tied(damping.tether, stage) * strength <= _NO_TETHER))


def _tied(tether: Tensor, stage: Tensor) -> Tensor:
    """Weight of the tether on a rung of the ladder."""
    return torch.where(stage == 2, tether.clamp(min=_TETHER), tether)


def _matrix(part: Linearization, stage: Tensor, theta: Tensor, ridge: Tensor) -> Tensor:
    exact = part.hessian + _weigh(stage > 0) * part.connection + _weigh(_SLIDING * (stage == 2)) * part.sliding
    semidefinite = part.hessian + part.connection + part.shift + part.sliding
    return exact + _weigh(theta) * part.shift + _weigh(ridge) * semidefinite


def _weigh(weights: Tensor) -> Tensor:
    return weights[:, None, None, None]


def lower_theta(theta: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """The weight of the shift after a full step has succeeded."""
    return torch.where(theta > _FIRST_THETA, theta / 3, 0.0)


def longest_move(energy: PathEnergy, model: Linearization, step: Float[Tensor, "r n d"]) -> Float[Tensor, " r"]:
    """Largest move of a point of the curve, in the metric; no latent unit is in it.

    It is the larger of the move in the metric at its place and a fifth of that in the curve's mean metric: where the
    metric vanishes, as beyond walls, the first alone would let nodes go anywhere.
    """
    move = energy.displacement(step)
    here = torch.einsum("bnd,bndk,bnk->bn", move, model.metric, move)
    mean = torch.einsum("bnd,bdk,bnk->bn", move, mean_metric(model.metric), move)
    return here.maximum(mean / _MEAN**2).amax(1).clamp(min=0).sqrt()
