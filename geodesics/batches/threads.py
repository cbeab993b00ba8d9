"""One thread at a time in forward mode: torch counts its levels for the whole process.

Two threads inside of `torch.func.jvp` at once close each other's levels: they raise, or give wrong numbers. So all
forward derivatives of this library are taken under one lock, for as long as one derivative takes. Values, and all other
work of other threads, go on beside it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Re-entrant: a decoder may call the library.
_LOCK = threading.RLock()


@contextmanager
def forward_mode() -> Iterator[None]:
    """While this is entered, no other thread takes a forward derivative with this library.

    The library enters it by itself; any number of threads may call it. Enter it around forward derivatives of your own
    (`torch.func.jvp`, `torch.func.jacfwd`, `torch.func.hessian`, `torch.autograd.forward_ad`) where other threads call
    the library meanwhile. A thread may enter it many times. A process is forked only while no other thread is inside,
    so that the child, such as a worker of a data loader, may call the library as well. Do not wait inside for another
    thread that calls the library: that includes a decoder which hands its work to threads that do.
    """
    with _LOCK:
        yield


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
