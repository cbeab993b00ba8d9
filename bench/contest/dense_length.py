"""The length of a curve by dense chords: nothing of the library's own quadrature is in it."""

import torch
from torch import Tensor

from bench.problems.problem_set import ProblemSet
from geodesics import Curve

# Chords per curve at least, and points evaluated at a time.
NUM_CHORDS = 20_000
CHUNK = 8192


def dense_length(problems: ProblemSet, curve: Curve, num_chords: int = NUM_CHORDS) -> tuple[Tensor, Tensor]:
    """Lengths of curves by chords, extrapolated, with the rule's own error.

    With an embedding the sum of ``||F(z_{i+1}) - F(z_i)||``; without one that of ``sqrt(dz^T (M_i + M_{i+1})
    / 2 dz)``. Every element is cut into equally many pieces, evenly in its own coordinate: kinks between
    elements fall on ends of chords, so both sums are of second order, and half as many chords give the error
    that is taken off (Richardson).

    Args:
        problems: the metric, and the embedding where there is one.
        curve: B curves, NaN where there is none.
        num_chords: at least so many chords per curve.

    Returns:
        Lengths, and their error: what the extrapolation changed, plus rounding; both ``(B,)``.
    """
    pieces = 2 * -(-num_chords // (2 * curve.num_segments))
    # Even knots: a curve's length does not depend on its times, and no element has width zero.
    even = Curve(curve.points, None, curve.degree)
    t = torch.linspace(0, 1, pieces * curve.num_segments + 1, dtype=curve.points.dtype)
    found = [_chords(problems, even[i : i + 1].evaluate(t)[0]) for i in range(len(even))]
    return torch.stack([length for length, _ in found]), torch.stack([error for _, error in found])


def _chords(problems: ProblemSet, z: Tensor) -> tuple[Tensor, Tensor]:
    """Extrapolated length and error of one curve from an odd number of its points ``(n, d)``."""
    with torch.no_grad():
        if problems.embedding is None:
            M = torch.cat([problems.metric.tensor(part) for part in z.split(CHUNK)])
            fine, coarse = _tensor_sum(z, M), _tensor_sum(z[::2], M[::2])
            size = fine
        else:
            fine, coarse, size = _embedded_sums(problems, z)
    change = (fine - coarse) / 3
    rounding = len(z) * torch.finfo(z.dtype).eps * size
    return fine + change, change.abs() + rounding


def _tensor_sum(z: Tensor, M: Tensor) -> Tensor:
    dz = z.diff(dim=0)
    return torch.einsum("ni,nij,nj->n", dz, (M[1:] + M[:-1]) / 2, dz).sqrt().sum()


def _embedded_sums(problems: ProblemSet, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over all chords and over pairs of them, and the size of the values; chunks share end points."""
    assert problems.embedding is not None
    fine, coarse, size = z.new_zeros(3)
    for start in range(0, len(z) - 1, CHUNK):
        F = problems.embedding(z[start : start + CHUNK + 1])
        fine = fine + F.diff(dim=0).norm(dim=-1).sum()
        coarse = coarse + F[::2].diff(dim=0).norm(dim=-1).sum()
        size = size.maximum(F.norm(dim=-1).amax())
    return fine, coarse, size
