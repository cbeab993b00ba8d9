"""Maximum likelihood for mixtures of locally adaptive normal distributions, by expectation maximization."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodesics.batches.arguments import (
    check_count,
    check_count_of,
    check_counts,
    check_fits,
    check_is,
    check_metric,
    check_not_negative,
    check_points,
    check_random,
    check_sizes,
    check_solving,
)
from geodesics.connecting.geodesic import Solver
from geodesics.curves.initial import InitialCurves
from geodesics.graphs.graph_paths import GraphPaths
from geodesics.graphs.tree_logarithms import GraphTrees
from geodesics.land.climb import Climb, Climber, Parameters, State, is_kept, mean_log_likelihood, seen
from geodesics.land.density import Land
from geodesics.land.draws import Draws, draw_candidates
from geodesics.land.labels import euclidean_labels, members
from geodesics.land.logarithms import GeodesicLogarithms, TreeLogarithms
from geodesics.land.nodes import normalize
from geodesics.metrics.metric import Metric
from geodesics.metrics.pointwise import log_measure
from geodesics.statistics.means import central_points

# Rounds of candidates on the graph, each drawn for what the last has found; in the first the labels may hold.
_TREE_ROUNDS, _HELD_ROUNDS = 8, 3
_TREE_MOVES = 100
# The first moves of means along the axes of their covariances, in standard deviations: after trees little is to do.
_FAR, _NEAR = 0.5, 0.125
# A pair whose responsibility is lower by the trees costs no geodesic: they are right to some percent of a length.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class LandOptions:
    """Options of `fit_land`.

    Args:
        num_nodes: nodes of the normalizing integral per component; each costs a geodesic per step of the mean.
        num_candidates: points on the graph from which those are drawn, per component; they cost no geodesic.
        max_iter: moves of the means tried along geodesics, for each drawing of nodes.
        max_rounds: drawings of nodes at most, beside the last, which only measures.
        tol: the fit ends when no move of a mean gains more, in mean log-likelihood per point (nats).
        regularization: added to the covariances' diagonal, relative to the data's mean variance per coordinate.
        flatness: weight of the normal distribution of the tangent space in the covariances, see `fit_covariances`: it
            keeps a covariance below ``1 + 1 / flatness`` times the second moments of its data, where the likelihood
            alone would let it grow without end; in flat space it changes nothing.

    Raises:
        ValueError: on options outside their range.
    """

    num_nodes: int = 256
    num_candidates: int = 4096
    max_iter: int = 100
    max_rounds: int = 4
    tol: float = 1e-4
    regularization: float = 1e-6
    flatness: float = 0.05

    def __post_init__(self) -> None:
        check_count("num_nodes", self.num_nodes, 2)
        check_counts(self, "num_candidates", "max_iter", "max_rounds")
        check_sizes(self, "tol")
        check_not_negative("regularization", self.regularization)
        check_not_negative("flatness", self.flatness)


class LandFit(NamedTuple):
    """What `fit_land` answers.

    Attributes:
        land: the mixture, with normalizers from nodes that the fit has not seen.
        log_likelihood: mean of `Land.log_prob` over the points that have a geodesic to some mean, ``()``.
        responsibilities: of the components for the points, ``(n, K)``; NaN for points without any geodesic.
        iterations: moves of the means tried, along geodesics.
        converged: whether no move of a mean gains the tolerance, neither along the gradient nor along an axis of its
            covariance, down to 1/32 of a standard deviation; the nodes carried the integrals to the end; and no
            component has lost all its weight.
        geodesics: connecting geodesics solved.
    """

    land: Land
    log_likelihood: Float[Tensor, ""]
    responsibilities: Float[Tensor, "n k"]
    iterations: int
    converged: bool
    geodesics: int


def fit_land(
    metric: Metric,
    z: Tensor,
    num_components: int = 1,
    *,
    options: LandOptions | None = None,
    labels: Tensor | None = None,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
    generator: torch.Generator | None = None,
) -> LandFit:
    """Fit a mixture of K locally adaptive normal distributions to points.

    Expectation maximization (Arvanitidis, Hansen and Hauberg 2016, section 3). While the means rest, weights and
    covariances need no geodesic: given responsibilities r the covariances are a concave problem, solved exactly
    (`fit_covariances`). A mean moves along the geodesic of ``mean_r(v) - E_p[v]``, v = log_mu(z): the paper's steepest
    direction, and in flat space the whole M-step. Each component halves its own step until its own expected
    log-likelihood, maximized over the covariance, grows. The nodes of the normalizing integrals are fixed for a round,
    so that all this compares like with like, and drawn anew where the components have got to.

    It begins with the labels as responsibilities and the second moments of the logarithms as covariances. With
    `GraphPaths` as ``initial`` the means begin at medoids by graph distances, and the fit is first made by trees of
    shortest paths, whose logarithms cost next to nothing; geodesics, which start from those paths, only finish it.

    A point whose geodesic to a mean fails has no responsibility there; a point without any geodesic is left out.

    Args:
        metric: the Riemannian metric.
        z: points ``(n, d)``.
        num_components: K.
        options: see `LandOptions`; None for the defaults.
        labels: component of each point at the start, ``(n,)``, from 0 to K - 1, -1 for none, as of
            `riemannian_k_means`; None for scikit-learn's Euclidean k-means.
        solver: as in `geodesic`.
        initial: as in `geodesic`, for pairs that start afresh; on a learned metric `GraphPaths`.
        chunk_size: as in `geodesic`.
        generator: of the nodes and of the Euclidean k-means; None for torch's own.

    Returns:
        The mixture, with its likelihood and responsibilities.

    Raises:
        ValueError: when shapes do not fit, fewer finite points than components are given, or a component has no label.
        TypeError: when z is not a floating-point tensor.
    """
    check_metric(metric)
    check_points("z", z, least=2)
    options = LandOptions() if options is None else options
    check_is("options", options, LandOptions, "such as LandOptions()")
    check_solving(solver, initial, chunk_size)
    check_random(generator, z.device)
    check_fits(metric, z)
    finite = z.isfinite().all(1)
    check_count_of("num_components", num_components, int(finite.sum()), "finite points")
    labels = euclidean_labels(z, finite, num_components, generator) if labels is None else labels
    member = members(labels, finite, num_components)
    trees = GraphTrees(initial.graph) if isinstance(initial, GraphPaths) else None
    draws = Draws(metric, trees, options.num_candidates, generator)
    with torch.no_grad():
        log_volume = log_measure(metric, z)
        floor = options.regularization * z[finite].var(0, correction=0).mean() * torch.eye(z.shape[1]).to(z)
        climber = Climber(metric, log_volume, floor, options.tol, options.flatness)
        r = member.to(z)
        parameters, wanted = _start(z, r, floor, initial), torch.ones_like(member)
        if trees is not None:
            parameters, r = _by_trees(climber, parameters, r, trees, draws, z)
            wanted = r > _NEGLIGIBLE
        source = GeodesicLogarithms(metric, z, wanted, solver, trees or initial, chunk_size)
        climb = _by_geodesics(climber, parameters, r, source, draws, options)
        land = _answer(climb.state, metric, solver, initial, chunk_size)
    joint = climb.state.joint()
    value, r = mean_log_likelihood(joint, log_volume), torch.softmax(joint, dim=0).T
    _warn_of_lost(wanted, climb.state, land)
    # A component that has lost its weight or its nodes is at rest, but nowhere.
    alive = bool(((land.weights > 0) & land.errors.isfinite()).all())
    return LandFit(land, value, r, climb.iterations, climb.converged and alive, source.solved)


def _warn_of_lost(wanted: Bool[Tensor, "k n"], state: State, land: Land) -> None:
    lost = int((wanted & state.data_logarithms.isnan().any(2)).sum() + land.failed_nodes.sum())
    if lost:
        total = int(wanted.sum()) + state.node_logarithms[..., 0].numel()
        warnings.warn(
            f"{lost} of {total} geodesics from the means failed or are not resolved; they do not count", stacklevel=3
        )


def _answer(
    state: State, metric: Metric, solver: Solver | None, initial: InitialCurves | None, chunk_size: int | None
) -> Land:
    found = normalize(state.nodes, state.node_logarithms, torch.linalg.cholesky_ex(state.parameters.covariances).L)
    return Land(
        metric,
        *state.parameters,
        found.log_normalizers,
        found.errors,
        found.effective_nodes,
        found.failed_nodes,
        solver,
        initial,
        chunk_size,
    )


def _start(z: Tensor, member: Float[Tensor, "k n"], floor: Tensor, initial: InitialCurves | None) -> Parameters:
    """Around a central point of every label, on the graph where there is one, as wide as the Euclidean differences."""
    means = central_points(z, member)
    if isinstance(initial, GraphPaths):
        own = [z[row > 0] for row in member]
        means = torch.stack([x[initial.distances(x).square().sum(1).argmin()] for x in own])
    share = member / member.sum(1, keepdim=True)
    v = z.nan_to_num(0.0, 0.0, 0.0) - means[:, None]
    covariances = torch.einsum("kn,kni,knj->kij", share, v, v) + floor
    # A label of one point has no spread of its own: it begins with that of all data, divided among the labels.
    spread = z[z.isfinite().all(1)].var(0, correction=0) / len(means) ** 2
    single = torch.linalg.cholesky_ex(covariances).info != 0
    covariances = torch.where(single[:, None, None], torch.diag(spread) + floor, covariances)
    return Parameters(member.sum(1) / member.sum(), means, covariances)


def _by_trees(
    climber: Climber,
    parameters: Parameters,
    r: Float[Tensor, "k n"],
    trees: GraphTrees,
    draws: Draws,
    z: Float[Tensor, "n d"],
) -> tuple[Parameters, Float[Tensor, "k n"]]:
    """The fit by approximate logarithms, which cost next to nothing, and its responsibilities.

    The labels hold until the candidates lie where the components have their mass. A component that is a little too wide
    for the metric holds walls, whose volume is larger by decades, and would lose its points to the others for good.
    """
    parameters = climber.spread(parameters, TreeLogarithms(trees, z, trees.graph.join(z)), r)
    held = True
    for turn in range(_TREE_ROUNDS):
        forest, L = trees.grow(parameters.means), torch.linalg.cholesky_ex(parameters.covariances).L
        joined, nodes = draw_candidates(trees, forest, L, draws.num_candidates, draws.generator)
        source = TreeLogarithms(trees, z, joined)
        state = seen(parameters, nodes, source)
        before = normalize(nodes, state.node_logarithms, L).effective_nodes
        if held:
            state = climber.fitted(state, r)
            held = turn < _HELD_ROUNDS and not is_kept(before, state)
            parameters = state.parameters
            continue
        climb = climber.climb(state, source, _TREE_MOVES, _FAR, r)
        parameters, r = climb.state.parameters, climb.responsibilities
        if is_kept(before, climb.state):
            break
    return parameters, r


def _by_geodesics(
    climber: Climber,
    parameters: Parameters,
    r: Float[Tensor, "k n"],
    source: GeodesicLogarithms,
    draws: Draws,
    options: LandOptions,
) -> Climb:
    """The fit along geodesics, and fresh nodes for what is found at last.

    Means move, each time for a geodesic per point, only once the nodes carry the covariances at rest.
    """
    if draws.trees is None:
        parameters = climber.spread(parameters, source, r)
    largest = _FAR if draws.trees is None else _NEAR
    iterations, converged, data = 0, False, None
    for turn in range(1, options.max_rounds + 1):
        L = torch.linalg.cholesky_ex(parameters.covariances).L
        state = seen(parameters, draws.nodes(parameters.means, L, options.num_nodes), source, data)
        before = normalize(state.nodes, state.node_logarithms, L).effective_nodes
        state, r = climber.settle(state, r)
        if turn == options.max_rounds or is_kept(before, state):
            climb = climber.climb(state, source, options.max_iter, largest, r)
            state, r, iterations = climb.state, climb.responsibilities, iterations + climb.iterations
            converged = climb.converged and is_kept(before, state)
        parameters, data = state.parameters, state.data_logarithms
        if converged:
            break
    L = torch.linalg.cholesky_ex(parameters.covariances).L
    state = seen(parameters, draws.nodes(parameters.means, L, options.num_nodes), source, data)
    return Climb(state, r, iterations, converged)
