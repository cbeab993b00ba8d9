"""Checks of the public arguments: one function and one wording for each kind of fact.

Every message names the argument, says what is expected, and what came. A wrong type is a TypeError, a wrong value,
shape or dtype a ValueError. NaN and infinity are no sizes, and a bool is no number.
"""

import math
from numbers import Integral, Real

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64)


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless the value is an integer, ``least`` or more."""
    if _integer(name, value) < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def check_count_of(name: str, value: object, most: int, things: str) -> None:
    """Raise unless the value is an integer from 1 to the number of some things."""
    if not 1 <= _integer(name, value) <= most:
        raise ValueError(f"{name} must be from 1 to the {most} {things}; got {value}")


def check_positive(name: str, value: object) -> None:
    """Raise unless the value is a number above zero, and finite."""
    if not 0 < _number(name, value) < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {value}")


def check_not_negative(name: str, value: object) -> None:
    """Raise unless the value is a number, zero or more, and finite."""
    if not 0 <= _number(name, value) < math.inf:
        raise ValueError(f"{name} must be finite and not negative; got {value}")


def check_not_below(options: object, name: str, other: str) -> None:
    """Raise unless one attribute of some options is an integer that reaches another."""
    value, least = getattr(options, name), getattr(options, other)
    if _integer(name, value) < least:
        raise ValueError(f"{name} must be at least {other}; got {value} < {least}")


def check_counts(options: object, *names: str) -> None:
    """`check_count` for attributes of some options."""
    for name in names:
        check_count(name, getattr(options, name))


def check_sizes(options: object, *names: str) -> None:
    """`check_positive` for attributes of some options; None passes where it is the default."""
    for name in names:
        value = getattr(options, name)
        if value is not None or getattr(type(options), name) is not None:
            check_positive(name, value)


def check_floating(name: str, z: object) -> None:
    """Raise unless z is a tensor of float32 or float64."""
    if not isinstance(z, Tensor) or z.dtype not in _DTYPES:
        got = getattr(z, "dtype", type(z).__name__) if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} must be a floating-point tensor, float32 or float64; got {got}")


def check_points(name: str, z: Tensor, first: str = "n", least: int = 0) -> None:
    """Raise unless z is a floating-point tensor ``(n, d)`` of enough rows, with values."""
    check_floating(name, z)
    if z.ndim != 2 or z.shape[1] < 1 or len(z) < least:
        enough = f" with {first} >= {least}" if least else ""
        raise ValueError(f"{name} must be ({first}, d){enough}; got {tuple(z.shape)}")
    _check_values(name, z)


def check_alike(tensors: dict[str, Tensor], least_dimension: int = 1) -> None:
    """Raise unless these, by name, are floating-point tensors of one shape ``(B, d)``, one dtype and one device."""
    for name, z in tensors.items():
        check_floating(name, z)
    first, *rest = tensors.values()
    names, which = _listed(list(tensors)), "both" if len(tensors) == 2 else "all"
    if first.ndim != 2 or first.shape[1] < least_dimension or any(z.shape != first.shape for z in rest):
        enough = f" with d >= {least_dimension}" if least_dimension > 1 else ""
        got = _listed([str(tuple(z.shape)) for z in tensors.values()])
        raise ValueError(f"{names} must {which} be (B, d){enough}; got {got}")
    if any(z.dtype != first.dtype or z.device != first.device for z in rest):
        got = _listed([f"{z.dtype} on {z.device}" for z in tensors.values()])
        raise ValueError(f"{names} must share dtype and device; got {got}")
    _check_values(names, first)


def check_ends(z0: Tensor, z1: Tensor) -> None:
    """Raise unless z0 and z1 are floating-point tensors of one shape (B, d), dtype and device."""
    check_alike({"z0": z0, "z1": z1})


def check_shape(name: str, tensor: object, symbols: str, shape: tuple[int, ...]) -> None:
    """Raise unless the argument is a tensor of that shape, which its letters explain: ``"(K, d)"``."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor {symbols} = {tuple(shape)}; got {type(tensor).__name__}")
    if tensor.shape != shape:
        raise ValueError(f"{name} must be {symbols} = {tuple(shape)}; got {tuple(tensor.shape)}")


def check_finite(name: str, z: Tensor) -> None:
    """Raise unless all entries are finite."""
    if not bool(z.isfinite().all()):
        raise ValueError(f"{name} must be finite; got {int((~z.isfinite()).sum())} of {z.numel()} entries that are not")


def check_output(name: str, z: Tensor, out: object, mapping: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise unless a function of points ``(B, d)`` gave a tensor of fitting shape.

    Args:
        name: the argument that the function came in by.
        z: the points.
        out: what it gave.
        mapping: from what shape to what, in letters: ``"(B, d) to (B, D)"``.
        shape: the second in numbers; None for ``(B, D)`` of any D.
    """
    asked = f"{name} must map {mapping}; got {tuple(z.shape)}"
    if not isinstance(out, Tensor):
        raise TypeError(f"{asked} -> {type(out).__name__}")
    if (out.ndim != 2 or len(out) != len(z)) if shape is None else out.shape != shape:
        raise ValueError(f"{asked} -> {tuple(out.shape)}")


def check_kept(name: str, z: Tensor, out: Tensor) -> None:
    """Raise unless a function of points gave what has their dtype and device."""
    if out.dtype != z.dtype or out.device != z.device:
        raise ValueError(
            f"{name} must keep dtype and device; got {z.dtype} on {z.device} -> {out.dtype} on {out.device}"
        )


def check_callable(name: str, function: object, signature: str) -> None:
    """Raise unless the argument can be called."""
    if not callable(function):
        raise TypeError(f"{name} must be callable, {signature}; got {type(function).__name__}")


def check_metric(metric: object) -> None:
    """Raise unless the argument is a metric: a decoder is none."""
    _check_has("metric", metric, "tensor", "a Metric, such as PullbackMetric(decoder)")


def check_solver(solver: object) -> None:
    """Raise unless the argument is a solver: neither its class nor its name are."""
    _check_has("solver", solver, "solve", "a Solver, such as EnergySolver()")


def _check_has(name: str, value: object, method: str, expected: str) -> None:
    if isinstance(value, type):
        raise TypeError(f"{name} must be {expected}; got the class {value.__name__}")
    if not callable(getattr(value, method, None)):
        raise TypeError(f"{name} must be {expected}; got {_brief(value)}")


def _check_values(name: str, z: Tensor) -> None:
    if z.is_meta:
        raise ValueError(f"{name} must hold values; got a tensor on the meta device")


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {_brief(value)}")
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number; got {_brief(value)}")
    return float(value)


def _brief(value: object) -> str:
    """A number or None as it is, of anything else the type."""
    return str(value) if value is None or isinstance(value, bool | Real) else type(value).__name__


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]
