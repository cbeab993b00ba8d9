"""Random walks: closed forms of drift and moments, the order in the step, and walkers that cannot go on."""

import math
import warnings

import pytest
import torch
from problems import conformal, diagonal, ellipsoid, half_plane_tensor, sphere, torus

from geodesics import (
    FunctionMetric,
    PullbackMetric,
    brownian_drift,
    brownian_motion,
    christoffel_symbols,
    random_walk,
)

HALF_PLANE = FunctionMetric(half_plane_tensor)
HALF_SPACE = FunctionMetric(lambda z: conformal(z[:, -1] ** -2, 3))
POLAR = FunctionMetric(lambda z: diagonal(torch.ones_like(z[:, 0]), z[:, 0].square()))
LINEAR = torch.tensor([[2.0, 1.0], [0.0, 0.5], [1.0, -1.0]], dtype=torch.float64)


def polar_plane(z):
    return torch.stack([z[:, 0] * z[:, 1].cos(), z[:, 0] * z[:, 1].sin()], dim=1)


def three_sphere(z):
    """Stereographic coordinates of S^3: three-dimensional, so that the conformal chart has a drift."""
    r2 = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, r2 - 1], dim=1) / (1 + r2)


def many(start, count=8_000):
    return torch.tensor([start], dtype=torch.float64).expand(count, -1)


def assert_mean(samples, expected, bias=0.0):
    """The mean of independent samples within four standard errors, and a bias, of its expectation."""
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - expected).abs() <= 4 * error + bias).all(), (samples.mean(0), expected, error)


def test_drift_closed_forms(normal):
    z = normal(7, 3)
    z[:, -1] = z[:, -1].exp()
    # Half-space of dimension n: (2 - n) / 2 y along y; conformal planes have none.
    expected = torch.stack([0 * z[:, 0], 0 * z[:, 0], -z[:, 2] / 2], dim=1)
    torch.testing.assert_close(brownian_drift(HALF_SPACE, z), expected)
    torch.testing.assert_close(brownian_drift(HALF_PLANE, z[:, 1:]), torch.zeros_like(z[:, 1:]))
    r = z[:, [2, 0]]
    expected = torch.stack([0.5 / r[:, 0], 0 * r[:, 0]], dim=1)
    for metric in (POLAR, PullbackMetric(polar_plane)):
        torch.testing.assert_close(brownian_drift(metric, r), expected)
    polar = torch.tensor([[0.7, 0.0], [2.0, 1.0]], dtype=torch.float64)
    expected = torch.stack([0.5 / polar[:, 0].tan(), 0 * polar[:, 0]], dim=1)
    torch.testing.assert_close(brownian_drift(PullbackMetric(sphere), polar), expected)


@pytest.mark.parametrize("embedding", [torus, ellipsoid, three_sphere])
def test_drift_is_the_contracted_connection(embedding, normal):
    metric = PullbackMetric(embedding)
    z = 0.4 * normal(5, 3 if embedding is three_sphere else 2)
    contracted = torch.einsum("bkij,bij->bk", christoffel_symbols(metric.tensor, z), metric.tensor(z).inverse())
    torch.testing.assert_close(brownian_drift(metric, z), -contracted / 2, rtol=1e-9, atol=1e-12)


def test_brownian_motion_of_the_plane_in_polar_coordinates(rng):
    """``E |x_t|^2 = |x_0|^2 + 2 t``; the walk without drift spreads half as much, for dr = dW."""
    h, steps = 0.02, 20
    z0 = many([3.0, 0.4])
    r = brownian_motion(POLAR, z0, steps, h, generator=rng)[:, -1, 0]
    assert_mean(r.square(), 9 + 2 * h * steps, bias=h * h * steps)
    r = random_walk(POLAR, z0, steps, h**0.5, generator=rng)[:, -1, 0]
    assert_mean(r.square(), 9 + h * steps)
    x = polar_plane(brownian_motion(PullbackMetric(polar_plane), z0, steps, h, generator=rng)[:, -1])
    assert_mean(x, polar_plane(z0[:1]), bias=h * h * steps)


@pytest.mark.parametrize(
    ("embedding", "n", "start"), [(sphere, 2, [1.4, 0.3]), (three_sphere, 3, [0.2, -0.1, 0.3])], ids=["S2", "S3"]
)
def test_on_the_sphere_the_mean_decays(embedding, n, start, rng):
    """The coordinates are eigenfunctions of the Laplacian: ``E X_t = exp(-n t / 2) X_0``."""
    h, steps = 0.02, 15
    z0 = many(start)
    end = embedding(brownian_motion(PullbackMetric(embedding), z0, steps, h, generator=rng)[:, -1])
    assert_mean(end, math.exp(-n * h * steps / 2) * embedding(z0[:1]), bias=h)


def test_weak_order_is_one():
    """In the half-space ``dy = -y/2 dt + y dW``, ``E y_t = exp(-t / 2)``: the error halves with the step."""
    errors = []
    for steps in (1, 2):
        rng = torch.Generator().manual_seed(1)
        y = brownian_motion(HALF_SPACE, many([0.0, 0.0, 1.0], 100_000), steps, 1 / steps, generator=rng)[:, -1, 2]
        errors.append(float(y.mean()) - math.exp(-0.5))
        assert abs(errors[-1] - ((1 - 0.5 / steps) ** steps - math.exp(-0.5))) < 4 * float(y.std()) / 100_000**0.5
    assert 0.8 < math.log2(errors[0] / errors[1]) < 1.7  # of (1 - h/2)^(1/h): 1.27 here, 1 at the limit


def test_steps_are_normal_in_the_metric(rng):
    """One step from one place: ``v ~ N(0, M^-1)``, for each of the two schemes."""
    z0 = many([0.3, -0.2])
    metric = PullbackMetric(lambda z: z @ LINEAR.mT)
    M = LINEAR.mT @ LINEAR
    for walk, size in ((random_walk, 0.5), (brownian_motion, 0.25)):
        v = (walk(metric, z0, 1, size, generator=rng)[:, 1] - z0) / 0.5
        assert_mean(v, torch.zeros(2, dtype=v.dtype))
        assert_mean((v[:, :, None] * v[:, None]).flatten(1), M.inverse().flatten())
        assert_mean(torch.einsum("bi,ij,bj->b", v, M, v).square()[:, None], torch.tensor(8.0))  # chi2(2): E x^2 = 8


def test_a_seed_gives_the_walk_again():
    z0 = many([0.0, 1.0], 3)
    first, again, other = (
        random_walk(HALF_PLANE, z0, 5, 0.2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 6, 2)
    assert torch.equal(first[:, 0], z0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("walk", [random_walk, brownian_motion])
def test_walkers_do_not_feel_each_other(walk, normal):
    """One NaN row, one far away, one outside the chart: the others walk the same way."""
    z0 = normal(6, 2)
    z0[:, 1] = z0[:, 1].exp()
    harmed = z0.clone()
    harmed[1, 0], harmed[3, 1] = torch.nan, 1e200
    harmed[4] = torch.inf
    expected = walk(HALF_PLANE, z0, 20, 0.1, generator=torch.Generator().manual_seed(3))
    with pytest.warns(UserWarning, match="3 of 6 walkers"):
        found = walk(HALF_PLANE, harmed, 20, 0.1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found[[0, 2, 5]], expected[[0, 2, 5]], rtol=1e-12, atol=1e-12)
    assert found[[1, 3, 4], 1:].isnan().all()
    assert torch.equal(found[3, 0], harmed[3])


def test_the_way_until_a_walker_is_lost_is_kept(rng):
    def tensor(z):
        eye = torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)
        return torch.where((z[:, 0] < 1)[:, None, None], eye, -eye)

    with pytest.warns(UserWarning, match="walkers could not go on"):
        walk = random_walk(FunctionMetric(tensor), torch.zeros(50, 2, dtype=torch.float64), 30, 0.2, generator=rng)
    lost = walk.isnan().any(2)
    assert lost[:, -1].any()
    assert not lost[:, -1].all()
    assert (lost.int().diff(dim=1) >= 0).all()
    before = (lost[:, 1:] & ~lost[:, :-1]).nonzero()
    assert (walk[before[:, 0], before[:, 1], 0] >= 1).all()


def test_dtype_and_device_are_kept(device, dtype):
    z0 = torch.tensor([[0.0, 1.0]], dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for walk in (random_walk, brownian_motion):
            path = walk(HALF_PLANE, z0, 3, 0.1, generator=generator)
            assert path.dtype == dtype
            assert path.device.type == device.type
        assert random_walk(HALF_PLANE, z0[:0], 3, 0.1).shape == (0, 4, 2)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    z = torch.ones(2, 2)
    for walk in (random_walk, brownian_motion):
        with pytest.raises(ValueError, match=r"z0 must be \(B, d\); got \(2,\)"):
            walk(HALF_PLANE, z[0], 3, 0.1)
        with pytest.raises(TypeError, match="floating-point"):
            walk(HALF_PLANE, z.long(), 3, 0.1)
        with pytest.raises(ValueError, match="num_steps must be at least 1; got 0"):
            walk(HALF_PLANE, z, 0, 0.1)
        with pytest.raises(ValueError, match=r"must be positive and finite; got -0\.1"):
            walk(HALF_PLANE, z, 3, -0.1)
