"""Length and energy of curves by a quadrature that no solver sees, and curves at constant speed."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_count, check_fits, check_is, check_metric
from geodesics.batches.rows import rows_in_memory
from geodesics.curves.curve import Curve
from geodesics.curves.elements import basis_at, gather, gauss_rule
from geodesics.curves.mesh import interpolate
from geodesics.metrics.metric import Metric

# Kronrod's extension of the 7-point Gauss rule on [-1, 1] (QUADPACK, Piessens et al. 1983): x >= 0 half.
_KRONROD_NODES = np.array(
    [
        0.991455371120812639206854697526329,
        0.949107912342758524526189684047851,
        0.864864423359769072789712788640926,
        0.741531185599394439863864773280788,
        0.586087235467691130294144691693013,
        0.405845151377397166906606412076961,
        0.207784955007898467600689403773245,
        0.0,
    ]
)
_KRONROD_WEIGHTS = np.array(
    [
        0.022935322010529224963732008058970,
        0.063092092629978553290700663189204,
        0.104790010322250183839876322541518,
        0.140653259715525918745189590510238,
        0.169004726639267902826583426598550,
        0.190350578064785409913256402421014,
        0.204432940075298892414161999234649,
        0.209482141084727828012999174891714,
    ]
)
KRONROD_POINTS = 15
# Numbers that the speed at one point is taken to need, which bounds how many are computed at a time.
_NUMBERS = 2**9
# Cells of an element over which the speed is taken as constant.
_CELLS = 16


class Measured(NamedTuple):
    """A length with its error estimate, element by element; each ``(B, N)``."""

    length: Tensor
    error: Tensor


def kronrod_rule() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on [0, 1], the 15 Kronrod weights, and the 7 Gauss weights spread over the same nodes (zeros between)."""
    nodes = np.concatenate([-_KRONROD_NODES[:-1], _KRONROD_NODES[::-1]])
    weights = np.concatenate([_KRONROD_WEIGHTS[:-1], _KRONROD_WEIGHTS[::-1]])
    gauss = np.zeros_like(weights)
    gauss[1::2] = gauss_rule(7)[1]
    return (nodes + 1) / 2, weights / 2, gauss


def element_speeds(
    metric: Metric, curve: Curve, at: np.ndarray
) -> tuple[Float[Tensor, "b s q"], Float[Tensor, "b s q"]]:
    """Riemannian and Euclidean speed per unit of the element's own coordinate, at the points ``at`` in [0, 1]."""
    values, slopes = basis_at(curve.degree, torch.as_tensor(at).to(curve.points))
    local = gather(curve.points, curve.degree)
    z = torch.einsum("qk,bskd->bsqd", values, local)
    v = torch.einsum("qk,bskd->bsqd", slopes, local)
    chunk = rows_in_memory(z, _NUMBERS)
    points, tangents = z.flatten(0, 2).split(chunk), v.flatten(0, 2).split(chunk)
    speed = torch.cat([metric.norm(*part) for part in zip(points, tangents, strict=True)])
    return speed.reshape(z.shape[:3]), v.norm(dim=-1)


def element_lengths(metric: Metric, curve: Curve) -> Measured:
    """Length of every element by the 15-point Kronrod rule, and its distance from the embedded 7-point Gauss rule."""
    at, kronrod, gauss = kronrod_rule()
    speed, _ = element_speeds(metric, curve, at)
    fine, coarse = (speed @ torch.as_tensor(rule).to(speed) for rule in (kronrod, gauss))
    return Measured(fine, (fine - coarse).abs())


def length(metric: Metric, curve: Curve) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Riemannian length ``L = int_0^1 sqrt(c'^T M(c) c') dt`` with an error estimate.

    A 15-point Gauss-Kronrod rule in every element (order 23 where the speed is smooth); the error is the sum of the
    element-wise distances to the embedded 7-point Gauss rule plus rounding, a generous bound for the 15-point value.
    Cost: 15 norms, each one directional derivative of the generator, per element.

    Args:
        metric: the Riemannian metric.
        curve: B curves.

    Returns:
        Length and error estimate, both ``(B,)``, in the metric's unit.

    Raises:
        TypeError: when the metric or the curve is none.
    """
    _check_curve(metric, curve)
    measured = element_lengths(metric, curve)
    total = measured.length.sum(1)
    rounding = 8 * torch.finfo(total.dtype).eps * total
    return total, measured.error.sum(1) + rounding


def energy(metric: Metric, curve: Curve, num_points: int = 8) -> Float[Tensor, " b"]:
    """Riemannian energy ``E = 1/2 int_0^1 c'^T M(c) c' dt``; ``L^2 <= 2 E``, equal iff the speed is constant.

    Args:
        metric: the Riemannian metric.
        curve: B curves.
        num_points: Gauss points per element; exact to order ``2 * num_points``.

    Returns:
        ``(B,)``, in the metric's unit squared.

    Raises:
        ValueError: when num_points < 1.
        TypeError: when the metric is none, or num_points is not an integer.
    """
    _check_curve(metric, curve)
    check_count("num_points", num_points)
    at, weights = gauss_rule(num_points)
    speed, _ = element_speeds(metric, curve, at)
    width = curve.knots[:, 1:] - curve.knots[:, :-1]
    return ((speed.square() @ torch.as_tensor(weights).to(speed)) / width).sum(1) / 2


def constant_speed(metric: Metric, curve: Curve, num_points: int) -> Float[Tensor, "b t d"]:
    """Points on curves at equal Riemannian steps, for frames and pictures.

    Second order in the cell of 1/16 element over which the speed is taken as constant; the points lie on the curve
    exactly. Cost: 16 norms per element.

    Args:
        metric: the Riemannian metric.
        curve: B curves.
        num_points: T >= 2, both ends included.

    Returns:
        ``(B, T, d)``; where a curve has no length, equal steps of its own parameter.

    Raises:
        ValueError: when num_points < 2.
        TypeError: when the metric is none, or num_points is not an integer.
    """
    _check_curve(metric, curve)
    check_count("num_points", num_points, 2)
    with torch.no_grad():
        speed, _ = element_speeds(metric, curve, (np.arange(_CELLS) + 0.5) / _CELLS)
    cells = speed.flatten(1)
    cells = torch.where(cells.sum(1, keepdim=True) > 0, cells, torch.ones_like(cells))
    arc = torch.cat([torch.zeros_like(cells[:, :1]), cells.cumsum(1)], dim=1)
    arc = arc / arc[:, -1:]
    inner = torch.arange(_CELLS, dtype=arc.dtype, device=arc.device) / _CELLS
    width = curve.knots[:, 1:] - curve.knots[:, :-1]
    times = (curve.knots[:, :-1, None] + width[..., None] * inner).flatten(1)
    times = torch.cat([times, curve.knots[:, -1:]], dim=1)
    wanted = torch.linspace(0, 1, num_points, dtype=arc.dtype, device=arc.device).expand(len(curve), -1)
    return curve.evaluate(interpolate(wanted, arc, times))


def _check_curve(metric: Metric, curve: Curve) -> None:
    check_metric(metric)
    check_is("curve", curve, Curve, "as geodesic(...).curve")
    check_fits(metric, curve.points[:, 0])
