"""Saving and loading: safetensors with JSON in the header, never pickle, never half a file.

Each file is written under another name, flushed to disk and renamed, so a kill leaves the old file or the new
one.
"""

import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vae.autoencoder.model import VAE, VAEConfig
from vae.deviation.neural_field import NeuralField
from vae.deviation.rbf import RBFPrecision

FORMAT = 1


def save_vae(vae: VAE, path: str | PathLike[str]) -> None:
    """Write a VAE's weights and configuration."""
    write(path, "vae", vae.state_dict(), vae.config.to_dict())


def load_vae(path: str | PathLike[str], device: torch.device | str = "cpu") -> VAE:
    """Read a VAE written by `save_vae`, in eval mode and the dtype it was saved in.

    Raises:
        ValueError: the file holds something else.
    """
    tensors, values = read(path, "vae", device)
    vae = VAE(VAEConfig.from_dict(values)).to(device=device, dtype=next(iter(tensors.values())).dtype)
    vae.load_state_dict(tensors)
    return vae.eval()


def save_rbf(rbf: RBFPrecision, path: str | PathLike[str]) -> None:
    """Write an RBF precision."""
    write(path, "rbf", rbf.state_dict(), {})


def load_rbf(path: str | PathLike[str], device: torch.device | str = "cpu") -> RBFPrecision:
    """Read an RBF precision written by `save_rbf`.

    Raises:
        ValueError: the file holds something else.
    """
    tensors, _ = read(path, "rbf", device)
    return RBFPrecision(tensors["centers"], tensors["bandwidths"], tensors["weights"], tensors["xi"])


def save_neural_field(field: NeuralField, path: str | PathLike[str]) -> None:
    """Write a neural field's weights and sizes."""
    sizes = {"latent_dim": field.latent_dim, "data_dim": field.data_dim, "hidden": field.hidden, "xi": field.xi}
    write(path, "neural field", field.state_dict(), sizes)


def load_neural_field(path: str | PathLike[str], device: torch.device | str = "cpu") -> NeuralField:
    """Read a neural field written by `save_neural_field`, frozen, and in the dtype it was saved in.

    Raises:
        ValueError: the file holds something else.
    """
    tensors, values = read(path, "neural field", device)
    sizes = values["latent_dim"], values["data_dim"], tuple(values["hidden"])
    field = NeuralField(*sizes, tensors["shift"], tensors["scale"], values["xi"], torch.Generator())
    field.load_state_dict(tensors)
    return field.eval().requires_grad_(False)


def save_optimizer(optimizer: torch.optim.Optimizer, path: str | PathLike[str]) -> None:
    """Write an optimizer's state: moments and step counts as tensors, hyperparameters as JSON."""
    tensors, values = flatten_optimizer(optimizer)
    write(path, "optimizer", tensors, values)


def load_optimizer(optimizer: torch.optim.Optimizer, path: str | PathLike[str]) -> None:
    """Restore, in place, the state that `save_optimizer` wrote, into an optimizer over the same parameters.

    Raises:
        ValueError: the file holds something else.
    """
    restore_optimizer(optimizer, *read(path, "optimizer"))


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors ("parameter.entry") and JSON values."""
    state = optimizer.state_dict()
    tensors = {f"{i}.{name}": value for i, entry in state["state"].items() for name, value in entry.items()}
    return tensors, {"param_groups": state["param_groups"]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Inverse of `flatten_optimizer`, in place."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    # JSON knows no tuples: Adam's betas came back as a list.
    groups = [
        {name: tuple(v) if isinstance(v, list) and name != "params" else v for name, v in group.items()}
        for group in values["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def write(path: str | PathLike[str], kind: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to one file, all or nothing."""
    header = {"kind": kind, "format": str(FORMAT), "json": json.dumps(values)}
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata=header)
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read(
    path: str | PathLike[str], kind: str, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values of a file that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds another kind or a later format.
    """
    try:
        opened = safe_open(os.fspath(path), framework="pt", device=str(device))
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file; it says: {error}") from error
    with opened as file:
        header = file.metadata() or {}
        if header.get("kind") != kind or header.get("format") != str(FORMAT):
            found = f"kind {header.get('kind')!r}, format {header.get('format')}"
            raise ValueError(f"{path} must hold kind {kind!r}, format {FORMAT}; got {found}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
    return tensors, json.loads(header["json"])
