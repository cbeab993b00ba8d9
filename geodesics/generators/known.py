"""What has been found out about generators, kept as long as they live.

Weights may change, so nothing that depends on their values is kept for long: only how derivatives are had.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from geodesics.batches.arguments import check_callable
from geodesics.batches.outputs import Rows
from geodesics.batches.trial import says_something, settled
from geodesics.generators.differences import Probe
from geodesics.generators.protocols import FlatField, Generator


@runtime_checkable
class FirstOrder(Protocol):
    """A way to first derivatives."""

    words: str

    def jacobian(self, generator: Generator, z: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """F(z) ``(B, D)`` and the derivatives along tangents ``(t, B, d)``, as ``(t, B, D)``."""

    def along(self, generator: Generator, z: Tensor, v: Tensor) -> Tensor:
        """J(z) v, ``(B, D)``."""


@runtime_checkable
class SecondOrder(Protocol):
    """A way to second derivatives."""

    words: str

    def along(self, generator: Generator, z: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """J v and F''[u, v], ``(B, D)`` both."""

    def contracted(self, generator: Generator, z: Tensor, w: Tensor, tangents: Tensor) -> Tensor:
        """H(w) t for tangents t ``(t, B, d)``, as ``(t, B, d)``."""


Transpose = Callable[[Generator, Tensor, Tensor], Tensor]


@dataclass
class Known:
    """What has been found out about a generator, for points of one kind.

    Attributes:
        writes: whether it writes into its argument, and so has to be given a copy.
        first: the way to its first derivatives.
        second: the way to its second ones.
        transposed: ``(generator, z, w) -> J^T w``.
        seen: its values at some points, until all is found out.
        tries: how often they were asked for.
        tried: the state in which it was tried at the door, None if it was not.
        rows: whether its outputs are rows as they are.
        reverse_dropped: what is to be said where reverse mode runs and drops derivatives.
    """

    writes: bool | None = None
    first: FirstOrder | None = None
    second: SecondOrder | None = None
    transposed: Transpose | None = None
    reverse_dropped: str = ""
    seen: Probe | None = None
    tries: int = 0
    tried: tuple[object, ...] | None = None
    rows: bool = True


def settled_once(generator: Generator, z: Tensor) -> Generator:
    """`geodesics.batches.trial.settled`, tried once for each kind of points and state of the decoder."""
    check_callable("generator", generator, "(B, d) -> (B, D)")
    state = _state(generator)
    known = known_of(generator, z)
    if known.tried is None or known.tried != state:
        answer = settled(generator, z)
        if not says_something(z):
            return answer
        known.tried, known.rows = state, answer is generator
    return generator if known.rows else Rows(generator)


def _state(generator: Generator) -> tuple[object, ...]:
    """What decides whether a module can be evaluated: its modes, and the kind of its weights."""
    if not isinstance(generator, nn.Module):
        return ()
    weight = next(generator.parameters(), None)
    kind = None if weight is None else (weight.dtype, weight.device)
    return sum(module.training for module in generator.modules()), kind


def share(generator: Generator, derived: Generator) -> Generator:
    """The derived generator, made of the same operations: what is found out about one holds for the other."""
    if derived is not generator:
        _table(generator)  # exists from now on
        anchor, _ = _anchor(derived)
        _TABLES[id(anchor)] = _weak(anchor), _table(generator)
    return derived


_Table = dict[tuple[object, ...], Known]
_TABLES: dict[int, tuple[Callable[[], object], _Table]] = {}


def known_of(generator: Generator, z: Tensor) -> Known:
    """What is known of a generator for points like these; a blank entry at first."""
    _, part = _anchor(generator)
    key = part, z.dtype, z.device, z.shape[-1], getattr(generator, "training", None)
    table = _table(generator)
    known = table.get(key)
    if known is None:
        known = table[key] = Known()
    return known


def _anchor(generator: Generator) -> tuple[object, object]:
    """The object that lives as long as a generator is used, and which part of it; methods are made at each look."""
    if isinstance(generator, FlatField):
        anchor, part = _anchor(generator.field)
        return anchor, (FlatField, part)
    if isinstance(generator, Rows):
        anchor, part = _anchor(generator.generator)
        return anchor, (Rows, part)
    if isinstance(generator, MethodType):
        return generator.__self__, generator.__func__
    return generator, None


def _table(generator: Generator) -> _Table:
    anchor, _ = _anchor(generator)
    entry = _TABLES.get(id(anchor))
    if entry is None or entry[0]() is not anchor:
        entry = _TABLES[id(anchor)] = _weak(anchor), {}
    return entry[1]


def _weak(anchor: object) -> Callable[[], object]:
    """A weak reference whose end removes the entry; a strong one where there are no weak ones."""
    key = id(anchor)
    try:
        return weakref.ref(anchor, lambda reference: _forget(key, reference))
    except TypeError:
        return lambda: anchor


def _forget(key: int, reference: object) -> None:
    entry = _TABLES.get(key)
    if entry is not None and entry[0] is reference:
        del _TABLES[key]
