"""Point-wise quantities of a metric: inner product, norm, measure."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_alike, check_fits, check_metric, check_points, plain
from geodesics.metrics.metric import Metric


def inner(
    metric: Metric, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Inner product ``u^T M(z) v``, ``(B,)``, of tangent vectors u, v ``(B, d)`` at the points z ``(B, d)``.

    Raises:
        ValueError: when the shapes, dtypes or devices of z, u and v do not fit.
        TypeError: when the metric is none, or z, u or v is not a floating-point tensor.
    """
    check_metric(metric)
    check_alike({"z": z, "u": u, "v": v})
    z, u, v = plain(z, u, v)
    check_fits(metric, z)
    return torch.einsum("bi,bij,bj->b", u, metric.tensor(z), v)


def norm(metric: Metric, z: Float[Tensor, "b d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Norm ``sqrt(v^T M(z) v)``, ``(B,)``, of tangent vectors v ``(B, d)`` at the points z ``(B, d)``.

    Raises:
        ValueError: when the shapes, dtypes or devices of z and v do not fit.
        TypeError: when the metric is none, or z or v is not a floating-point tensor.
    """
    check_metric(metric)
    check_alike({"z": z, "v": v})
    z, v = plain(z, v)
    check_fits(metric, z)
    return metric.norm(z, v)


def log_measure(metric: Metric, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Log of the Riemannian measure (magnification factor), ``1/2 log det M(z)``.

    By Cholesky: ``sum_i log L_ii``. In logarithms because the measure of a real decoder spans tens of decades.

    Args:
        metric: the Riemannian metric.
        z: points ``(B, d)``.

    Returns:
        ``(B,)``; NaN in the rows where M is not numerically positive definite.

    Raises:
        ValueError: when z is not ``(B, d)``.
        TypeError: when the metric is none, or z is not a floating-point tensor.
    """
    check_metric(metric)
    check_points("z", z, "B")
    (z,) = plain(z)
    check_fits(metric, z)
    L, info = torch.linalg.cholesky_ex(metric.tensor(z))
    value = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(info == 0, value, torch.full_like(value, torch.nan))
