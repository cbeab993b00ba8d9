"""The data that the zoo's models are trained on."""

from pathlib import Path

import torch
from torch import Tensor

from bench.zoo.recipes import Recipe, Source
from vae import Dataset, from_arrays, load_digits, load_fashion_mnist, load_mnist

# Rows that are used at most: training is to take about a minute.
MOST_ROWS = 4000
SHEET_ROWS = 1500
# Radius of the hole of the sheet, and half of its width and its height.
HOLE, HALF = 0.8, 2.5


def load(recipe: Recipe, root: Path | None) -> Dataset:
    """The data of a recipe.

    Args:
        recipe: names the source and the classes.
        root: folder with ``FashionMNIST/raw`` and ``MNIST/raw``; None where there is none.

    Raises:
        ValueError: the source needs a root and there is none.
    """
    if recipe.source is Source.DIGITS:
        return load_digits(recipe.classes)
    if recipe.source is Source.SHEET:
        return from_arrays(sheet(SHEET_ROWS, recipe.seed))
    if root is None:
        raise ValueError(f"{recipe.name} is trained on {recipe.source.value}: give --data, the folder that holds it")
    if recipe.source is Source.FASHION:
        images = load_fashion_mnist(root, classes=recipe.classes)
    else:
        images = load_mnist(root, train=False, classes=recipe.classes)
    return halved(images, MOST_ROWS)


def halved(images: Dataset, most: int) -> Dataset:
    """The first images, each 2 x 2 pixels averaged into one."""
    x = images.x[:most].unflatten(1, images.shape)[:, None]
    small = torch.nn.functional.avg_pool2d(x, 2)[:, 0]
    return Dataset(small.flatten(1), images.labels[:most], tuple(small.shape[1:]))


def sheet(rows: int, seed: int) -> Tensor:
    """Points ``(rows, 3)`` on a wavy sheet with a round hole, with a little noise."""
    rng = torch.Generator().manual_seed(seed)
    plane = HALF * (2 * torch.rand(3 * rows, 2, generator=rng) - 1)
    plane = plane[plane.norm(dim=1) > HOLE][:rows]
    height = torch.sin(1.5 * plane[:, :1]) * torch.cos(plane[:, 1:])
    return torch.cat([plane, height], dim=1) + 0.03 * torch.randn(len(plane), 3, generator=rng)
