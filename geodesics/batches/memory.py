"""How much memory there is, and errors that come before it is exceeded."""

from pathlib import Path

import torch
from torch import Tensor

from geodesics.batches.rows import available_memory

_HOST = torch.Generator().device.type
# What a Linux kernel says of its memory, and of the share of a container.
_KERNEL = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
# Taken for free where no kernel says otherwise.
_UNKNOWN = 4 * 2**30
_GIB = 2**30


def free_memory(like: Tensor) -> int:
    """Bytes that can still be had on the device of a tensor."""
    if like.device.type != _HOST:
        return available_memory(like.device)
    return min(_kernel_memory(), _container_memory())


def check_memory(needed: int, like: Tensor, what: str, remedy: str) -> None:
    """Raise unless so many bytes are free on the device of a tensor.

    Args:
        needed: bytes.
        like: a tensor on the device.
        what: what needs them, the first words of the message.
        remedy: what would do instead, its last sentence.

    Raises:
        ValueError: when less is free.
    """
    free = free_memory(like)
    if needed > free:
        raise ValueError(f"{what} needs about {needed / _GIB:.2g} GiB of memory; {free / _GIB:.2g} are free. {remedy}")


def _kernel_memory() -> int:
    try:
        lines = _KERNEL.read_text(encoding="ascii").splitlines()
    except OSError:
        return _UNKNOWN
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), _UNKNOWN)


def _container_memory() -> int:
    """What a container has left, its file cache counted as used; unlimited outside of one."""
    try:
        most, used = (path.read_text(encoding="ascii").strip() for path in _CONTAINER)
    except OSError:
        return 2**63
    return int(most) - int(used) if most.isdigit() else 2**63
