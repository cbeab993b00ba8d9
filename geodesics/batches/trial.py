"""A trial at the door: can this decoder be evaluated at such points, row by row? What is wrong is told in words.

Some values at two of the points are enough. Modules stay as they were: buffers that a module in training mode writes
to, such as running statistics, are put back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from geodesics.batches.arguments import check_callable
from geodesics.batches.outputs import Rows, as_rows, is_rows, unvalidated

# Times that a row is repeated: dropout gives all of them the same values hardly ever.
_REPEATS = 5
# Points with larger coordinates are tried nearer to the origin too.
_FAR = 1e3
# How deep functions are searched for the modules that they call.
_DEPTH = 4


def settled(generator: Callable[[Tensor], Any], z: Tensor) -> Callable[[Tensor], Any]:
    """The generator itself, or one of rows where its outputs are images or distributions.

    A few evaluations on two rows, none where z ``(B, d)`` is inside of a transform.

    Raises:
        ValueError: when it cannot be evaluated there, its outputs do not fit, or its rows are coupled or random.
        TypeError: when it is not callable, or its outputs are not tensors.
    """
    check_callable("generator", generator, "(B, d) -> (B, D)")
    if isinstance(generator, type):
        raise TypeError(f"generator must be callable, (B, d) -> (B, D); got the class {generator.__name__}")
    if is_inside(z):
        return generator
    if isinstance(generator, nn.Module):
        _refuse_training(generator)
    found: list[object] = []

    def evaluated(rows: Tensor) -> Tensor:
        found.append(_value("generator", generator, rows))
        return as_rows(rows, found[-1])

    with unvalidated():
        _try("generator", generator, evaluated, _rows(z))
    return generator if is_rows(_rows(z), found[0]) else Rows(generator)


def try_field(
    name: str, function: Callable[[Tensor], Tensor], z: Tensor, check: Callable[[str, Tensor, object], None]
) -> None:
    """The same for a tensor field that came in by the argument ``name``, whose outputs the caller checks.

    Raises:
        ValueError: when it cannot be evaluated there, its outputs do not fit, or its rows are coupled or random.
        TypeError: when its outputs are not tensors.
    """
    if is_inside(z):
        return

    def evaluated(rows: Tensor) -> Tensor:
        value = _value(name, function, rows)
        check(name, rows, value)
        assert isinstance(value, Tensor)
        return value

    _try(name, function, evaluated, _rows(z))


def _try(name: str, function: object, evaluated: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    """Evaluate at two rows, at one of them many times, and near the origin where they hide what is random."""
    with _unchanged([module for _, module in modules_of(function)]):
        first = evaluated(rows)
        if len(rows):
            _refuse_coupled(name, first[0], evaluated(rows[:1].repeat(_REPEATS, 1)), function)
        if not bool(first.isfinite().all() & (rows.abs() < _FAR).all()) or len(rows) == 0:
            try:
                again = evaluated(_tame(rows).repeat(_REPEATS, 1))
            except (ValueError, TypeError):  # outside of its domain, perhaps
                return
            _refuse_coupled(name, again[0], again, function)


def is_inside(z: Tensor) -> bool:
    """Whether the points are inside of a transform of torch.func, where values cannot be looked at."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(z))


def says_something(z: Tensor) -> bool:
    """Whether a trial at such points need not be repeated."""
    return not is_inside(z) and len(z) > 0


def modules_of(function: object, depth: int = _DEPTH) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a callable calls, as far as can be seen, with their names."""
    parts = getattr(function, "generators", None)
    if isinstance(parts, tuple):  # a `Stack`
        for i, generator in enumerate(parts):
            yield from ((f"{i}.{name}".rstrip("."), module) for name, module in modules_of(generator, depth))
    elif isinstance(function, nn.Module):
        yield from function.named_modules()
    elif depth and not isinstance(function, Tensor | type):
        for part in _parts(function):
            yield from modules_of(part, depth - 1)


def _parts(function: object) -> Iterator[object]:
    """What a function, a bound method or an object of the library holds that may be a module or call one."""
    if isinstance(function, partial):
        yield from (function.func, *function.args, *function.keywords.values())
    if isinstance(function, Rows):
        yield function.generator
    if (owner := getattr(function, "__self__", None)) is not None and not isinstance(owner, type):
        yield owner
    inner = getattr(function, "__func__", function)
    for cell in getattr(inner, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        if callable(content):
            yield content
    names = getattr(getattr(inner, "__code__", None), "co_names", ())
    known = getattr(inner, "__globals__", {})
    yield from (known[name] for name in names if isinstance(known.get(name), nn.Module))


def _rows(z: Tensor) -> Tensor:
    """Two of the points, finite ones if there are any."""
    z = z.detach()
    finite = z[z.isfinite().all(1)]
    return finite[:2] if len(finite) else z[:2]


def _tame(rows: Tensor) -> Tensor:
    """The first point, brought near to the origin, where values are finite if they are anywhere."""
    first = rows[:1].nan_to_num(0.5, 0.5, -0.5) if len(rows) else rows.new_full((1, rows.shape[1]), 0.5)
    return first / first.abs().amax().clamp(min=1)


def _refuse_coupled(name: str, alone: Tensor, again: Tensor, function: object) -> None:
    """Raise unless a row ``(...)`` is the same beside another one as beside itself ``(n, ...)``."""
    if _close(again, alone):
        return
    hint = next(filter(None, map(_coupling, modules_of(function))), "")
    cause = f": {hint}" if hint else "; is something random or normalized over the batch?"
    raise ValueError(f"{name} must give a row the same values in every batch and every call{cause}")


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding, which a normalization may enlarge."""
    scale = b.detach().nan_to_num(posinf=0, neginf=0).abs().max() if b.numel() else 0.0
    tolerance = 10 * torch.finfo(a.dtype).eps ** 0.5 * float(scale)
    return bool(torch.isclose(a, b.expand_as(a), rtol=0, atol=tolerance, equal_nan=True).all())


def _refuse_training(generator: nn.Module) -> None:
    for hint in map(_coupling, generator.named_modules()):
        if hint:
            raise ValueError(f"generator must give a row the same values in every batch and every call: {hint}")


def _coupling(named: tuple[str, nn.Module]) -> str:
    """Why a module gives a row other values in another batch or call; empty where it does not."""
    name, module = named
    label = f"its {type(module).__name__} {name!r}" if name else f"it is a {type(module).__name__} and"
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training and module.running_mean is None:
        return f"{label} has no running statistics; train it with track_running_stats=True"
    random = (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU)
    random = random or (isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0)
    batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
    batch = batch or (isinstance(module, _NormBase) and module.track_running_stats)
    if module.training and (random or batch):
        return f"{label} is in training mode; call decoder.eval()"
    return ""


def _value(name: str, function: Callable[[Tensor], Tensor], z: Tensor) -> object:
    """The value at some points, or a ValueError that says why there is none."""
    with torch.inference_mode(False):
        try:
            with torch.enable_grad():
                return _detached(function(z.clone().requires_grad_() * 1))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if "numpy" in str(error).lower() and isinstance(error, RuntimeError):
                raise ValueError(
                    f"{name} must be written in operations of torch; it calls NumPy: with z.detach().numpy() its "
                    "derivatives are had by differences"
                ) from error
        try:
            with torch.no_grad():
                return function(z.clone())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(refusal(name, function, z, error)) from error


def refusal(name: str, function: object, z: Tensor, error: Exception) -> str:
    """Why a decoder or a field that raised cannot be evaluated at such points, in words."""
    asked = "(B, d) to (B, D)" if name == "generator" else "(B, d) to (B, d, d)"
    said = str(error).strip()
    raised = f"{type(error).__name__}: {said.splitlines()[0]}" if said else repr(error)
    what = _misfit(name, function, z) or (
        f"{name} must map {asked}; for z {tuple(z.shape)}, {z.dtype} on {z.device}, it raised {raised}"
    )
    return what + _images(raised)


def _misfit(name: str, function: object, z: Tensor) -> str:
    """That weights have another dtype or device than the points, in a sentence."""
    weights = [
        p for _, module in modules_of(function) for p in module.parameters(recurse=False) if p.is_floating_point()
    ]
    kinds = {(p.dtype, p.device) for p in weights}
    if len(kinds) != 1 or (z.dtype, z.device) in kinds:
        return ""
    ((dtype, device),) = kinds
    if device != z.device:
        return f"{name} has weights on {device} and the points are on {z.device}; move one to the other's device"
    points, decoder = {
        torch.float32: ("points.float()", "decoder.double()"),
        torch.float64: ("points.double()", "decoder.float()"),
    }.get(dtype, ("other points", f"decoder.to({z.dtype})"))
    return f"{name} has {dtype} weights and the points are {z.dtype}; pass {points}, or {decoder}"


def _images(raised: str) -> str:
    """What to do for a decoder of latents that are images."""
    if "4D (batched)" in raised or "3D (unbatched)" in raised:
        return "; for latents (B, C, H, W) pass lambda z: decoder(z.unflatten(1, (C, H, W))), and points.flatten(1)"
    return ""


def _detached(output: object) -> object:
    return output.detach() if isinstance(output, Tensor) else output


@contextmanager
def _unchanged(modules: list[nn.Module]) -> Iterator[None]:
    """Buffers of modules in training mode are put back."""
    kept = [
        (buffer, buffer.detach().clone())
        for module in modules
        if module.training
        for buffer in module.buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
