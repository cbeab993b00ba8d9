"""Damped Newton minimization of the discrete path energy, every problem with its own damping, step and stop.

The exact Hessian of a real path energy is strongly indefinite far from the minimum, and damping it with a multiple of
its Gauss-Newton part shortens the steps by orders of magnitude. Here negative curvature is taken out where it sits: the
element matrices ``hessian + theta * shift`` are positive semi-definite at theta = 1 by construction; theta falls
toward 0 as full steps succeed and rises where the Cholesky factorization fails. At theta = 0 the step is exact Newton,
and the factorization certifies a strict local minimum: no conjugate point inside the curve.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import take, write
from geodesics.metrics.path_energy import Linearization, PathEnergy, speed_profile
from geodesics.minimization.block_cholesky import solve_chain

_FIRST_THETA = 0.005
_FACTORIZATIONS = 10
_ARMIJO = 0.1
_BACKTRACK = 0.4
_LINE_SEARCH = 6
# From a straight line on a smooth metric the bound on the step costs half of the steps. So a step that was cut short
# and gained this share of what the exact quadratic model foretells is doubled, if that gains more; and so is a whole
# step that gained this much more than foretold: there the model is too steep.
_FORETOLD = 0.9
_SURPASSED = 1.1
_MAX_DAMPING = 1e6
# The profile follows the speed while the scale-free gradient is above this. Held fixed it costs steps, for the energy
# of a profile that does not fit hides what is gained; Newton's last steps are quadratic only if it is.
_FOLLOW = 0.02


class NewtonState(NamedTuple):
    """All that the minimizer knows of its problems, leading axis B throughout.

    Attributes:
        points: nodes.
        model: linearization at the points.
        theta: weight of the shift.
        damping: extra multiple of ``hessian + shift``, raised while steps fail.
        decrement: scale-free gradient ``sqrt(g^T A^{-1} g / 2 E)`` where it was last known; its square is the relative
            energy that the next step is to gain, half its square the relative length.
        minimum: whether the exact Hessian was positive definite at the last factorization.
        converged: whether the exact Newton step has a decrement under the tolerance; it is not taken.
        stalled: whether no step decreases the energy, or nothing can be factorized.
        settled: whether the decrement is under ``settle`` while the exact Hessian is indefinite: steps are damped then,
            and gain little.
        iterations: steps tried.
        values: points at which the generator's value was computed.
        jacobians: points at which value, Jacobian and contracted Hessian were computed.
    """

    points: Float[Tensor, "b n d"]
    model: Linearization
    theta: Float[Tensor, " b"]
    damping: Float[Tensor, " b"]
    decrement: Float[Tensor, " b"]
    minimum: Bool[Tensor, " b"]
    converged: Bool[Tensor, " b"]
    stalled: Bool[Tensor, " b"]
    settled: Bool[Tensor, " b"]
    iterations: Int[Tensor, " b"]
    values: Int[Tensor, " b"]
    jacobians: Int[Tensor, " b"]


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
    max_step: Float[Tensor, " b"],
    settle: Float[Tensor, " b"],
) -> NewtonState:
    """Minimize the weighted path energy over the interior nodes.

    Args:
        energy: the discrete energy.
        points: start ``(B, N p + 1, d)``; the two ends stay.
        profile: reference speed profile ``(B, N, g)`` at the start; None for that of the start's own speed.
        weights: of the quadrature in an element.
        tol: a problem stops when its scale-free gradient falls under this.
        max_iter: steps per problem.
        max_step: bound on the move of any node in one step ``(B,)``, in latent units; longer steps are scaled down.
            A step that gains what the exact quadratic model foretells may go twice as far.
        settle: a problem whose exact Hessian is indefinite stops when its scale-free gradient falls under this
            ``(B,)``.

    Returns:
        The final state; no problem's state depends on another's.
    """
    state = _start(energy, points, profile)
    for _ in range(max_iter):
        rows = (~(state.converged | state.stalled | state.settled)).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        if rows.numel() == len(points):
            state = _iterate(energy, state, weights, tol, max_step, settle)
        else:
            write(state, rows, _iterate(energy, take(state, rows), weights, tol, max_step[rows], settle[rows]))
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
        zero,
        zero.clone(),
        torch.full_like(zero, torch.inf),
        no,
        no.clone(),
        ~model.energy.isfinite(),
        no.clone(),
        count,
        count.clone(),
        count + samples,
    )


def _iterate(
    energy: PathEnergy, state: NewtonState, weights: Tensor, tol: float, max_step: Tensor, settle: Tensor
) -> NewtonState:
    """One damped Newton step of every row that is not there yet."""
    direction, theta, factored = _direction(state)
    slope = (state.model.gradient * direction).sum((1, 2))
    usable = factored & (slope <= 0)
    decrement = torch.where(usable, (-slope / (2 * state.model.energy)).clamp(min=0).sqrt(), state.decrement)
    exact = (theta == 0) & (state.damping == 0)
    converged, settled = usable & exact & (decrement <= tol), usable & ~exact & (decrement <= settle)
    longest = direction.norm(dim=-1).amax(1)
    scale = (max_step / longest).clamp(max=1.0)
    going = ~(converged | settled)
    step = _line_search(energy, state, direction, slope, scale, usable & going, tol)
    step = _lengthened(energy, state, direction, slope, step, exact & (decrement > _FOLLOW))
    trial, speed, _, scale, accepted, tried = step
    state = state._replace(
        theta=torch.where(accepted & (scale >= 1), torch.where(theta > _FIRST_THETA, theta / 3, 0.0), theta),
        damping=torch.where(going, _next_damping(state.damping, scale, accepted), state.damping),
        decrement=decrement,
        minimum=exact & factored,
        converged=converged,
        stalled=going & ~accepted & (state.damping >= _MAX_DAMPING),
        settled=settled,
        iterations=state.iterations + going,
        values=state.values + tried * energy.samples(state.model.profile.shape[1]),
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


def _direction(state: NewtonState) -> tuple[Tensor, Tensor, Tensor]:
    """Newton direction with the smallest theta of a ladder at which the factorization succeeds."""
    load = -state.model.gradient
    direction = torch.zeros_like(load)
    theta = state.theta.clone()
    factored = torch.zeros_like(state.minimum)
    rows = torch.arange(len(load), device=load.device)
    for _ in range(_FACTORIZATIONS):
        hessian, shift = state.model.hessian[rows], state.model.shift[rows]
        damping = state.damping[rows, None, None, None]
        matrix = (1 + damping) * hessian + (theta[rows, None, None, None] + damping) * shift
        direction[rows], factored[rows] = solve_chain(matrix, load[rows])
        rows = (~factored).nonzero()[:, 0]
        if rows.numel() == 0:
            break
        raised = (3 * theta[rows]).clamp(min=_FIRST_THETA)
        theta[rows] = torch.where(theta[rows] < 1, raised.clamp(max=1), 1.5 * theta[rows])
    return direction, theta, factored


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


def _next_damping(damping: Tensor, scale: Tensor, accepted: Tensor) -> Tensor:
    lower = torch.where(damping > 0.01, damping / 4, 0.0)
    raised = (4 * damping).clamp(min=0.1)
    return torch.where(accepted, torch.where(scale > 0.3, lower, damping), raised)


def newton_decrement(
    energy: PathEnergy, points: Float[Tensor, "b n d"], profile: Float[Tensor, "b s g"] | None
) -> tuple[Float[Tensor, " b"], Bool[Tensor, " b"]]:
    """Scale-free gradient ``sqrt(g^T A^{-1} g / 2 E)``, and whether the exact Hessian is positive definite.

    A profile of None stands for that of the curve's own speed.
    A is the exact Hessian, or the first shifted one that is positive definite. Half the square of the decrement is the
    relative length that one Newton step is about to save; infinite where nothing factorizes. Cost: the energy's
    ``samples(N)`` values with derivatives.
    """
    state = _start(energy, points, profile)
    direction, theta, factored = _direction(state)
    slope = (state.model.gradient * direction).sum((1, 2))
    decrement = (-slope / (2 * state.model.energy)).clamp(min=0).sqrt()
    known = factored & decrement.isfinite()
    return torch.where(known, decrement, torch.inf), known & (theta == 0)
