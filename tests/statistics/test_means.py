"""Fréchet means: closed forms, the first-order condition, rows that fail, and independence of the batch."""

import math
import warnings

import pytest
import torch
from problems import half_plane_distance, half_plane_tensor, sphere, sphere_distance

from geodesics import EnergySolver, FunctionMetric, PullbackMetric, exp_map, frechet_mean

SPHERE = PullbackMetric(sphere)
HALF_PLANE = FunctionMetric(half_plane_tensor)
SOLVER = EnergySolver(num_segments=4, length_tol=1e-2)


def upper(normal, n):
    return torch.stack([normal(n), (0.7 * normal(n)).exp()], dim=1)


def angles(x):
    return torch.stack([x[:, 2].arccos(), torch.atan2(x[:, 1], x[:, 0])], dim=1)


def test_linear_decoders_have_the_weighted_mean(normal):
    A, z, w = normal(6, 3), normal(12, 3), normal(4, 12).square()
    w[1, :7] = 0
    result = frechet_mean(PullbackMetric(lambda x: x @ A.mT), z, w, solver=SOLVER)
    mean = w @ z / w.sum(1, keepdim=True)
    torch.testing.assert_close(result.mean, mean, rtol=0, atol=1e-9)
    squares = ((z - mean[:, None]) @ A.mT).square().sum(-1)
    torch.testing.assert_close(result.variance, (w * squares).sum(1) / w.sum(1))
    assert (result.iterations == 1).all()
    assert result.converged.all()
    assert torch.equal(result.distances.isnan(), w == 0)
    torch.testing.assert_close(result.logarithms[0], z - mean[0], rtol=0, atol=1e-8)


def test_two_points_of_the_sphere_have_their_midpoint(normal):
    """For weights (1 - t, t) the point at t on the great arc; the variance is t (1 - t) of the squared distance."""
    z = torch.tensor([[1.1, 0.2], [1.9, 1.3]], dtype=torch.float64)
    t = torch.tensor([0.5, 0.1, 0.8], dtype=torch.float64)
    result = frechet_mean(SPHERE, z, torch.stack([1 - t, t], dim=1), tol=1e-6)
    arc = sphere_distance(z[:1], z[1:])
    x = sphere(z)
    point = (((1 - t) * arc).sin()[:, None] * x[:1] + (t * arc).sin()[:, None] * x[1:]) / arc.sin()
    torch.testing.assert_close(sphere(result.mean), point, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.variance, t * (1 - t) * arc.square(), rtol=1e-6, atol=0)
    torch.testing.assert_close(result.distances[:, 0], t * arc, rtol=1e-4, atol=0)


def test_a_symmetric_set_has_its_center(normal):
    """Points at one distance from a center, evenly around it, after three directions have been drawn."""
    center = torch.tensor([[1.3, 0.4]], dtype=torch.float64)
    turn = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    frame = torch.stack([turn.cos(), turn.sin() / center[:, 0].sin()], dim=1)
    z = exp_map(SPHERE, center.expand(5, -1), 0.7 * frame)
    result = frechet_mean(SPHERE, z, start=z[:1], tol=1e-6)
    torch.testing.assert_close(result.mean, center, rtol=0, atol=1e-5)
    torch.testing.assert_close(result.variance, torch.tensor([0.49], dtype=torch.float64), rtol=1e-6, atol=0)


def test_half_plane_means(normal):
    """On a vertical line the geometric mean of the heights; for any points no other point has less variance."""
    y = torch.tensor([0.1, 0.5, 3.0, 20.0], dtype=torch.float64)
    z = torch.stack([torch.ones_like(y), y], dim=1)
    result = frechet_mean(HALF_PLANE, z, tol=1e-6)
    torch.testing.assert_close(result.mean, torch.tensor([[1.0, float(y.log().mean().exp())]], dtype=y.dtype))
    z = upper(normal, 6)
    result = frechet_mean(HALF_PLANE, z, tol=1e-6, solver=SOLVER)
    exact = half_plane_distance(result.mean.expand(6, -1), z)
    torch.testing.assert_close(result.distances[0], exact, rtol=1e-5, atol=0)
    nearby = result.mean + 1e-2 * normal(200, 2)
    variance = half_plane_distance(nearby[:, None].expand(-1, 6, -1).reshape(-1, 2), z.repeat(200, 1)).square()
    # Nearby points gain 1e-4; the least variance is known to the square of the logarithms' error.
    assert (variance.view(200, 6).mean(1) > result.variance - 1e-6).all()


def test_far_points_of_negative_curvature_need_shorter_steps():
    """The Hessian of d^2 / 2 grows like d coth d: full steps overshoot, and are taken back."""
    z = torch.tensor([[-40.0, 1.0], [40.0, 1.0], [0.0, 60.0]], dtype=torch.float64)
    result = frechet_mean(HALF_PLANE, z, start=z[:1])
    assert result.converged.all()
    assert abs(float(result.mean[0, 0])) < 0.3
    assert (result.traveled * 1.001 >= half_plane_distance(z[:1], result.mean)).all()


def test_means_do_not_depend_on_their_batch(normal):
    z, w = upper(normal, 4), normal(3, 4).square()
    together = frechet_mean(HALF_PLANE, z, w, solver=SOLVER)
    for k in range(3):
        alone = frechet_mean(HALF_PLANE, z, w[k : k + 1], solver=SOLVER)
        torch.testing.assert_close(alone.mean[0], together.mean[k], rtol=1e-9, atol=1e-9)
        assert alone.iterations[0] == together.iterations[k]
    order = torch.tensor([2, 0, 3, 1])
    permuted = frechet_mean(HALF_PLANE, z[order], w[[2, 0, 1]][:, order], solver=SOLVER)
    torch.testing.assert_close(permuted.mean, together.mean[[2, 0, 1]], rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_a_point_that_fails_is_counted_and_pulls_at_nothing(normal):
    z, w = upper(normal, 4), normal(2, 4).square()
    bad = torch.cat([z, torch.tensor([[torch.nan, 1.0], [0.0, -1.0]], dtype=z.dtype)])
    weights = torch.cat([w, torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=z.dtype)], dim=1)

    def tensor(x):
        return torch.where((x[:, 1] > 0)[:, None, None], half_plane_tensor(x), torch.nan)

    found = frechet_mean(FunctionMetric(tensor), bad, weights, solver=SOLVER)
    expected = frechet_mean(HALF_PLANE, z, w, solver=SOLVER)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-6, atol=1e-6)
    assert found.failed.tolist() == [2, 0]
    assert found.distances[0].isnan().tolist() == [False] * 4 + [True] * 2


def test_means_without_points_and_of_one_point(normal):
    z = upper(normal, 3)
    w = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=z.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = frechet_mean(HALF_PLANE, z, w)
    assert result.mean[0].isnan().all()
    assert result.variance[0].isnan()
    assert result.converged.tolist() == [False, True]
    assert torch.equal(result.mean[1], z[1])
    assert result.variance[1] == 0


def test_dtype_and_device_are_kept(device, dtype):
    z = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=dtype, device=device)
    result = frechet_mean(HALF_PLANE, z)
    assert result.mean.dtype == dtype
    assert result.mean.device.type == device.type
    assert result.converged.all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    z = torch.ones(3, 2)
    for weights in (torch.ones(3), torch.ones(1, 2)):
        with pytest.raises(ValueError, match=r"weights must be \(K, n\) with n = 3"):
            frechet_mean(HALF_PLANE, z, weights)
    for value in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            frechet_mean(HALF_PLANE, z, torch.full((1, 3), value))
    with pytest.raises(ValueError, match=r"start must be \(K, d\) = \(1, 2\); got \(2, 2\)"):
        frechet_mean(HALF_PLANE, z, start=z[:2])
    with pytest.raises(ValueError, match="tol must be positive"):
        frechet_mean(HALF_PLANE, z, tol=0.0)
    with pytest.raises(TypeError, match="floating-point"):
        frechet_mean(HALF_PLANE, z.long())


class BlindBeyond:
    """A solver that resolves no length from a point with x above a limit to a point with x below zero."""

    def __init__(self, limit):
        self.limit = limit

    def solve(self, metric, starts):
        result = EnergySolver().solve(metric, starts)
        ends = starts[0].points[:, [0, -1], 0]
        blind = (ends[:, 0] > self.limit) & (ends[:, 1] < 0)
        return result._replace(length_error=result.length_error.masked_fill(blind, torch.inf))


def test_no_step_to_where_a_distance_is_lost():
    """The plane: the mean is at x = 1, and beyond x = 0.7 the left point would no longer count."""
    flat = PullbackMetric(lambda z: z)
    z = torch.tensor([[-1.0, 0.0], [2.0, 0.0], [2.0, 0.5]], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    found = frechet_mean(flat, z, start=start, solver=BlindBeyond(0.7), max_iter=20)
    assert found.failed.tolist() == [0]
    assert not found.converged.any()
    assert 0.5 < float(found.mean[0, 0]) <= 0.7
