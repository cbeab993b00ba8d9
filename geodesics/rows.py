"""Row bookkeeping: solver states are (nested) NamedTuples of tensors with leading axis B."""

from typing import TypeVar

from torch import Tensor

State = TypeVar("State", bound=tuple)


def take(state: State, rows: Tensor) -> State:
    """The state of some rows, given by an index tensor."""
    return type(state)(*(take(field, rows) if isinstance(field, tuple) else field[rows] for field in state))


def write(state: tuple, rows: Tensor, part: tuple) -> None:
    """Write the state of some rows back, in place."""
    for field, new in zip(state, part, strict=True):
        if isinstance(field, tuple):
            write(field, rows, new)
        else:
            field[rows] = new
