"""Where the nodes of LAND's normalizing integrals are drawn: a Student distribution, or what a graph knows."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import f as fisher_snedecor
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from geodesics.graphs.latent_graph import Joined
from geodesics.graphs.tree_logarithms import Forest, GraphTrees
from geodesics.land.nodes import Nodes, log_kernel
from geodesics.metrics.metric import Metric
from geodesics.metrics.pointwise import log_measure

# Degrees of freedom of the Student distributions: tails that no normal distribution outgrows.
_FREEDOM = 4
# Shares of candidates that do not trust the graph: around each mean, and everywhere, wider than it by a factor.
_LOCAL, _FAR, _WIDER = 0.2, 0.1, 2.0
# The ball around a graph node reaches to this neighbor of it, and at most to some times the median of that.
_NEIGHBOR, _LARGEST = 6, 4.0


class Draws(NamedTuple):
    """How nodes are drawn.

    Attributes:
        metric: the Riemannian metric.
        trees: of the graph; None where there is none.
        num_candidates: of the first phase, per component.
        generator: of the randomness.
    """

    metric: Metric
    trees: GraphTrees | None
    num_candidates: int
    generator: torch.Generator | None

    def nodes(self, means: Float[Tensor, "k d"], L: Float[Tensor, "k d d"], size: int) -> Nodes:
        """Nodes of components with covariances ``L L^T``."""
        if self.trees is None:
            return student_nodes(self.metric, means, L, size, self.generator)
        forest = self.trees.grow(means)
        count = max(self.num_candidates, 4 * size)
        joined, candidates = draw_candidates(self.trees, forest, L, count, self.generator)
        base = torch.arange(len(means), device=means.device).repeat_interleave(count)
        v = self.trees.logarithms(forest, joined, base).view(candidates.points.shape)
        return draw_nodes(candidates, v, L, size, self.generator)[0]


def student_nodes(
    metric: Metric,
    means: Float[Tensor, "k d"],
    L: Float[Tensor, "k d d"],
    size: int,
    generator: torch.Generator | None,
) -> Nodes:
    """Nodes ``mu + L e``, e of a Student distribution from a scrambled Sobol sequence, in opposite pairs.

    The weights are calibrated on the normal moments: ``w <- w (1 + sum_c l_c g_c(e_s))`` is the least change, in the
    chi-square sense, that integrates the controls ``g = N(e) {1, e_i, e_i e_j}`` exactly (Deville and Särndal 1992). In
    flat space C and the moments of a component have no error at all.

    Raises:
        ValueError: when there are too few nodes for the controls.
    """
    e, weights, controls = student_rule(size, means, generator)
    points = means[:, None] + e @ L.mT
    volume = log_measure(metric, points.flatten(0, 1)).view(len(means), size)
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_weights = (weights.log() + log_det[:, None] + volume).nan_to_num(-torch.inf, torch.inf, -torch.inf)
    relative = (weights[:, None] * controls).expand(len(means), -1, -1)
    return Nodes(points, log_weights, relative, L, torch.zeros_like(means[:, 0]))


def student_rule(
    size: int, like: Float[Tensor, "k d"], generator: torch.Generator | None
) -> tuple[Float[Tensor, "s d"], Float[Tensor, " s"], Float[Tensor, "s c"]]:
    """Points, weights and controls of ``int f(e) de = sum_s w_s f(e_s)``, exact for normal moments up to the second."""
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
    weights = (-log_student(e)).exp() / size
    controls = (-e.square().sum(1) / 2).exp()[:, None] / (2 * math.pi) ** (d / 2) * _polynomials(e)
    i, j = torch.triu_indices(d, d)
    integrals = torch.cat([torch.ones(1), torch.zeros(d), (i == j).double()]).to(e)
    weights = weights * calibration(weights[None], controls[None], integrals[None])[0]
    return e.to(like), weights.to(like), controls.to(like)


def draw_candidates(
    trees: GraphTrees, forest: Forest, L: Float[Tensor, "k d d"], size: int, generator: torch.Generator | None
) -> tuple[Joined, Nodes]:
    """Points near the graph nodes where components have their mass, and some far from all.

    A node is chosen in proportion to the volume there and to the normal density of its tree's logarithm, the point
    uniformly in the ball around it. Some are drawn from Student distributions, around the means, for components that
    are small among the nodes, and wide, so that no region is left out. The weights are one over the density of this
    mixture: nothing is biased by what the trees get wrong.
    """
    graph, (count, d) = trees.graph, forest.roots.points.shape
    nodes = graph.nodes
    size_local, size_far = max(1, round(_LOCAL * size)), max(1, round(_FAR * size))
    size_near = size - size_local - size_far
    v = trees.node_logarithms(forest)
    log_p = log_kernel(L, v) + _log_volume(graph.tensors)
    log_p = log_p.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    index = NearestNeighbors(n_neighbors=min(_NEIGHBOR, len(nodes) - 1)).fit(nodes.cpu().numpy())
    radius = torch.as_tensor(index.kneighbors()[0][:, -1]).to(nodes)
    radius = radius.clamp(max=_LARGEST * radius.median())
    log_ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1) + d * radius.log()
    p = torch.softmax(log_p + log_ball, dim=1)
    p = torch.where(p.isfinite(), p, 1 / len(nodes))
    chosen = systematic(p, size_near, generator)
    near = nodes[chosen] + radius[chosen][..., None] * _in_ball(chosen.shape, nodes, generator)
    means = forest.roots.points[:, None]
    local = means + student_noise(count * size_local, nodes, generator).view(count, size_local, d) @ L.mT
    center, factor = nodes.mean(0), _WIDER * torch.linalg.cholesky(torch.cov(nodes.T).view(d, d))
    far = center + student_noise(count * size_far, nodes, generator).view(count, size_far, d) @ factor.mT
    z = torch.cat([near, local, far], dim=1)
    joined = trees.graph.join(z.flatten(0, 1))
    density = (
        size_near * _ball_sums(index, radius, p / log_ball.exp(), z)
        + size_local * _student_density(z - means, L)
        + size_far * _student_density(z - center, factor.expand_as(L))
    )
    log_weights = _log_volume(joined.tensors).view(count, size) - density.log()
    log_weights = log_weights.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    empty = z.new_zeros(count, size, 0)
    return joined, Nodes(z, log_weights, empty, L, torch.zeros_like(z[:, 0, 0]))


def draw_nodes(
    candidates: Nodes,
    v: Float[Tensor, "k c d"],
    L: Float[Tensor, "k d d"],
    size: int,
    generator: torch.Generator | None,
) -> tuple[Nodes, Int[Tensor, "k s"]]:
    """The second phase: few of the candidates, in proportion to their contributions, and which they are.

    Calibrated to the candidates' totals of ``{1, v_i, v_i v_j}``, v their approximate logarithms.
    """
    kernel = log_kernel(L, v).nan_to_num(-torch.inf)
    log_a = candidates.log_weights + kernel
    log_total = log_a.logsumexp(1, keepdim=True)
    share = (log_a - log_total).exp()
    # In the order of their distance, so that every distance gets its due.
    order = kernel.argsort(dim=1)
    chosen = order.gather(1, systematic(share.gather(1, order), size, generator))
    y = torch.linalg.solve_triangular(L, v.nan_to_num(0.0).mT, upper=False).mT
    g = _polynomials(y)
    totals = torch.einsum("ks,ksc->kc", share, g)
    own = g.gather(1, chosen[..., None].expand(-1, -1, g.shape[-1]))
    base = torch.full_like(share[:, :1], 1 / size).expand(-1, size)
    change = calibration(base, own, totals)
    log_base = log_total - math.log(size) - kernel.gather(1, chosen)
    points = candidates.points.gather(1, chosen[..., None].expand(-1, -1, v.shape[-1]))
    spread = (share.square().sum(1) - 1 / share.shape[1]).clamp(min=0).sqrt()
    return Nodes(points, log_base + change.log(), own, L, spread), chosen


def calibration(
    weights: Float[Tensor, "k s"], controls: Float[Tensor, "k s c"], totals: Float[Tensor, "k c"]
) -> Float[Tensor, "k s"]:
    """The factors ``1 + sum_c l_c g_c`` that make the weighted sums of the controls the totals; 1 where one is not
    positive."""
    missing = totals - torch.einsum("ks,ksc->kc", weights, controls)
    gram = torch.einsum("ks,ksc,kse->kce", weights, controls, controls)
    solution, info = torch.linalg.solve_ex(gram, missing)
    change = 1 + torch.einsum("ksc,kc->ks", controls, solution)
    usable = (info == 0) & (change > 0).all(1)
    return torch.where(usable[:, None], change, 1.0)


def systematic(p: Float[Tensor, "k n"], size: int, generator: torch.Generator | None) -> Int[Tensor, "k s"]:
    """Indices drawn in proportion to p, evenly spread: each comes up ``size p_i`` times, rounded up or down."""
    cumulative = p.cumsum(1)
    u = torch.rand(len(p), 1, generator=generator, dtype=p.dtype, device=p.device)
    levels = (torch.arange(size, dtype=p.dtype, device=p.device) + u) / size * cumulative[:, -1:]
    return torch.searchsorted(cumulative, levels).clamp(max=p.shape[1] - 1)


def log_student(e: Float[Tensor, "*s d"]) -> Float[Tensor, "*s"]:
    """Log density of the multivariate Student distribution with `_FREEDOM` degrees of freedom."""
    d, nu = e.shape[-1], _FREEDOM
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - d / 2 * math.log(nu * math.pi)
    return constant - (nu + d) / 2 * (e.square().sum(-1) / nu).log1p()


def _student_density(step: Float[Tensor, "k n d"], L: Float[Tensor, "k d d"]) -> Float[Tensor, "k n"]:
    e = torch.linalg.solve_triangular(L, step.mT, upper=False).mT
    return log_student(e).exp() / L.diagonal(dim1=-2, dim2=-1).prod(-1)[:, None]


def student_noise(n: int, like: Tensor, generator: torch.Generator | None) -> Float[Tensor, "n d"]:
    """Draws of that distribution."""
    normal = torch.randn(n, like.shape[1] + _FREEDOM, generator=generator, dtype=like.dtype, device=like.device)
    e, chi = normal.split([like.shape[1], _FREEDOM], dim=1)
    return e * (_FREEDOM / chi.square().sum(1, keepdim=True)).sqrt()


def _polynomials(e: Float[Tensor, "*s d"]) -> Float[Tensor, "*s c"]:
    i, j = torch.triu_indices(e.shape[-1], e.shape[-1], device=e.device)
    return torch.cat([torch.ones_like(e[..., :1]), e, e[..., i] * e[..., j]], dim=-1)


def _log_volume(M: Float[Tensor, "*b d d"]) -> Float[Tensor, "*b"]:
    L, info = torch.linalg.cholesky_ex(M)
    return torch.where(info == 0, L.diagonal(dim1=-2, dim2=-1).log().sum(-1), torch.nan)


def _in_ball(shape: torch.Size, like: Float[Tensor, "m d"], generator: torch.Generator | None) -> Tensor:
    """Points uniformly in the unit ball."""
    d = like.shape[1]
    normal = torch.randn(*shape, d, generator=generator, dtype=like.dtype, device=like.device)
    uniform = torch.rand(*shape, 1, generator=generator, dtype=like.dtype, device=like.device)
    return normal / normal.norm(dim=-1, keepdim=True) * uniform ** (1 / d)


def _ball_sums(
    index: NearestNeighbors, radius: Float[Tensor, " m"], p: Float[Tensor, "k m"], z: Float[Tensor, "k n d"]
) -> Float[Tensor, "k n"]:
    """Sum of p over the graph nodes whose balls hold each point."""
    sums = np.zeros(z.shape[:2])
    own_radius, pairs = radius.cpu().numpy(), zip(p.cpu().numpy(), z.cpu().numpy(), strict=True)
    for k, (chances, points) in enumerate(pairs):
        distances, found = index.radius_neighbors(points, own_radius.max())
        own = np.repeat(np.arange(len(points)), [len(nodes) for nodes in found])
        node = np.concatenate(found).astype(np.int64)
        inside = np.concatenate(distances) <= own_radius[node]
        np.add.at(sums[k], own[inside], chances[node[inside]])
    return torch.as_tensor(sums).to(z)
