"""Maximum likelihood for mixtures of locally adaptive normal distributions, by expectation maximisation."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans as EuclideanKMeans
from torch import Tensor

from geodesics.forms import log_measure
from geodesics.initial import InitialCurves
from geodesics.land import Land, Normalization, Rule, log_kernel, make_rule, normalize
from geodesics.means import central_points, one_step
from geodesics.metrics import Metric
from geodesics.moving_ends import MovingEnds, check_points
from geodesics.solve import Solver

_SHORTEST_STEP = 1 / 64


@dataclass(frozen=True)
class LandOptions:
    """Options of `fit_land`.

    Args:
        num_nodes: nodes of the normalizing integral per component; each costs a geodesic per step.
        max_iter: steps tried.
        tol: the fit ends with a step that gains less, in mean log-likelihood per point (nats).
        regularization: added to the covariances' diagonal, relative to the data's mean variance per coordinate.

    Raises:
        ValueError: on options outside their range.
    """

    num_nodes: int = 512
    max_iter: int = 50
    tol: float = 1e-4
    regularization: float = 1e-6

    def __post_init__(self) -> None:
        if self.num_nodes < 2 or self.max_iter < 1:
            raise ValueError(f"num_nodes must be at least 2, max_iter 1; got {self.num_nodes} and {self.max_iter}")
        if self.tol <= 0 or self.regularization < 0:
            raise ValueError(
                f"tol must be positive, regularization not negative; got {self.tol} and {self.regularization}"
            )


class LandFit(NamedTuple):
    """What `fit_land` answers.

    Attributes:
        land: the mixture.
        log_likelihood: mean of `Land.log_prob` over the points that have a geodesic to some mean, ``()``.
        responsibilities: of the components for the points, ``(n, K)``; NaN for points without any geodesic.
        iterations: steps tried.
        converged: whether the last step gained less than the tolerance.
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

    Expectation maximisation (Arvanitidis, Hansen and Hauberg 2016, section 3). With responsibilities r the expected
    log-likelihood of a component is stationary where its own moments are those of the data,
    ``E_p[v] = mean_r(v)`` and ``E_p[v v^T] = mean_r(v v^T)``, v = log_mu(z): in Sigma exactly, in mu to first order in
    the curvature (the paper's steepest descent direction). So mu moves along the geodesic of the difference of the
    first moments, and Sigma is scaled, ``Sigma <- B Sigma B^T``, until the second agree; in flat space that is the
    M-step of a Gaussian mixture. A step that lowers the likelihood is halved. All components share the nodes of their
    normalizing integrals, drawn once, so that likelihoods can be compared.

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
    check_points("z", z)
    options = LandOptions() if options is None else options
    finite = z.isfinite().all(1)
    if not 1 <= num_components <= (most := int(finite.sum())):
        raise ValueError(f"num_components must be from 1 to the {most} finite points; got {num_components}")
    labels = _euclidean_labels(z, finite, num_components, generator) if labels is None else labels
    if labels.shape != z.shape[:1]:
        raise ValueError(f"labels must be (n,) = {tuple(z.shape[:1])}; got {tuple(labels.shape)}")
    member = (labels == torch.arange(num_components, device=z.device)[:, None]) & finite
    if not bool(member.any(1).all()):
        raise ValueError(f"labels must name every component from 0 to {num_components - 1}")
    with torch.no_grad():
        problem = _Problem(metric, z, options, num_components, solver, initial, chunk_size, generator)
        return problem.fit(member.to(z))


class _Parameters(NamedTuple):
    weights: Tensor
    means: Tensor
    covariances: Tensor


class _Look(NamedTuple):
    """The data and the components seen from one set of parameters."""

    logarithms: Tensor
    normalization: Normalization
    joint: Tensor
    log_likelihood: Tensor


class _Problem:
    """The data of a fit, and the geodesics found so far."""

    def __init__(
        self,
        metric: Metric,
        z: Tensor,
        options: LandOptions,
        count: int,
        solver: Solver | None,
        initial: InitialCurves | None,
        chunk_size: int | None,
        generator: torch.Generator | None,
    ) -> None:
        self.metric, self.z, self.options = metric, z, options
        self.solver, self.initial, self.chunk_size = solver, initial, chunk_size
        self.rule: Rule = make_rule(options.num_nodes, z, generator)
        n, size = len(z), options.num_nodes
        self.ends = MovingEnds(metric, count * (n + size), z, solver, initial, chunk_size)
        pairs: Int[Tensor, "k m"] = torch.arange(count * (n + size), device=z.device).view(count, n + size)
        self.data_pairs, self.node_pairs = pairs[:, :n], pairs[:, n:]
        finite = z[z.isfinite().all(1)]
        variance = finite.var(0, correction=0).mean()
        self.floor = options.regularization * variance * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)

    def fit(self, member: Float[Tensor, "k n"]) -> LandFit:
        parameters = self.start(member)
        look = self.look(parameters)
        step, converged, iterations = 1.0, False, 0
        while iterations < self.options.max_iter and step >= _SHORTEST_STEP and not converged:
            iterations += 1
            trial = self.improved(parameters, look, step)
            seen = self.look(trial)
            gain = seen.log_likelihood - look.log_likelihood
            if bool(gain >= 0):
                parameters, look, step = trial, seen, 1.0
                converged = bool(gain < self.options.tol)
            else:
                # Also where the likelihood is NaN: a mean has left the domain of the metric.
                step /= 2
                converged = step < _SHORTEST_STEP and bool(gain.abs() < self.options.tol)
        return self.answer(parameters, look, iterations, converged)

    def start(self, member: Tensor) -> _Parameters:
        """Around a central point of every label, with the covariance of the Euclidean differences."""
        means = central_points(self.z, member)
        share = member / member.sum(1, keepdim=True)
        v = self.z.nan_to_num(0.0, 0.0, 0.0) - means[:, None]
        covariances = torch.einsum("kn,kni,knj->kij", share, v, v) + self.floor
        # A label of one point has no spread of its own: it begins with that of all data, divided among the labels.
        spread = self.z[self.z.isfinite().all(1)].var(0, correction=0) / len(means) ** 2
        single = torch.linalg.cholesky_ex(covariances).info != 0
        covariances = torch.where(single[:, None, None], torch.diag(spread) + self.floor, covariances)
        return _Parameters(member.sum(1) / member.sum(), means, covariances)

    def look(self, parameters: _Parameters) -> _Look:
        weights, means, covariances = parameters
        count, n = len(means), len(self.z)
        L = torch.linalg.cholesky_ex(covariances).L
        found = self.ends.logarithms(
            self.data_pairs.flatten(), means.repeat_interleave(n, 0), self.z.repeat(count, 1)
        )
        v = found.vectors
        kernel = log_kernel(L.repeat_interleave(n, 0), v).view(count, n).nan_to_num(-torch.inf)
        normalization = normalize(self.metric, means, L, self.rule, self.ends, self.node_pairs)
        joint = weights.log()[:, None] + kernel - normalization.log_normalizers[:, None]
        each = torch.logsumexp(joint, 0) + log_measure(self.metric, self.z)
        known = joint.isfinite().any(0)
        mean = torch.where(known, each, 0.0).sum() / known.sum()
        # A component that is not a number may not hide behind the points that the others explain.
        mean = torch.where(normalization.log_normalizers.isnan().any(), torch.nan, mean)
        return _Look(v.view(count, n, -1), normalization, joint, mean)

    def improved(self, parameters: _Parameters, look: _Look, step: float) -> _Parameters:
        """The M-step, or a fraction of it."""
        weights, means, covariances = parameters
        r = torch.softmax(look.joint, dim=0).nan_to_num(0.0)
        total = r.sum(1)
        share = r / total[:, None]
        v = look.logarithms.nan_to_num(0.0)
        first = torch.einsum("kn,kni->ki", share, v)
        second = torch.einsum("kn,kni,knj->kij", share, v, v)
        move = first - look.normalization.mean
        # The second moments of the data about the mean where it will be.
        cross = first[:, :, None] * move[:, None]
        wanted = second - cross - cross.mT + move[:, :, None] * move[:, None] + self.floor
        target, own = (torch.linalg.cholesky_ex(m) for m in (wanted, look.normalization.moment))
        B = torch.linalg.solve_triangular(own.L, target.L, upper=False, left=False)
        scaled = B @ covariances @ B.mT
        moved = one_step(self.metric, means, step * move)
        # A component without responsibility, or without moments, stays as it is.
        alive = (total > 0) & (target.info == 0) & (own.info == 0)
        new_covariances = torch.where(alive[:, None, None], (1 - step) * covariances + step * scaled, covariances)
        new_means = torch.where(alive[:, None], moved, means)
        return _Parameters((1 - step) * weights + step * total / total.sum(), new_means, new_covariances)

    def answer(self, parameters: _Parameters, look: _Look, iterations: int, converged: bool) -> LandFit:
        found = look.normalization
        land = Land(
            self.metric,
            *parameters,
            found.log_normalizers,
            found.effective_nodes,
            found.failed_nodes,
            self.solver,
            self.initial,
            self.chunk_size,
        )
        responsibilities = torch.softmax(look.joint, dim=0).T
        return LandFit(land, look.log_likelihood, responsibilities, iterations, converged, self.ends.solved)


def _euclidean_labels(
    z: Tensor, finite: Tensor, count: int, generator: torch.Generator | None
) -> Int[Tensor, " n"]:
    device = None if generator is None else generator.device
    seed = int(torch.randint(2**31, (1,), generator=generator, device=device))
    points = z[finite].detach().cpu().numpy()
    found = EuclideanKMeans(count, n_init=10, random_state=seed).fit_predict(points)
    labels = torch.full(z.shape[:1], -1, dtype=torch.long, device=z.device)
    labels[finite] = torch.as_tensor(found, dtype=torch.long, device=z.device)
    return labels
