"""Riemannian distances, pair by pair and all pairs."""

import warnings
from typing import Literal, overload

import torch
from torch import Tensor

from geodesics.batches.arguments import check_count, check_fits, check_metric, check_points, check_solving
from geodesics.connecting.geodesic import Solver, solve_pairs, unresolved
from geodesics.connecting.gradients import with_gradients
from geodesics.curves.initial import InitialCurves
from geodesics.metrics.metric import Metric

# What is said of the pairs without a distance.
_LOST = "{} of {} geodesics failed or are not resolved; their distances are NaN"


def distance(
    metric: Metric,
    z0: Tensor,
    z1: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Lengths of the geodesics between pairs of points; for error estimates and statuses call `geodesic`.

    A length counts where it is resolved: its error estimate is at most ``length_tol`` of the solver times the length,
    whatever else stopped the solver. ``distance(..., solver=EnergySolver(length_tol=0.05))`` asks for less.

    Args:
        metric: the Riemannian metric.
        z0: starts ``(B, d)``.
        z1: ends ``(B, d)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: as in `geodesic`.
        differentiable: whether the distances carry first derivatives in the ends and in the metric's parameters, by
            one more evaluation of the length along each curve (envelope theorem). Else they carry none.

    Returns:
        ``(B,)``, in the metric's unit; NaN where a problem failed or its length is not resolved, with one warning that
        counts these.

    Raises:
        ValueError: on ends that do not fit, as `geodesic`.
        TypeError: as `geodesic`.
    """
    result = solve_pairs(metric, z0, z1, solver, initial, chunk_size)
    lost = unresolved(result, solver)
    if count := int(lost.sum()):
        warnings.warn(_LOST.format(count, len(z0)), stacklevel=2)
    if differentiable:
        return with_gradients(metric, result, z0, z1, ~lost)
    return result.length.masked_fill(lost, torch.nan)


@overload
def distance_matrix(
    metric: Metric,
    z: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int = 1024,
    return_status: Literal[False] = False,
) -> Tensor: ...


@overload
def distance_matrix(
    metric: Metric,
    z: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int = 1024,
    return_status: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def distance_matrix(
    metric: Metric,
    z: Tensor,
    *,
    solver: Solver | None = None,
    initial: InitialCurves | None = None,
    chunk_size: int = 1024,
    return_status: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """All pairwise distances of n points.

    Every pair i < j is solved once, ``chunk_size`` at a time: memory beyond the result is that of one chunk.

    Args:
        metric: the Riemannian metric.
        z: points ``(n, d)``.
        solver: as in `geodesic`.
        initial: as in `geodesic`.
        chunk_size: pairs solved at a time.
        return_status: also return how each pair ended.

    Returns:
        Symmetric ``(n, n)`` with a zero diagonal; NaN where a problem failed or its length is not resolved, as in
        `distance`. With ``return_status`` also the `Status` codes, integers ``(n, n)``, CONVERGED on the diagonal.

    Raises:
        ValueError: on points that do not fit, as `geodesic`, or chunk_size < 1.
        TypeError: as `geodesic`.
    """
    check_metric(metric)
    check_points("z", z)
    check_solving(solver, initial, chunk_size)
    check_count("chunk_size", chunk_size)
    check_fits(metric, z)
    n = len(z)
    i, j = torch.triu_indices(n, n, offset=1, device=z.device)
    matrix = z.new_zeros(n, n)
    status = torch.full((n, n), 0, dtype=torch.long, device=z.device)  # CONVERGED
    count = torch.zeros((), dtype=torch.long, device=z.device)
    for rows, columns in zip(i.split(int(chunk_size)), j.split(int(chunk_size)), strict=True):
        result = solve_pairs(metric, z[rows], z[columns], solver, initial, None)
        lost = unresolved(result, solver)
        matrix[rows, columns], status[rows, columns] = result.length.masked_fill(lost, torch.nan), result.status
        count += lost.sum()
    if int(count):
        warnings.warn(_LOST.format(int(count), len(i)), stacklevel=2)
    matrix, status = matrix + matrix.mT, status + status.mT
    return (matrix, status) if return_status else matrix
