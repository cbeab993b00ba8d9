"""Checks of the public arguments of this package: one function and one wording for each kind of fact.

The wordings are those of `geodesics`; this package uses its public names only, and these checks are none of them.
"""

import math
from numbers import Integral, Real

import torch
from torch import Tensor


def check_positive(options: object, *names: str) -> None:
    """Raise unless these attributes are numbers above zero, and finite; None passes where it is the default."""
    for name in names:
        value = getattr(options, name)
        if value is None and getattr(type(options), name, 0) is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number; got {value!r}")
        if not 0 < float(value) < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}")


def check_counts(options: object, *names: str) -> None:
    """Raise unless these attributes are integers, 1 or more; None passes where it is the default."""
    for name in names:
        value = getattr(options, name)
        if value is None and getattr(type(options), name, 0) is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be an integer; got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


def check_not_negative(options: object, *names: str) -> None:
    """Raise unless these attributes are numbers, zero or more, and finite."""
    for name in names:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number; got {value!r}")
        if not 0 <= float(value) < math.inf:
            raise ValueError(f"{name} must be finite and not negative; got {value}")


def check_seed(name: str, seed: object, bits: int = 63) -> None:
    """Raise unless the value is an integer from 0 on that a random generator takes."""
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"{name} must be an integer; got {seed!r}")
    if not 0 <= int(seed) < 2**bits:
        raise ValueError(f"{name} must be from 0 to 2^{bits} - 1; got {seed}")


def check_widths(name: str, widths: object) -> None:
    """Raise unless the value is a tuple of one or more integers, each 1 or more."""
    if not isinstance(widths, tuple) or any(isinstance(w, bool) or not isinstance(w, Integral) for w in widths):
        raise TypeError(f"{name} must be a tuple of integers; got {widths!r}")
    if not widths or min(widths) < 1:
        raise ValueError(f"{name} must be one or more positive widths; got {widths}")


def check_type(name: str, value: object, *kinds: type) -> None:
    """Raise unless the value is an instance of one of these classes."""
    if not isinstance(value, kinds):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name} must be a {' or a '.join(kind.__name__ for kind in kinds)}; got {got}")


def check_floating(name: str, z: object) -> None:
    """Raise unless z is a tensor of float32 or float64 that holds values."""
    if not isinstance(z, Tensor) or z.dtype not in (torch.float32, torch.float64):
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} must be a floating-point tensor, float32 or float64; got {got}")
    if z.is_meta:
        raise ValueError(f"{name} must hold values; got a tensor on the meta device")


def check_data(name: str, x: object, width: int | None = None) -> None:
    """Raise unless the argument is a finite floating-point tensor ``(N, width)`` of at least one row."""
    check_floating(name, x)
    assert isinstance(x, Tensor)
    if x.ndim != 2 or len(x) == 0 or x.shape[1] != (width or x.shape[1]) or not bool(x.isfinite().all()):
        raise ValueError(f"{name} must be finite and (N, {width or 'D'}) with N >= 1; got {tuple(x.shape)}")


def check_rows(name: str, z: Tensor, width: int) -> None:
    """Raise unless the argument is a floating-point tensor ``(B, width)``."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} must be a floating-point tensor; got {got}")
    if z.ndim != 2 or z.shape[1] != width:
        raise ValueError(f"{name} must be (B, {width}); got {tuple(z.shape)}")


def check_variances(latents: Tensor, variances: Tensor, least: int = 1) -> None:
    """Raise unless there are variances, finite and positive, for enough latent points, and those are finite."""
    check_floating("latents", latents)
    check_floating("variances", variances)
    shapes = tuple(latents.shape), tuple(variances.shape)
    if latents.ndim != 2 or variances.ndim != 2 or len(latents) != len(variances) or len(latents) < least:
        raise ValueError(
            f"latents and variances must be (N, d) and (N, D) with N >= {least}; got {shapes[0]} and {shapes[1]}"
        )
    if not (bool(latents.isfinite().all()) and bool((variances.isfinite() & (variances > 0)).all())):
        raise ValueError("latents must be finite, variances finite and positive")
    if latents.dtype != variances.dtype or latents.device != variances.device:
        got = f"{latents.dtype} on {latents.device} and {variances.dtype} on {variances.device}"
        raise ValueError(f"latents and variances must share dtype and device; got {got}")
