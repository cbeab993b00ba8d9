"""Damped Newton minimization of the discrete path energy, every problem with its own damping, step and stop.

Directions come from `directions`: exact Newton where the Hessian is positive definite, damped ones elsewhere. Where the
gradient is small and the second variation still has a negative direction, that direction is followed (`saddles`).
Bounds on steps are measured in the metric, so no unit of a latent axis matters.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import take, write
from geodesics.metrics.path_energy import Linearization, PathEnergy, speed_profile
from geodesics.minimization.directions import Damping, find_direction, longest_move, lower_theta
from geodesics.minimization.saddles import escape_saddles

# No node moves further than this share of the curve's length in one step.
_REACH = 0.05
_ARMIJO = 0.1
_BACKTRACK = 0.4
_LINE_SEARCH = 6
# From a straight line on a smooth metric the bound on the step costs half of the steps. So a step that was cut short
# and gained this share of what the exact quadratic model foretells is doubled, if that gains more; and so is a whole
# step that gained this much more than foretold: there the model is too steep.
_FORETOLD = 0.9
_SURPASSED = 1.1
_MAX_RIDGE = 1e6
# A step that needed so many trials was too long along axes that the metric hardly sees: nodes are tied more strongly.
_CUT = 3
_FIRST_TETHER = 0.1
# The profile follows the speed while the scale-free gradient is above this. Held fixed it costs steps, for the energy
# of a profile that does not fit hides what is gained; Newton's last steps are quadratic only if it is.
_FOLLOW = 0.02
# Scale-free gradient under which a direction of negative curvature is looked for. Saddles are left slowly, with a
# gradient of 1e-2 for fifty steps, if one waits for them to be reached.
_NEAR = 0.03


class NewtonState(NamedTuple):
    """All that the minimizer knows of its problems, leading axis B throughout.

    Attributes:
        points: nodes.
        model: linearization at the points.
        damping: what is remembered of steps that failed.
        decrement: scale-free gradient ``sqrt(g^T A^{-1} g / 2 E)`` where it was last known; its square is the relative
            energy that the next step is to gain, half its square the relative length.
        minimum: whether the second variation was positive definite at the last factorization.
        converged: whether the exact Newton step has a decrement under the tolerance; it is not taken.
        stalled: whether no step decreases the energy, or nothing can be factorized.
        settled: whether the decrement is under ``settle`` while the Hessian is indefinite, and no direction of negative
            curvature gains more.
        iterations: steps tried.
        values: points at which the generator's value was computed.
        jacobians: points at which value, Jacobian and contracted Hessian were computed.
        entry: energy at the start.
    """

    points: Float[Tensor, "b n d"]
    model: Linearization
    damping: Damping
    decrement: Float[Tensor, " b"]
    minimum: Bool[Tensor, " b"]
    converged: Bool[Tensor, " b"]
    stalled: Bool[Tensor, " b"]
    settled: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    values: Int[Tensor, " b"]
    jacobians: Int[Tensor, " b"]
    entry: Float[Tensor, " b"]

    def gain(self) -> Float[Tensor, " b"]:
        """Relative length gained per step."""
        fall = 1 - (self.model.energy / self.entry).sqrt()
        return fall.clamp(min=0) / self.iterations.clamp(min=1)


class _Step(NamedTuple):
    """Trial points with their speeds and energies, the share of the Newton step, acceptance, trials made."""

    points: Float[Tensor, "b n d"]
    speed: Float[Tensor, "b s g"]
    energy: Float[Tensor, " b"]
    scale: Float[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    tried: Int[Tensor, " b"]


def minimize(
    energy: PathEnergy,
    points: Float[Tensor, "b n d"],
    profile: Float[Tensor, "b s g"] | None,
    weights: Float[Tensor, " g"],
    tol: float,
    max_iter: int,
    settle: Float[Tensor, " b"],
    before: NewtonState | None = None,
) -> NewtonState:
    """Minimize the weighted path energy over the interior nodes.

    Args:
        energy: the discrete energy.
        points: start ``(B, N p + 1, d)``; the two ends stay.
        profile: reference speed profile ``(B, N, g)`` at the start; None for that of the start's own speed.
        weights: of the quadrature in an element.
        tol: a problem stops when its scale-free gradient falls under this.
        max_iter: steps per problem.
        settle: a problem whose Hessian is indefinite stops when neither a step nor a direction of negative curvature
            gains more than this scale-free gradient stands for ``(B,)``.
        before: final state of the same problems in an earlier call: its tether and gradients are gone on with.

    Returns:
        The final state; no problem's state depends on another's.
    """
    state = _start(energy, points, profile)
    if before is not None:
        damping = state.damping._replace(tether=before.damping.tether.clone())
        state = state._replace(damping=damping, decrement=before.decrement.clone())
    for _ in range(max_iter):
        rows = (~(state.converged | state.stalled | state.settled)).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        if rows.numel() == len(points):
            state = _iterate(energy, state, weights, tol, settle)
        else:
            write(state, rows, _iterate(energy, take(state, rows), weights, tol, settle[rows]))
    return state


def _start(energy: PathEnergy, points: Tensor, profile: Tensor | None) -> NewtonState:
    model = energy.linearize(points, profile)
    zero = model.energy.new_zeros(len(points))
    no = zero > 0
    count = torch.zeros_like(zero, dtype=torch.long)
    samples = energy.samples(model.profile.shape[1])
    return NewtonState(
        points.clone(),
        model,
        Damping(zero, zero.clone(), zero.clone()),
        torch.full_like(zero, torch.inf),
        no,
        no.clone(),
        ~model.energy.isfinite(),
        no.clone(),
        count,
        count.clone(),
        count + samples,
        model.energy.clone(),
    )


def _iterate(energy: PathEnergy, state: NewtonState, weights: Tensor, tol: float, settle: Tensor) -> NewtonState:
    """One damped Newton step of every row that is not there yet."""
    model, damping = state.model, state.damping
    direction, theta, factored, plain, exact = find_direction(
        model, state.points, damping, state.decrement, state.decrement <= _FOLLOW
    )
    slope = (model.gradient * direction).sum((1, 2))
    usable = factored & (slope <= 0)
    decrement = torch.where(usable, (-slope / (2 * model.energy)).clamp(min=0).sqrt(), state.decrement)
    converged, settled = usable & exact & (decrement <= tol), usable & ~exact & (decrement <= settle)
    length = (2 * model.energy).sqrt()
    scale = (_REACH * length / longest_move(energy, model, direction)).clamp(max=1.0).nan_to_num(1.0)
    step = _line_search(energy, state, direction, slope, scale, usable & ~(converged | settled), tol)
    step = _lengthened(energy, state, direction, slope, step, plain & (decrement > _FOLLOW))
    soft = usable & ~exact & (decrement <= settle.clamp(min=_NEAR))
    step, escaped = _escaped(energy, state, step, soft, settle)
    settled &= ~escaped
    going = ~(converged | settled)
    trial, speed, _, scale, accepted, tried = step
    state = state._replace(
        damping=Damping(
            torch.where(accepted & (scale >= 1), lower_theta(theta), theta),
            torch.where(going, _next_ridge(damping.ridge, scale, accepted), damping.ridge),
            torch.where(going, _next_tether(damping.tether, accepted, tried), damping.tether),
        ),
        decrement=decrement,
        minimum=exact & factored,
        converged=converged,
        stalled=going & ~accepted & (damping.ridge >= _MAX_RIDGE),
        settled=settled,
        iterations=state.iterations + going,
        values=state.values + tried * energy.samples(model.profile.shape[1]),
    )
    rows = accepted.nonzero()[:, 0]
    if rows.numel() == 0:
        return state
    state.points[rows] = trial[rows]
    follow = (accepted & (decrement > _FOLLOW)).nonzero()[:, 0]
    state.model.profile[follow] = speed_profile(speed[follow], weights)
    write(state.model, rows, energy.linearize(trial[rows], state.model.profile[rows]))
    state.jacobians[rows] += energy.samples(state.model.profile.shape[1])
    return state


def _escaped(energy: PathEnergy, state: NewtonState, step: _Step, soft: Tensor, settle: Tensor) -> tuple[_Step, Tensor]:
    """Steps along negative curvature where they gain more than the step at hand, and whether they do."""
    escaped = torch.zeros_like(soft)
    rows = soft.nonzero()[:, 0]
    if rows.numel() == 0:
        return step, escaped
    # What a scale-free gradient of `settle` stands for, relative to the energy.
    enough = (1 - settle[rows].square()).clamp(max=1 - 1e-12) * state.model.energy[rows]
    bar = torch.where(step.accepted[rows], step.energy[rows].minimum(enough), enough)
    found = escape_saddles(energy, take(state.model, rows), state.points[rows], _REACH, bar)
    step.tried[rows] += found.tried
    gains = found.energy < bar
    rows = rows[gains]
    step.points[rows], step.speed[rows] = found.points[gains], found.speed[gains]
    step.energy[rows], step.accepted[rows], escaped[rows] = found.energy[gains], True, True
    return step, escaped


def _line_search(
    energy: PathEnergy, state: NewtonState, direction: Tensor, slope: Tensor, scale: Tensor, usable: Tensor, tol: float
) -> _Step:
    """Backtrack to sufficient decrease."""
    trial, speed, scale = state.points.clone(), state.model.speed.clone(), scale.clone()
    reached = state.model.energy.clone()
    accepted = torch.zeros_like(usable)
    tried = torch.zeros_like(state.iterations)
    # The energy of long sums of differences is noisy; steps that gain less than tol^2 are let through.
    rounding = (4 * torch.finfo(slope.dtype).eps + 4 * tol**2) * state.model.energy
    rows = usable.nonzero()[:, 0]
    for _ in range(_LINE_SEARCH):
        if rows.numel() == 0:
            break
        points = state.points[rows] + scale[rows, None, None] * direction[rows]
        new_energy, new_speed = energy.value(points, state.model.profile[rows])
        bound = state.model.energy[rows] + _ARMIJO * scale[rows] * slope[rows] + rounding[rows]
        good = new_energy <= bound
        tried[rows] += 1
        accepted[rows] = good
        trial[rows[good]], speed[rows[good]], reached[rows[good]] = points[good], new_speed[good], new_energy[good]
        rows = rows[~good]
        scale[rows] *= _BACKTRACK
    return _Step(trial, speed, reached, scale, accepted, tried)


def _lengthened(
    energy: PathEnergy, state: NewtonState, direction: Tensor, slope: Tensor, step: _Step, exact: Tensor
) -> _Step:
    """Twice the step where that gains more, by one more evaluation of values."""
    gain = (state.model.energy - step.energy) / (step.scale * (step.scale / 2 - 1) * slope)
    promising = gain >= torch.where(step.scale < 1, _FORETOLD, _SURPASSED)
    rows = (exact & step.accepted & promising).nonzero()[:, 0]
    if rows.numel() == 0:
        return step
    scale = 2 * step.scale[rows]
    points = state.points[rows] + scale[:, None, None] * direction[rows]
    new_energy, new_speed = energy.value(points, state.model.profile[rows])
    step.tried[rows] += 1
    good = new_energy < step.energy[rows]
    rows = rows[good]
    step.points[rows], step.speed[rows] = points[good], new_speed[good]
    step.energy[rows], step.scale[rows] = new_energy[good], scale[good]
    return step


def _next_ridge(ridge: Tensor, scale: Tensor, accepted: Tensor) -> Tensor:
    lower = torch.where(ridge > 0.01, ridge / 4, 0.0)
    raised = (4 * ridge).clamp(min=0.1)
    return torch.where(accepted, torch.where(scale > 0.3, lower, ridge), raised)


def _next_tether(tether: Tensor, accepted: Tensor, tried: Tensor) -> Tensor:
    lower = torch.where(tether > 0.1 * _FIRST_TETHER, tether / 4, 0.0)
    raised = (4 * tether).clamp(min=_FIRST_TETHER)
    return torch.where(~accepted | (tried >= _CUT), raised, torch.where(tried <= 1, lower, tether))


def newton_decrement(
    energy: PathEnergy, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None
) -> tuple[Float[Tensor, " b"], Bool[Tensor, " b"]]:
    """Scale-free gradient ``sqrt(g^T A^{-1} g / 2E)``, and whether the second variation is positive definite.

    A profile of None stands for that of the curve's own speed.
    A is the exact Hessian, or the first of the ladder that is positive definite. Half the square of the decrement is
    the relative length that one Newton step is about to save; infinite where nothing factorizes. Cost: the energy's
    ``samples(N)`` values with derivatives.
    """
    state = _start(energy, points, profile)
    found = find_direction(state.model, points, state.damping, state.decrement, ~state.stalled)
    slope = (state.model.gradient * found.step).sum((1, 2))
    decrement = (-slope / (2 * state.model.energy)).clamp(min=0).sqrt()
    known = found.factored & decrement.isfinite()
    return torch.where(known, decrement, torch.inf), known & found.exact
