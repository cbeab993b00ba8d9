"""What the core's pieces are timed against, and how: for `bench.core`."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from vae import RBFGenerator

ROUNDS = 9
# Points of one block of the floors that need not leave the caches.
BLOCK = 256


def products(generator: RBFGenerator, count: int) -> Callable[[], list[Tensor]]:
    """The matrix products that values and Jacobians of so many points cannot do without: 1 + d times all weights of
    both heads, into fresh memory, as a result has to be.
    """
    weights = [p for p in (*generator.parameters(), *generator.buffers()) if p.ndim == 2]
    rows = (1 + generator.latent_dim) * count
    pairs = [(torch.randn(rows, w.shape[1], dtype=w.dtype), w.mT.contiguous()) for w in weights]
    return lambda: [left @ right for left, right in pairs]


def in_blocks(function: Callable[[Tensor], Any], z: Tensor, size: int = BLOCK) -> Callable[[], None]:
    """A function of points on one block after another, each result let go at once."""

    def run() -> None:
        for block in z.split(size):
            function(block)

    return run


def products_in_blocks(generator: RBFGenerator, z: Tensor) -> Callable[[], None]:
    block = products(generator, BLOCK)
    return in_blocks(lambda _: block(), z)


def seconds(*functions: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Median time of each function, called in turns, after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for measured in range(rounds + 1):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if measured:
                taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]


def straight_curves(points: Tensor, degree: int, num_segments: int, count: int) -> Tensor:
    """Nodes of straight curves between points, ``(count, N p + 1, d)``."""
    t = torch.linspace(0, 1, num_segments * degree + 1, dtype=points.dtype)[:, None]
    start, end = points[:count, None], points[-count:, None]
    return start + t * (end - start)


def random_positive(count: int, size: int) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(count, size, size, generator=rng, dtype=torch.float64)
    return root @ root.mT + torch.eye(size, dtype=torch.float64)
