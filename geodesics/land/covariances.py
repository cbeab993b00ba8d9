"""The M-step of LAND for covariances: an exponential family on weighted points, and so a concave problem."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MAX_ITER = 40
# Precisions may leave those of the points' own rule by this factor: beyond, the points no longer carry the integral.
_TRUST = 3.0
_ARMIJO = 1e-4


def fit_covariances(
    second: Float[Tensor, "k d d"],
    v: Float[Tensor, "k s d"],
    log_weights: Float[Tensor, "k s"],
    reference: Float[Tensor, "k d d"],
    start: Float[Tensor, "k d d"],
    flatness: float = 0.0,
) -> Float[Tensor, "k d d"]:
    """The covariances that explain second moments T best.

    They maximize ``-1/2 tr(Sigma^-1 T) - log sum_s w_s exp(-1/2 <v_s, Sigma^-1 v_s>)``, in the precision
    ``P = Sigma^-1`` a linear function less a log-sum-exp of linear functions: concave, and at its maximum the second
    moments of the weighted points are T. Damped Newton steps; no geodesic is needed.

    Where space is bounded there may be no maximum: where the data lie further out along some direction than points
    spread evenly would, P wants to be negative there, and Sigma grows without end. So the normal distribution of the
    tangent space explains the same moments as well, ``a/2 (log det P - tr(P T))`` with a small weight a: still concave,
    with ``Sigma <= (1 + 1/a) T`` at the maximum; and in flat space, where both densities are one, nothing changes.

    Args:
        second: T, second moments of the data's logarithms.
        v: logarithms of the points of the normalizing integral; NaN where there is none.
        log_weights: log w.
        reference: Cholesky factors of the covariances for which the points were drawn.
        start: Sigma to begin with.
        flatness: a.
    """
    d = v.shape[-1]
    i, j = torch.triu_indices(d, d, device=v.device)
    eye = torch.eye(d).to(v)
    inverse = torch.linalg.solve_triangular(reference, eye.expand_as(reference), upper=False)
    y = v.nan_to_num(0.0) @ inverse.mT
    family = _Family(
        _basis(i, j, d).to(v),
        y,
        log_weights.masked_fill(v.isnan().any(-1), -torch.inf),
        inverse @ second @ inverse.mT,
        flatness,
    )
    P = _clamped(reference.mT @ torch.cholesky_inverse(torch.linalg.cholesky_ex(start).L) @ reference)
    value, gradient, H = family.look(P)
    step = torch.ones_like(value)
    for _ in range(_MAX_ITER):
        ridge = 1e-9 * H.diagonal(dim1=1, dim2=2).sum(-1)[:, None] + torch.finfo(v.dtype).tiny
        direction = torch.linalg.solve_ex(H + torch.diag_embed(ridge.expand(-1, H.shape[-1])), gradient)[0]
        slope = (gradient * direction).sum(-1)
        trial = _clamped(P + torch.einsum("km,mij->kij", step[:, None] * direction, family.basis))
        found = family.look(trial)
        ahead = ((trial - P)[:, i, j] * gradient).sum(-1)
        better = found[0] >= value + _ARMIJO * ahead.clamp(min=0)
        change = (trial - P).abs().amax((1, 2))
        P = torch.where(better[:, None, None], trial, P)
        value = torch.where(better, found[0], value)
        gradient = torch.where(better[:, None], found[1], gradient)
        H = torch.where(better[:, None, None], found[2], H)
        step = torch.where(better, 1.0, step / 4)
        if bool(((slope < 1e-14) | (better & (change < 1e-10)) | (step < 1e-5) | ~slope.isfinite()).all()):
            break
    factor, info = torch.linalg.cholesky_ex(P)
    covariances = reference @ torch.cholesky_inverse(factor) @ reference.mT
    usable = (info == 0) & covariances.isfinite().all(-1).all(-1)
    return torch.where(usable[:, None, None], covariances, start)


class _Family(NamedTuple):
    """The concave problem, in units of the reference.

    Attributes:
        basis: of the symmetric matrices, ``(m, d, d)``.
        y: the points, ``(K, S, d)``.
        log_weights: log w, ``(K, S)``.
        second: T, ``(K, d, d)``.
        flatness: a.
    """

    basis: Float[Tensor, "m d d"]
    y: Float[Tensor, "k s d"]
    log_weights: Float[Tensor, "k s"]
    second: Float[Tensor, "k d d"]
    flatness: float

    def look(self, P: Float[Tensor, "k d d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Value, gradient along the basis, and the negative Hessian at precisions P."""
        a, y, E = self.flatness, self.y, self.basis
        exponent = self.log_weights - torch.einsum("ksi,kij,ksj->ks", y, P, y) / 2
        share = torch.softmax(exponent, 1)
        L = torch.linalg.cholesky_ex(P).L
        fit = torch.einsum("kij,kij->k", P, self.second)
        value = -(1 + a) * fit / 2 - exponent.logsumexp(1) + a * L.diagonal(dim1=1, dim2=2).log().sum(1)
        squares = torch.einsum("ksi,mij,ksj->ksm", y, E, y) / 2
        mean = torch.einsum("ks,ksm->km", share, squares)
        flat = torch.einsum("mij,kjl->kmil", E, torch.cholesky_inverse(L))
        gradient = mean - (1 + a) * torch.einsum("kij,mij->km", self.second, E) / 2
        gradient = gradient + a / 2 * flat.diagonal(dim1=2, dim2=3).sum(-1)
        centered = squares - mean[:, None]
        H = torch.einsum("ks,ksm,ksn->kmn", share, centered, centered)
        return value, gradient, H + a / 2 * torch.einsum("kmij,knji->kmn", flat, flat)


def _basis(i: Int[Tensor, " m"], j: Int[Tensor, " m"], d: int) -> Float[Tensor, "m d d"]:
    """Symmetric matrices with ones at ``(i, j)`` and ``(j, i)``, else zero."""
    E = torch.zeros(len(i), d, d, device=i.device)
    row = torch.arange(len(i), device=i.device)
    E[row, i, j] = 1.0
    E[row, j, i] = 1.0
    return E


def _clamped(P: Float[Tensor, "k d d"]) -> Float[Tensor, "k d d"]:
    """Precisions, in units of the reference's, with eigenvalues in the trusted range."""
    finite = P.isfinite().all(-1).all(-1)[:, None, None]
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    values, vectors = torch.linalg.eigh(torch.where(finite, P, eye))
    return vectors @ (values.clamp(1 / _TRUST, _TRUST)[..., None] * vectors.mT)
