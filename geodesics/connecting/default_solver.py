"""Which solver answers where none is named, and whether a named one fits into memory."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from geodesics.batches.memory import check_memory, free_memory
from geodesics.generators.derivatives import value
from geodesics.generators.reduction import reduced
from geodesics.metrics.connection import MANY_AXES
from geodesics.metrics.metric import Metric, PullbackMetric
from geodesics.solvers.energy import EnergySolver
from geodesics.solvers.matrix_free import MatrixFreeSolver

# The default must fit with so many times the elements of its coarsest mesh, into this share of the free memory.
_FINER, _SHARE = 4, 0.5


@runtime_checkable
class _OnElements(Protocol):
    """A solver with a mesh."""

    @property
    def num_segments(self) -> int: ...

    @property
    def num_samples(self) -> int: ...


@runtime_checkable
class _WarmStarted(Protocol):
    """A solver that begins from the answer of another."""

    @property
    def warm_start(self) -> object: ...


def default_solver(metric: Metric, z: Tensor) -> EnergySolver | MatrixFreeSolver:
    """`EnergySolver`; `MatrixFreeSolver` above 64 latent dimensions, or where Jacobians do not fit into memory.

    They do not fit if those of one curve of 32 elements need more than half of what is free.
    """
    solver = EnergySolver()
    finer = _FINER * solver.num_segments * solver.num_samples
    small = z.shape[1] <= MANY_AXES and _jacobians(metric, z, finer) <= _SHARE * free_memory(z)
    return solver if small else MatrixFreeSolver()


def check_solver_fits(solver: object, metric: Metric, z: Tensor) -> None:
    """Raise unless the Jacobians along one curve on a solver's coarsest mesh fit into memory.

    Raises:
        ValueError: with the memory needed, and what would do.
    """
    meshed = solver.warm_start if isinstance(solver, _WarmStarted) else solver
    if isinstance(meshed, MatrixFreeSolver) or not isinstance(meshed, _OnElements):
        return
    needed = _jacobians(metric, z, meshed.num_segments * meshed.num_samples)
    check_memory(
        needed,
        z,
        f"{type(solver).__name__} with d = {z.shape[1]} latent dimensions",
        "Use MatrixFreeSolver(), which is the default there.",
    )


def _jacobians(metric: Metric, z: Tensor, samples: int) -> int:
    """Bytes that second-order steps need for one curve: Jacobians, tangents and their products at all samples."""
    d = z.shape[1]
    outputs = d * d if not isinstance(metric, PullbackMetric) else _outputs(metric, z)
    return samples * ((4 * d + 8) * outputs + 16 * d * d) * z.element_size()


def _outputs(metric: PullbackMetric, z: Tensor) -> int:
    with torch.no_grad():
        return int(value(reduced(metric.generator), z[:1]).shape[-1])
