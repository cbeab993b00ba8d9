"""Closed forms and written-out eliminations against the library's."""

import pytest
import torch

from geodesics.batches.small_matrices import negative_part, solve_positive


def positive_matrices(normal, count, k, smallest=0.1):
    """Symmetric with eigenvalues from ``smallest`` to 1, evenly in their logarithms."""
    Q, _ = torch.linalg.qr(normal(count, k, k))
    t = torch.linspace(0, 1, k, dtype=torch.float64) if k != 1 else torch.ones(1, dtype=torch.float64)
    return Q @ torch.diag_embed(torch.full_like(t, smallest) ** (1 - t)) @ Q.mT


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("smallest", [0.1, 1e-8])
def test_solution_is_that_of_the_library(normal, k, smallest):
    A, b = positive_matrices(normal, 30, k, smallest), normal(5, 6, k, 3)
    x, positive = solve_positive(A.unflatten(0, (5, 6)), b)
    assert positive.shape == (5, 6)
    assert positive.all()
    expected = torch.linalg.solve(A, b.flatten(0, 1))
    torch.testing.assert_close(x.flatten(0, 1), expected, rtol=1e-14 / smallest, atol=1e-14 / smallest)
    residual = A.unflatten(0, (5, 6)) @ x - b
    assert (residual.abs() <= 1e-14 * (1 + x.abs().sum(-2, keepdim=True))).all()  # backward stable


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_positive_is_what_cholesky_says(normal, k):
    """Definite, singular, indefinite and negative, a little and clearly, and one that is not finite."""
    eigenvalues = 0.5 + normal(200, k).abs()
    eigenvalues[::2, 0] *= -1
    eigenvalues[::4, 0] *= 1e-9
    Q, _ = torch.linalg.qr(normal(200, k, k))
    A = Q @ torch.diag_embed(eigenvalues) @ Q.mT
    A = (A + A.mT) / 2
    A[7] = 0
    A[9, k - 1, 0] = A[9, 0, k - 1] = torch.nan
    x, positive = solve_positive(A, normal(200, k, 2))
    expected = (eigenvalues > 0).all(1)
    expected[[7, 9]] = False
    assert positive.tolist() == expected.tolist() == (torch.linalg.cholesky_ex(A).info == 0).tolist()
    assert x[positive].isfinite().all()


@pytest.mark.parametrize("function", [solve_positive, negative_part])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_rows_are_independent(normal, function, k):
    A, W = positive_matrices(normal, 6, k), normal(6, k, k)
    arguments = (A, W) if function is solve_positive else (W + W.mT, A)

    def run(rows, values=arguments):
        result = function(*(value[rows] for value in values))
        return result[0] if function is solve_positive else result

    whole, order = run(torch.arange(6)), torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(run(order), whole[order])
    torch.testing.assert_close(torch.cat([run([i]) for i in range(6)]), whole)
    poisoned = [value.clone() for value in arguments]
    poisoned[0][2] = torch.nan
    rest = [0, 1, 3, 4, 5]
    after = run(torch.arange(6), poisoned)
    torch.testing.assert_close(after[rest], whole[rest])
    assert after[2].isnan().all()


@pytest.mark.parametrize("smallest", [0.1, 1e-6])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_negative_part_is_the_smallest_shift_in_the_metric(normal, d, smallest):
    """W + S is positive semi-definite with a zero where W was negative; a positive W needs none."""
    M, B = positive_matrices(normal, 60, d, smallest), normal(60, d, d)
    W = B + B.mT
    S = negative_part(W, M)
    L = torch.linalg.cholesky(M)

    def relative(X):
        half = torch.linalg.solve_triangular(L, X, upper=False)
        return torch.linalg.solve_triangular(L, half.mT, upper=False)

    before, after = torch.linalg.eigvalsh(relative(W)), torch.linalg.eigvalsh(relative(W + S))
    tolerance = 1e-13 * before.abs().amax() / smallest
    torch.testing.assert_close(after, before.clamp(min=0), rtol=0, atol=float(tolerance))
    torch.testing.assert_close(S, S.mT, rtol=1e-12, atol=1e-12)
    positive = negative_part(M @ M, M)
    torch.testing.assert_close(positive, torch.zeros_like(positive), rtol=0, atol=1e-10)


def test_the_closed_form_is_that_of_the_eigenvectors(normal):
    """Blocks with a decoupled third direction go the general way; so do the first two of them in closed form."""
    B = normal(100, 2, 2)
    W, M = B + B.mT, positive_matrices(normal, 100, 2, 1e-3)
    M[::2] = M[::2].flip(1, 2)  # the larger diagonal entry first and second
    wide_W, wide_M = (torch.zeros(100, 3, 3, dtype=torch.float64) for _ in range(2))
    wide_W[:, :2, :2], wide_M[:, :2, :2], wide_M[:, 2, 2] = W, M, 1
    torch.testing.assert_close(negative_part(W, M), negative_part(wide_W, wide_M)[:, :2, :2], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_negative_part_in_a_singular_metric_is_finite(normal, d):
    """Eigenvalues of M under rounding are lifted to rounding: a decoder that is flat in one direction, or all."""
    direction = normal(20, d, 1)
    B = normal(20, d, d)
    W = B + B.mT
    for M in (direction @ direction.mT, 1e-12 * torch.eye(d, dtype=torch.float64).expand(20, d, d)):
        S = negative_part(W, M)
        assert S.isfinite().all()
        assert (torch.linalg.eigvalsh(S)[:, 0] >= -1e-8 * S.abs().amax((1, 2))).all()
