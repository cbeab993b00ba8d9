"""One level of resolution without matrices: L-BFGS on the weighted energy, every row with its own steps and stop."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodesics.batches.rows import take, write
from geodesics.matrix_free.quasi_newton import (
    Memory,
    Preconditioner,
    inverse_stiffness,
    nothing,
    quasi_newton_direction,
    remember,
)
from geodesics.matrix_free.streamed import Evaluation, StreamedEnergy, decrement_by_products
from geodesics.metrics.path_energy import speed_profile

_ARMIJO, _BACKTRACK, _LINE_SEARCH = 1e-4, 0.5, 12
# No node moves more than this share of the curve's length in one step, both in the mean metric's axes.
_MAX_STEP = 0.25
# Steps between two looks at the profile, at what the samples do not see, and at what the steps gain.
_LOOK = 10
# The steps' own estimate of the gradient is too small, measured, by up to four times: they go on to this share of the
# tolerance.
_ESTIMATED = 0.1
# What samples do not see makes a mesh too coarse if it is more than so many steps gain.
_UNSEEN = 100
# Steps like the last that a curve may have left, for the stop and for the error estimate. Measured on a learned metric
# of 16 latents, curves that were continued to the end fell by 0.5 to 2.5 times a hundred steps like the last.
_AHEAD, _LEFT = 100, 200
# Where the gradient is within this factor of its tolerance, steps go on although they gain little, not nothing.
_NEAR = 5


class Goal(NamedTuple):
    """What a level aims at: gradient and length tolerance, steps, pairs remembered, and whether it may be the last.

    A level that may be the last has to prove what is left to gain, and so has one that must be.
    """

    tol: float
    length_tol: float
    max_iter: int
    history: int
    proves: bool
    last: bool


class Descent(NamedTuple):
    """R curves on their way, leading axis R throughout.

    Attributes:
        points: nodes.
        profile: reference profile of the weighted energy.
        at: energy, speeds and derivative there.
        memory: the last steps.
        inverse: of the stiffness matrix.
        axes: diagonal of the mean metric.
        reached: length at the last look.
        gain: relative length gained per step since the look before.
        gradient: scale-free gradient, as the last steps know it, or measured where that is under its tolerance.
        minimum: whether no negative curvature was met when it was measured; False before.
        stalled: whether no step decreases the energy.
        done: whether the row has ended.
        iterations: steps.
        evaluations: of the energy with its derivative.
        looks: of the energy with twice as many samples.
    """

    points: Float[Tensor, "r n d"]
    profile: Float[Tensor, "r s g"]
    at: Evaluation
    memory: Memory
    inverse: Float[Tensor, "r n n"]
    axes: Float[Tensor, "r d"]
    reached: Float[Tensor, " r"]
    gain: Float[Tensor, " r"]
    gradient: Float[Tensor, " r"]
    minimum: Bool[Tensor, " r"]
    stalled: Bool[Tensor, " r"]
    done: Bool[Tensor, " r"]
    iterations: Int[Tensor, " r"]
    evaluations: Int[Tensor, " r"]
    looks: Int[Tensor, " r"]

    def left_to_gain(self, tol: float) -> Float[Tensor, " r"]:
        """Relative length that may be left: twice the gain of the quadratic model where it can be trusted.

        Elsewhere ten times that, or two hundred steps like the last, whichever is more.
        """
        ahead = (5 * self.gradient.square()).maximum(_LEFT * self.gain)
        return torch.where((self.gradient <= tol) & self.minimum, self.gradient.square(), ahead)


def descend_level(
    streamed: StreamedEnergy, finer: StreamedEnergy, points: Float[Tensor, "r n d"], axes: Tensor, goal: Goal
) -> Descent:
    """Minimize from some nodes on a fixed number of elements.

    A row ends when its gradient is under its tolerance, when it gains little, when twice as many samples see more than
    what it gains (then a finer mesh is due), or when no step helps.
    """
    state = _start(streamed, points, axes, goal)
    rows = torch.arange(len(points), device=points.device)
    part = take(state, rows)
    for iteration in range(goal.max_iter + 1):
        if iteration % _LOOK == 0 or iteration == goal.max_iter:
            part = _look(streamed, finer, part, goal)
        active = (~part.done).nonzero()[:, 0]
        if len(active) < len(rows):
            write(state, rows, part)
            rows, part = rows[active], take(part, active)
        if rows.numel() == 0 or iteration == goal.max_iter:
            break
        part = _step(streamed, part, goal)
    if rows.numel():
        write(state, rows, part)
    return _measured(streamed, state, goal) if goal.proves else state


def preconditioner(inverse: Tensor, axes: Tensor) -> Preconditioner:
    """``K^{-1} g diag(M)^{-1}``: the inverse of the energy's Hessian where the metric is constant and diagonal."""
    return lambda g: inverse @ g / axes[:, None]


def _start(streamed: StreamedEnergy, points: Tensor, axes: Tensor, goal: Goal) -> Descent:
    weights = streamed.elements.weights
    speed = streamed.speed(points)
    profile = speed_profile(speed, weights)
    at = streamed.evaluate(points, profile)
    unknown = torch.full_like(at.energy, torch.inf)
    lost = ~(at.energy.isfinite() & at.derivative.isfinite().all(2).all(1))
    none = torch.zeros_like(lost, dtype=torch.long)
    return Descent(
        points.clone(),
        profile,
        at,
        nothing(points, goal.history),
        inverse_stiffness(streamed.elements, profile),
        axes,
        unknown,
        unknown.clone(),
        unknown.clone(),
        torch.zeros_like(lost),
        lost,
        lost.clone(),
        none,
        none + 2,
        none.clone(),
    )


def _step(streamed: StreamedEnergy, state: Descent, goal: Goal) -> Descent:
    """One step of every row, with a backtracking line search (Armijo) and the history forgotten where it fails."""
    precondition = preconditioner(state.inverse, state.axes)
    fresh = (state.memory.weight == 0).all(1)
    # The preconditioner has the metric's own scale: before any pair it is taken as it is.
    memory = state.memory._replace(scale=torch.where(fresh, 1.0, state.memory.scale))
    direction = quasi_newton_direction(state.at.derivative, memory, precondition)
    slope = (state.at.derivative * direction).sum((1, 2))
    estimate = (-slope / (2 * state.at.energy)).clamp(min=0).sqrt()
    unit = state.axes.sqrt()[:, None]
    length = (state.points.diff(dim=1) * unit).norm(dim=-1).sum(1)
    scale = (_MAX_STEP * length / (direction * unit).norm(dim=-1).amax(1)).clamp(max=1)
    rounding = 4 * torch.finfo(slope.dtype).eps * state.at.energy
    points, at = state.points.clone(), Evaluation(*(field.clone() for field in state.at))
    accepted, evaluations = torch.zeros_like(state.done), state.evaluations.clone()
    rows = (slope < 0).nonzero()[:, 0]
    for _ in range(_LINE_SEARCH):
        if rows.numel() == 0:
            break
        trial = state.points[rows] + scale[rows, None, None] * direction[rows]
        found = streamed.evaluate(trial, state.profile[rows])
        bound = state.at.energy[rows] + _ARMIJO * scale[rows] * slope[rows] + rounding[rows]
        good = (found.energy <= bound) & found.derivative.isfinite().all(2).all(1)
        evaluations[rows] += 1
        points[rows[good]] = trial[good]
        write(at, rows[good], take(found, good.nonzero()[:, 0]))
        accepted[rows[good]] = True
        rows = rows[~good]
        scale = scale.index_copy(0, rows, _BACKTRACK * scale[rows])
    memory = remember(memory, points - state.points, at.derivative - state.at.derivative, precondition)
    memory = memory._replace(weight=torch.where(accepted[:, None], memory.weight, 0.0))
    stalled = ~accepted & fresh
    return state._replace(
        points=points,
        at=at,
        memory=memory,
        gradient=estimate,
        stalled=stalled,
        done=stalled | (accepted & (estimate <= _ESTIMATED * goal.tol)),
        iterations=state.iterations + 1,
        evaluations=evaluations,
    )


def _look(streamed: StreamedEnergy, finer: StreamedEnergy, state: Descent, goal: Goal) -> Descent:
    """Renew the profile where it has come off the speed, and see whether to go on."""
    weights = streamed.elements.weights
    length = (state.at.speed @ weights).sum(1)
    gain = (state.reached - length) / (_LOOK * length)
    dense = (finer.speed(state.points) @ finer.elements.weights).sum(1)
    unseen = (dense - length).abs() / length
    coarse = (unseen > (_UNSEEN * gain).clamp(min=goal.length_tol / 2)) & (not goal.last) & (state.iterations > 0)
    near = (state.gradient <= _NEAR * goal.tol) & (_LEFT * gain > goal.length_tol / 20) & goal.proves
    slow = ~near & ((_AHEAD * gain).maximum(5 * state.gradient.square()) <= goal.length_tol / 4)
    state = state._replace(reached=length, gain=gain, looks=state.looks + 1)
    done = state.done | coarse | slow | ~length.isfinite()
    spread = (2 * state.at.energy).sqrt() / length - 1
    rows = ((spread > goal.length_tol / 20) & ~done).nonzero()[:, 0]
    if rows.numel():
        some = take(state, rows)
        profile = speed_profile(some.at.speed, weights)
        write(state.at, rows, streamed.evaluate(some.points, profile))
        state.profile[rows], state.inverse[rows] = profile, inverse_stiffness(streamed.elements, profile)
        state.evaluations[rows] += 1
    return state._replace(done=done)


def _measured(streamed: StreamedEnergy, state: Descent, goal: Goal) -> Descent:
    """Measure the gradient where the steps' own estimate is under its tolerance."""
    rows = (state.gradient <= goal.tol).nonzero()[:, 0]
    if rows.numel() == 0:
        return state
    some = take(state, rows)
    precondition = preconditioner(some.inverse, some.axes)
    found = decrement_by_products(streamed, some.points, some.profile, some.at, precondition)
    state.gradient[rows], state.minimum[rows] = found.gradient, found.minimum
    state.evaluations[rows] += found.products
    return state
