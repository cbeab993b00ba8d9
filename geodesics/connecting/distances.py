"""Riemannian distances, pair by pair and all pairs."""

import warnings

import torch
from torch import Tensor

from geodesics.batches.arguments import check_count, check_points
from geodesics.connecting.geodesic import Solver, geodesic, solve_pairs
from geodesics.curves.initial import InitialCurves
from geodesics.metrics.metric import Metric
from geodesics.solvers.solution import Status


def distance(
    metric: Metric,
    z0: Tensor,
    z1: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Lengths of the geodesics between pairs of points; for error estimates and statuses call `geodesic`.

    Args:
        metric: the Riemannian metric.
        z0: starts ``(B, d)``.
        z1: ends ``(B, d)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: as in `geodesic`.

    Returns:
        ``(B,)``, in the metric's unit; NaN where a problem failed.

    Raises:
        ValueError: on ends that do not fit, as `geodesic`.
        TypeError: as `geodesic`.
    """
    return geodesic(metric, z0, z1, solver=solver, initial=initial, chunk_size=chunk_size).length


def distance_matrix(
    metric: Metric,
    z: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int = 1024,
) -> Tensor:
    """All pairwise distances of n points.

    Every pair i < j is solved once, ``chunk_size`` at a time: memory beyond the result is that of one chunk.

    Args:
        metric: the Riemannian metric.
        z: points ``(n, d)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: pairs solved at a time.

    Returns:
        Symmetric ``(n, n)`` with a zero diagonal; NaN where a problem failed.

    Raises:
        ValueError: on points that do not fit, as `geodesic`, or chunk_size < 1.
        TypeError: as `geodesic`.
    """
    check_points("z", z)
    check_count("chunk_size", chunk_size)
    n = len(z)
    i, j = torch.triu_indices(n, n, offset=1, device=z.device)
    matrix = z.new_zeros(n, n)
    failed = torch.zeros((), dtype=torch.long, device=z.device)
    for rows, columns in zip(i.split(chunk_size), j.split(chunk_size), strict=True):
        result = solve_pairs(metric, z[rows], z[columns], solver, initial, None)
        matrix[rows, columns] = result.length
        failed += (result.status >= Status.FAILED).sum()
    if int(failed):
        warnings.warn(f"{int(failed)} of {len(i)} geodesics failed; their distances are NaN", stacklevel=2)
    return matrix + matrix.mT
