"""Direct solution of two-point boundary-value chains by substructuring, for all problems at once.

Multiple shooting couples neighboring nodes only: ``A_k x_k - x_{k+1} = r_k``, with half of the components
given at each end. Multiplying the A_k together (condensing) loses all digits where geodesics diverge; instead
neighboring equations are merged in pairs, each merge eliminating the node between them by an orthogonal
transformation (Wright, Stable parallel algorithms for two-point boundary value problems, SIAM J. Sci. Stat.
Comput. 1992). log2(K) batched steps, no loop over nodes.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def solve_two_point(A: Float[Tensor, "b s m m"], r: Float[Tensor, "b s m"]) -> Float[Tensor, "b k m"]:
    """Solve ``A_k x_k - x_{k+1} = r_k``, k < K, with the first m / 2 components of x_0 and of x_K zero.

    Args:
        A: ``(B, K, m, m)``.
        r: ``(B, K, m)``.

    Returns:
        x ``(B, K + 1, m)``; not finite in the rows where the problem is singular.
    """
    m = A.shape[-1]
    left, right, load = A, -torch.eye(m, dtype=A.dtype, device=A.device).expand_as(A), r[..., None]
    levels = []
    while (count := left.shape[1]) > 1:
        paired = count - count % 2
        middle = torch.cat([right[:, 0:paired:2], left[:, 1:paired:2]], dim=-2)
        Q, R = torch.linalg.qr(middle, mode="complete")
        outer = torch.zeros(*middle.shape[:-1], 2 * m + 1, dtype=A.dtype, device=A.device)
        outer[..., :m, :m], outer[..., m:, m : 2 * m] = left[:, 0:paired:2], right[:, 1:paired:2]
        outer[..., 2 * m :] = torch.cat([load[:, 0:paired:2], load[:, 1:paired:2]], dim=-2)
        outer = Q.mT @ outer
        levels.append((R[..., :m, :], outer[..., :m, :], count))
        merged = outer[..., m:, :].split([m, m, 1], dim=-1)
        left, right, load = (
            torch.cat([new, old[:, paired:]], dim=1) for new, old in zip(merged, (left, right, load), strict=True)
        )
    x = _solve_ends(left[:, 0], right[:, 0], load[:, 0, :, 0])
    for R, outer, count in reversed(levels):
        paired = count - count % 2
        full = x.new_zeros(len(x), count + 1, m)
        full[:, 0 : paired + 1 : 2] = x[:, : paired // 2 + 1]
        full[:, paired:] = x[:, paired // 2 :]
        ends = torch.cat([full[:, 0:paired:2], full[:, 2 : paired + 1 : 2]], dim=-1)
        rhs = outer[..., 2 * m :] - outer[..., : 2 * m] @ ends[..., None]
        full[:, 1:paired:2] = torch.linalg.solve_triangular(R, rhs, upper=True)[..., 0]
        x = full
    return x


def _solve_ends(left: Tensor, right: Tensor, load: Tensor) -> Tensor:
    """Both ends ``(B, 2, m)`` of a chain of one equation; the second halves of x_0, x_K are unknown."""
    half = left.shape[-1] // 2
    free, _ = torch.linalg.solve_ex(torch.cat([left[..., half:], right[..., half:]], dim=-1), load)
    ends = free.new_zeros(len(free), 2, 2 * half)
    ends[:, :, half:] = free.unflatten(1, (2, half))
    return ends
