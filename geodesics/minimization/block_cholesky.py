"""Direct solution of the element systems by substructuring, for all problems at once.

A curve's Hessian is a chain of element matrices that share their end nodes. Nodes inside an element are eliminated
first, all elements in parallel; then the shared nodes by nested dissection: neighboring elements are merged in pairs,
each merge eliminating the node between them. This is a Cholesky factorization in another order: log2(N) batched steps,
no loop over nodes, and it succeeds exactly where the whole Hessian is positive definite.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from geodesics.batches.small_matrices import solve_positive
from geodesics.curves.elements import gather


class _Condensed(NamedTuple):
    """Chain of elements reduced to their two end nodes: matrices ``(B, N, 2 d, 2 d)``, loads ``(B, N, 2 d)``."""

    matrix: Tensor
    load: Tensor


def solve_chain(
    matrices: Float[Tensor, "b s m m"], loads: Float[Tensor, "b n d"]
) -> tuple[Float[Tensor, "b n d"], Tensor]:
    """Solve A x = loads on the interior nodes, with x = 0 at both ends of every chain.

    Args:
        matrices: symmetric element matrices ``(B, N, (p + 1) d, (p + 1) d)``.
        loads: nodal right-hand sides ``(B, N p + 1, d)``; those of the two ends are ignored.

    Returns:
        x ``(B, N p + 1, d)``, and per chain whether A is positive definite ``(B,)``; where it is not, x means nothing.
    """
    d = loads.shape[-1]
    degree = matrices.shape[-1] // d - 1
    local = gather(loads, degree).clone()
    local[:, 1:, 0] = 0  # a shared node's load stays with its left element
    load = local.flatten(2)
    ends = torch.cat([torch.arange(d), torch.arange(degree * d, (degree + 1) * d)]).to(loads.device)
    inside = torch.arange(d, degree * d, device=loads.device)
    coupling = matrices[..., inside[:, None], ends]
    condensed, interior, positive = _eliminate(
        matrices[..., inside[:, None], inside],
        coupling,
        load[..., inside],
        _Condensed(matrices[..., ends[:, None], ends], load[..., ends]),
    )
    x, positive_chain = _solve_shared(condensed, d)
    solution = torch.zeros_like(loads)
    solution[:, ::degree] = x
    if degree > 1:
        both = torch.cat([x[:, :-1], x[:, 1:]], dim=-1)
        inner = interior[..., -1] - (interior[..., :-1] @ both[..., None])[..., 0]
        solution[:, :-1].unflatten(1, (-1, degree))[:, :, 1:] = inner.unflatten(-1, (degree - 1, d))
    return solution, positive & positive_chain


def _eliminate(pivot: Tensor, coupling: Tensor, load: Tensor, rest: _Condensed) -> tuple[_Condensed, Tensor, Tensor]:
    """Schur complement of one set of pivot blocks ``(B, N, k, k)``; also ``pivot^{-1} [coupling, load]``."""
    solved, positive = solve_positive(pivot, torch.cat([coupling, load[..., None]], dim=-1))
    update = coupling.mT @ solved
    reduced = _Condensed(rest.matrix - update[..., :-1], rest.load - update[..., -1])
    return reduced, solved, positive.all(1)


def _solve_shared(chain: _Condensed, d: int) -> tuple[Tensor, Tensor]:
    """Nodal values ``(B, N + 1, d)`` of a condensed chain with zero ends, by pairwise merging."""
    positive = torch.ones(chain.matrix.shape[0], dtype=torch.bool, device=chain.matrix.device)
    levels: list[tuple[Tensor, int]] = []
    while (count := chain.matrix.shape[1]) > 1:
        paired = count - count % 2
        left = _Condensed(chain.matrix[:, 0:paired:2], chain.load[:, 0:paired:2])
        right = _Condensed(chain.matrix[:, 1:paired:2], chain.load[:, 1:paired:2])
        outer = torch.zeros_like(left.matrix)
        outer[..., :d, :d] = left.matrix[..., :d, :d]
        outer[..., d:, d:] = right.matrix[..., d:, d:]
        merged, solved, ok = _eliminate(
            left.matrix[..., d:, d:] + right.matrix[..., :d, :d],
            torch.cat([left.matrix[..., d:, :d], right.matrix[..., :d, d:]], dim=-1),
            left.load[..., d:] + right.load[..., :d],
            _Condensed(outer, torch.cat([left.load[..., :d], right.load[..., d:]], dim=-1)),
        )
        positive &= ok
        levels.append((solved, count))
        chain = _Condensed(*(torch.cat([a, b[:, paired:]], dim=1) for a, b in zip(merged, chain, strict=True)))
    x = chain.load.new_zeros(chain.load.shape[0], 2, d)
    for solved, count in reversed(levels):
        paired = count - count % 2
        full = x.new_zeros(x.shape[0], count + 1, d)
        full[:, 0 : paired + 1 : 2] = x[:, : paired // 2 + 1]
        full[:, paired:] = x[:, paired // 2 :]
        both = torch.cat([full[:, 0:paired:2], full[:, 2 : paired + 1 : 2]], dim=-1)
        full[:, 1:paired:2] = solved[..., -1] - (solved[..., :-1] @ both[..., None])[..., 0]
        x = full
    return x, positive
