"""Saving and loading of models and optimizers.

What is saved can be loaded, and what is loaded can be used: weights of one dtype, finite, and all that the model has.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from numbers import Real
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from vae.arguments import check_type
from vae.autoencoder.model import VAE, VAEConfig
from vae.deviation.neural_field import NeuralField
from vae.deviation.rbf import RBFPrecision
from vae.files.tensor_files import check_weights, named_in_errors, read, write


def save_vae(vae: VAE, path: str | PathLike[str]) -> None:
    """Write a VAE's weights and configuration.

    Raises:
        ValueError: weights that are not finite, or of several dtypes.
        OSError: the path cannot be written.
    """
    check_type("vae", vae, VAE)
    _check_savable("vae", vae.state_dict())
    write(path, "vae", vae.state_dict(), vae.config.to_dict())


def load_vae(path: str | PathLike[str], device: torch.device | str = "cpu") -> VAE:
    """Read a VAE written by `save_vae`, in eval mode and the dtype it was saved in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds something else, or weights that are not finite.
    """
    tensors, values = read(path, "vae")
    with named_in_errors(path):
        vae = vae_of(VAEConfig.from_dict(values), tensors)
    return vae.to(device)


def vae_of(config: VAEConfig, tensors: Mapping[str, Tensor]) -> VAE:
    """VAE with these weights, in eval mode; draws no random numbers.

    Raises:
        ValueError: weights that are missing, too many, of other shapes or dtypes, or not finite.
    """
    check_weights(tensors)
    # Without memory until the weights are there: what a damaged file claims to be large is refused by its shapes.
    with torch.device("meta"):
        vae = VAE(config)
    vae.load_state_dict(tensors, assign=True)
    return vae.eval()


def save_rbf(rbf: RBFPrecision, path: str | PathLike[str]) -> None:
    """Write an RBF precision.

    Raises:
        OSError: the path cannot be written.
    """
    check_type("rbf", rbf, RBFPrecision)
    _check_savable("rbf", rbf.state_dict())
    write(path, "rbf", rbf.state_dict(), {})


def load_rbf(path: str | PathLike[str], device: torch.device | str = "cpu") -> RBFPrecision:
    """Read an RBF precision written by `save_rbf`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds something else, or values out of their range.
    """
    tensors, _ = read(path, "rbf")
    with named_in_errors(path):
        check_weights(tensors)
        rbf = RBFPrecision(**tensors)
    return rbf.to(device)


def save_neural_field(field: NeuralField, path: str | PathLike[str]) -> None:
    """Write a neural field's weights and sizes.

    Raises:
        ValueError: weights that are not finite, or of several dtypes.
        OSError: the path cannot be written.
    """
    check_type("field", field, NeuralField)
    _check_savable("field", field.state_dict())
    sizes = {"latent_dim": field.latent_dim, "data_dim": field.data_dim, "hidden": field.hidden, "xi": field.xi}
    write(path, "neural field", field.state_dict(), sizes)


def load_neural_field(path: str | PathLike[str], device: torch.device | str = "cpu") -> NeuralField:
    """Read a neural field written by `save_neural_field`, frozen, and in the dtype it was saved in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds something else, or weights that are not finite.
    """
    tensors, values = read(path, "neural field")
    with named_in_errors(path):
        check_weights(tensors)
        field = _neural_field_of(tensors, values)
    return field.eval().requires_grad_(False).to(device)


def _neural_field_of(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> NeuralField:
    latent_dim, data_dim, hidden = values["latent_dim"], values["data_dim"], tuple(values["hidden"])
    names = [f"layers.{2 * i}.weight" for i in range(len(hidden))] + ["head.weight"]
    shapes = [tuple(tensors[name].shape) for name in names]
    widths = [latent_dim, *hidden, data_dim]
    # Before a field of these sizes is made: a damaged file may claim any.
    if shapes != [(fan_out, fan_in) for fan_in, fan_out in pairwise(widths)]:
        raise ValueError(f"must hold weights of its widths {widths}; got shapes {shapes}")
    rng = torch.Generator()
    field = NeuralField(latent_dim, data_dim, hidden, tensors["shift"], tensors["scale"], values["xi"], rng)
    field.load_state_dict(tensors)
    return field


def save_optimizer(optimizer: torch.optim.Optimizer, path: str | PathLike[str]) -> None:
    """Write an optimizer's state: moments and step counts as tensors, hyperparameters as JSON.

    Raises:
        TypeError: the state holds something that is no tensor, or a hyperparameter that is no JSON value.
        OSError: the path cannot be written.
    """
    check_type("optimizer", optimizer, torch.optim.Optimizer)
    tensors, values = flatten_optimizer(optimizer)
    write(path, "optimizer", tensors, values)


def load_optimizer(optimizer: torch.optim.Optimizer, path: str | PathLike[str]) -> None:
    """Restore, in place, the state that `save_optimizer` wrote, into an optimizer over the same parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds something else, or the state of another optimizer or of other
            parameters. The optimizer is left as it was.
    """
    check_type("optimizer", optimizer, torch.optim.Optimizer)
    tensors, values = read(path, "optimizer")
    with named_in_errors(path):
        restore_optimizer(optimizer, tensors, values)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors ("parameter.entry") and JSON values."""
    state = optimizer.state_dict()
    tensors = {f"{i}.{name}": value for i, entry in state["state"].items() for name, value in entry.items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"optimizer must have a state of tensors; got {type(value).__name__} in {name}")
    return tensors, {"param_groups": state["param_groups"]}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Inverse of `flatten_optimizer`, in place.

    Raises:
        ValueError: the state of another optimizer or of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if value.numel() != 1 and value.shape != parameters[int(index)].shape:
            raise ValueError(f"must hold a state of these parameters; {key} has shape {tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"must hold a finite state; {key} is not")
        state.setdefault(int(index), {})[name] = value
    # JSON knows no tuples: Adam's betas came back as a list.
    groups = [
        {name: tuple(v) if isinstance(v, list) and name != "params" else v for name, v in group.items()}
        for group in values["param_groups"]
    ]
    _check_groups(optimizer.state_dict()["param_groups"], groups)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _check_groups(own: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Raise unless hyperparameters are those of such an optimizer, and its groups as large."""
    if [(group.keys(), len(group["params"])) for group in own] != [(g.keys(), len(g["params"])) for g in found]:
        raise ValueError("must hold the state of such an optimizer over as many parameters; it is of another")
    for mine, theirs in zip(own, found, strict=True):
        for name, value in theirs.items():
            if not _alike(mine[name], value):
                raise ValueError(f"must hold {name} like {mine[name]!r}; got {value!r}")


def _alike(own: object, found: Any) -> bool:
    """Whether one hyperparameter can stand for another: switches and None, finite numbers, or tuples of them."""
    if isinstance(own, bool | None):
        return isinstance(found, bool | None)
    if isinstance(own, Real | Tensor):
        return type(found) in (int, float) and math.isfinite(found)
    if isinstance(own, tuple | list) and isinstance(found, tuple | list):
        return len(own) == len(found) and all(map(_alike, own, found))
    return type(own) is type(found)


def _check_savable(name: str, tensors: Mapping[str, Tensor]) -> None:
    try:
        check_weights(tensors)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
