"""A set of geodesic problems on one metric, with the lengths that answers are held to."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from geodesics import EnergySolver, GraphPaths, Metric, PullbackMetric

ROOT = Path(__file__).resolve().parents[2]

# A curve has found the geodesic when its length is within this share of the best known.
EXACT_TOLERANCE = 1e-4
LEARNED_TOLERANCE = 1e-2
# The quick settings on learned metrics: docs/how-to/many-pairs.md.
QUICK = {"num_nodes": 8000, "num_paths": 1, "num_trees": 400}
QUICK_SOLVER = EnergySolver(length_tol=2e-2, tol=0.1)


@dataclass(frozen=True)
class ProblemSet:
    """B pairs of points on one metric.

    Attributes:
        name: for the table.
        metric: the Riemannian metric.
        z0: starts ``(B, d)``.
        z1: ends ``(B, d)``.
        best: exact distances, or the best lengths known, ``(B,)``.
        embedding: generator whose pullback the metric is, for chord lengths; None for a tensor field.
        graph: gives the graph of starts on encoded data, built when first asked for; None where there is no
            data and the straight line will do.
        quick_graph: gives a sparser one with one path per problem, for many lengths to a percent; None alike.
    """

    name: str
    metric: Metric
    z0: Tensor
    z1: Tensor
    best: Tensor
    embedding: Callable[[Tensor], Tensor] | None = None
    graph: Callable[[], GraphPaths] | None = None
    quick_graph: Callable[[], GraphPaths] | None = None

    def __len__(self) -> int:
        return len(self.z0)

    @property
    def tolerance(self) -> float:
        """Excess over `best` up to which a geodesic counts as found."""
        return EXACT_TOLERANCE if self.graph is None else LEARNED_TOLERANCE

    def part(self, rows: slice) -> "ProblemSet":
        """Some of the problems."""
        return replace(self, z0=self.z0[rows], z1=self.z1[rows], best=self.best[rows])


class Model(NamedTuple):
    """A learned metric: its generator is ``embedding``, its encoded data ``latents`` ``(n, d)``."""

    metric: Metric
    embedding: nn.Module
    latents: Tensor

    def single(self) -> "Model":
        """The same in single precision."""
        generator = deepcopy(self.embedding).float()
        return Model(PullbackMetric(generator), generator, self.latents.float())

    def problem_set(self, name: str, z0: Tensor, z1: Tensor, best: Tensor) -> ProblemSet:
        """Pairs on this metric, with graphs that are built once, when first asked for."""
        graph = cache(lambda: GraphPaths(self.metric, self.latents))
        quick = cache(lambda: GraphPaths(self.metric, self.latents, **QUICK))
        return ProblemSet(name, self.metric, z0, z1, best, self.embedding, graph, quick)
