"""One explicit Runge-Kutta step of an autonomous field, each row with its own step, and its derivative."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.integrate import DOP853
from torch import Tensor

from geodesics.generators.derivatives import derivative_of_map

Field = Callable[[Tensor], Tensor]

# Evaluations of the field in one step with its error estimate.
STAGES = DOP853.n_stages + 1


def step(
    field: Field, y: Float[Tensor, "b m"], h: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]]:
    """One step of y' = f(y) by the method of order 8 of Dormand and Prince (DOP853), with its error estimate.

    Args:
        field: row-wise ``(B, m) -> (B, m)``; called `STAGES` times.
        y: states.
        h: steps, one per row; a step of zero returns the state.

    Returns:
        The new states, and the estimated errors of their components: the difference to the embedded method of
        order 5, corrected by that of order 3 (Hairer, Norsett and Wanner, Solving Ordinary Differential
        Equations I, II.10), which makes it of order 8 where the two agree; not negative.
    """
    new, slopes = _advance(field, y, h)
    slopes = torch.cat([slopes, field(new)[None]])
    fifth, third = (torch.as_tensor(weights).to(y) for weights in (DOP853.E5, DOP853.E3))
    fifth, third = (h[:, None] * torch.einsum("s,sbm->bm", weights, slopes) for weights in (fifth, third))
    squared = fifth.square().sum(1, keepdim=True)
    both = squared + third.square().sum(1, keepdim=True) / 100
    correction = squared / both.clamp(min=torch.finfo(y.dtype).tiny)
    return new, fifth.abs() * correction.sqrt()


def step_derivative(field: Field, y: Float[Tensor, "b m"], h: Float[Tensor, " b"]) -> Float[Tensor, "b m m"]:
    """Derivative of the new states of `step` in y: column j of row i is ``d step(y)_i / d y_ij``.

    The variational equations, integrated along: m forward-mode passes, vmapped.
    """

    def new_state(state: Tensor) -> Tensor:
        return _advance(field, state, h)[0]

    return derivative_of_map(new_state, y).movedim(0, -1)


def _advance(field: Field, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """The new states and the slopes at the stages ``(S, B, m)``."""
    matrix, weights = (torch.as_tensor(table).to(y) for table in (DOP853.A, DOP853.B))
    slopes = field(y)[None]
    for row in range(1, DOP853.n_stages):
        stage = y + h[:, None] * torch.einsum("s,sbm->bm", matrix[row, :row], slopes)
        slopes = torch.cat([slopes, field(stage)[None]])
    return y + h[:, None] * torch.einsum("s,sbm->bm", weights, slopes), slopes
