"""Gradients of distances: one evaluation of the length along the curve that was found."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodesics.curves.curve import Curve
from geodesics.metrics.lengths import element_lengths
from geodesics.metrics.metric import Metric
from geodesics.solvers.solution import GeodesicResult


def with_gradients(
    metric: Metric,
    result: GeodesicResult,
    z0: Float[Tensor, "b d"],
    z1: Float[Tensor, "b d"],
    known: Bool[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """Lengths with first derivatives in the ends and in whatever the metric depends on, NaN where they are not known.

    At a geodesic the derivative of the length in the interior of the curve is zero (envelope theorem). So the curve is
    held fixed but for its ends, and its length is evaluated once more with gradients. The derivative is as exact as
    the curve. Problems that are not known touch no gradient. Memory: autograd's records of 15 norms per element, of
    all curves at once.

    Args:
        metric: the Riemannian metric.
        result: the geodesics.
        z0: starts.
        z1: ends.
        known: whose lengths are resolved.
    """
    rows = (known & (z0 != z1).any(1)).nonzero()[:, 0]
    lengths = torch.where(known, result.length, torch.nan)
    if rows.numel() == 0:
        return lengths
    curve = result.curve[rows]
    points = torch.cat([z0[rows, None], curve.points[:, 1:-1], z1[rows, None]], dim=1)
    attached = element_lengths(metric, Curve.unchecked(points, curve.knots, curve.degree)).length.sum(1)
    # The value stays that of the certificate, to the bit.
    lengths = lengths.index_put((rows,), result.length[rows] + (attached - attached.detach()))
    if lengths.requires_grad:
        lengths.register_hook(_refuse_second)
    return lengths


def _refuse_second(gradient: Tensor) -> None:
    if torch.is_grad_enabled():  # with create_graph=True
        raise NotImplementedError("distances have first derivatives only: the curve itself moves with its ends")
