"""Linear algebra of very many very small symmetric matrices, written out over the batch.

A library call per matrix costs more than the arithmetic, up to ten times for d = 1 and 2.
Here loops run over rows and columns, and every operation over the whole batch, which lies last in memory. No result is
looked at on the host, and a matrix that is not finite harms no other.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Size up to which elimination is written out; beyond it the library's is faster.
_UNROLLED = 4


def solve_positive(
    A: Float[Tensor, "*b k k"], rhs: Float[Tensor, "*b k r"]
) -> tuple[Float[Tensor, "*b k r"], Bool[Tensor, "*b"]]:
    """Solve ``A x = rhs`` for symmetric positive definite A, by elimination without pivoting (``A = L D L^T``).

    Args:
        A: symmetric matrices.
        rhs: right-hand sides.

    Returns:
        x, and whether A is positive definite, all pivots positive; where it is not, x means nothing.
    """
    k = A.shape[-1]
    if k > _UNROLLED:
        L, info = torch.linalg.cholesky_ex(A)
        return torch.cholesky_solve(rhs, L), info == 0
    rows = torch.cat([A, rhs], dim=-1).movedim((-2, -1), (0, 1)).contiguous()
    positive = torch.ones(A.shape[:-2], dtype=torch.bool, device=A.device)
    for j in range(k):
        positive &= rows[j, j] > 0
        column = rows[j + 1 :, j].clone()
        rows[j, j + 1 :] /= rows[j, j].clone()
        rows[j + 1 :, j + 1 :].addcmul_(column[:, None], rows[j, None, j + 1 :], value=-1)
    for j in reversed(range(k)):
        for i in range(j):
            rows[i, k:].addcmul_(rows[i, j], rows[j, k:], value=-1)
    return rows[:, k:].movedim((0, 1), (-2, -1)), positive


def negative_part(W: Float[Tensor, "*b d d"], M: Float[Tensor, "*b d d"]) -> Float[Tensor, "*b d d"]:
    """The smallest shift S in the metric M with ``W + S`` positive semi-definite.

    With ``M = R R^T`` and ``Y = R^{-1} W R^{-T} = V diag(y) V^T`` the shift is ``R V diag(max(-y, 0)) V^T R^T``, the
    same for every root R. Measured in M it does not depend on the latent coordinates, which matters where M is
    ill-conditioned. Eigenvalues of M under rounding are lifted to rounding. NaN where W or M is not finite.
    """
    finite = (W.isfinite() & M.isfinite()).all(-1).all(-1)[..., None, None]
    if W.shape[-1] == 1:
        part = (-W).clamp(min=0)
    elif W.shape[-1] == 2:
        part = _negative_part_of_two(W, M)
    else:
        # One matrix that is not finite may fail the whole batch in LAPACK.
        part = _negative_part(*(torch.where(finite, matrix, torch.zeros_like(matrix)) for matrix in (W, M)))
    return torch.where(finite, part, torch.full_like(part, torch.nan))


def _negative_part(W: Tensor, M: Tensor) -> Tensor:
    """By eigenvectors of M, then of Y."""
    m, U = torch.linalg.eigh(M)
    floor = torch.finfo(M.dtype).eps * m[..., -1:].clamp(min=torch.finfo(M.dtype).tiny)
    root = m.maximum(floor).sqrt()
    Y = (U.mT @ W @ U) / (root[..., :, None] * root[..., None, :])
    y, V = torch.linalg.eigh((Y + Y.mT) / 2)
    half = (U * root[..., None, :]) @ V
    return (half * (-y).clamp(min=0)[..., None, :]) @ half.mT


def _negative_part_of_two(W: Tensor, M: Tensor) -> Tensor:
    """In closed form for d = 2, R = P L D^{1/2} with the larger diagonal entry of M first."""
    swapped = M[..., 1, 1] > M[..., 0, 0]

    def entries(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = matrix[..., 0, 0], matrix[..., 1, 1]
        return torch.where(swapped, second, first), matrix[..., 1, 0], torch.where(swapped, first, second)

    (m, off, m_other), (w, w_off, w_other) = entries(M), entries(W)
    limits = torch.finfo(M.dtype)
    m = m.clamp(min=limits.tiny / limits.eps)
    slope = off / m
    s = (m_other - slope * off).maximum(limits.eps * m)
    # Y = D^{-1/2} L^{-1} W L^{-T} D^{-1/2} = [[y0, y], [y, y1]].
    w_off = w_off - slope * w
    w_other = w_other - slope * (2 * w_off + slope * w)
    y0, y1, y = w / m, w_other / s, w_off / (m * s).sqrt()
    mean, half = (y0 + y1) / 2, (y0 - y1) / 2
    radius = torch.hypot(half, y)
    # The smaller eigenvalue from the determinant, where the difference would cancel.
    larger = mean + torch.where(mean > 0, radius, -radius)
    smaller = torch.where(larger == 0, larger, (y0 * y1 - y * y) / larger)
    high, low = torch.where(mean > 0, larger, smaller), torch.where(mean > 0, smaller, larger)
    # Eigenvectors (1, q) and (-q, 1), or turned: a sum of their squares is semi-definite whatever the rounding.
    reach = radius + half.abs()
    q = torch.where(reach == 0, reach, y / reach)
    turned = half < 0
    squares = [
        _weighted_square(high, m.sqrt(), slope, s.sqrt(), torch.where(turned, q, 1), torch.where(turned, 1, q)),
        _weighted_square(low, m.sqrt(), slope, s.sqrt(), torch.where(turned, 1, -q), torch.where(turned, -q, 1)),
    ]
    total = [sum(pair) / (1 + q * q) for pair in zip(*squares, strict=True)]
    first, off, second = torch.where(swapped, total[2], total[0]), total[1], torch.where(swapped, total[0], total[2])
    return torch.stack([first, off, off, second], dim=-1).unflatten(-1, (2, 2))


def _weighted_square(
    eigenvalue: Tensor, root: Tensor, slope: Tensor, other_root: Tensor, v: Tensor, v_other: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The three entries of ``max(-y, 0) R v (R v)^T`` with ``R = [[1, 0], [slope, 1]] diag(root, other_root)``."""
    weight = (-eigenvalue).clamp(min=0)
    x = root * v
    x_other = slope * x + other_root * v_other
    return weight * x * x, weight * x * x_other, weight * x_other * x_other
