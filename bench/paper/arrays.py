"""Arrays that figures are drawn from: nested mappings in an npz file, without pickle."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

# Between the names of nested mappings, in the file.
_BETWEEN = "/"


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Write nested mappings of tensors, arrays, numbers and lists of texts; a kill leaves the old file or the new one.

    Floating-point numbers are kept in single precision, which is more than a picture shows.

    Raises:
        ValueError: a name holds a slash.
        TypeError: something is neither of these.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **_flat(arrays))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_arrays(path: Path) -> dict[str, Any]:
    """The nested mappings of a file, all values as arrays, names in the order in which they were written."""
    nested: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            *outer, last = name.split(_BETWEEN)
            inner = nested
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = file[name]
    return nested


def _flat(arrays: Mapping[str, Any], before: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        if _BETWEEN in name:
            raise ValueError(f"names must hold no {_BETWEEN!r}; got {name!r}")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}{_BETWEEN}")
        else:
            flat[before + name] = _array(value)
    return flat


def _array(value: Any) -> np.ndarray:
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "biufU":
        raise TypeError(f"arrays must be made of numbers and text; got {type(value).__name__}")
    return array.astype(np.float32) if array.dtype == np.float64 else array
