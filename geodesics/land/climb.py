"""The steps of a LAND fit on fixed nodes: weights and covariances at rest, and moves of the means."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodesics.batches.rows import take
from geodesics.land.covariances import fit_covariances
from geodesics.land.logarithms import Logarithms
from geodesics.land.nodes import Nodes, Normalization, log_kernel, log_normalizers, normalize
from geodesics.metrics.metric import Metric
from geodesics.statistics.means import one_step

# Moves of a mean along an axis of its covariance are tried down to this size, in standard deviations.
_SHORTEN, _SMALLEST = 4.0, 1 / 32
# A component keeps this share of the effective number of its nodes, or waits for new ones: on few of them a normalizer
# can be made as small as one likes.
_LEAST_NODES = 0.3
# Nodes are drawn anew once a component has lost more of their effective number, or a variance has grown by a factor.
_KEPT, _WIDENED = 0.8, 2.0
# Turns over responsibilities and covariances between two moves of the means; they cost no geodesic.
_TURNS = 200


class Parameters(NamedTuple):
    """Of a mixture of K components: weights ``(K,)``, means ``(K, d)``, covariances ``(K, d, d)``."""

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]


class State(NamedTuple):
    """A mixture, with what is seen from its means.

    Attributes:
        parameters: the mixture.
        nodes: of its normalizing integrals.
        data_logarithms: of the data at the means, ``(K, n, d)``.
        node_logarithms: of the nodes, ``(K, S, d)``.
    """

    parameters: Parameters
    nodes: Nodes
    data_logarithms: Float[Tensor, "k n d"]
    node_logarithms: Float[Tensor, "k s d"]

    def joint(self) -> Float[Tensor, "k n"]:
        """``log weights_k p_k(z_i)`` against the Riemannian volume; -inf where there is no logarithm."""
        L = torch.linalg.cholesky_ex(self.parameters.covariances).L
        kernel = log_kernel(L, self.data_logarithms).nan_to_num(-torch.inf)
        log_C = log_normalizers(self.nodes, self.node_logarithms, L)
        return self.parameters.weights.log()[:, None] + kernel - log_C[:, None]


class Climb(NamedTuple):
    """Where a climb came to rest.

    Attributes:
        state: the mixture.
        responsibilities: of its components for the data, ``(K, n)``.
        iterations: moves tried.
        converged: whether no move of a mean gains the tolerance.
    """

    state: State
    responsibilities: Float[Tensor, "k n"]
    iterations: int
    converged: bool


def mean_log_likelihood(joint: Float[Tensor, "k n"], log_volume: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean log density over the points that have a logarithm at some mean; NaN where a component is lost."""
    known = joint.isfinite().any(0)
    each = joint.logsumexp(0) + log_volume
    mean = torch.where(known, each, 0.0).sum() / known.sum()
    # A component that is not a number may not hide behind the points that the others explain.
    return torch.where(joint.isnan().any(), torch.nan, mean)


class Climber:
    """Ascent of the likelihood on fixed nodes.

    Args:
        metric: the Riemannian metric.
        log_volume: log measure at the data, ``(n,)``.
        floor: added to the second moments of the data, ``(d, d)``.
        tol: the least gain in mean log-likelihood per point (nats) for which a mean moves.
        flatness: see `fit_covariances`.
    """

    def __init__(
        self,
        metric: Metric,
        log_volume: Float[Tensor, " n"],
        floor: Float[Tensor, "d d"],
        tol: float,
        flatness: float,
    ) -> None:
        self._metric, self._log_volume, self._floor = metric, log_volume, floor
        self._tol, self._flatness = tol, flatness

    def climb(
        self, state: State, source: Logarithms, max_iter: int, largest: float, r: Float[Tensor, "k n"] | None = None
    ) -> Climb:
        """Weights and covariances at rest, and moves of the means, until no move gains the tolerance.

        A component tries the natural move, then both ways along every axis of its covariance, and then all this with
        smaller moves. It moves when its own expected log-likelihood grows, its covariance the best for the new place:
        then so does the mixture's (Neal and Hinton 1998).

        Args:
            state: where to begin.
            source: of the logarithms at other means.
            max_iter: moves tried at most.
            largest: the first moves along the axes, in standard deviations.
            r: responsibilities to begin with; None for those of the state.
        """
        state, r = self.settle(state, r)
        least = _LEAST_NODES * self._normalize(state).effective_nodes
        d = state.parameters.means.shape[1]
        radius = torch.full_like(state.parameters.weights, largest)
        turn = torch.zeros_like(radius, dtype=torch.long)
        for iteration in range(max_iter + 1):
            rows = (radius >= _SMALLEST).nonzero()[:, 0]
            if rows.numel() == 0 or iteration == max_iter:
                break
            move = self._moves(state, r, radius, turn, largest)[rows]
            means = one_step(self._metric, state.parameters.means[rows], move)
            trial = self._trial(state, r, rows, means, source)
            better = self._growth(trial, r[rows], state, rows) > self._tol * r.sum()
            better &= self._normalize(trial).effective_nodes >= least[rows]
            next_turn = torch.where(better, 0, turn[rows] + 1)
            spent = next_turn > 2 * d
            radius[rows] = torch.where(spent, radius[rows] / _SHORTEN, radius[rows])
            turn[rows] = torch.where(spent, 0, next_turn)
            if bool(better.any()):
                state, r = self.settle(_accepted(state, trial, rows, better), None)
        return Climb(state, r, iteration, rows.numel() == 0)

    def settle(self, state: State, r: Float[Tensor, "k n"] | None) -> tuple[State, Float[Tensor, "k n"]]:
        """Weights and covariances at rest for these logarithms, and the responsibilities.

        Args:
            state: where to begin.
            r: responsibilities to begin with: of components whose covariances do not fit yet, points would not want
                to have anything to do with them; None for those of the state.
        """
        r = torch.softmax(state.joint(), dim=0).nan_to_num(0.0) if r is None else r
        value = torch.full_like(self._log_volume[0], -torch.inf)
        for _ in range(_TURNS):
            total = r.sum(1)
            covariances = self._covariances(state, r)
            weights = total / total.sum()
            state = state._replace(parameters=Parameters(weights, state.parameters.means, covariances))
            joint = state.joint()
            new = mean_log_likelihood(joint, self._log_volume)
            r = torch.softmax(joint, dim=0).nan_to_num(0.0)
            if bool(~((new - value).abs() > self._tol / 100)):
                break
            value = new
        return state, r

    def spread(self, parameters: Parameters, source: Logarithms, r: Tensor) -> Parameters:
        """Covariances as in flat space: second moments of the logarithms, where there are enough of them."""
        rows = torch.arange(len(r), device=r.device)
        second, _ = self._second(source.data(parameters.means, rows), r)
        single = torch.linalg.cholesky_ex(second - self._floor).info != 0
        return parameters._replace(covariances=torch.where(single[:, None, None], parameters.covariances, second))

    def fitted(self, state: State, r: Tensor) -> State:
        """The covariances the best for these responsibilities."""
        return state._replace(parameters=state.parameters._replace(covariances=self._covariances(state, r)))

    def _second(self, v: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Second moments of logarithms, with the floor, and the weight of those that are known."""
        share = torch.where(v.isnan().any(-1), 0.0, r)
        total = share.sum(1)
        share = share / torch.where(total > 0, total, 1.0)[:, None]
        return torch.einsum("kn,kni,knj->kij", share, v.nan_to_num(0.0), v.nan_to_num(0.0)) + self._floor, total

    def _covariances(self, state: State, r: Tensor) -> Tensor:
        second, total = self._second(state.data_logarithms, r)
        old = state.parameters.covariances
        nodes = state.nodes
        found = fit_covariances(second, state.node_logarithms, nodes.log_weights, nodes.reference, old, self._flatness)
        # A component without responsibility stays as it is.
        return torch.where((total > 0)[:, None, None], found, old)

    def _moves(
        self, state: State, r: Tensor, radius: Tensor, turn: Int[Tensor, " k"], largest: float
    ) -> Float[Tensor, "k d"]:
        """Turn 0: ``mean_r(v) - E_p[v]``, or a part of it; turn 2 j + 1 and 2 j + 2: along axis j, either way."""
        v = state.data_logarithms
        share = torch.where(v.isnan().any(-1), 0.0, r)
        total = share.sum(1)
        first = torch.einsum("kn,kni->ki", share, v.nan_to_num(0.0)) / torch.where(total > 0, total, 1.0)[:, None]
        natural = (first - self._normalize(state).mean).nan_to_num(0.0) * (radius / largest)[:, None]
        values, vectors = torch.linalg.eigh(state.parameters.covariances)
        axes = vectors * values.clamp(min=0).sqrt()[:, None]
        column = ((turn - 1).clamp(min=0) // 2)[:, None, None].expand(-1, v.shape[-1], 1)
        sign = torch.where(turn % 2 == 1, radius, -radius)[:, None]
        return torch.where((turn == 0)[:, None], natural, sign * axes.gather(2, column)[..., 0])

    def _normalize(self, state: State) -> Normalization:
        L = torch.linalg.cholesky_ex(state.parameters.covariances).L
        return normalize(state.nodes, state.node_logarithms, L)

    def _trial(self, state: State, r: Tensor, rows: Tensor, means: Tensor, source: Logarithms) -> State:
        """Some of the components at other means, with their covariances the best there."""
        old = take(state, rows)
        data, nodes = source.data(means, rows), source.nodes(means, rows, state.nodes)
        trial = State(old.parameters._replace(means=means), old.nodes, data, nodes)
        return trial._replace(parameters=trial.parameters._replace(covariances=self._covariances(trial, r[rows])))

    def _growth(self, trial: State, r: Tensor, state: State, rows: Tensor) -> Float[Tensor, " r"]:
        """Growth of the expected log-likelihoods of some components, over the points known from both places."""
        before, after = state.joint()[rows], trial.joint()
        both = before.isfinite() & after.isfinite() & (r > 0)
        lost = (before.isfinite() & ~after.isfinite() & (r > 0)) * r
        growth = torch.where(both, r * (after - before), 0.0).sum(1)
        # A place from which many points are out of reach is none, whatever it does for the others.
        return torch.where(lost.sum(1) > 0.05 * r.sum(1), -torch.inf, growth).nan_to_num(-torch.inf)


def _accepted(state: State, trial: State, rows: Int[Tensor, " r"], better: Tensor) -> State:
    """The state with the components that have gained."""
    kept = rows[better]

    def put(old: Tensor, new: Tensor) -> Tensor:
        result = old.clone()
        result[kept] = new[better]
        return result

    old, new = state.parameters, trial.parameters
    parameters = Parameters(old.weights, put(old.means, new.means), put(old.covariances, new.covariances))
    return State(
        parameters,
        state.nodes,
        put(state.data_logarithms, trial.data_logarithms),
        put(state.node_logarithms, trial.node_logarithms),
    )


def is_kept(before: Float[Tensor, " k"], state: State) -> bool:
    """Whether nodes carry the components still: what has shrunk or moved is seen in their effective number, but not
    what has grown beyond them."""
    L, reference = torch.linalg.cholesky_ex(state.parameters.covariances).L, state.nodes.reference
    after = normalize(state.nodes, state.node_logarithms, L).effective_nodes
    scales = torch.linalg.svdvals(torch.linalg.solve_triangular(reference, L, upper=False)).square()
    return bool(((after >= _KEPT * before) & (scales < _WIDENED).all(1)).all())


def seen(parameters: Parameters, nodes: Nodes, source: Logarithms, data: Tensor | None = None) -> State:
    """The state of a mixture, with the data's logarithms where they are known already."""
    rows = torch.arange(len(parameters.means), device=parameters.means.device)
    data = source.data(parameters.means, rows) if data is None else data
    return State(parameters, nodes, data, source.nodes(parameters.means, rows, nodes))
