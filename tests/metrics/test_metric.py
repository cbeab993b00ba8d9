"""Metrics, inner products and measures."""

import math

import numpy as np
import pytest
import torch
from problems import CASES, EMBEDDED, half_plane_tensor, sphere
from samples import points_near
from torch import nn

from geodesics import FunctionMetric, PullbackMetric, Stack, inner, log_measure, norm


@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_linear_decoder_has_the_metric_of_all_outputs(normal, d):
    A = normal(3 * d, d)
    M = PullbackMetric(lambda z: z @ A.mT).tensor(normal(5, d))
    torch.testing.assert_close(M, (A.mT @ A).expand(5, d, d))


@pytest.mark.parametrize("problem", EMBEDDED, ids=lambda problem: problem.name)
def test_pullback_of_an_embedding_is_the_textbooks_tensor(problem, normal):
    z = points_near(problem, normal)
    torch.testing.assert_close(PullbackMetric(problem.embedding).tensor(z), problem.tensor(z))


def test_stack_of_mean_and_deviation_is_the_expected_metric(normal):
    """Theorem 1: E[M] = J_mu^T J_mu + J_sigma^T J_sigma; against Monte Carlo over the noise of the generator
    itself.
    """
    mean = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    deviation = nn.Sequential(nn.Linear(2, 4), nn.Softplus()).double()
    z = normal(3, 2)
    M = PullbackMetric(Stack(mean, deviation)).tensor(z)
    torch.testing.assert_close(M, PullbackMetric(mean).tensor(z) + PullbackMetric(deviation).tensor(z))
    draws = torch.stack([PullbackMetric(lambda z, e=e: mean(z) + deviation(z) * e).tensor(z) for e in normal(400, 4)])
    # Five standard errors of the mean of 400 draws: below one in 100,000 by chance, and the seed is fixed.
    error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - M).abs() < 5 * error).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inner_norm_and_measure_agree_with_the_tensor(case, normal):
    z, metric = points_near(case.problem, normal), case.metric
    u, v = normal(*z.shape), normal(*z.shape)
    M = case.problem.tensor(z)
    expected = (u[:, None, :] @ M @ v[:, :, None])[:, 0, 0]
    torch.testing.assert_close(inner(metric, z, u, v), expected)
    torch.testing.assert_close(inner(metric, z, v, u), expected)
    torch.testing.assert_close(norm(metric, z, v), inner(metric, z, v, v).sqrt())
    torch.testing.assert_close(log_measure(metric, z), torch.linalg.slogdet(M).logabsdet / 2)


def test_area_of_the_sphere():
    """The measure integrates to the area: 4 pi; the 40-point Gauss rule in colatitude is exact to rounding."""
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.legendre.leggauss(40))
    z = torch.stack([(nodes + 1) * math.pi / 2, torch.zeros_like(nodes)], dim=-1)
    area = (log_measure(PullbackMetric(sphere), z).exp() * weights).sum() * math.pi / 2 * 2 * math.pi
    assert float(area) == pytest.approx(4 * math.pi, rel=1e-13)


def test_measure_survives_where_the_determinant_does_not():
    """Entries of 1e-60 in d = 8: det M underflows, its logarithm is exact."""
    metric = FunctionMetric(lambda z: 1e-60 * torch.eye(8, dtype=z.dtype).expand(len(z), 8, 8))
    expected = torch.tensor([4 * math.log(1e-60)], dtype=torch.float64)
    torch.testing.assert_close(log_measure(metric, torch.zeros(1, 8, dtype=torch.float64)), expected)


def test_rows_are_independent_and_bad_rows_are_nan(normal):
    """A point off the chart, a singular and an indefinite tensor give NaN in their own rows."""

    z = normal(6, 2)

    def tensor(points):
        M = half_plane_tensor(points)
        singular, indefinite, off = ((points == bad).all(1) for bad in z[1:4])
        M[singular, 0, 0] = 0.0
        M[indefinite, 0, 0] = -1.0
        M[off] = torch.nan
        return M

    values = log_measure(FunctionMetric(tensor), z)
    assert values.isnan().tolist() == [False, True, True, True, False, False]
    good = [0, 4, 5]
    torch.testing.assert_close(values[good], log_measure(FunctionMetric(half_plane_tensor), z[good]))
    alone = torch.cat([log_measure(FunctionMetric(half_plane_tensor), z[i : i + 1]) for i in good])
    torch.testing.assert_close(values[good], alone)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("kind", [PullbackMetric, FunctionMetric])
def test_what_is_not_callable_is_refused(kind):
    with pytest.raises(TypeError, match=r"must be callable.*got Tensor"):
        kind(torch.eye(2))


def test_dtype_is_that_of_the_points(dtype):
    z = torch.tensor([[0.5, 0.3]], dtype=dtype)
    metric = PullbackMetric(sphere)
    assert metric.tensor(z).dtype == norm(metric, z, z).dtype == log_measure(metric, z).dtype == dtype
