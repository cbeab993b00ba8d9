"""Damping where the metric sees nothing: nodes are tied to their places, measured by the spread of the curve itself.

Along an axis that a decoder hardly uses, J says that a move costs nothing, however long; but the decoder bends within
a few standard deviations of the data. A step that trusts J there ends in walls, and a line search that cuts the step
takes all other axes with it. Neither the metric nor the unit of the axis tells how far J holds; what the curve itself
spans does. The norm is that of the inverse covariance of the nodes, as Mahalanobis's distance, which changes with a
linear change of coordinates as the metric does.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.metrics.path_energy import Linearization, mean_metric

# Least spread in any direction, as a share of the curve's length in its mean metric: a straight line spans one.
_LEAST_SPREAD = 0.01
# Scale-free gradient from which on a tether is no stronger.
_STRONGEST = 0.1


def tether_blocks(
    model: Linearization, points: Float[Tensor, "r n d"], decrement: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "r 1 m m"], Float[Tensor, " r"]]:
    """Element matrices that tie every node to its place, for curves of energy one, and how strongly to tie.

    Args:
        model: linearization of R curves.
        points: their nodes.
        decrement: their scale-free gradients when they were last known; infinite for a curve without tether.

    Returns:
        The matrix of an element, zero where the metric gives none, and the share of the energy to weigh it with: the
        square of the gradient. A step's gain is of that size, so no node moves much further than the spread of its
        curve; and the tether vanishes quadratically where Newton converges.
    """
    dim = points.shape[-1]
    mean = mean_metric(model.metric)
    axes, eps = mean.diagonal(dim1=1, dim2=2), torch.finfo(mean.dtype).eps
    factor, info = torch.linalg.cholesky_ex(
        mean + torch.diag_embed(eps**0.75 * axes + eps**1.5 * axes.amax(1, keepdim=True) + torch.finfo(mean.dtype).tiny)
    )
    from_center = points - points.mean(1, keepdim=True)
    covariance = from_center.mT @ from_center / points.shape[1]
    least = _LEAST_SPREAD**2 * 2 * model.energy
    # (covariance + least M^-1)^-1, with M = C C^T, in coordinates where M is the identity.
    spread = factor.mT @ covariance @ factor + torch.diag_embed(least[:, None].expand(-1, dim))
    norm = factor @ torch.linalg.solve_ex(spread, factor.mT)[0]
    known = (info == 0) & norm.isfinite().all(2).all(1)
    norm = torch.where(known[:, None, None], norm, 0.0)
    # A node that two elements share counts half in each.
    share = norm.new_ones(model.hessian.shape[-1] // dim)
    share[0] = share[-1] = 0.5
    blocks = torch.einsum("ij,rkl->rikjl", torch.diag(share), norm).flatten(3, 4).flatten(1, 2)
    strength = torch.where(decrement.isfinite(), decrement, 0.0).clamp(max=_STRONGEST).square()
    return blocks[:, None], strength
