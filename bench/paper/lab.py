"""The laboratory: data, trained models and metrics that the experiments share, each made once."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bench.paper.config import PaperConfig
from bench.paper.data import Split, load_main
from geodesics import GraphPaths, Metric, PullbackMetric
from vae import (
    VAE,
    Activation,
    EpochRecord,
    PerceptronArchitecture,
    RBFConfig,
    RBFGenerator,
    RBFPrecision,
    TrainingConfig,
    VAEConfig,
    VAEGenerator,
    fit_rbf_to_vae,
    load_rbf,
    save_rbf,
    train_vae,
)
from vae.files.checkpoints import read, write

Item = TypeVar("Item")

# A model whose divergence ends below this, in nats, has forgotten its input: its posterior is the prior.
COLLAPSED = 0.1


@dataclass(frozen=True, eq=False)
class Model:
    """A trained VAE with the data that it knows.

    Attributes:
        name: of its checkpoint.
        split: its data.
        vae: in float64, in eval mode.
        latents: encoded means of the training images, (n, d), float64.
        test_latents: encoded means of the held-out images.
        history: one record per epoch of training.
        checkpoint: file of the finished training.
    """

    name: str
    split: Split
    vae: VAE
    latents: Tensor
    test_latents: Tensor
    history: list[EpochRecord]
    checkpoint: Path

    @property
    def collapsed(self) -> bool:
        """Whether the latent space carries nothing: there is no geometry to look at."""
        return self.history[-1].kl < COLLAPSED


class Lab:
    """Data, models and metrics; all that an experiment gets.

    Args:
        config: of all experiments.
        output: folder of results; models are kept in its subfolder `models`.
        progress: whether to show progress bars.
    """

    def __init__(self, config: PaperConfig, output: Path, progress: bool = True) -> None:
        self.config, self.output, self.show_progress = config, output, progress
        # Processor time that runs which were killed have spent on what is now only read.
        self.earlier_seconds = 0.0
        self._models: dict[Path, Model] = {}
        self._precisions: dict[tuple[Path, int, float], RBFPrecision] = {}
        self._metrics: dict[tuple[Path, int, float], PullbackMetric] = {}
        self._graphs: list[tuple[Metric, Tensor, GraphPaths]] = []
        (output / "models").mkdir(parents=True, exist_ok=True)

    @cached_property
    def data(self) -> Split:
        """The images of the main model."""
        return load_main(self.config)

    @property
    def model(self) -> Model:
        """The main model, on which all experiments are done that do not train their own."""
        return self.variant(self.config.variance_activation)

    @property
    def second(self) -> Model:
        """The model with the other activation of its log variances, on which the main numbers are taken once more."""
        return self.variant(self.config.other_activation)

    def variant(self, activation: Activation) -> Model:
        """The model of the configured data with this activation of its log variances, else as in the paper."""
        return self.perceptron(f"{self.data.name}-{activation.value}", self.data, activation)

    def perceptron(self, name: str, split: Split, activation: Activation) -> Model:
        """A two-dimensional model of some data, of the configured widths and training."""
        architecture = PerceptronArchitecture(self.config.hidden)
        width = split.train.x.shape[1]
        model = VAEConfig(width, architecture=architecture, variance_activation=activation)
        noise = 0.0 if activation is Activation.SOFTPLUS else self.config.noise
        return self.train(name, split, model, replace(self.training, noise=noise))

    @property
    def training(self) -> TrainingConfig:
        """The configured training, without noise."""
        c = self.config
        return TrainingConfig(c.epochs, c.batch_size, c.learning_rate, c.seed)

    def train(self, name: str, split: Split, model: VAEConfig, training: TrainingConfig | None = None) -> Model:
        """Train a model, or load it, or go on with its training where it was killed.

        Args:
            name: of the checkpoint; another training under the same name is another file.
            split: the data.
            model: what the VAE is made of.
            training: how to train; None for `self.training`.
        """
        training = training or self.training
        settings = f"{training.epochs}-{training.learning_rate:g}-{training.noise:g}-{training.seed}"
        path = self.output / "models" / f"{name}-{settings}.safetensors"
        if path not in self._models:
            trained = train_vae(split.train.x, model, training, path, self.show_progress)
            vae = trained.vae.double()
            with torch.no_grad():
                latents, held_out = (vae.encode(part.x.double()).mean for part in (split.train, split.test))
            self._models[path] = Model(name, split, vae, latents, held_out, trained.history, path)
        return self._models[path]

    def rbf(self, model: Model, num_centers: int | None = None, bandwidth_factor: float | None = None) -> RBFPrecision:
        """The RBF precision of a model, fitted or loaded; K and a are those configured where they are None."""
        count = num_centers or self.config.num_centers
        factor = bandwidth_factor or self.config.bandwidth_factor
        key = (model.checkpoint, count, factor)
        if key not in self._precisions:
            settings = f"rbf-{count}-{factor:g}-{self.config.xi:g}-{self.config.rbf_iterations}"
            path = model.checkpoint.with_name(f"{model.checkpoint.stem}-{settings}.safetensors")
            if not path.exists():
                options = RBFConfig(
                    count, factor, self.config.xi, max_iter=self.config.rbf_iterations, seed=self.config.seed
                )
                save_rbf(fit_rbf_to_vae(model.vae, model.split.train.x.double(), options), path)
            self._precisions[key] = load_rbf(path)
        return self._precisions[key]

    def metric(
        self, model: Model, num_centers: int | None = None, bandwidth_factor: float | None = None
    ) -> PullbackMetric:
        """The expected metric of the decoder's mean and the RBF network's standard deviation."""
        rbf = self.rbf(model, num_centers, bandwidth_factor)
        key = (model.checkpoint, len(rbf.centers), bandwidth_factor or self.config.bandwidth_factor)
        if key not in self._metrics:
            self._metrics[key] = PullbackMetric(RBFGenerator(model.vae, rbf))
        return self._metrics[key]

    def own_metric(self, model: Model) -> PullbackMetric:
        """The expected metric of the decoder's mean and its own standard deviation."""
        key = (model.checkpoint, 0, 0.0)
        if key not in self._metrics:
            self._metrics[key] = PullbackMetric(VAEGenerator(model.vae))
        return self._metrics[key]

    def graph(self, metric: Metric, latents: Tensor) -> GraphPaths:
        """The graph of initial curves of a metric around some latent points, built once."""
        for known, points, graph in self._graphs:
            if known is metric and points is latents:
                return graph
        graph = GraphPaths(metric, latents, num_nodes=self.config.graph_nodes, seed=self.config.seed)
        self._graphs.append((metric, latents, graph))
        return graph

    def kept(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that took long to make: read where a run that was killed has left them, else made and written.

        Args:
            key: everything that decides them, as text.
            make: makes them.
        """
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.safetensors"
        path = self.output / "kept" / name
        if path.exists():
            tensors, values = read(path, "kept")
            self.earlier_seconds += values.get("cpu_seconds", 0.0)
            return tensors
        path.parent.mkdir(exist_ok=True)
        start = time.process_time()
        tensors = make()
        write(path, "kept", tensors, {"key": key, "cpu_seconds": time.process_time() - start})
        return tensors

    def rng(self, offset: int = 0) -> torch.Generator:
        """A generator seeded from the configuration; experiments that must not share numbers take offsets."""
        return torch.Generator().manual_seed(self.config.seed + 1000 * offset)

    def progress(self, items: Iterable[Item], text: str) -> Iterator[Item]:
        """The items, under a progress bar that leaves no trace."""
        return iter(tqdm(items, desc=text, leave=False, disable=not self.show_progress))


def digest(*tensors: Tensor) -> str:
    """What tells tensors from other ones, as text."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
