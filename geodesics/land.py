"""The locally adaptive normal distribution (LAND) and its mixtures: normal distributions along geodesics.

Arvanitidis, Hansen and Hauberg 2016, "A Locally Adaptive Normal Distribution" (NeurIPS). A component has the density

    p(z) = exp(-1/2 <v, Sigma^-1 v>) / C        v = log_mu(z), with respect to the Riemannian volume sqrt(det M) dz

where ``C = int exp(-1/2 <v, Sigma^-1 v>) sqrt(det M(z)) dz``. Over tangent vectors the integrand would be
``exp(-1/2 <v, Sigma^-1 v>) sqrt(det M(exp_mu v)) |det d exp_mu(v)|``, and only v within the cut locus may count:
without the last factor, or with longer v, C is that of another density. So the integral is taken over latent points,
with the same logarithms that give the density: what is evaluated integrates to one, and no geodesic is shot over walls.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.stats import f as fisher_snedecor
from torch import Tensor

from geodesics.forms import log_measure
from geodesics.initial import InitialCurves
from geodesics.metrics import Metric
from geodesics.moving_ends import MovingEnds, check_points
from geodesics.solve import Solver

# Degrees of freedom of the Student distribution of the nodes: tails that no normal distribution outgrows.
_FREEDOM = 4


class Rule(NamedTuple):
    """A randomised quadrature ``int f(e) de = sum_s weights_s f(nodes_s)``, for f that fall like a normal density.

    Exact for the standard normal density times polynomials of degree 2: in flat space C and the moments of a component
    have no error at all.

    Attributes:
        nodes: ``(S, d)``.
        weights: ``(S,)``.
    """

    nodes: Float[Tensor, "s d"]
    weights: Float[Tensor, " s"]


class Normalization(NamedTuple):
    """Normalizers of K components, and the moments of their logarithms.

    Attributes:
        log_normalizers: log C, with respect to the Riemannian volume, ``(K,)``.
        mean: mean of ``log_mu(z)`` under the component, ``(K, d)``.
        moment: mean of ``log_mu(z) log_mu(z)^T``, ``(K, d, d)``.
        effective_nodes: ``(sum f)^2 / sum f^2`` over the nodes' contributions f to C, ``(K,)``.
        failed_nodes: nodes whose geodesic or metric failed; they contribute nothing, ``(K,)``.
    """

    log_normalizers: Float[Tensor, " k"]
    mean: Float[Tensor, "k d"]
    moment: Float[Tensor, "k d d"]
    effective_nodes: Float[Tensor, " k"]
    failed_nodes: Int[Tensor, " k"]


@dataclass(frozen=True, eq=False)
class Land:
    """A mixture of K locally adaptive normal distributions; made by `fit_land` or `Land.from_parameters`.

    Attributes:
        metric: the Riemannian metric.
        weights: of the components, with sum 1, ``(K,)``.
        means: mu, latent units, ``(K, d)``.
        covariances: Sigma of the tangent vectors at mu, latent units squared, ``(K, d, d)``.
        log_normalizers: log C, with respect to the Riemannian volume, ``(K,)``.
        effective_nodes: of how many of the nodes a C is the mean, so to say: its relative error is about one over the
            square root, or less, ``(K,)``.
        failed_nodes: nodes without a geodesic, which count as zero in C, ``(K,)``.
        solver: of the geodesics, as in `geodesic`.
        initial: of the geodesics, as in `geodesic`.
        chunk_size: of the geodesics, as in `geodesic`.
    """

    metric: Metric
    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]
    log_normalizers: Float[Tensor, " k"]
    effective_nodes: Float[Tensor, " k"]
    failed_nodes: Int[Tensor, " k"]
    solver: Solver | None = None
    initial: InitialCurves | None = None
    chunk_size: int | None = None

    @classmethod
    def from_parameters(
        cls,
        metric: Metric,
        means: Tensor,
        covariances: Tensor,
        weights: Tensor | None = None,
        *,
        num_nodes: int = 512,
        solver: Solver | None = None,
        initial: InitialCurves | None = None,
        chunk_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> "Land":
        """The mixture with given parameters, normalised.

        Args:
            metric: the Riemannian metric.
            means: ``(K, d)``.
            covariances: ``(K, d, d)``.
            weights: positive, ``(K,)``; None for equal ones. They are divided by their sum.
            num_nodes: S, nodes of the integral C; each costs a geodesic per component.
            solver: as in `geodesic`.
            initial: as in `geodesic`.
            chunk_size: as in `geodesic`.
            generator: of the nodes; None for torch's own.

        Raises:
            ValueError: when shapes do not fit, a covariance is not positive definite, a weight is not positive, or
                num_nodes < 2.
            TypeError: when means is not a floating-point tensor.
        """
        check_points("means", means, "K")
        count, d = means.shape
        weights = means.new_ones(count) if weights is None else weights
        if covariances.shape != (count, d, d) or weights.shape != (count,):
            raise ValueError(
                f"covariances must be (K, d, d) and weights (K,) for means {tuple(means.shape)}; "
                f"got {tuple(covariances.shape)} and {tuple(weights.shape)}"
            )
        L, info = torch.linalg.cholesky_ex(covariances)
        if bool((info != 0).any() | ~(weights > 0).all() | ~covariances.isfinite().all()):
            raise ValueError("covariances must be positive definite, and weights positive")
        ends = MovingEnds(metric, count * num_nodes, means, solver, initial, chunk_size)
        pairs = torch.arange(count * num_nodes, device=means.device).view(count, num_nodes)
        with torch.no_grad():
            rule = make_rule(num_nodes, means, generator)
            found = normalize(metric, means, L, rule, ends, pairs)
        return cls(
            metric,
            weights / weights.sum(),
            means,
            covariances,
            found.log_normalizers,
            found.effective_nodes,
            found.failed_nodes,
            solver,
            initial,
            chunk_size,
        )

    def log_prob(self, z: Tensor) -> Float[Tensor, " n"]:
        """Log density with respect to the Lebesgue measure of the latent space.

        ``log sum_k weights_k exp(-1/2 <v_k, Sigma_k^-1 v_k>) / C_k + log_measure(z)``: comparable with the density of
        a Gaussian mixture in the same coordinates. Without the last term, ``log_measure(metric, z)``, it is the density
        with respect to the Riemannian volume, which no change of coordinates alters.

        Args:
            z: points ``(n, d)``.

        Returns:
            ``(n,)``. A component whose geodesic to a point fails gives the point no density; a point without any
            geodesic has NaN, and one warning counts such points.
        """
        joint = self._joint(z)
        value = torch.logsumexp(joint, 1) + log_measure(self.metric, z)
        lost = joint.isinf().all(1)
        if int(lost.sum()):
            warnings.warn(f"{int(lost.sum())} of {len(z)} points have no geodesic; their density is NaN", stacklevel=2)
        return value.masked_fill(lost, torch.nan)

    def responsibilities(self, z: Tensor) -> Float[Tensor, "n k"]:
        """Probabilities of the components given points ``(n, d)``, ``(n, K)``; NaN without any geodesic."""
        return torch.softmax(self._joint(z), dim=1)

    def sample(
        self, n: int, *, num_steps: int = 10, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n d"]:
        """Draw n points.

        Every point is the end of its own Markov chain (independence sampler, Tierney 1994): candidates
        ``mu + L e`` with e of a Student distribution, accepted by the ratio of density to proposal. The distance to the
        distribution falls like ``(1 - 1/B)^num_steps``, with B the largest such ratio: 1.24 in a flat plane.

        Args:
            n: number of points.
            num_steps: candidates per point; each costs a geodesic.
            generator: of the randomness, on the means' device; None for torch's own.

        Returns:
            ``(n, d)``; NaN where every candidate of a point failed.

        Raises:
            ValueError: when n < 0 or num_steps < 1.
        """
        if n < 0 or num_steps < 1:
            raise ValueError(f"n must not be negative and num_steps at least 1; got {n} and {num_steps}")
        like = self.means
        component = torch.multinomial(self.weights, max(n, 1), replacement=True, generator=generator)[:n]
        L = torch.linalg.cholesky(self.covariances)[component]
        state, log_ratio = like[component], like.new_full((n,), -torch.inf)
        with torch.no_grad():
            for _ in range(num_steps):
                e = _student_noise(n, like, generator)
                candidate = like[component] + torch.einsum("nij,nj->ni", L, e)
                v = self._logarithms(like[component], candidate)
                new = log_kernel(L, v) + log_measure(self.metric, candidate) - _log_student(e)
                new = new.nan_to_num(-torch.inf)
                u = torch.rand(n, generator=generator, dtype=like.dtype, device=like.device)
                accepted = u.log() < new - log_ratio
                state = torch.where(accepted[:, None], candidate, state)
                log_ratio = torch.where(accepted, new, log_ratio)
        return state.masked_fill(log_ratio.isinf()[:, None], torch.nan)

    def _joint(self, z: Tensor) -> Tensor:
        """``log weights_k p_k(z)`` against the Riemannian volume, ``(n, K)``; -inf where the geodesic failed."""
        check_points("z", z)
        n, count = len(z), len(self.means)
        with torch.no_grad():
            v = self._logarithms(self.means.repeat(n, 1), z.repeat_interleave(count, 0))
            L = torch.linalg.cholesky(self.covariances).repeat(n, 1, 1)
            kernel = log_kernel(L, v).view(n, count).nan_to_num(-torch.inf)
            return self.weights.log() + kernel - self.log_normalizers

    def _logarithms(self, z0: Tensor, z1: Tensor) -> Tensor:
        ends = MovingEnds(self.metric, len(z0), z0, self.solver, self.initial, self.chunk_size)
        return ends.logarithms(torch.arange(len(z0), device=z0.device), z0, z1).vectors


def log_kernel(L: Float[Tensor, "b d d"], v: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """``-1/2 v^T Sigma^-1 v`` for Sigma = L L^T."""
    return -torch.linalg.solve_triangular(L, v[..., None], upper=False)[..., 0].square().sum(-1) / 2


def normalize(
    metric: Metric,
    means: Float[Tensor, "k d"],
    L: Float[Tensor, "k d d"],
    rule: Rule,
    ends: MovingEnds,
    pairs: Int[Tensor, "k s"],
) -> Normalization:
    """Normalizers by ``C = |det L| sum_s w_s exp(-1/2 |L^-1 log_mu(z_s)|^2) sqrt(det M(z_s))``, z_s = mu + L e_s."""
    count, (size, d) = len(means), rule.nodes.shape
    z = means[:, None] + rule.nodes @ L.mT
    flat = z.reshape(-1, d)
    v = ends.logarithms(pairs.flatten(), means.repeat_interleave(size, 0), flat).vectors
    log_f = log_kernel(L.repeat_interleave(size, 0), v) + log_measure(metric, flat)
    log_f, v = log_f.view(count, size), v.view(count, size, d)
    failed = log_f.isnan()
    log_f = log_f.nan_to_num(-torch.inf)
    largest = log_f.amax(1, keepdim=True)
    f = rule.weights * (log_f - largest).exp()
    total = f.sum(1)
    v = v.masked_fill(failed[..., None], 0.0)
    share = f / total[:, None]
    log_volume = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Normalization(
        log_volume + largest[:, 0] + total.log(),
        torch.einsum("ks,ksi->ki", share, v),
        torch.einsum("ks,ksi,ksj->kij", share, v, v),
        1 / share.square().sum(1),
        failed.sum(1),
    )


def make_rule(size: int, like: Float[Tensor, "k d"], generator: torch.Generator | None) -> Rule:
    """Student nodes from a scrambled Sobol sequence, in opposite pairs, with weights calibrated on the normal moments.

    The calibration ``w <- w (1 + sum_c l_c g_c(e_s))`` is the least change, in the chi-square sense, that integrates
    the controls ``g = N(e) {1, e_i, e_i e_j}`` exactly (control variates in the form of Deville and Särndal 1992).

    Raises:
        ValueError: when there are too few nodes for the controls.
    """
    d = like.shape[1]
    if size < 2 * (d + 1) * (d + 2):
        raise ValueError(f"num_nodes must be at least {2 * (d + 1) * (d + 2)} in {d} dimensions; got {size}")
    device = None if generator is None else generator.device
    seed = int(torch.randint(2**31, (1,), generator=generator, device=device))
    uniform = torch.quasirandom.SobolEngine(d + 1, scramble=True, seed=seed).draw(-(-size // 2), dtype=torch.float64)
    uniform = uniform.clamp(1e-9, 1 - 1e-9)
    normal = math.sqrt(2) * torch.erfinv(2 * uniform[:, :d] - 1)
    radius = torch.as_tensor(d * fisher_snedecor.ppf(uniform[:, d], d, _FREEDOM)).sqrt()
    half = radius[:, None] * normal / normal.norm(dim=1, keepdim=True)
    e = torch.cat([half, -half])[:size]
    weights = (-_log_student(e)).exp() / size
    i, j = torch.triu_indices(d, d)
    density = (-e.square().sum(1) / 2).exp() / (2 * math.pi) ** (d / 2)
    controls = density[:, None] * torch.cat([torch.ones_like(e[:, :1]), e, e[:, i] * e[:, j]], dim=1)
    integrals = torch.cat([torch.ones(1), torch.zeros(d), (i == j).double()]).to(e)
    missing = integrals - controls.T @ weights
    gram = controls.T @ (weights[:, None] * controls)
    weights = weights * (1 + controls @ torch.linalg.solve(gram, missing))
    return Rule(e.to(like), weights.to(like))


def _log_student(e: Float[Tensor, "s d"]) -> Float[Tensor, " s"]:
    """Log density of the multivariate Student distribution with `_FREEDOM` degrees of freedom."""
    d, nu = e.shape[1], _FREEDOM
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
    return constant - (nu + d) / 2 * (e.square().sum(1) / nu).log1p()


def _student_noise(n: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    normal = torch.randn(n, like.shape[1] + _FREEDOM, generator=generator, dtype=like.dtype, device=like.device)
    e, chi = normal.split([like.shape[1], _FREEDOM], dim=1)
    return e * (_FREEDOM / chi.square().sum(1, keepdim=True)).sqrt()
