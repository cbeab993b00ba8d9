"""Curvature of a metric: how far it is from flat, point by point.

Two independent forms, as for the connection: second derivatives of the metric tensor, for any metric, and the Gauss
equation of an immersion, where the part of F'' that is normal to the image replaces all derivatives of the tensor. On
a pullback metric they agree to rounding.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.arguments import check_alike, check_fits, check_metric, check_points, plain
from geodesics.generators.derivatives import mixed_second_derivative, value_and_jacobian
from geodesics.generators.protocols import FlatField, Generator
from geodesics.metrics.connection import TensorField, solve_metric, tensor_derivative
from geodesics.metrics.metric import Metric, PullbackMetric


def sectional_curvature(
    metric: Metric, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Sectional curvature ``K(u, v) = <R(u, v) v, u> / (|u|^2 |v|^2 - <u, v>^2)`` of the planes of u and v.

    It depends on the plane alone, not on the two vectors that span it, and has the unit of one over a squared
    length: a sphere of radius r has ``1 / r^2`` everywhere, a flat metric 0 in every chart. A pullback metric is
    measured by `pullback_curvature`, any other by `general_curvature`.

    Args:
        metric: the Riemannian metric; twice differentiable, or the answer means nothing (a ReLU decoder is flat
            almost everywhere and bent at its kinks).
        z: points ``(B, d)``, d >= 2.
        u: tangent vectors ``(B, d)``.
        v: tangent vectors ``(B, d)``, of directions other than u's.

    Returns:
        ``(B,)``; NaN in the rows where the metric is singular or u and v are parallel.

    Raises:
        ValueError: when d < 2, or shapes, dtypes or devices differ.
        TypeError: when the metric is none, or z, u or v is not a floating-point tensor.
    """
    check_metric(metric)
    check_alike({"z": z, "u": u, "v": v}, least_dimension=2)
    z, u, v = plain(z, u, v)
    check_fits(metric, z)
    if isinstance(metric, PullbackMetric):
        return pullback_curvature(metric.generator, z, u, v)
    return general_curvature(metric.tensor, z, u, v)


def gaussian_curvature(metric: Metric, z: Float[Tensor, "b 2"]) -> Float[Tensor, " b"]:
    """Gaussian curvature of a metric on a plane, ``(B,)``: the one sectional curvature there is for d = 2.

    Args:
        metric: the Riemannian metric.
        z: points ``(B, 2)``.

    Returns:
        ``(B,)``; NaN in the rows where the metric is singular.

    Raises:
        ValueError: when z is not ``(B, 2)``.
        TypeError: when the metric is none, or z is not a floating-point tensor.
    """
    check_points("z", z, "B")
    if z.shape[1] != 2:
        raise ValueError(f"z must be (B, 2); got {tuple(z.shape)}")
    u, v = torch.eye(2, dtype=z.dtype, device=z.device)[:, None, :].expand(2, *z.shape)
    return sectional_curvature(metric, z, u, v)


def pullback_curvature(
    generator: Generator, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Sectional curvature of a pullback metric by the Gauss equation.

    ``K = (<II(u, u), II(v, v)> - |II(u, v)|^2) / (|J u|^2 |J v|^2 - <J u, J v>^2)``, with II(u, v) the part of
    F''[u, v] normal to the columns of J (do Carmo, *Riemannian Geometry*, chapter 6, theorem 2.5). Cost: one Jacobian
    and three second derivatives.

    Args, result: as in `sectional_curvature`, for the generator ``(B, d) -> (B, D)`` of the metric.
    """
    _, J = value_and_jacobian(generator, z)
    frame, R = torch.linalg.qr(J.permute(1, 2, 0))
    uu, vv, uv = (_normal(frame, mixed_second_derivative(generator, z, *pair)) for pair in ((u, u), (v, v), (u, v)))
    numerator = (uu * vv).sum(1) - uv.square().sum(1)
    return _over_area(numerator, R @ u[..., None], R @ v[..., None], _full_rank(R))


def general_curvature(
    tensor: TensorField, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], v: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Sectional curvature of any metric, from first and second derivatives of its tensor.

    ``<R(u, v) v, u> = d_u d_v G(u, v) - (d_u d_u G(v, v) + d_v d_v G(u, u)) / 2 + |Gamma(u, v)|^2
    - <Gamma(u, u), Gamma(v, v)>``, the textbook's expression of the curvature tensor with all indices down, contracted
    with u and v. Cost: d forward-mode passes and three second derivatives of the tensor.

    Args, result: as in `sectional_curvature`, for a tensor field ``(B, d) -> (B, d, d)``.
    """
    G, dG = tensor_derivative(tensor, z)
    with torch.enable_grad():  # torch's second derivatives of SiLU and Mish ask for it
        flat = (mixed_second_derivative(FlatField(tensor), z, *pair) for pair in ((u, v), (u, u), (v, v)))
        uv, uu, vv = (second.unflatten(1, G.shape[1:]) for second in flat)
    second = _form(uv, u, v) - (_form(uu, v, v) + _form(vv, u, u)) / 2
    lower = {pair: _christoffel(dG, *vectors) for pair, vectors in (("uv", (u, v)), ("uu", (u, u)), ("vv", (v, v)))}
    first = (solve_metric(G, lower["uv"]) * lower["uv"]).sum(1) - (solve_metric(G, lower["uu"]) * lower["vv"]).sum(1)
    L, info = torch.linalg.cholesky_ex(G)
    return _over_area(second + first, L.mT @ u[..., None], L.mT @ v[..., None], info == 0)


def _normal(frame: Tensor, w: Tensor) -> Tensor:
    """The part of w ``(B, D)`` normal to an orthonormal frame ``(B, D, d)``."""
    w = w[..., None]
    return (w - frame @ (frame.mT @ w))[..., 0]


def _form(G: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bi,bij,bj->b", u, G, v)


def _christoffel(dG: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Christoffel symbols of the first kind contracted with u and v, ``(B, d)``, from ``dG[k] = dG/dz_k``."""
    along_u, along_v = (torch.einsum("kbij,bk,bj->bi", dG, a, b) for a, b in ((u, v), (v, u)))
    return (along_u + along_v - torch.einsum("kbij,bi,bj->bk", dG, u, v)) / 2


def _over_area(numerator: Tensor, u: Tensor, v: Tensor, regular: Tensor) -> Tensor:
    """The numerator over the squared area of the parallelogram of u and v ``(B, n, 1)``, in a Euclidean frame."""
    sides = torch.linalg.qr(torch.cat([u, v], dim=2), mode="r").R
    rounding = 10 * torch.finfo(u.dtype).eps
    spanned = sides[:, 1, 1].abs() > rounding * v[..., 0].norm(dim=1)
    curvature = numerator / (sides[:, 0, 0] * sides[:, 1, 1]).square()
    return torch.where(regular & spanned, curvature, torch.full_like(curvature, torch.nan))


def _full_rank(R: Tensor) -> Tensor:
    """Whether the triangular factor of a Jacobian says that its columns are independent, ``(B,)``."""
    pivots = R.diagonal(dim1=1, dim2=2).abs()
    return pivots.amin(1) > 10 * torch.finfo(R.dtype).eps * R.abs().amax((1, 2))
