"""The locally adaptive normal distribution (LAND) and its mixtures: normal distributions along geodesics.

Arvanitidis, Hansen and Hauberg 2016, "A Locally Adaptive Normal Distribution" (NeurIPS). A component has the density

    p(z) = exp(-1/2 <v, Sigma^-1 v>) / C        v = log_mu(z), with respect to the Riemannian volume sqrt(det M) dz

where ``C = int exp(-1/2 <v, Sigma^-1 v>) sqrt(det M(z)) dz``. Over tangent vectors the integrand would be
``exp(-1/2 <v, Sigma^-1 v>) sqrt(det M(exp_mu v)) |det d exp_mu(v)|``, and only v within the cut locus may count:
without the last factor, or with longer v, C is that of another density. So the integral is taken over latent points,
with the same logarithms that give the density: what is evaluated integrates to one, and no geodesic is shot over walls.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_finite,
    check_fits,
    check_floating,
    check_metric,
    check_points,
    check_random,
    check_shape,
    check_solving,
)
from geodesics.connecting.geodesic import Solver
from geodesics.connecting.moving_ends import MovingEnds
from geodesics.curves.initial import InitialCurves
from geodesics.graphs.graph_paths import GraphPaths
from geodesics.graphs.tree_logarithms import GraphTrees
from geodesics.land.draws import Draws
from geodesics.land.nodes import log_kernel, normalize
from geodesics.metrics.metric import Metric
from geodesics.metrics.pointwise import log_measure

# Candidates per component of the first phase when nodes are drawn from a graph.
_CANDIDATES = 4096


@dataclass(frozen=True, eq=False)
class Land:
    """A mixture of K locally adaptive normal distributions; made by `fit_land` or `Land.from_parameters`.

    Attributes:
        metric: the Riemannian metric.
        weights: of the components, with sum 1, ``(K,)``.
        means: mu, latent units, ``(K, d)``.
        covariances: Sigma of the tangent vectors at mu, latent units squared, ``(K, d, d)``.
        log_normalizers: log C, with respect to the Riemannian volume, ``(K,)``.
        errors: standard errors of log C from the nodes, ``(K,)``.
        effective_nodes: ``(sum f)^2 / sum f^2`` over the nodes' contributions f to C, ``(K,)``.
        failed_nodes: nodes without a geodesic, which count as zero in C, ``(K,)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: as in `geodesic`.
    """

    metric: Metric
    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]
    log_normalizers: Float[Tensor, " k"]
    errors: Float[Tensor, " k"]
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
        """The mixture with given parameters, normalized.

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
        check_metric(metric)
        check_points("means", means, "K")
        check_count("num_nodes", num_nodes, 2)
        count, d = means.shape
        weights = means.new_ones(count) if weights is None else weights
        check_shape("covariances", covariances, "(K, d, d)", (count, d, d))
        check_shape("weights", weights, "(K,)", (count,))
        for name, given in (("covariances", covariances), ("weights", weights)):
            check_floating(name, given)
            if given.dtype != means.dtype or given.device != means.device:
                own = f"{means.dtype} on {means.device}"
                raise ValueError(f"{name} must be {own} as the means; got {given.dtype} on {given.device}")
        check_solving(solver, initial, chunk_size)
        check_random(generator, means.device)
        check_finite("means", means)
        check_fits(metric, means)
        L, info = torch.linalg.cholesky_ex(covariances)
        if bool((info != 0).any() | ~covariances.isfinite().all() | ~_symmetric(covariances)):
            raise ValueError("covariances must be symmetric, positive definite and finite")
        if not bool((weights.isfinite() & (weights > 0)).all()):
            raise ValueError("weights must be positive and finite")
        trees = _trees(initial)
        with torch.no_grad():
            nodes = Draws(metric, trees, _CANDIDATES, generator).nodes(means, L, num_nodes)
            base = means.repeat_interleave(num_nodes, 0)
            ends = MovingEnds(metric, len(base), means, solver, trees or initial, chunk_size)
            found = ends.logarithms(torch.arange(len(base), device=base.device), base, nodes.points.flatten(0, 1))
            normalized = normalize(nodes, found.vectors.view(nodes.points.shape), L)
        return cls(
            metric,
            weights / weights.sum(),
            means,
            covariances,
            normalized.log_normalizers,
            normalized.errors,
            normalized.effective_nodes,
            normalized.failed_nodes,
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

    def sample(self, n: int, *, num_steps: int = 10, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Draw n points.

        Every point is the end of its own Markov chain (independence sampler, Tierney 1994), whose candidates are nodes
        as those of the normalizing integral, accepted by the ratio of their contributions to it. The distance to the
        distribution falls like ``(1 - 1/B)^num_steps``, with B the largest ratio of density to proposal: 1.24 in a
        flat plane without a graph; near 1 where the trees of a graph come near to the geodesics.

        Args:
            n: number of points.
            num_steps: candidates per point; each costs a geodesic.
            generator: of the randomness, on the means' device; None for torch's own.

        Returns:
            ``(n, d)``; NaN where every candidate of a point failed.

        Raises:
            ValueError: when n < 0 or num_steps < 1.
        """
        check_count("n", n, 0)
        check_count("num_steps", num_steps)
        check_random(generator, self.means.device)
        like = self.means
        component = torch.multinomial(self.weights, max(n, 1), replacement=True, generator=generator)[:n]
        L, d = torch.linalg.cholesky(self.covariances), like.shape[1]
        with torch.no_grad():
            size = max(n * num_steps, 2 * (d + 1) * (d + 2))
            nodes = Draws(self.metric, _trees(self.initial), _CANDIDATES, generator).nodes(like, L, size)
            order = torch.rand(size, generator=generator, dtype=like.dtype, device=like.device).argsort()
            order = order[: n * num_steps].view(n, num_steps)
            own = component[:, None]
            points = nodes.points[own, order]
            base = like[component].repeat_interleave(num_steps, 0)
            v = self._logarithms(base, points.flatten(0, 1)).view(points.shape)
            ratios = (log_kernel(L[component], v) + nodes.log_weights[own, order]).nan_to_num(-torch.inf)
            state, log_ratio = points[:, 0], ratios[:, 0]
            for step in range(1, num_steps):
                u = torch.rand(n, generator=generator, dtype=like.dtype, device=like.device)
                accepted = u.log() < ratios[:, step] - log_ratio
                state = torch.where(accepted[:, None], points[:, step], state)
                log_ratio = torch.where(accepted, ratios[:, step], log_ratio)
        return state.masked_fill(log_ratio.isinf()[:, None], torch.nan)

    def _joint(self, z: Tensor) -> Tensor:
        """``log weights_k p_k(z)`` against the Riemannian volume, ``(n, K)``; -inf where the geodesic failed."""
        check_points("z", z)
        like = self.means
        if z.shape[1] != like.shape[1] or z.dtype != like.dtype or z.device != like.device:
            own, got = (f"(n, {t.shape[1]}), {t.dtype} on {t.device}" for t in (like, z))
            raise ValueError(f"z must be {own} as the means; got {got}")
        n, count = len(z), len(self.means)
        with torch.no_grad():
            v = self._logarithms(self.means.repeat_interleave(n, 0), z.repeat(count, 1)).view(count, *z.shape)
            kernel = log_kernel(torch.linalg.cholesky(self.covariances), v).nan_to_num(-torch.inf).T
            return self.weights.log() + kernel - self.log_normalizers

    def _logarithms(self, z0: Tensor, z1: Tensor) -> Tensor:
        ends = MovingEnds(self.metric, len(z0), z0, self.solver, _trees(self.initial) or self.initial, self.chunk_size)
        return ends.logarithms(torch.arange(len(z0), device=z0.device), z0, z1).vectors


def _trees(initial: InitialCurves | None) -> GraphTrees | None:
    """Shortest-path trees where the initial curves come from a graph: few base points, many ends."""
    return GraphTrees(initial.graph) if isinstance(initial, GraphPaths) else None


def _symmetric(covariances: Tensor) -> Tensor:
    skew = (covariances - covariances.mT).abs().amax((1, 2))
    return (skew <= torch.finfo(skew.dtype).eps ** 0.5 * covariances.abs().amax((1, 2))).all()
