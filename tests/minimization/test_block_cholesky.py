"""The chain solver against dense linear algebra."""

import pytest
import torch
from samples import scattered

from geodesics.minimization.block_cholesky import solve_chain

SHAPES = [(n, p, d) for n in range(1, 10) for p, d in ((1, 1), (1, 3), (2, 2), (3, 1), (3, 4), (4, 2))]


def chain(normal, batch, count, degree, d, lift=0.1):
    """Element matrices A A^T + lift, and loads."""
    size = (degree + 1) * d
    A = normal(batch, count, size, size)
    matrices = A @ A.mT / size + lift * torch.eye(size, dtype=A.dtype)
    return matrices, normal(batch, count * degree + 1, d)


def dense_interior(matrices, degree, d):
    """The whole matrix without the rows and columns of the two ends."""
    return scattered(matrices, degree, d)[:, d:-d, d:-d]


@pytest.mark.parametrize(("count", "degree", "d"), SHAPES)
def test_solution_is_that_of_the_dense_system(count, degree, d, normal):
    matrices, loads = chain(normal, 3, count, degree, d)
    x, positive = solve_chain(matrices, loads)
    assert positive.all()
    assert (x[:, [0, -1]] == 0).all()
    if count * degree > 1:
        dense = dense_interior(matrices, degree, d)
        expected = torch.linalg.solve(dense, loads[:, 1:-1].flatten(1)).view(3, -1, d)
        # Condition numbers stay below 1e3.
        torch.testing.assert_close(x[:, 1:-1], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("count", "degree", "d"), [(1, 2, 2), (2, 1, 2), (5, 1, 1), (7, 3, 2), (8, 2, 3)])
def test_positive_exactly_where_the_dense_matrix_is(count, degree, d, normal):
    """Shifts that put the smallest eigenvalue of the whole matrix a little above and a little below zero.

    Elements are indefinite on both sides: what is asked is the whole, not its parts.
    """
    matrices, loads = chain(normal, 12, count, degree, d, lift=0.0)
    size = matrices.shape[-1]
    # The interior identity as a sum of element matrices: half at shared nodes, whole inside.
    weight = torch.full((degree + 1,), 1.0, dtype=torch.float64)
    weight[[0, -1]] = 0.5
    unit = torch.diag(weight.repeat_interleave(d)).expand(12, count, size, size)
    smallest = torch.linalg.eigvalsh(dense_interior(matrices, degree, d))[:, 0]
    offset = torch.where(torch.arange(12) % 2 == 0, 1e-6, -1e-6)
    shifted = matrices + (offset - smallest)[:, None, None, None] * unit
    _, info = torch.linalg.cholesky_ex(dense_interior(shifted, degree, d))
    x, positive = solve_chain(shifted, loads)
    assert positive.tolist() == (offset > 0).tolist() == (info == 0).tolist()
    good = positive.nonzero()[:, 0]
    residual = (dense_interior(shifted, degree, d)[good] @ x[good, 1:-1].flatten(1)[..., None])[..., 0]
    # Nearly singular by design: backward stability bounds the residual by rounding times the solution.
    assert ((residual - loads[good, 1:-1].flatten(1)).abs().amax(1) < 1e-11 * x[good].abs().amax((1, 2))).all()


def test_rows_are_independent(normal):
    """Indefinite and NaN rows change no other; alone and permuted agree."""
    matrices, loads = chain(normal, 5, 6, 3, 2)
    expected, _ = solve_chain(matrices, loads)
    bad = matrices.clone()
    bad[1] = -bad[1]
    bad[3, 2] = torch.nan
    x, positive = solve_chain(bad, loads)
    assert positive.tolist() == [True, False, True, False, True]
    rest = [0, 2, 4]
    torch.testing.assert_close(x[rest], expected[rest])
    torch.testing.assert_close(
        torch.cat([solve_chain(matrices[i : i + 1], loads[i : i + 1])[0] for i in range(5)]), expected
    )
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(solve_chain(matrices[order], loads[order])[0], expected[order])


def test_inputs_are_left_alone(normal):
    matrices, loads = chain(normal, 2, 4, 2, 2)
    copies = matrices.clone(), loads.clone()
    solve_chain(matrices, loads)
    torch.testing.assert_close((matrices, loads), copies, rtol=0, atol=0)
