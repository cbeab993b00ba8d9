"""The M-step of LAND for covariances: an exponential family on weighted points, and so a concave problem."""

import torch
from jaxtyping import Float
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
) -> Float[Tensor, "k d d"]:
    """The covariances that maximise ``-1/2 tr(Sigma^-1 T) - log sum_s w_s exp(-1/2 <v_s, Sigma^-1 v_s>)``.

    In the precision ``P = Sigma^-1`` this is a linear function less a log-sum-exp of linear functions: concave, and at
    its maximum the second moments of the weighted points are T. Damped Newton steps; no geodesic is needed.

    Args:
        second: T, second moments of the data's logarithms.
        v: logarithms of the points of the normalizing integral; NaN where there is none.
        log_weights: log w.
        reference: Cholesky factors of the covariances for which the points were drawn.
        start: Sigma to begin with.
    """
    d = v.shape[-1]
    i, j = torch.triu_indices(d, d, device=v.device)
    factor = torch.where(i == j, -0.5, -1.0).to(v)  # <P, y y^T> / -2 over the upper triangle
    lost = v.isnan().any(-1)
    y = torch.linalg.solve_triangular(reference, v.nan_to_num(0.0).mT, upper=False).mT
    features = factor * y[..., i] * y[..., j]
    inverse = torch.linalg.solve_triangular(reference, torch.eye(d).to(v).expand_as(reference), upper=False)
    T = inverse @ second @ inverse.mT
    wanted = factor * T[:, i, j]
    log_weights = log_weights.masked_fill(lost, -torch.inf)

    def objective(p: Tensor) -> tuple[Tensor, Tensor]:
        exponent = log_weights + torch.einsum("ksm,km->ks", features, p)
        return (p * wanted).sum(-1) - exponent.logsumexp(1), torch.softmax(exponent, 1)

    def matrix(p: Tensor) -> Tensor:
        P = p.new_zeros(len(p), d, d)
        P[:, i, j] = p
        P[:, j, i] = p
        return P

    p = _clamped(reference.mT @ torch.cholesky_inverse(torch.linalg.cholesky_ex(start).L) @ reference)[:, i, j]
    value, share = objective(p)
    step = torch.ones_like(value)
    for _ in range(_MAX_ITER):
        mean = torch.einsum("ks,ksm->km", share, features)
        centred = features - mean[:, None]
        H = torch.einsum("ks,ksm,ksn->kmn", share, centred, centred)
        ridge = 1e-9 * H.diagonal(dim1=1, dim2=2).sum(-1)[:, None] + torch.finfo(v.dtype).tiny
        H = H + torch.diag_embed(ridge.expand(-1, H.shape[-1]))
        gradient = wanted - mean
        direction = torch.linalg.solve_ex(H, gradient)[0]
        slope = (gradient * direction).sum(-1)
        trial = _clamped(matrix(p + step[:, None] * direction))[:, i, j]
        new, new_share = objective(trial)
        better = new >= value + _ARMIJO * ((trial - p) * gradient).sum(-1).clamp(min=0)
        change = (trial - p).abs().amax(1)
        p = torch.where(better[:, None], trial, p)
        value, share = torch.where(better, new, value), torch.where(better[:, None], new_share, share)
        step = torch.where(better, 1.0, step / 4)
        if bool(((slope < 1e-14) | (better & (change < 1e-10)) | (step < 1e-5) | ~slope.isfinite()).all()):
            break
    P = torch.linalg.cholesky_ex(matrix(p))
    covariances = reference @ torch.cholesky_inverse(P.L) @ reference.mT
    usable = (P.info == 0) & covariances.isfinite().all(-1).all(-1)
    return torch.where(usable[:, None, None], covariances, start)


def _clamped(P: Float[Tensor, "k d d"]) -> Float[Tensor, "k d d"]:
    """Precisions, in units of the reference's, with eigenvalues in the trusted range."""
    finite = P.isfinite().all(-1).all(-1)[:, None, None]
    eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    values, vectors = torch.linalg.eigh(torch.where(finite, P, eye))
    return vectors @ (values.clamp(1 / _TRUST, _TRUST)[..., None] * vectors.mT)
