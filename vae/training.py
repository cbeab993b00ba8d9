"""Training of the VAE: reproducible from a seed, and resumed from its checkpoint as if it had never been
killed."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from vae.arguments import check_counts, check_data, check_not_negative, check_positive, check_seed, check_type
from vae.autoencoder.loss import annealing, gaussian_nll, kl_to_prior, vae_loss
from vae.autoencoder.model import VAE, VAEConfig
from vae.files.checkpoints import flatten_optimizer, restore_optimizer
from vae.files.tensor_files import check_weights, check_writable, named_in_errors, read, write


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are those of the published model.

    Attributes:
        epochs: passes over the data.
        batch_size: rows per step; the last batch of an epoch may be smaller.
        learning_rate: of Adam.
        seed: decides initial weights, order of the rows and noise.
        checkpoint_every: epochs between two checkpoints; the last epoch always writes one.
        noise: standard deviation of Gaussian noise added to each batch afresh, data units. It keeps the
            learned variance above noise^2: where a column is constant (a border pixel) and the log variance
            linear, the likelihood is unbounded, and training ends in NaN without it.
    """

    epochs: int = 800
    batch_size: int = 128
    learning_rate: float = 8e-5
    seed: int = 0
    checkpoint_every: int = 10
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "epochs", "batch_size", "checkpoint_every")
        check_positive(self, "learning_rate")
        check_not_negative(self, "noise")
        check_seed("seed", self.seed)


class EpochRecord(NamedTuple):
    """Means over the rows of one epoch.

    Attributes:
        epoch: counted from 0.
        r: annealing factor of the divergence.
        nll: `gaussian_nll`.
        kl: `kl_to_prior`, nats.
        loss: nll / 2 + r kl.
    """

    epoch: int
    r: float
    nll: float
    kl: float
    loss: float


class TrainingResult(NamedTuple):
    """The trained VAE, in eval mode, and one record per epoch."""

    vae: VAE
    history: list[EpochRecord]


class _Run(NamedTuple):
    """All that changes while training: what a checkpoint holds."""

    vae: VAE
    optimizer: torch.optim.Optimizer
    rng: torch.Generator
    history: list[EpochRecord]


def train_vae(
    x: Float[Tensor, "n D"],
    config: VAEConfig,
    training: TrainingConfig | None = None,
    checkpoint: str | PathLike[str] | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a VAE by Adam on `vae_loss`, on the device and in the dtype of the data.

    With a checkpoint path the state is saved every few epochs, and a file already there is gone on with: a
    run that was killed and called again ends in bit-identical weights (on the same machine with as many
    threads). A run can be called again with more epochs, also when it was finished: training goes on from its last
    epoch, and the annealing factor never falls below what it was there. Randomness comes from one CPU generator, so a
    seed draws the same weights, orders and noise on every device, and torch's global generator is left alone.
    Gradients are switched on inside, whatever they are outside.

    Args:
        x: data, (N, D); in [0, 1] for the default sigmoid mean.
        config: the model.
        training: how to train; None for the defaults.
        checkpoint: file to save to and to resume from.
        progress: whether to show a progress bar.

    Raises:
        ValueError: x is not a finite (N, D) with the model's D, or the checkpoint is of another model,
            training or data, or is damaged.
        TypeError: an argument is of the wrong type.
        OSError: the checkpoint cannot be written; known before the first epoch.
        FloatingPointError: the loss or a weight is no longer finite. The checkpoint keeps the last epoch that was.
    """
    training = training or TrainingConfig()
    check_type("config", config, VAEConfig)
    check_type("training", training, TrainingConfig)
    check_data("x", x, config.data_dim)
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise TypeError(f"checkpoint must be a file's name, text or a Path; got {type(checkpoint).__name__}")
    with gradients():
        return _train(x.detach().clone(), config, training, Path(checkpoint) if checkpoint else None, progress)


def _train(x: Tensor, config: VAEConfig, training: TrainingConfig, path: Path | None, progress: bool) -> TrainingResult:
    identity = {"model": config.to_dict(), "training": asdict(training), "data": _fingerprint(x)} if path else {}
    run = _start(x, config, training)
    if path is not None and path.exists():
        _restore(run, path, identity)
    first = len(run.history)
    if path is not None and first < training.epochs:
        check_writable(path)
    bar = tqdm(
        range(first, training.epochs),
        initial=first,
        total=training.epochs,
        unit="epoch",
        disable=not progress,
    )
    for epoch in bar:
        record = _epoch(run, x, epoch, training)
        run.history.append(record)
        bar.set_postfix(loss=f"{record.loss:.4g}", kl=f"{record.kl:.3g}")
        if path is not None and ((epoch + 1) % training.checkpoint_every == 0 or epoch + 1 == training.epochs):
            _save(run, path, identity)
    return TrainingResult(run.vae.eval(), run.history)


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients are on, also for a caller under `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """One step; FloatingPointError where its size is beyond the weights' dtype."""
    try:
        optimizer.step()
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise FloatingPointError("a step is beyond the weights' dtype; a smaller learning_rate helps") from error


def check_finite_weights(network: torch.nn.Module, when: str) -> None:
    """Raise FloatingPointError unless all weights are finite."""
    wrong = [name for name, value in network.state_dict().items() if not bool(value.isfinite().all())]
    if wrong:
        raise FloatingPointError(f"weights are not finite {when}: {', '.join(wrong)}; a smaller learning_rate may help")


def _start(x: Tensor, config: VAEConfig, training: TrainingConfig) -> _Run:
    rng = torch.Generator().manual_seed(training.seed)
    vae = VAE(config, rng).to(device=x.device, dtype=x.dtype).train()
    return _Run(vae, torch.optim.Adam(vae.parameters(), lr=training.learning_rate), rng, [])


def _epoch(run: _Run, x: Tensor, epoch: int, training: TrainingConfig) -> EpochRecord:
    # A finished run that goes on is annealed no second time.
    r = max(annealing(epoch, training.epochs), run.history[-1].r if run.history else 0.0)
    nll, kl = x.new_zeros(()), x.new_zeros(())
    for rows in _batches(x.shape[0], training.batch_size, run.rng):
        batch = _noisy(x[rows.to(x.device)], training.noise, run.rng)
        posterior, likelihood = run.vae(batch, run.rng)
        run.optimizer.zero_grad()
        vae_loss(batch, posterior, likelihood, r).mean().backward()
        take_step(run.optimizer)
        with torch.no_grad():
            nll += gaussian_nll(batch, likelihood).sum()
            kl += kl_to_prior(posterior).sum()
    means = (nll / x.shape[0]).item(), (kl / x.shape[0]).item()
    loss = 0.5 * means[0] + r * means[1]
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} in epoch {epoch}; a smaller learning_rate, or some noise, may help"
        )
    check_finite_weights(run.vae, f"after epoch {epoch}")
    return EpochRecord(epoch, r, *means, loss)


def _batches(num_rows: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(num_rows, generator=rng).split(batch_size)


def _noisy(batch: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    if noise == 0:
        return batch
    return batch + noise * torch.randn(batch.shape, dtype=batch.dtype, generator=rng).to(batch.device)


def _save(run: _Run, path: Path, identity: dict[str, Any]) -> None:
    moments, groups = flatten_optimizer(run.optimizer)
    tensors = {f"model.{name}": value for name, value in run.vae.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in moments.items()}
    tensors["rng"] = run.rng.get_state()
    write(path, "training", tensors, {"identity": identity, "optimizer": groups, "history": run.history})


def _restore(run: _Run, path: Path, identity: dict[str, Any]) -> None:
    tensors, values = read(path, "training")
    with named_in_errors(path):
        saved = VAEConfig.from_dict(values["identity"]["model"]).to_dict()
        found = {**values["identity"], "model": saved}
        history = _history(values["history"])
    different = [name for name, value in identity.items() if _fixed(found[name]) != _fixed(value)]
    if different:
        raise ValueError(
            f"checkpoint {path} is of another {' and '.join(different)}; resume with the same, or delete it"
        )
    if len(history) > identity["training"]["epochs"]:
        raise ValueError(
            f"checkpoint {path} has {len(history)} epochs; epochs must be as many or more to go on with it, "
            f"got {identity['training']['epochs']}"
        )
    with named_in_errors(path):
        weights = _under("model.", tensors)
        check_weights(weights)
        run.vae.load_state_dict(weights)
        restore_optimizer(run.optimizer, _under("optimizer.", tensors), values["optimizer"])
        run.rng.set_state(tensors["rng"])
    run.history.extend(history)


def _fixed(part: object) -> object:
    """What must be the same in a run that goes on: all but how long it runs and how often it saves."""
    free = {"epochs", "checkpoint_every"}
    return {k: v for k, v in part.items() if k not in free} if isinstance(part, dict) else part


def _history(records: list[list[Any]]) -> list[EpochRecord]:
    history = [EpochRecord(*record) for record in records]
    whole = [record.epoch for record in history] == list(range(len(history)))
    if not whole or not all(math.isfinite(value) for record in history for value in record):
        raise ValueError("must hold one record of finite numbers for each epoch")
    return history


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fingerprint(x: Tensor) -> str:
    """Digest of shape, dtype and values."""
    digest = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
