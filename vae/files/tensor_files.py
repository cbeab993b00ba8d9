"""Files of tensors: safetensors with JSON in the header, never pickle, never half a file.

Each file is written under a name of its own in the same folder, flushed to disk and renamed. So a kill leaves the old
file or the new one, and several writers of one path leave the file of one of them. A symbolic link stays a link: the
file it points to is replaced. Owner and permissions of a file that is replaced stay as they were.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = 1

# What reading values of the wrong kind raises; EOFError and OSError come from archives that are cut short.
_SIGNS_OF_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SafetensorError,
    StopIteration,
    TypeError,
    ValueError,
)


def write(path: str | PathLike[str], kind: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to one file, all or nothing.

    Raises:
        OSError: the path cannot be written.
    """
    # Copies: tensors that share their memory cannot be saved otherwise.
    whole = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(values)
    header = {"kind": kind, "format": str(FORMAT), "json": text, "sha256": _digest(whole, text)}
    content = save(whole, metadata=header)
    target = _target(path)
    descriptor, partial = _open_partial(target)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            _keep_owner_and_permissions(file.fileno(), target)
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, on the CPU, and JSON values of a file that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds another kind or a later format.
    """
    check_regular(path)
    with named_in_errors(path), safe_open(os.fspath(path), framework="pt") as file:
        header = file.metadata() or {}
        if header.get("kind") != kind or header.get("format") != str(FORMAT):
            found = f"kind {header.get('kind')!r}, format {header.get('format')}"
            raise ValueError(f"must hold kind {kind!r}, format {FORMAT}; got {found}")
        # Clones: the file's own tensors are a view of it, and would change with it.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (it is no dict)
        values = json.loads(header["json"])
        if strange := header.keys() - {"kind", "format", "json", "sha256"}:
            raise ValueError(f"is damaged, or of a later version: its header has {', '.join(sorted(strange))}")
        if header.get("sha256", digest := _digest(tensors, header["json"])) != digest:  # older files have none
            raise ValueError("is damaged: its content has another SHA-256 than was saved")
        if not isinstance(values, dict):
            raise ValueError(f"must hold JSON values by name; got {type(values).__name__}")
    return tensors, values


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise unless these are floating-point tensors of one dtype, finite, and at least one."""
    dtypes = {value.dtype for value in tensors.values()}
    if len(dtypes) != 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise ValueError(f"must hold weights of one floating-point dtype; got {sorted(map(str, dtypes))}")
    wrong = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if wrong:
        raise ValueError(f"must hold finite weights; not finite: {', '.join(wrong)}")


def check_regular(path: str | PathLike[str]) -> None:
    """Raise unless there is a file of this name that can be read, and no folder, pipe or device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    _check_path(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if not Path(path).is_file():
        raise ValueError(f"{path} must be a file; it is {_what(Path(path))}")


def check_writable(path: str | PathLike[str]) -> None:
    """Raise unless a file can be written under this name; nothing is left behind.

    Raises:
        OSError: it cannot: its folder is missing or cannot be written to, or the name is that of a folder.
    """
    descriptor, partial = _open_partial(_target(path))
    os.close(descriptor)
    partial.unlink()


@contextmanager
def named_in_errors(path: str | PathLike[str]) -> Iterator[None]:
    """Turn every sign of damage or of foreign content into a ValueError that names the file."""
    try:
        yield
    except _SIGNS_OF_DAMAGE as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        if str(path) in reason:
            raise ValueError(reason) from error
        what = "must be a safetensors file; it says:" if isinstance(error, SafetensorError) else ""
        raise ValueError(" ".join(filter(None, [str(path), what or _verb(reason), reason]))) from error


def _verb(reason: str) -> str:
    return "" if reason.startswith(("must ", "is damaged")) else "is damaged, or holds something else:"


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of names, dtypes, shapes, values, and the JSON."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _target(path: str | PathLike[str]) -> Path:
    """The file that a path stands for, behind its symbolic links."""
    _check_path(path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {target.parent}")
    if target.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} cannot be written: it is {_what(target)}")
    return target


def _open_partial(target: Path) -> tuple[int, Path]:
    """A new file beside the target, under a name that nobody else uses; its permissions are those of any new file."""
    partial = target.with_name(f".{target.name[:40]}.{uuid4().hex}.partial")
    try:
        return os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666), partial
    except OSError as error:
        raise type(error)(error.errno, f"{target} cannot be written: {error.strerror}") from error


def _keep_owner_and_permissions(descriptor: int, target: Path) -> None:
    """Give the new file what the old one had, as far as the user may."""
    if not hasattr(os, "fchown") or not target.exists():
        return
    old, new = target.stat(), os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(PermissionError):  # the file is replaced by another user, who then owns it
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _check_path(path: object) -> None:
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path must be a file's name, text or a Path; got {type(path).__name__}")


def _what(path: Path) -> str:
    return "a folder" if path.is_dir() else "a pipe, a socket or a device"
