"""Checks of the public arguments of this package: one function and one wording for each kind of fact.

The wordings are those of `geodesics`; this package uses its public names only, and these checks are none of them.
"""

import math
from numbers import Integral, Real

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


def check_rows(name: str, z: Tensor, width: int) -> None:
    """Raise unless the tensor is ``(B, width)``."""
    if z.ndim != 2 or z.shape[1] != width:
        raise ValueError(f"{name} must be (B, {width}); got {tuple(z.shape)}")


def check_variances(latents: Tensor, variances: Tensor, least: int = 1) -> None:
    """Raise unless there are variances, finite and positive, for enough latent points, and those are finite."""
    shapes = tuple(latents.shape), tuple(variances.shape)
    if latents.ndim != 2 or variances.ndim != 2 or len(latents) != len(variances) or len(latents) < least:
        raise ValueError(
            f"latents and variances must be (N, d) and (N, D) with N >= {least}; got {shapes[0]} and {shapes[1]}"
        )
    if not (bool(latents.isfinite().all()) and bool((variances.isfinite() & (variances > 0)).all())):
        raise ValueError("latents must be finite, variances finite and positive")
