"""How the derivatives of a generator are had: chosen once per generator, by comparison with differences of its values.

The first way that runs and does not contradict the values is taken: forward mode, reverse mode, differences. A decoder
whose derivatives run but are grossly others than its values say is refused: something in it drops them.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from geodesics.generators.differences import (
    LONGEST,
    Differences,
    DifferencesOfFirst,
    Probe,
    contradicts,
    is_stepped,
    probe,
    second_differences,
    wide_points,
)
from geodesics.generators.known import FirstOrder, Known, SecondOrder, Transpose, known_of
from geodesics.generators.modes import (
    Forward,
    ForwardByRows,
    ForwardOverReverse,
    NestedForward,
    Reverse,
    ReverseOverReverse,
    Transposed,
    basis_tangents,
    transposed_by_reverse,
)
from geodesics.generators.protocols import Copying, FlatField, Generator
from geodesics.generators.torch_repairs import ByFormula

# Relative difference of two ways to one derivative that says that one of them is wrong.
_OFF = {torch.float64: 1e-3, torch.float32: 1e-2}
# How often a generator is looked at whose values say nothing.
_TRIES = 4
# Outputs per latent dimension up to which a backward pass per output is taken before differences.
_FEW_OUTPUTS = 12


def callable_of(generator: Generator, z: Tensor) -> Generator:
    """The generator, safe to be called: with a copy of the points where it writes into them."""
    known = known_of(generator, z)
    if known.writes is None and known.tries < _TRIES and not _inside_transforms(z):
        _seen(known, generator, z)
    return Copying(generator) if known.writes else generator


def first_way(generator: Generator, z: Tensor) -> FirstOrder:
    """The way to first derivatives.

    Raises:
        ValueError: when all that torch has contradict the generator's values.
    """
    known = known_of(generator, z)
    if known.first is not None:
        return known.first
    if _inside_transforms(z):
        return Forward()
    with _unchanged(generator):
        seen = _seen(known, generator, z)
        if seen is None:
            return Forward()
        finite = bool(z.isfinite().all(1).any())  # those that were seen before may be
        known.first = _choose_first(generator, seen, z if finite else seen.z)
    return known.first


def second_way(generator: Generator, z: Tensor) -> SecondOrder:
    """The way to second derivatives.

    Raises:
        ValueError: when first derivatives contradict the generator's values.
    """
    known = known_of(generator, z)
    if known.second is not None:
        return known.second
    if _inside_transforms(z):
        return ForwardOverReverse()
    first = first_way(generator, z)
    with _unchanged(generator):
        seen = _seen(known, generator, z)
        if seen is None:
            return ForwardOverReverse()
        transpose = transposed_way(generator, z)
        known.second, dropped = _choose_second(generator, seen, first, transpose)
        known.seen = None  # all is found out
    if dropped and transpose is not transposed_by_reverse:
        known.reverse_dropped = (
            f"{name_of(generator)} drops derivatives in reverse mode, as torch.no_grad inside of a network does; "
            "second derivatives are taken without it, and no gradient flows to weights"
        )
        warnings.warn(known.reverse_dropped, stacklevel=4)
    return known.second


def reverse_dropped(generator: Generator, z: Tensor) -> str:
    """What is to be said of a generator whose second derivatives are not had by reverse mode, because it drops them."""
    return known_of(generator, z).reverse_dropped


def transposed_way(generator: Generator, z: Tensor) -> Transpose:
    """The way to ``J^T w``: a backward pass, or the Jacobian where reverse mode does not run or is wrong."""
    known = known_of(generator, z)
    if known.transposed is not None:
        return known.transposed
    if _inside_transforms(z):
        return transposed_by_reverse
    first = first_way(generator, z)
    with _unchanged(generator):
        seen = _seen(known, generator, z)
        if seen is None:
            return transposed_by_reverse
        known.transposed = _choose_transposed(_copying(generator, seen), seen, first)
    return known.transposed


def name_of(generator: object) -> str:
    """A generator's name for messages."""
    kind = "function" if isinstance(generator, FlatField) else "generator"
    named = generator.field if isinstance(generator, FlatField) else generator
    own = getattr(named, "__qualname__", None) or type(named).__qualname__
    return f"{kind} {own.rpartition('<locals>.')[2]}"


def _choose_first(generator: Generator, seen: Probe, latents: Tensor) -> FirstOrder:
    """The first way that runs and does not contradict the values."""
    f, few = _copying(generator, seen), seen.F.shape[1] <= _FEW_OUTPUTS * seen.z.shape[1]
    ways: list[FirstOrder] = [Forward(), ForwardByRows(), Transposed()]
    ways += [Reverse(), Differences()] if few else [Differences(), Reverse()]
    dropped = False
    for way in ways:
        if dropped and isinstance(way, Differences):
            continue  # what drops derivatives is told, not worked around
        found = _attempt(partial(_first_of, way, f, seen))
        if found is None:
            continue
        slope, batched, there = found
        if contradicts(seen.slopes, seen.rounding, slope):
            dropped |= not isinstance(way, Transposed)  # a second backward pass may be missing without a word
        elif not contradicts(seen.slopes, seen.rounding, batched):
            # The metric tensor of a ReLU decoder does change in steps.
            flat = is_stepped(seen, slope, there) or _is_flat(way, f, slope, latents)
            if flat and not isinstance(generator, FlatField):
                _refuse_steps(generator)
            return way
    if dropped:
        _refuse_contradiction(generator)
    return Forward()  # nothing runs: torch's own words say why


def _first_of(way: FirstOrder, f: Generator, seen: Probe) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives along v: alone, among several, and a long step away."""
    several = way.jacobian(f, seen.z, torch.stack([seen.v, -2 * seen.v]))[1]
    return way.along(f, seen.z, seen.v), several[1] / -2, way.along(f, seen.z + LONGEST * seen.v, seen.v)


def _is_flat(way: FirstOrder, f: Generator, slope: Tensor, latents: Tensor) -> bool:
    """Whether derivatives are exactly zero all over the latents while values change."""
    if bool((slope != 0).any() | (latents == 0).all()):  # of zero alone no scale is known
        return False
    points, v = wide_points(latents)
    found = _attempt(lambda: (f(points), way.along(f, points, v)))
    return found is not None and bool((found[1] == 0).all() & (found[0] != found[0][:1]).any())


def _choose_second(
    generator: Generator, seen: Probe, first: FirstOrder, transpose: Transpose
) -> tuple[SecondOrder, bool]:
    """The first way that runs and does not contradict first derivatives, and whether one was passed over that does."""
    f = _copying(generator, seen)
    with ByFormula():
        slopes, rounding = second_differences(partial(first.along, f), seen)
        expected = first.along(f, seen.z, seen.v).detach()
    w = _weights(slopes[0])
    form, form_rounding = (slopes * w).sum(-1, keepdim=True), (rounding * w.abs()).sum(-1, keepdim=True)
    ways: list[SecondOrder] = [ForwardOverReverse(), NestedForward(), ReverseOverReverse()]
    dropped = False
    for way in ways:
        found = _attempt(partial(_second_of, way, f, seen, w))
        if found is None:
            continue
        slope, second, forms = found
        wrong = any(contradicts(form, form_rounding, other, strict=True) for other in forms)
        alike = _agree(slope, expected, expected.abs().amax(1, keepdim=True))
        if alike and not wrong and not contradicts(slopes, rounding, second):
            return way, dropped
        dropped = True
    return DifferencesOfFirst(first.along, transpose), dropped


def _second_of(way: SecondOrder, f: Generator, seen: Probe, w: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """J v, F''[v, v], and v^T H v from a Hessian contracted with weights, among several."""
    slope, second = way.along(f, seen.z, seen.v, seen.v)
    several = way.contracted(f, seen.z, w, torch.stack([seen.v, -2 * seen.v]))
    return slope, second, [(column * seen.v).sum(-1, keepdim=True) for column in (several[0], several[1] / -2)]


def _weights(outputs: Tensor) -> Tensor:
    """Weights without a pattern that the outputs ``(n, D)`` could share, ``(n, D)``."""
    count = torch.arange(1, 1 + outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return count.cos().expand_as(outputs)


def _choose_transposed(f: Generator, seen: Probe, first: FirstOrder) -> Transpose:
    found = _attempt(partial(_transposed_of, f, seen, first))
    if found is not None:
        forward, backward, size = found
        if _agree(forward, backward, size):
            return transposed_by_reverse

    def by_jacobian(generator: Generator, z: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("kbo,bo->bk", first.jacobian(generator, z, basis_tangents(z))[1], w)

    return by_jacobian


def _transposed_of(f: Generator, seen: Probe, first: FirstOrder) -> tuple[Tensor, Tensor, Tensor]:
    """``w^T (J v)``, ``(J^T w)^T v`` and the size of their terms, ``(n,)`` each."""
    pushed = first.along(f, seen.z, seen.v)
    w = _weights(pushed)
    terms = transposed_by_reverse(f, seen.z, w) * seen.v
    return (pushed * w).sum(1), terms.sum(1), (pushed * w).abs().sum(1) + terms.abs().sum(1)


def _agree(a: Tensor, b: Tensor, size: Tensor) -> bool:
    """Whether two ways gave the same, at all points where it is finite."""
    return not bool(((a - b).abs() > _OFF[a.dtype] * size).any())


def _seen(known: Known, generator: Generator, z: Tensor) -> Probe | None:
    """The generator's values at some points, for all comparisons; None where they say nothing."""
    if known.seen is None and known.tries < _TRIES:
        known.tries += 1
        with _unchanged(generator):
            known.seen = _attempt(lambda: probe(generator, z))  # what fails near the points may not fail at them
        known.writes = None if known.seen is None else known.seen.writes
    return known.seen


T = TypeVar("T")


def _attempt(derivatives: Callable[[], T]) -> T | None:
    """Derivatives, or None where torch has none. Out of memory is no answer to that."""
    try:
        with torch.enable_grad(), ByFormula():  # some second derivatives of torch ask for gradients
            return derivatives()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return None


def _copying(generator: Generator, seen: Probe) -> Generator:
    return Copying(generator) if seen.writes else generator


def _refuse_steps(generator: Generator) -> None:
    raise ValueError(
        f"{name_of(generator)} has values that change while its derivative is zero: something in it drops derivatives, "
        "as rounding, argmax, .detach(), .data and torch.inference_mode do"
    )


def _refuse_contradiction(generator: Generator) -> None:
    raise ValueError(
        f"{name_of(generator)} has derivatives that contradict its values: something in it drops a part of them, as "
        ".detach(), .data, torch.no_grad and torch.inference_mode do, or a custom autograd.Function has wrong ones"
    )


@contextmanager
def _unchanged(generator: Generator) -> Iterator[None]:
    """Buffers of a module in training mode, such as running statistics, are put back."""
    buffers: list[tuple[Tensor, Tensor]] = []
    if isinstance(generator, nn.Module) and any(module.training for module in generator.modules()):
        buffers = [(buffer, buffer.detach().clone()) for buffer in generator.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def _inside_transforms(z: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(z))
