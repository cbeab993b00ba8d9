"""What a bare machine lacks: with torch and NumPy alone the core and the generators can be imported after this module.

`jaxtyping` is needed only to write shapes down; where it is not installed a stand-in takes its place, whose
annotations say nothing but the tensor's type. `safetensors` files are read here without their library: eight bytes of
length, a JSON header, raw data. Nothing else that is not torch, NumPy or the standard library is needed to compute
geodesics from given starts.
"""

import json
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

MODELS = Path(__file__).resolve().parents[1] / "models"
STARTS = MODELS / "digits_starts.npz"
_TYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


def stand_in() -> ModuleType:
    """A module that can be imported as `jaxtyping`: ``Float[Tensor, "b d"]`` is Tensor."""

    class Shape:
        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    module = ModuleType("jaxtyping", "Stand-in: shape annotations that say nothing.")
    for name in ("Bool", "Float", "Int"):
        setattr(module, name, type(name, (Shape,), {}))
    return module


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[start:end], dtype=_TYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors, metadata


STANDS_IN = find_spec("jaxtyping") is None
if STANDS_IN:
    sys.modules["jaxtyping"] = stand_in()
