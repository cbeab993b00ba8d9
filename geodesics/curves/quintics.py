"""Piecewise quintic curves: through positions, velocities and accelerations, and cut into pieces."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.curves.elements import basis_at, gather, join, lagrange_basis, lobatto_nodes

# The degree that takes position, velocity and acceleration at both ends of an element.
QUINTIC = 5


def hermite(
    z: Float[Tensor, "b k d"],
    v: Float[Tensor, "b k d"],
    a: Float[Tensor, "b k d"],
    steps: Float[Tensor, "b s"],
) -> Curve:
    """Curves through nodes with given velocities and accelerations, one quintic per step: C^2, of order h^6.

    Args:
        z: nodes ``(B, K + 1, d)``.
        v: velocities there, per unit of time.
        a: accelerations there.
        steps: durations between the nodes ``(B, K)``, positive with sum 1.
    """
    h = steps[..., None, None]
    data = torch.stack([z, v, a], dim=2)
    scales = torch.cat([torch.ones_like(h), h, h.square()], dim=2)
    ends = torch.cat([data[:, :-1] * scales, data[:, 1:] * scales], dim=2)
    points = join(_hermite_basis(z) @ ends)
    points[:, 0], points[:, -1] = z[:, 0], z[:, -1]
    knots = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(1)], dim=1)
    knots[:, -1] = 1
    return Curve.unchecked(points, knots, QUINTIC)


def _hermite_basis(like: Tensor) -> Tensor:
    """Values at the Lobatto points of the quintics with unit position, slope or curvature at 0, then at 1."""
    at = torch.as_tensor(lobatto_nodes(QUINTIC)).to(like)
    power = torch.arange(QUINTIC + 1, dtype=like.dtype, device=like.device)
    conditions = like.new_zeros(6, QUINTIC + 1)
    conditions[0, 0], conditions[1, 1], conditions[2, 2] = 1, 1, 2
    conditions[3], conditions[4], conditions[5] = 1, power, power * (power - 1)
    return at[:, None] ** power @ torch.linalg.inv(conditions)


def raised(curve: Curve) -> Curve:
    """The same curves as quintics; elements of higher degree are interpolated."""
    basis = lagrange_basis(lobatto_nodes(curve.degree), lobatto_nodes(QUINTIC))[0]
    points = join(torch.as_tensor(basis).to(curve.points) @ gather(curve.points, curve.degree))
    return Curve.unchecked(points, curve.knots, QUINTIC)


def subdivided(curve: Curve, pieces: Int[Tensor, "b s"]) -> Curve:
    """The same curves with every element cut into so many equal pieces, twice as many in all."""
    ends = pieces.cumsum(1)
    new = torch.arange(2 * curve.num_segments, device=pieces.device).expand(len(curve), -1).contiguous()
    parent = torch.searchsorted(ends, new, right=True)
    number, count = new - (ends - pieces).gather(1, parent), pieces.gather(1, parent)
    lobatto = torch.as_tensor(lobatto_nodes(curve.degree)).to(curve.points)
    at = (number[..., None] + lobatto) / count[..., None]
    rows = torch.arange(len(curve), device=pieces.device)[:, None]
    nodes = gather(curve.points, curve.degree)[rows, parent]
    left = curve.knots.gather(1, parent)
    knots = left + (curve.knots.gather(1, parent + 1) - left) * number / count
    points = join(basis_at(curve.degree, at)[0] @ nodes)
    return Curve.unchecked(points, torch.cat([knots, curve.knots[:, -1:]], dim=1), curve.degree)
