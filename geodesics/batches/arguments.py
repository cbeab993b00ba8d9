"""Checks of the public arguments: one function and one wording for each kind of fact.

Every message names the argument, says what is expected, and what came. A wrong type is a TypeError, a wrong value,
shape or dtype a ValueError. NaN and infinity are no sizes, and a bool is no number.
"""

import math
from numbers import Integral, Rational, Real

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.float64)
# Larger counts are no counts of anything here, and overflow.
_MOST = 2**31 - 1


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless the value is an integer, ``least`` or more."""
    if _integer(name, value) < least:
        raise ValueError(f"{name} must be at least {least}; got {_brief(value)}")
    if _integer(name, value) > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}; got {_brief(value)}")


def check_count_of(name: str, value: object, most: int, things: str) -> None:
    """Raise unless the value is an integer from 1 to the number of some things."""
    if not 1 <= _integer(name, value) <= most:
        raise ValueError(f"{name} must be from 1 to the {most} {things}; got {_brief(value)}")


def check_positive(name: str, value: object) -> None:
    """Raise unless the value is a number above zero, and finite."""
    if not 0 < _number(name, value) < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {_brief(value)}")


def check_not_negative(name: str, value: object) -> None:
    """Raise unless the value is a number, zero or more, and finite."""
    if not 0 <= _number(name, value) < math.inf:
        raise ValueError(f"{name} must be finite and not negative; got {_brief(value)}")


def check_not_below(options: object, name: str, other: str) -> None:
    """Raise unless one attribute of some options is an integer that reaches another."""
    value, least = getattr(options, name), getattr(options, other)
    check_count(name, value)
    if _integer(name, value) < least:
        raise ValueError(f"{name} must be at least {other}; got {_brief(value)} < {least}")


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
    """Raise unless z is a tensor of float32 or float64, dense, with values."""
    _check_dense(name, z)
    if isinstance(z, Tensor) and z.is_meta:
        raise ValueError(f"{name} must hold values; got a tensor on the meta device")


def _check_dense(name: str, z: object) -> None:
    asked = f"{name} must be a floating-point tensor, float32 or float64"
    if not isinstance(z, Tensor):
        raise TypeError(f"{asked}; got {type(z).__name__}{_tensor_of(name, z)}")
    if z.dtype not in _DTYPES:
        raise TypeError(f"{asked}; got {z.dtype}{'' if z.is_complex() else f': pass {name}.double()'}")
    if z.layout != torch.strided or z.is_nested:
        raise TypeError(f"{name} must be a dense tensor; got {z.layout if not z.is_nested else 'a nested one'}")


def check_points(name: str, z: Tensor, first: str = "n", least: int = 0) -> None:
    """Raise unless z is a floating-point tensor ``(n, d)`` of enough rows, with values."""
    check_floating(name, z)
    if z.ndim != 2 or z.shape[1] < 1 or len(z) < least:
        enough = f" with {first} >= {least}" if least else ""
        raise ValueError(f"{name} must be ({first}, d){enough}; got {tuple(z.shape)}{_rows_of(name, z)}")


def check_alike(tensors: dict[str, Tensor], least_dimension: int = 1) -> None:
    """Raise unless these, by name, are floating-point tensors of one shape ``(B, d)``, one dtype and one device."""
    for name, z in tensors.items():
        _check_dense(name, z)
    first, *rest = tensors.values()
    names, which = _listed(list(tensors)), "both" if len(tensors) == 2 else "all"
    if first.ndim != 2 or first.shape[1] < least_dimension or any(z.shape != first.shape for z in rest):
        enough = f" with d >= {least_dimension}" if least_dimension > 1 else ""
        got = _listed([str(tuple(z.shape)) for z in tensors.values()])
        hint = _rows_of("each", first) if all(z.shape == first.shape for z in rest) else ""
        raise ValueError(f"{names} must {which} be (B, d){enough}; got {got}{hint}")
    if any(z.dtype != first.dtype or z.device != first.device for z in rest):
        got = _listed([f"{z.dtype} on {z.device}" for z in tensors.values()])
        raise ValueError(f"{names} must share dtype and device; got {got}")
    check_floating(names, first)


def check_ends(z0: Tensor, z1: Tensor) -> None:
    """Raise unless z0 and z1 are floating-point tensors of one shape (B, d), dtype and device."""
    check_alike({"z0": z0, "z1": z1})


def plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors that autograd can keep: outside of inference mode, copies of those that were made in it."""
    return tuple(tensor.clone() if tensor.is_inference() else tensor for tensor in tensors)


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
    methods = ("tensor", "norm", "acceleration", "path_energy")
    _check_has("metric", metric, methods, "a Metric, such as PullbackMetric(decoder)")


def check_fits(metric: object, z: Tensor) -> None:
    """Raise unless the metric can be evaluated at the points z ``(B, d)``, if it has a way to tell: ``examine``."""
    if examine := getattr(metric, "examine", None):
        examine(z)


def check_solver(solver: object) -> None:
    """Raise unless the argument is a solver: neither its class nor its name are."""
    _check_has("solver", solver, ("solve",), "a Solver, such as EnergySolver()")


def check_solving(solver: object, initial: object, chunk_size: object) -> None:
    """Raise unless these say how pairs are solved, or are None."""
    if solver is not None:
        check_solver(solver)
    if initial is not None:
        check_callable("initial", initial, "(z0, z1) -> list of Curve")
        if isinstance(initial, type):
            raise TypeError(f"initial must be an instance, such as Straight(); got the class {initial.__name__}")
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)


def check_random(generator: object, device: torch.device) -> None:
    """Raise unless the argument is None or a source of randomness on the device of the points."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None; got {_brief(generator)}")
    if generator is not None and generator.device.type != device.type:
        raise ValueError(f"generator must be on the points' device {device}; got {generator.device}")


def check_seed(seed: object) -> None:
    """Raise unless the argument is an integer that all random generators take."""
    if not 0 <= _integer("seed", seed) < 2**32:
        raise ValueError(f"seed must be from 0 to 2^32 - 1; got {_brief(seed)}")


def check_is(name: str, value: object, kind: type, example: str) -> None:
    """Raise unless the argument is an instance of a class, of which an example is told."""
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else _brief(value)
        raise TypeError(f"{name} must be a {kind.__name__}, {example}; got {got}")


def _check_has(name: str, value: object, methods: tuple[str, ...], expected: str) -> None:
    if isinstance(value, type):
        raise TypeError(f"{name} must be {expected}; got the class {value.__name__}")
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        without = f" without {_listed(missing)}" if len(missing) < len(methods) else ""
        raise TypeError(f"{name} must be {expected}; got {_brief(value)}{without}")


def _tensor_of(name: str, value: object) -> str:
    """How a tensor is made of an array or of numbers."""
    if type(value).__module__.partition(".")[0] in ("numpy", "pandas") or isinstance(value, list | tuple):
        return f": pass torch.as_tensor({name}, dtype=torch.float64)"
    return ""


def _rows_of(name: str, z: Tensor) -> str:
    """How rows are made of a single point, or of latents that are images."""
    if z.ndim == 1:
        return f": pass {name}[None] for one point"
    if z.ndim > 2:
        shape = tuple(z.shape[1:])
        return f": pass {name}.flatten(1), with lambda z: decoder(z.unflatten(1, {shape})) as the decoder"
    return ""


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer; got {_brief(value)}")
    return int(value)


def _number(name: str, value: object) -> float:
    fraction = isinstance(value, Rational) and not isinstance(value, Integral)  # no tensor takes one
    if isinstance(value, bool) or not isinstance(value, Real) or fraction:
        raise TypeError(f"{name} must be a number; got {type(value).__name__ if fraction else _brief(value)}")
    # An integer that no tensor holds is none here.
    return math.inf if isinstance(value, Integral) and abs(int(value)) > 2**63 else float(value)


def _brief(value: object) -> str:
    """A number or None as it is, of anything else the type."""
    if isinstance(value, Integral) and abs(int(value)) > 2**63:
        return "an integer beyond 2^63"
    return str(value) if value is None or isinstance(value, bool | Real) else type(value).__name__


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
