"""Newton directions: the first matrix of a ladder that is positive definite, from exact to fully damped.

The exact Hessian of a real path energy is strongly indefinite far from the minimum, and damping it with a multiple of
its Gauss-Newton part shortens the steps by orders of magnitude. So what is not positive is taken out part by part:

1. the exact Hessian: quadratic convergence;
2. near the end the Hessian of geometry, ``hessian + connection``: what the chart alone makes indefinite, as around
   singular metrics, is none the less a minimum;
3. the same with nodes held along the curve, plus ``theta * shift``: element matrices are positive semi-definite at
   theta = 1 by construction. theta falls toward 0 as full steps succeed.

A factorization at theta = 0 certifies a strict local minimum: no conjugate point inside the curve.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodesics.metrics.path_energy import Linearization, PathEnergy, mean_metric
from geodesics.minimization.block_cholesky import solve_chain

_FIRST_THETA = 0.005
_FACTORIZATIONS = 12
# Share of a node's own stiffness that holds it along the curve while steps are damped.
_SLIDING = 0.1
# A node may move so much further in the curve's mean metric than in the metric at its place.
_MEAN = 5.0


class Direction(NamedTuple):
    """Directions of R problems.

    Attributes:
        step: moves of the nodes, meaningless where nothing was factorized.
        theta: weight of the shift.
        factored: whether some matrix of the ladder is positive definite.
        exact: whether neither shift nor damping was needed for that.
    """

    step: Float[Tensor, "r n d"]
    theta: Float[Tensor, " r"]
    factored: Bool[Tensor, " r"]
    exact: Bool[Tensor, " r"]


def find_direction(
    model: Linearization, theta: Float[Tensor, " r"], damping: Float[Tensor, " r"], near: Bool[Tensor, " r"]
) -> Direction:
    """Newton directions by the first matrix of the ladder that can be factorized.

    Args:
        model: linearization of R curves.
        theta: where on the ladder to begin; 0 for the exact Hessian, if there is no damping.
        damping: extra multiple of the positive semi-definite matrix.
        near: whether the Hessian of geometry may be used with no node held: near the end alone, for far from it nodes
            would slide through walls.
    """
    load = -model.gradient
    step, theta = torch.zeros_like(load), theta.clone()
    factored = torch.zeros_like(near)
    # Rungs of the ladder: 0 exact, 1 of geometry, 2 held.
    stage = torch.where(theta + damping > 0, 2, 0)
    rows = torch.arange(len(load), device=load.device)
    for _ in range(_FACTORIZATIONS):
        matrix = _matrix(model, rows, stage[rows], theta[rows], damping[rows])
        step[rows], factored[rows] = solve_chain(matrix, load[rows])
        rows = (~factored).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        raised = (3 * theta[rows]).clamp(min=_FIRST_THETA)
        raised = torch.where(theta[rows] < 1, raised.clamp(max=1), 1.5 * theta[rows])
        theta[rows] = torch.where(stage[rows] == 2, raised, theta[rows])
        stage[rows] = torch.where((stage[rows] == 0) & near[rows], 1, 2)
    return Direction(step, theta, factored, (theta == 0) & (damping == 0))


def _matrix(model: Linearization, rows: Tensor, stage: Tensor, theta: Tensor, damping: Tensor) -> Tensor:
    def weight(x: Tensor) -> Tensor:
        return x.to(theta)[:, None, None, None]

    hessian, connection, shift, sliding = (
        field[rows] for field in (model.hessian, model.connection, model.shift, model.sliding)
    )
    exact = hessian + weight(stage > 0) * connection + weight(_SLIDING * (stage == 2)) * sliding
    return exact + weight(theta) * shift + weight(damping) * (hessian + connection + shift + sliding)


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
