"""Data sets as flat float32 rows: the bundled digits, MNIST and Fashion-MNIST, one's own arrays."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.datasets import load_digits as _bundled_digits
from torch import Tensor

from vae.files.tensor_files import check_regular, named_in_errors


class Dataset(NamedTuple):
    """Rows of data with their labels.

    Attributes:
        x: (N, D), float32; images are flat and scaled to [0, 1].
        labels: (N,), int64.
        shape: shape of one sample: (H, W) of an image, or (D,).
    """

    x: Tensor
    labels: Tensor
    shape: tuple[int, ...]


def load_digits(classes: Sequence[int] | None = None) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels bundled with scikit-learn; needs no file and no network.

    Args:
        classes: labels to keep, in any order; None for all.
    """
    bundle = _bundled_digits()
    return _select(from_arrays(bundle.data / 16, bundle.target, (8, 8)), classes)


def load_mnist(
    root: str | PathLike[str],
    train: bool = True,
    classes: Sequence[int] | None = None,
    download: bool = False,
) -> Dataset:
    """MNIST from `root/MNIST/raw`, the IDX files that torchvision's `MNIST(root)` reads, packed (.gz) or not.

    Args:
        root: folder with `MNIST/raw` in it.
        train: the training or the test images.
        classes: labels to keep; None for all.
        download: fetch missing files, by torchvision.

    Raises:
        FileNotFoundError: a file is missing, and download is False.
        ImportError: download is True, files are missing, and torchvision is not there or does not work.
        ValueError: a file is not in IDX format, or no image is left.
    """
    return _load_folder(Path(root), "MNIST", train, classes, download)


def load_fashion_mnist(
    root: str | PathLike[str],
    train: bool = True,
    classes: Sequence[int] | None = None,
    download: bool = False,
) -> Dataset:
    """Fashion-MNIST from `root/FashionMNIST/raw`; arguments and errors as in `load_mnist`."""
    return _load_folder(Path(root), "FashionMNIST", train, classes, download)


def from_arrays(x: ArrayLike | Tensor, labels: ArrayLike | Tensor | None = None, shape: Sequence[int] = ()) -> Dataset:
    """One's own data, checked.

    Args:
        x: (N, D), real and finite; becomes float32.
        labels: (N,) integers; None for all 0.
        shape: shape of one sample, with D elements; () for (D,).

    Raises:
        ValueError: wrong shapes, no rows, non-finite values, or labels that are not integers.
        TypeError: x or labels are no real numbers.
    """
    values = _tensor("x", x).to(torch.float32)
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"x must be (N, D) with N, D >= 1; got {tuple(values.shape)}")
    wrong = int((~values.isfinite()).any(dim=1).sum())
    if wrong:
        raise ValueError(f"x must be finite; {wrong} of {values.shape[0]} rows are not")
    given = torch.zeros(values.shape[0], dtype=torch.int64) if labels is None else _tensor("labels", labels)
    if given.shape != values.shape[:1] or given.is_floating_point():
        raise ValueError(f"labels must be {values.shape[0]} integers; got {given.dtype} of shape {tuple(given.shape)}")
    sample = tuple(shape) or (values.shape[1],)
    if not all(isinstance(n, Integral) for n in sample):
        raise TypeError(f"shape must be integers; got {sample}")
    if math.prod(sample) != values.shape[1] or min(sample) < 1:
        raise ValueError(f"shape must have {values.shape[1]} elements; got {sample}")
    return Dataset(values, given.to(torch.int64), sample)


def _tensor(name: str, values: ArrayLike | Tensor) -> Tensor:
    try:
        tensor = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name} must be an array or a tensor of real numbers; {error}") from error
    if tensor.is_complex():
        raise TypeError(f"{name} must be real; got {tensor.dtype}")
    return tensor.detach()


def read_idx(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Array of unsigned bytes in IDX format, the format of the MNIST files; a name ending in .gz is unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not IDX, not of unsigned bytes, cut short, or damaged.
    """
    check_regular(path)
    content = _content(Path(path))
    # Two zero bytes, the type (8: unsigned byte), the number of axes, then each axis as a big-endian uint32.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} must be an IDX file of unsigned bytes; it starts with {content[:4]!r}")
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    data = np.frombuffer(content, np.uint8)[4 + 4 * axes :]
    if data.size != math.prod(shape):
        raise ValueError(f"{path} must hold {shape} bytes after its header; got {data.size}")
    with named_in_errors(path):  # more axes than NumPy has
        return data.reshape(shape)


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    packed = path.read_bytes()
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a gzip file, whole and undamaged; it says: {error}") from error


def _load_folder(root: Path, name: str, train: bool, classes: Sequence[int] | None, download: bool) -> Dataset:
    raw, part = root / name / "raw", "train" if train else "t10k"
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    if download and any(_find(raw, file) is None for file in names):
        getattr(_torchvision_datasets(), name)(str(root), train=train, download=True)
    found = [_find(raw, file) for file in names]
    missing = [file for file, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"{raw} must hold {' and '.join(missing)}, packed (.gz) or not; download=True fetches them"
        )
    images, labels = (read_idx(path) for path in found if path is not None)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{raw} must hold images (N, H, W) and N labels; got {images.shape} and {labels.shape}")
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    return _select(from_arrays(flat, labels.astype(np.int64), images.shape[1:]), classes)


def _find(raw: Path, name: str) -> Path | None:
    return next((path for path in (raw / name, raw / f"{name}.gz") if path.is_file()), None)


def _torchvision_datasets() -> Any:
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:
        # RuntimeError: "operator torchvision::nms does not exist", a torchvision built for another torch.
        raise ImportError(f"download=True needs a working torchvision (extra `datasets`); it says: {error}") from error
    return torchvision.datasets


def _select(data: Dataset, classes: Sequence[int] | None) -> Dataset:
    if classes is None:
        return data
    if not all(isinstance(label, Integral) for label in classes):
        raise TypeError(f"classes must be integers; got {list(classes)}")
    rows = torch.isin(data.labels, torch.tensor(list(classes), dtype=torch.int64))
    if not bool(rows.any()):
        raise ValueError(f"classes must name labels among {data.labels.unique().tolist()}; got {list(classes)}")
    return Dataset(data.x[rows], data.labels[rows], data.shape)
