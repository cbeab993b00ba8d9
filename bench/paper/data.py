"""The images of the experiments: training and held-out rows of a few classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.paper.config import PaperConfig
from vae import Dataset, load_digits, load_fashion_mnist, load_mnist

# Every fifth image is held out where the data bring no test images of their own.
HELD_OUT = 5
FASHION = {
    0: "T-shirt/top",
    1: "Trouser",
    2: "Pullover",
    3: "Dress",
    4: "Coat",
    5: "Sandal",
    6: "Shirt",
    7: "Sneaker",
    8: "Bag",
    9: "Ankle boot",
}


class Split(NamedTuple):
    """Images to learn from, and images that no model sees.

    Attributes:
        name: of the data set.
        train: (N, D) images with labels.
        test: held-out images with labels.
        class_names: what the labels stand for, by label.
    """

    name: str
    train: Dataset
    test: Dataset
    class_names: dict[int, str]


def load_main(config: PaperConfig) -> Split:
    """The images of the main model: Fashion-MNIST, or the embedded digits, of the configured classes.

    Raises:
        FileNotFoundError: the data root has no Fashion-MNIST.
    """
    if config.data_root is None:
        return _held_out("digits", load_digits(config.classes), config.classes)
    train = load_fashion_mnist(config.data_root, classes=config.classes)
    test = load_fashion_mnist(config.data_root, train=False, classes=config.classes)
    return Split("Fashion-MNIST", train, test, {label: FASHION[label] for label in config.classes})


def load_digit_set(config: PaperConfig, digits: Sequence[int]) -> Split:
    """Some digits of MNIST, its test images where the training images are missing, or of the embedded digits.

    Raises:
        FileNotFoundError: the data root has no MNIST.
    """
    if config.data_root is None:
        name, data = "digits", load_digits(digits)
    else:
        packed = Path(config.data_root) / "MNIST" / "raw"
        has_training = any((packed / f"train-images-idx3-ubyte{end}").is_file() for end in ("", ".gz"))
        name, data = "MNIST", load_mnist(config.data_root, train=has_training, classes=digits)
    first = torch.cat([(data.labels == k).nonzero()[: config.digit_set_size, 0] for k in digits]).sort().values
    return _held_out(name, Dataset(data.x[first], data.labels[first], data.shape), digits)


def _held_out(name: str, data: Dataset, classes: Sequence[int]) -> Split:
    rows = torch.arange(len(data.x)) % HELD_OUT == 0
    names = {label: str(label) for label in classes}
    return Split(name, _rows(data, ~rows), _rows(data, rows), names)


def _rows(data: Dataset, rows: Tensor) -> Dataset:
    return Dataset(data.x[rows], data.labels[rows], data.shape)


def draw_pairs(labels: Tensor, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of `count` random pairs of images of different classes, both (count,).

    The pairs of classes take turns, so that each has as many pairs as any other.
    """
    classes = labels.unique()
    first, second = torch.triu_indices(len(classes), len(classes), offset=1)
    turn = torch.arange(count) % len(first)
    rows = [(labels == k).nonzero()[:, 0] for k in classes]

    def draw(kinds: Tensor) -> Tensor:
        at = torch.rand(count, generator=rng)
        return torch.stack([rows[k][int(u * len(rows[k]))] for k, u in zip(kinds.tolist(), at.tolist(), strict=True)])

    return draw(first[turn]), draw(second[turn])
