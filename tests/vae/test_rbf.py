"""RBF precision by hand, its limits, and its fit."""

import math

import pytest
import torch

from vae import RBFConfig, RBFPrecision, fit_rbf
from vae.deviation.rbf_fit import bandwidths_of, cluster, fit_weights, principal_components
from vae.generators.feature_maps import RadialFeatures

F64 = torch.float64


def blobs(rng, n=300, d=2):
    middle = 2 * torch.randn(5, d, generator=rng, dtype=F64)
    return middle[torch.arange(n) % 5] + 0.3 * torch.randn(n, d, generator=rng, dtype=F64)


def test_precision_by_hand():
    # Two kernels on a line, lambda = 1 and 1/2, at z = 1: v = (e^-1, e^(-1/2 * 4)).
    rbf = RBFPrecision(
        torch.tensor([[0.0], [3.0]], dtype=F64),
        torch.tensor([1.0, 0.5], dtype=F64),
        torch.tensor([[2.0, 3.0], [0.0, 1.0]], dtype=F64),
        torch.tensor([0.1, 0.2], dtype=F64),
    )
    beta = [2 * math.exp(-1) + 3 * math.exp(-2) + 0.1, math.exp(-2) + 0.2]
    z = torch.tensor([[1.0]], dtype=F64)
    torch.testing.assert_close(rbf(z), torch.tensor([beta], dtype=F64))
    torch.testing.assert_close(rbf.standard_deviation(z), torch.tensor([beta], dtype=F64).rsqrt())


def test_far_from_the_data_sigma_is_the_root_of_one_over_xi(rng):
    xi = torch.tensor([1e-6, 1e-2, 4.0], dtype=F64)
    rbf = RBFPrecision(torch.zeros(1, 2, dtype=F64), torch.ones(1, dtype=F64), torch.ones(3, 1, dtype=F64), xi)
    far = rbf.standard_deviation(torch.tensor([[30.0, 0.0]], dtype=F64))
    torch.testing.assert_close(far, torch.tensor([[1e3, 10.0, 0.5]], dtype=F64))


def test_bandwidths_by_hand():
    # Radii: mean distance 1 and 2; a = 2 gives 1/2 (2)^-2 and 1/2 (4)^-2.
    z = torch.tensor([[-1.0, 0], [1, 0], [10, 2], [10, -2]], dtype=F64)
    centers = torch.tensor([[0.0, 0], [10, 0]], dtype=F64)
    bandwidths = bandwidths_of(z, centers, torch.tensor([0, 0, 1, 1]), 2.0)
    torch.testing.assert_close(bandwidths, torch.tensor([1 / 8, 1 / 32], dtype=F64))


def test_a_cluster_of_one_point_gets_the_median_radius():
    z = torch.tensor([[-1.0], [1], [9], [11], [50]], dtype=F64)
    centers = torch.tensor([[0.0], [10], [50]], dtype=F64)
    bandwidths = bandwidths_of(z, centers, torch.tensor([0, 0, 1, 1, 2]), 1.0)
    torch.testing.assert_close(bandwidths, torch.full((3,), 0.5, dtype=F64))


def test_where_every_point_is_a_center_the_nearest_other_sets_the_width():
    z = torch.tensor([[0.0], [1.0], [4.0]], dtype=F64)
    bandwidths = bandwidths_of(z, z, torch.arange(3), 1.0)
    torch.testing.assert_close(bandwidths, torch.tensor([0.5, 0.5, 0.5 / 9], dtype=F64))
    with pytest.raises(ValueError, match="must not all coincide"):
        bandwidths_of(torch.ones(4, 2), torch.ones(1, 2), torch.zeros(4, dtype=torch.int64), 1.0)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_empty_clusters_are_dropped():
    z = torch.tensor([[0.0], [0], [1], [1], [3]], dtype=F64)
    centers, assignment = cluster(z, 4, seed=0)
    torch.testing.assert_close(centers[assignment], z)
    assert centers.shape[0] == 3


def test_principal_components_keep_the_largest_spread(rng):
    turn = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=F64)).Q
    z = torch.randn(200, 4, generator=rng, dtype=F64) * torch.tensor([3.0, 2.0, 0.1, 0.0]) + 5
    part = principal_components(z @ turn, 2)
    # Projections on the two wide axes: distances in them are those of the first two coordinates, nearly.
    torch.testing.assert_close(torch.cdist(part, part), torch.cdist(z[:, :2], z[:, :2]), atol=0.4, rtol=0)
    torch.testing.assert_close(principal_components(z, 4), z)
    assert principal_components(z, None) is z


def test_clusters_in_a_projection_have_their_centers_in_the_latent_space(rng):
    """Two clusters told apart by the first coordinate."""
    z = torch.cat([torch.randn(50, 2, generator=rng, dtype=F64) * 0.1 + torch.tensor([x, x / 4]) for x in (-4.0, 4.0)])
    rbf = fit_rbf(z, torch.ones_like(z), RBFConfig(num_centers=2, num_components=1))
    expected = torch.stack([z[:50].mean(0), z[50:].mean(0)])
    torch.testing.assert_close(rbf.centers[rbf.centers[:, 0].argsort()], expected)
    same = fit_rbf(z, torch.ones_like(z), RBFConfig(num_centers=2))
    torch.testing.assert_close(rbf.bandwidths.sort().values, same.bandwidths.sort().values)


def problem(rng, outputs=4, dtype=F64):
    z = blobs(rng)
    centers, assignment = cluster(z, 12, 0)
    v = RadialFeatures(centers, bandwidths_of(z, centers, assignment, 1.0))(z)
    scale = 0.5 + torch.rand(outputs, generator=rng, dtype=F64)
    variances = scale * torch.exp(0.5 * torch.sin(z[:, :1] + torch.arange(outputs)))
    return v.to(dtype), variances.to(dtype), torch.full((outputs,), 1e-4, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_underflows_is_zero_with_its_derivatives(dtype):
    """v = exp(-lambda r^2) from near 1 to far below the smallest number."""
    features = RadialFeatures(torch.zeros(1, 2, dtype=dtype), torch.full((1,), 10.0, dtype=dtype))
    r = torch.logspace(-2, 3, 200, dtype=dtype)
    z = torch.stack([r, torch.zeros_like(r)], dim=1)
    exponent = -10.0 * r.double().square()
    known = exponent > math.log(torch.finfo(dtype).tiny) / 2 + 1
    v = features(z)[:, 0]
    jet = features.trace(z, second_order=True).jet[..., 0]
    exact = exponent.exp()
    eps = torch.finfo(dtype).eps
    assert ((v.double() - exact).abs() <= 4 * eps * (1 - exponent) * exact + 1.1 * torch.finfo(dtype).tiny ** 0.5).all()
    assert (v[known] > 0).all()
    torch.testing.assert_close(jet[0], v, rtol=0, atol=0)
    far = r > 100
    assert far.any()
    assert not jet[:, far].any()
    slope = torch.func.jvp(features, (z,), (torch.ones_like(z),))[1][:, 0]
    torch.testing.assert_close(slope, jet[1:].sum(0))


def test_fit_ends_in_a_karush_kuhn_tucker_point(rng):
    v, variances, xi = problem(rng)
    start, fit = fit_weights(v, variances, xi, 1e-8, 0), fit_weights(v, variances, xi, 1e-8, 500)
    assert bool(fit.converged.all())
    assert bool((fit.loss < 0.5 * start.loss).all())
    # The conditions by autograd, not by the fit's own gradient: zero where W > 0, not negative where W = 0.
    w = fit.weights.clone().requires_grad_()
    loss = (variances - 1 / (v @ w.T + xi)).square().mean(0)
    torch.testing.assert_close(loss.detach(), fit.loss)
    (gradient,) = torch.autograd.grad(loss.sum(), w)
    free = fit.weights > 0
    size = fit.loss[:, None] / fit.weights.mean(1, keepdim=True)
    assert bool(((gradient.abs() <= 1e-7 * size) | ~free).all())
    assert bool(((gradient >= -1e-7 * size) | free).all())


def test_fit_recovers_the_weights_that_made_the_data(rng):
    v, _, xi = problem(rng)
    xi = xi + 0.1
    true = torch.rand(4, 12, generator=rng, dtype=F64) * 3
    true[:, 4] = 0
    fit = fit_weights(v, 1 / (v @ true.T + xi), xi, 1e-12, 1000)
    # A loss of the order of rounding leaves weights known to its root.
    torch.testing.assert_close(fit.weights, true, rtol=1e-5, atol=1e-5)


def test_outputs_are_fitted_independently(rng):
    v, variances, xi = problem(rng)
    together = fit_weights(v, variances, xi, 1e-8, 500)
    order = torch.tensor([2, 0, 3, 1])
    permuted = fit_weights(v, variances[:, order], xi[order], 1e-8, 500)
    torch.testing.assert_close(permuted.weights, together.weights[order], rtol=1e-6, atol=1e-8)
    alone = fit_weights(v, variances[:, 1:2], xi[1:2], 1e-8, 500)
    torch.testing.assert_close(alone.weights[0], together.weights[1], rtol=1e-6, atol=1e-8)
    variances[:, 2] = torch.nan
    poisoned = fit_weights(v, variances, xi, 1e-8, 500)
    good = torch.tensor([0, 1, 3])
    torch.testing.assert_close(poisoned.weights[good], together.weights[good], rtol=1e-6, atol=1e-8)
    assert not bool(poisoned.converged[2])


def test_single_precision_converges_too(rng):
    assert bool(fit_weights(*problem(rng, dtype=torch.float32), 1e-3, 500).converged.all())


@pytest.mark.parametrize("d", [1, 2, 6])
def test_fit_matches_smooth_variances_at_the_data(rng, d):
    z = blobs(rng, d=d)
    variances = torch.exp(0.2 * torch.tanh(z[:, :1] * torch.tensor([1.0, -0.5, 0.2], dtype=F64)))
    rbf = fit_rbf(z, variances, RBFConfig(num_centers=10, bandwidth_factor=3.0))
    assert rbf.centers.shape == (10, d)
    assert bool((rbf.weights >= 0).all())
    error = (1 / rbf(z) / variances - 1).abs()
    assert error.median() < 0.2
    assert torch.equal(fit_rbf(z, variances, RBFConfig(num_centers=10, bandwidth_factor=3.0)).weights, rbf.weights)


def test_bad_input_is_named(rng, unchecked_shapes):
    z, s = blobs(rng, 20), torch.ones(20, 3, dtype=F64)
    with pytest.raises(ValueError, match=r"latents and variances must be \(N, d\) and \(N, D\)"):
        fit_rbf(z, s[:-1])
    with pytest.raises(ValueError, match="variances finite and positive"):
        fit_rbf(z, 0 * s)
    with pytest.raises(ValueError, match="num_centers must be at most"):
        fit_rbf(z, s, RBFConfig(num_centers=21))
    with pytest.raises(ValueError, match="xi must be positive"):
        RBFConfig(xi=0.0)
    with pytest.raises(ValueError, match="num_components must be at least 1"):
        RBFConfig(num_components=0)
    ones = torch.ones(2, dtype=F64)
    with pytest.raises(ValueError, match="weights has 4 of 4 values out of range"):
        RBFPrecision(z[:2], ones, -torch.ones(2, 2, dtype=F64), ones)
    with pytest.raises(ValueError, match="expected"):
        RBFPrecision(z[:2], ones, torch.ones(3, 2, dtype=F64), ones)
