"""Work on many rows: solver states that are taken and written row by row, and how many rows to do at a time."""

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

# Solver states are (nested) NamedTuples of tensors with leading axis B.
State = TypeVar("State", bound=tuple)

# On a processor with caches the caches bound a chunk long before the memory does: measured, passes over more cost up to
# three times as much, and fresh memory of more than 32 MB is mapped anew, page by page, at every call.
_CACHED = 2**24
# On an accelerator the larger the better: this share of the memory that can be had.
_SHARE = 0.25
_HOST = torch.Generator().device.type
# The largest block, with its header, that glibc can be brought to keep.
_KEPT = 2**25 - 2**16


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


def rows_in_memory(like: Tensor, numbers_per_row: int) -> int:
    """How many rows of so many numbers, in the dtype and on the device of a tensor, to work on at a time; at least one.

    Rows never meet, so it changes no result. The memory in use is bounded whatever the number of rows.
    """
    if like.device.type == _HOST:
        _keep_freed_blocks()
        budget = _CACHED
    else:
        budget = int(_SHARE * available_memory(like.device))
    return max(1, budget // (max(numbers_per_row, 1) * like.element_size()))


@cache
def _keep_freed_blocks() -> None:
    """Have the C library reuse the blocks that are let go, once per process.

    glibc hands blocks above a threshold back to the system, which clears and maps them anew, page by page, at every
    call: measured, a third of the time of a linearization. The threshold rises to the largest block let go so far, up
    to 32 MB. Nothing is written to the block here; on other systems nothing happens.
    """
    torch.empty(_KEPT, dtype=torch.uint8)


def available_memory(device: torch.device) -> int:
    """Bytes that can be had on an accelerator: what its driver has left, and what torch holds unused."""
    backend = torch.get_device_module(device)
    if not hasattr(backend, "mem_get_info"):  # none of the common ones
        return 4 * _CACHED
    free: int = backend.mem_get_info(device)[0]
    unused: int = backend.memory_reserved(device) - backend.memory_allocated(device)
    return free + unused
