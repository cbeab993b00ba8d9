"""Nodes of LAND's normalizing integrals: fixed points, drawn where a component has its mass.

    C = int exp(-1/2 <v, Sigma^-1 v>) dM(z)  ~  sum_s w_s exp(-1/2 <v_s, Sigma^-1 v_s>)        v = log_mu(z)

over the Riemannian volume ``dM = sqrt(det M) dz``. Over tangent vectors the integrand would carry the volume change of
the exponential map, and only v within the cut locus might count; over points, with the logarithms that also give the
density, both come of themselves. The nodes stay where they are while a fit moves: then C is smooth in its parameters
(it is not if nodes are carried over walls, where the volume changes by decades), and geodesics go on from where they
were.

With a graph the nodes come in two phases (Särndal, Swensson and Wretman 1992, chapter 9). Many candidates are weighted
by their volume and by the normal density of their *approximate* logarithms, from shortest-path trees; of these few
nodes are drawn in proportion, and calibrated to the candidates' totals. So the geodesics only correct the trees.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Nodes(NamedTuple):
    """A quadrature rule for each of K components.

    Attributes:
        points: ``(K, S, d)``.
        log_weights: log w, with respect to the Riemannian volume; -inf where the metric fails, ``(K, S)``.
        controls: functions with known integrals, in the units in which contributions to C are compared, ``(K, S, c)``.
        reference: Cholesky factors of the covariances for which the nodes were drawn, ``(K, d, d)``.
        spread: relative standard error of the candidates' total, ``(K,)``.
    """

    points: Float[Tensor, "k s d"]
    log_weights: Float[Tensor, "k s"]
    controls: Float[Tensor, "k s c"]
    reference: Float[Tensor, "k d d"]
    spread: Float[Tensor, " k"]


class Normalization(NamedTuple):
    """Normalizers of K components, and the moments of their logarithms.

    Attributes:
        log_normalizers: log C, with respect to the Riemannian volume, ``(K,)``.
        errors: standard errors of log C, ``(K,)``.
        mean: mean of ``log_mu(z)`` under the component, ``(K, d)``.
        effective_nodes: ``(sum f)^2 / sum f^2`` over the nodes' contributions f to C, ``(K,)``.
        failed_nodes: nodes whose geodesic or metric failed; they contribute nothing, ``(K,)``.
    """

    log_normalizers: Float[Tensor, " k"]
    errors: Float[Tensor, " k"]
    mean: Float[Tensor, "k d"]
    effective_nodes: Float[Tensor, " k"]
    failed_nodes: Int[Tensor, " k"]


def normalize(nodes: Nodes, v: Float[Tensor, "k s d"], L: Float[Tensor, "k d d"]) -> Normalization:
    """Normalizers of components with covariances ``L L^T``, from the logarithms of their nodes.

    The standard error is that of the residuals of the contributions after regression on the controls, which the
    weights integrate exactly; with the candidates' own.
    """
    size = v.shape[1]
    log_f = _log_contributions(nodes, v, L)
    lost = log_f.isneginf()
    log_total = log_f.logsumexp(1)
    share = (log_f - log_total[:, None]).exp()
    share = torch.where(log_total.isfinite()[:, None], share, torch.nan)
    g = nodes.controls
    # solve_ex: a component without any node has NaN, and must not raise.
    coefficients = torch.linalg.solve_ex(g.mT @ g, (g.mT @ share[..., None])[..., 0])[0]
    residual = share - torch.einsum("ksc,kc->ks", g, coefficients)
    freedom = max(size - g.shape[-1], 1)
    own = size * residual.square().sum(1) / freedom
    errors = (own + nodes.spread.square()).sqrt()
    return Normalization(
        log_total,
        errors,
        torch.einsum("ks,ksi->ki", share, v.masked_fill(lost[..., None], 0.0)),
        1 / share.square().sum(1),
        lost.sum(1),
    )


def log_normalizers(nodes: Nodes, v: Float[Tensor, "k s d"], L: Float[Tensor, "k d d"]) -> Float[Tensor, " k"]:
    """log C alone, see `normalize`."""
    return _log_contributions(nodes, v, L).logsumexp(1)


def _log_contributions(nodes: Nodes, v: Tensor, L: Tensor) -> Tensor:
    return (log_kernel(L, v) + nodes.log_weights).nan_to_num(-torch.inf, torch.inf, -torch.inf)


def log_kernel(L: Float[Tensor, "k d d"], v: Float[Tensor, "k s d"]) -> Float[Tensor, "k s"]:
    """``-1/2 v^T Sigma^-1 v`` for Sigma = L L^T."""
    return -torch.linalg.solve_triangular(L, v.mT, upper=False).square().sum(1) / 2
