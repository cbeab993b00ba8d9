"""The two generators that `bench.gpu` measures, from the repository alone."""

import json
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.gpu.bare import MODELS, STARTS, read_safetensors
from geodesics import Curve
from vae import VAE, RBFGenerator, RBFPrecision, VAEConfig


class Pairs(NamedTuple):
    """Problems with what is known of them.

    Attributes:
        z0: starts ``(n, d)``, float64 on the CPU.
        z1: ends ``(n, d)``.
        best: reference lengths ``(n,)``; NaN where none are known.
        starts: vertices of initial polylines ``(S, n, m, d)``; S = 0 where there are none.
    """

    z0: Tensor
    z1: Tensor
    best: Tensor
    starts: Tensor

    def repeated(self, count: int, like: Tensor) -> "Pairs":
        """The problems over and over, to ``count`` of them, with the dtype and device of ``like``."""
        rows = torch.arange(count) % len(self.z0)
        return Pairs(
            self.z0[rows].to(like), self.z1[rows].to(like), self.best[rows].to(like), self.starts[:, rows].to(like)
        )


class Given:
    """Initial curves that are given, as one of `geodesic`'s ``initial``.

    Args:
        starts: vertices ``(S, B, m, d)``.
    """

    def __init__(self, starts: Tensor) -> None:
        self.starts = starts

    def __call__(self, z0: Tensor, z1: Tensor) -> list[Curve]:
        return [Curve(points) for points in self.starts]


def digits_generator(dtype: torch.dtype, device: str) -> RBFGenerator:
    """The shipped digits model: d = 2, D = 64 twice, K = 128."""
    weights, metadata = read_safetensors(MODELS / "digits.safetensors")
    vae = VAE(VAEConfig.from_dict(json.loads(metadata["json"])))
    vae.load_state_dict(weights)
    rbf, _ = read_safetensors(MODELS / "digits_rbf.safetensors")
    precision = RBFPrecision(rbf["centers"], rbf["bandwidths"], rbf["weights"], rbf["xi"])
    return RBFGenerator(vae.double(), precision.double()).to(device=device, dtype=dtype)


def image_generator(dtype: torch.dtype, device: str, seed: int = 0) -> RBFGenerator:
    """The paper's sizes with random weights: d = 2, 32-64 tanh, D = 784 twice, K = 64."""
    rng = torch.Generator().manual_seed(seed)
    centers, weights = torch.randn(64, 2, generator=rng), torch.rand(784, 64, generator=rng)
    precision = RBFPrecision(centers, torch.ones(64), weights, torch.full((784,), 1e-3))
    return RBFGenerator(VAE(VAEConfig(784), rng).double(), precision.double()).to(device=device, dtype=dtype)


def digits_pairs() -> Pairs:
    """Pairs of encoded digits with reference lengths and graph starts, as `bench.gpu.inputs` has stored them."""
    with np.load(STARTS, allow_pickle=False) as stored:
        arrays = [torch.from_numpy(stored[name]).double() for name in Pairs._fields]
    return Pairs(*arrays)


def image_pairs(count: int = 256, seed: int = 1) -> Pairs:
    """Random pairs under the image generator, to be started from straight lines."""
    rng = torch.Generator().manual_seed(seed)
    z0, z1 = (torch.randn(count, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    return Pairs(z0, z1, torch.full((count,), torch.nan, dtype=torch.float64), z0.new_empty(0, count, 2, 2))
