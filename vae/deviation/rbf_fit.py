"""Fit of the RBF precision: k-means centers, bandwidths from cluster radii, weights by projected gradient
descent."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from vae.arguments import check_counts, check_data, check_positive, check_seed, check_type, check_variances
from vae.autoencoder.model import VAE
from vae.deviation.rbf import RBFPrecision
from vae.generators.feature_maps import RadialFeatures

ARMIJO = 1e-4
# Objective values remembered by the non-monotone line search; Birgin, Martinez and Raydan use 10.
MEMORY = 10


@dataclass(frozen=True)
class RBFConfig:
    """Options of the fit.

    Attributes:
        num_centers: K; clusters that k-means leaves empty are dropped.
        bandwidth_factor: a, kernel width in units of the mean distance within a cluster. At 1 the kernels
            leave gaps, and weights that fit the points there make beta far too large at the centers: on the
            digits the root mean square error of the variance was 0.029 at 1, 0.006 at 2, 0.004 at 3.
        xi: precision far from the data, inverse squared data units; the standard deviation rises to
            xi^(-1/2).
        tol: the weights of an output are done when its relative projected gradient is at most this.
        max_iter: iterations at most; each costs three products of (N, K) by (K, D).
        seed: of k-means.
        num_components: principal components of the latents in which k-means finds the clusters; None for the latent
            space itself. Centers and radii are those of the clusters in the latent space either way.
    """

    num_centers: int = 64
    bandwidth_factor: float = 2.0
    xi: float = 1e-6
    tol: float = 1e-4
    max_iter: int = 1000
    seed: int = 0
    num_components: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_centers", "max_iter", "num_components")
        check_positive(self, "bandwidth_factor", "xi", "tol")
        check_seed("seed", self.seed, 32)


class WeightFit(NamedTuple):
    """Weights and what became of each output's minimization.

    Attributes:
        weights: W, (D, K), non-negative.
        loss: mean squared error between variance and 1 / beta, (D,), fourth power of data units.
        criticality: relative projected gradient, (D,): zero at a KKT point.
        converged: criticality <= tol, (D,).
        iterations: accepted and rejected steps, (D,).
    """

    weights: Tensor
    loss: Tensor
    criticality: Tensor
    converged: Tensor
    iterations: Tensor


def fit_rbf_to_vae(vae: VAE, x: Float[Tensor, "n D"], config: RBFConfig | None = None) -> RBFPrecision:
    """RBF precision for a trained VAE: `fit_rbf` at the encoded means, on the decoder's variance there.

    Args:
        vae: the trained model.
        x: data, (N, D), usually its training data.
        config: options; None for the defaults.
    """
    check_type("vae", vae, VAE)
    check_data("x", x, vae.config.data_dim)
    with torch.no_grad():
        z = vae.encode(x).mean
        return fit_rbf(z, vae.decode(z).log_variance.exp(), config)


def fit_rbf(
    latents: Float[Tensor, "n d"], variances: Float[Tensor, "n D"], config: RBFConfig | None = None
) -> RBFPrecision:
    """RBF precision whose 1 / beta matches given variances at given latent points, in any latent dimension.

    Args:
        latents: N latent points, (N, d).
        variances: the variance of each output there, (N, D), positive, squared data units.
        config: options; None for the defaults.

    Raises:
        ValueError: shapes that do not fit, values not finite or not positive, or fewer points than centers.
    """
    config = config or RBFConfig()
    check_type("config", config, RBFConfig)
    check_variances(latents, variances)
    projected = principal_components(latents, config.num_components)
    centers, assignment = cluster(projected, config.num_centers, config.seed)
    if config.num_components is not None:
        members = torch.nn.functional.one_hot(assignment, len(centers)).to(latents)
        centers = members.T @ latents / members.sum(0)[:, None]
    bandwidths = bandwidths_of(latents, centers, assignment, config.bandwidth_factor)
    xi = torch.full_like(variances[0], config.xi)
    features = RadialFeatures(centers, bandwidths)(latents)
    fit = fit_weights(features, variances, xi, config.tol, config.max_iter)
    return RBFPrecision(centers, bandwidths, fit.weights, xi)


def cluster(
    latents: Float[Tensor, "n d"], num_centers: int, seed: int
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " n"]]:
    """k-means centers and each point's cluster; empty clusters are dropped.

    Raises:
        ValueError: fewer points than centers.
    """
    if latents.shape[0] < num_centers:
        raise ValueError(f"num_centers must be at most the number of points {latents.shape[0]}; got {num_centers}")
    means = KMeans(num_centers, n_init=1, random_state=seed).fit(latents.detach().double().cpu().numpy())
    assignment = torch.as_tensor(means.labels_, dtype=torch.int64, device=latents.device)
    used, assignment = assignment.unique(return_inverse=True)
    centers = torch.as_tensor(means.cluster_centers_, dtype=latents.dtype, device=latents.device)
    return centers[used], assignment


def principal_components(latents: Float[Tensor, "n d"], count: int | None) -> Float[Tensor, "n p"]:
    """Coordinates along the axes of largest variance, `count` of them at most; None leaves the latents as they are."""
    if count is None or count >= latents.shape[1]:
        return latents
    centered = latents - latents.mean(0)
    _, axes = torch.linalg.eigh(centered.T @ centered)
    return centered @ axes[:, -count:]


def bandwidths_of(
    latents: Float[Tensor, "n d"], centers: Float[Tensor, "k d"], assignment: Int[Tensor, " n"], factor: float
) -> Float[Tensor, " k"]:
    r"""Bandwidths $\lambda_k = \frac12 (a \frac1{|C_k|} \sum_{z \in C_k} \|z - c_k\|)^{-2}$.

    A cluster of one point, or of coinciding points, has radius zero and an infinite bandwidth; it gets the
    median radius of the others instead, so that a lone point is believed as far around as a usual one. Where
    no cluster has a radius, the distance to the nearest other center takes its place.

    Raises:
        ValueError: all points coincide.
    """
    count = torch.zeros_like(centers[:, 0]).index_add_(0, assignment, torch.ones_like(latents[:, 0]))
    distance = (latents - centers[assignment]).norm(dim=1)
    radius = torch.zeros_like(count).index_add_(0, assignment, distance) / count
    # Below this the radius is rounding of the center, not spread of the data.
    positive = radius > 100 * torch.finfo(radius.dtype).eps * latents.abs().amax()
    if bool(positive.any()):
        radius = torch.where(positive, radius, radius[positive].median())
    elif centers.shape[0] > 1:
        apart = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
        radius = apart.fill_diagonal_(torch.inf).amin(dim=1)
    if not bool((radius > 0).all() & radius.isfinite().all()):
        raise ValueError("latents must not all coincide: a bandwidth needs a length")
    return 0.5 / (factor * radius) ** 2


def fit_weights(
    features: Float[Tensor, "n k"],
    variances: Float[Tensor, "n D"],
    xi: Float[Tensor, " D"],
    tol: float,
    max_iter: int,
) -> WeightFit:
    r"""Weights W >= 0 that minimize, per output, the mean squared error between variance and 1 / beta.

    .. math:: f_j(w) = \frac1N \sum_n (s_{nj} - 1 / (v_n^T w + \xi_j))^2

    Projected gradient descent in a diagonal metric, w <- max(w - alpha h^-1 grad f, 0), all outputs at once
    and each with a step of its own: h is the diagonal of the Gauss-Newton matrix, alpha a spectral
    (Barzilai-Borwein) length, halved until a non-monotone Armijo test holds. The metric is what makes it
    converge: the curvature goes like 1 / beta^4, many decades between a crowded center and an
    outlier. On a VAE of three Fashion-MNIST classes, K = 64, the criticality was 7e-2 after 3000 iterations
    without it, 6e-5 after 30 with it and rounding after 100.
    Source of the spectral method: Birgin, Martinez and Raydan, "Nonmonotone spectral projected gradient
    methods on convex sets", SIAM J. Optim. 10, 2000.

    Starts where beta at a kernel is the mean precision around it. The problem is not convex: the answer is a
    KKT point, and `criticality` says how nearly.

    Args:
        features: v at the N points, (N, K).
        variances: s, (N, D).
        xi: (D,).
        tol: bound on the criticality, sum_k |projected gradient_k| max(w_k, mean w) / f.
        max_iter: iterations at most.
    """
    precisions = features.T @ (1 / variances) / features.sum(0)[:, None]
    weights = (precisions / features.sum(1).mean()).T.contiguous()
    floor = torch.finfo(variances.dtype).eps * variances.square().mean(0)
    point = _evaluate(weights, features, variances, xi)
    state = _State(
        *point,
        torch.ones_like(xi),
        point.loss[:, None].repeat(1, MEMORY),
        weights.clone(),
        point.loss.clone(),
    )
    iterations = torch.zeros_like(xi, dtype=torch.int64)
    for _ in range(max_iter):
        rows = (_criticality(state, floor) > tol).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        part = _step(_State(*(t[rows] for t in state)), features, variances[:, rows], xi[rows])
        for whole, new in zip(state, part, strict=True):
            whole[rows] = new
        iterations[rows] += 1
    best = _evaluate(state.best, features, variances, xi)
    criticality = _criticality(best, floor)
    return WeightFit(state.best, best.loss, criticality, criticality <= tol, iterations)


class _Point(NamedTuple):
    """Weights (D, K), the loss (D,) there, its gradient and diagonal Gauss-Newton metric (D, K)."""

    weights: Tensor
    loss: Tensor
    gradient: Tensor
    metric: Tensor


class _State(NamedTuple):
    """A point per output, its next step (D,), recent losses (D, MEMORY), and the best weights so far."""

    weights: Tensor
    loss: Tensor
    gradient: Tensor
    metric: Tensor
    step: Tensor
    recent: Tensor
    best: Tensor
    best_loss: Tensor


def _evaluate(weights: Tensor, features: Tensor, variances: Tensor, xi: Tensor) -> _Point:
    # d(1 / beta)/dw = -v / beta^2, so the gradient is 2/N sum (s - 1/beta) v / beta^2, the metric
    # 2/N sum v^2 / beta^4.
    inverse = torch.addmm(xi, features, weights.T).reciprocal_()
    residual = variances - inverse
    loss = residual.square().mean(0)
    square = inverse.square_()
    gradient = residual.mul_(square).T @ features
    metric = square.square_().T @ features.square()
    scale = 2 / features.shape[0]
    return _Point(weights, loss, gradient.mul_(scale), metric.mul_(scale))


def _criticality(point: _Point | _State, floor: Tensor) -> Tensor:
    """Change of f relative to f along the projected gradient, with weights moved by their size.

    `floor`, the rounding of f, stands in for an f below it: a perfect fit is a KKT point too.
    """
    weights, gradient = point.weights, point.gradient
    projected = torch.where(weights > 0, gradient, gradient.clamp(max=0)).abs()
    scale = torch.maximum(weights, weights.mean(1, keepdim=True))
    return (projected * scale).sum(1) / torch.maximum(point.loss, floor)


def _step(state: _State, features: Tensor, variances: Tensor, xi: Tensor) -> _State:
    """One trial per output: moved where the Armijo test holds, its step halved where it does not."""
    trial = (state.weights - state.step[:, None] * state.gradient / state.metric).clamp_(min=0)
    new = _evaluate(trial, features, variances, xi)
    move = trial - state.weights
    accepted = new.loss <= state.recent.amax(1) + ARMIJO * (move * state.gradient).sum(1)
    curvature = (move * (new.gradient - state.gradient)).sum(1)
    spectral = (move * move * state.metric).sum(1) / curvature
    # Negative curvature has no spectral length: go on with twice the step that was just accepted.
    step = torch.where(accepted, torch.where(curvature > 0, spectral, 2 * state.step), state.step / 2)
    recent = torch.cat([new.loss[:, None], state.recent[:, :-1]], dim=1)
    better = accepted & (new.loss <= state.best_loss)
    return _State(
        torch.where(accepted[:, None], trial, state.weights),
        torch.where(accepted, new.loss, state.loss),
        torch.where(accepted[:, None], new.gradient, state.gradient),
        torch.where(accepted[:, None], new.metric, state.metric),
        step,
        torch.where(accepted[:, None], recent, state.recent),
        torch.where(better[:, None], trial, state.best),
        torch.where(better, new.loss, state.best_loss),
    )
