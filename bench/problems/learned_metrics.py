"""Learned metrics: our own digits model, shipped here, and a published model where its folder is at hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.problems.problem_set import Model, ProblemSet
from geodesics import PullbackMetric
from vae import RBFGenerator, load_digits, load_fashion_mnist, load_published, load_rbf, load_vae

MODELS = Path(__file__).resolve().parents[1] / "models"
DIGITS_VAE = MODELS / "digits.safetensors"
DIGITS_RBF = MODELS / "digits_rbf.safetensors"
DIGITS_REFERENCE = MODELS / "digits_reference.json"
# The published VAE's classes of Fashion-MNIST, and its precision far from the data.
PUBLISHED = "fashion_mnist_3class_k64"
PUBLISHED_CLASSES = (0, 1, 7)
PUBLISHED_XI = 1e-6


def digits_model() -> Model:
    """The shipped VAE of digits with its RBF precision, in float64, on the images that it was trained on."""
    generator = RBFGenerator(load_vae(DIGITS_VAE).double(), load_rbf(DIGITS_RBF).double())
    return Model(PullbackMetric(generator), generator, encoded(load_vae(DIGITS_VAE), load_digits().x))


def digits() -> ProblemSet:
    """Pairs of encoded digits, with the best lengths that `python -m bench.digits_reference` found."""
    return _problem_set("digits", digits_model(), _pairs(DIGITS_REFERENCE))


def published(shared: Path) -> ProblemSet:
    """The published model's pairs with the best lengths known.

    Args:
        shared: folder with ``models``, ``data`` and ``reference``.
    """
    vae, precision = load_published(shared / "models" / f"{PUBLISHED}.npz", xi=PUBLISHED_XI, dtype=torch.float64)
    generator = RBFGenerator(vae, precision)
    images = load_fashion_mnist(shared / "data", classes=PUBLISHED_CLASSES)
    model = Model(PullbackMetric(generator), generator, encoded(vae, images.x))
    return _problem_set("published", model, _pairs(shared / "reference" / f"{PUBLISHED}.json"))


def encoded(vae: Any, x: Tensor) -> Tensor:
    """Posterior means of the data ``(n, D)``, in float64."""
    with torch.no_grad():
        means: Tensor = vae.double().encode(x.double()).mean
    return means


def _pairs(path: Path) -> Sequence[dict[str, Any]]:
    """The list of pairs, in the file itself or under its key ``pairs``."""
    content = json.loads(path.read_text("utf-8"))
    pairs: Sequence[dict[str, Any]] = content["pairs"] if isinstance(content, dict) else content
    return pairs


def _problem_set(name: str, model: Model, pairs: Sequence[dict[str, Any]]) -> ProblemSet:
    z0, z1, best = (torch.tensor([pair[key] for pair in pairs], dtype=torch.float64) for key in ("z0", "z1", "length"))
    return model.problem_set(name, z0, z1, best)
