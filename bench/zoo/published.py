"""Published models that lie beside the repository: measured where they are at hand, never part of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.problems.learned_metrics import PUBLISHED, PUBLISHED_CLASSES, PUBLISHED_XI, encoded
from bench.problems.problem_set import Model
from geodesics import PullbackMetric
from vae import Activation, RBFGenerator, load_fashion_mnist, load_mnist, load_published

Ends = tuple[Tensor, Tensor, Tensor]
# Draws round every center of the surface's model, which comes without data.
_DRAWS = 30
_MNIST_CLASSES = (1, 2, 3, 4)


class Published(NamedTuple):
    """A set of pairs on a published model: its group, and what loads the model and ``(z0, z1, best)``."""

    group: str
    load: Callable[[], tuple[Model, Ends]]


def published_members(shared: Path) -> dict[str, Published]:
    """Those whose files are in the folder."""
    found = {
        "sphere_k64": Published("practice", lambda: _surface(shared, "sphere_k64")),
        "mnist_4class_k64": Published("practice", lambda: _digits(shared, "mnist_4class_k64")),
        PUBLISHED: Published("reference", lambda: _garments(shared)),
    }
    return {name: one for name, one in found.items() if (shared / "reference" / f"{name}.json").exists()}


def _surface(shared: Path, name: str) -> tuple[Model, Ends]:
    """A surface in R^3; in place of encoded data, points round the centers at half a kernel's deviation."""
    path = shared / "models" / f"{name}.npz"
    vae, precision = load_published(path, mean_activation=Activation.TANH, dtype=torch.float64)
    generator = RBFGenerator(vae, precision)
    deviation = (2 * precision.bandwidths).rsqrt()[:, None, None] / 2
    rng = torch.Generator().manual_seed(0)
    draws = torch.randn(len(deviation), _DRAWS, precision.centers.shape[1], generator=rng, dtype=torch.float64)
    latents = (precision.centers[:, None] + deviation * draws).flatten(0, 1)
    return Model(PullbackMetric(generator), generator, latents), _ends(shared, name)


def _digits(shared: Path, name: str) -> tuple[Model, Ends]:
    vae, precision = load_published(shared / "models" / f"{name}.npz", dtype=torch.float64)
    generator = RBFGenerator(vae, precision)
    images = load_mnist(shared / "data", train=False, classes=_MNIST_CLASSES)
    return Model(PullbackMetric(generator), generator, encoded(vae, images.x)), _ends(shared, name)


def _garments(shared: Path) -> tuple[Model, Ends]:
    vae, precision = load_published(shared / "models" / f"{PUBLISHED}.npz", xi=PUBLISHED_XI, dtype=torch.float64)
    generator = RBFGenerator(vae, precision)
    images = load_fashion_mnist(shared / "data", classes=PUBLISHED_CLASSES)
    return Model(PullbackMetric(generator), generator, encoded(vae, images.x)), _ends(shared, PUBLISHED)


def _ends(shared: Path, name: str) -> Ends:
    content = json.loads((shared / "reference" / f"{name}.json").read_text("utf-8"))
    pairs = content["pairs"] if isinstance(content, dict) else content
    z0, z1, best = (torch.tensor([pair[key] for pair in pairs], dtype=torch.float64) for key in ("z0", "z1", "length"))
    return z0, z1, best
