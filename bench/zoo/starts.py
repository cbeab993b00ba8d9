"""Starts from the graph, stored: so that a solver can be measured again without building graphs.

What is stored depends on the code of `geodesics.graphs`, on the model and on the pairs; the file's name is a digest of
all three. Other code that a graph uses (lengths of edges, the generator) is taken to compute the same.
"""

import hashlib
import os
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from bench.problems.problem_set import QUICK, ROOT
from geodesics import GraphPaths, Metric

CACHE = ROOT / ".benchmarks" / "zoo"


@dataclass(frozen=True)
class GraphSettings:
    """Arguments of `GraphPaths`; the defaults are its own.

    Attributes:
        num_nodes, num_paths, num_trees, seed: as there.
    """

    num_nodes: int = 40000
    num_paths: int = 3
    num_trees: int | None = None
    seed: int = 0


DEFAULT = GraphSettings()
QUICK_GRAPH = GraphSettings(num_nodes=QUICK["num_nodes"], num_paths=QUICK["num_paths"], num_trees=QUICK["num_trees"])


def stored_starts(
    name: str, metric: Metric, latents: Tensor, z0: Tensor, z1: Tensor, settings: GraphSettings
) -> Tensor:
    """Vertices of all starts ``(S, B, n, d)``, in float64; the graph is built where they are not stored yet.

    Args:
        name: of the model, for the file's name.
        metric: the Riemannian metric.
        latents: encoded data.
        z0: starts of all pairs ``(B, d)``.
        z1: their ends.
        settings: of the graph.
    """
    path = CACHE / f"{name}-{_digest(metric, latents, z0, z1, settings)}.npz"
    if not path.exists():
        graph = GraphPaths(
            metric,
            latents,
            num_nodes=settings.num_nodes,
            num_paths=settings.num_paths,
            num_trees=settings.num_trees,
            seed=settings.seed,
        )
        points = torch.stack([curve.points for curve in graph(z0, z1)])
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez(file, starts=points.numpy())
        partial.replace(path)
    with np.load(path, allow_pickle=False) as archive:
        return torch.from_numpy(archive["starts"])


def _digest(metric: Metric, latents: Tensor, z0: Tensor, z1: Tensor, settings: GraphSettings) -> str:
    digest = hashlib.sha256(repr(asdict(settings)).encode())
    for path in sorted((ROOT / "geodesics" / "graphs").glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    # Five digits: how many threads a matrix product takes shows in the last ones.
    for points in (latents, z0, z1, metric.tensor(latents[:64])):
        digest.update(" ".join(f"{x:.4e}" for x in points.flatten().tolist()).encode())
    return digest.hexdigest()[:12]
