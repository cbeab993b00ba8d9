"""Checks of the public arguments, with one wording for all."""

from torch import Tensor


def require_at_least_one(options: object, *names: str) -> None:
    """Raise unless these attributes are 1 or more."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(options, name)}")


def require_positive(options: object, *names: str) -> None:
    """Raise unless these attributes are above zero, or None where None stands for a default."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive; got {value}")


def require_not_below(options: object, name: str, other: str) -> None:
    """Raise where one attribute is below another."""
    value, least = getattr(options, name), getattr(options, other)
    if value < least:
        raise ValueError(f"{name} must be at least {other}; got {value} < {least}")


def check_points(name: str, z: Tensor, first: str = "n") -> None:
    """Raise unless z is a floating-point tensor ``(n, d)``."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor; got {getattr(z, 'dtype', type(z).__name__)}")
    if z.ndim != 2 or z.shape[1] < 1:
        raise ValueError(f"{name} must be ({first}, d); got {tuple(z.shape)}")


def check_ends(z0: Tensor, z1: Tensor) -> None:
    """Raise unless z0 and z1 are floating-point tensors of one shape (B, d), dtype and device."""
    for name, z in (("z0", z0), ("z1", z1)):
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor; got {getattr(z, 'dtype', type(z).__name__)}")
    if z0.ndim != 2 or z0.shape != z1.shape or z0.shape[1] < 1:
        raise ValueError(f"z0 and z1 must both be (B, d); got {tuple(z0.shape)} and {tuple(z1.shape)}")
    if z0.dtype != z1.dtype or z0.device != z1.device:
        raise ValueError(
            f"z0 and z1 must share dtype and device; got {z0.dtype} on {z0.device} and {z1.dtype} on {z1.device}"
        )
