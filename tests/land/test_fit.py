"""LAND: exact in flat space, normalized in curved space, and its moments where they are known."""

import math

import pytest
import torch
from problems import half_plane_distance, half_plane_tensor
from sklearn.mixture import GaussianMixture
from torch.distributions import MultivariateNormal

from geodesics import EnergySolver, FunctionMetric, Land, LandOptions, PullbackMetric, fit_land, log_measure
from geodesics.land.draws import student_rule

SOLVER = EnergySolver(num_segments=2, length_tol=1e-2)
LINEAR = torch.tensor([[2.0, 1.0], [0.0, 0.5], [1.0, -1.0]], dtype=torch.float64)
FLAT = PullbackMetric(lambda z: z @ LINEAR.mT)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stereographic(z):
    """The unit sphere from its north pole: one chart, but for one point."""
    r2 = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, r2 - 1], dim=1) / (1 + r2)


def upper_half_plane(z):
    """The half-plane, and nothing outside of it."""
    return torch.where((z[:, 1] > 0)[:, None, None], half_plane_tensor(z), torch.nan)


SPHERE, HALF_PLANE = PullbackMetric(stereographic), FunctionMetric(upper_half_plane)


def radial(sd, circumference, longest):
    """C and the mean of |v|^2 for an isotropic normal: integrals over r of ``circumference(r) exp(-r^2 / 2 sd^2)``."""
    r = torch.linspace(0, longest, 20001, dtype=torch.float64)
    f = circumference(r) * (-r.square() / (2 * sd * sd)).exp()
    C = torch.trapezoid(f, r)
    return float(C), float(torch.trapezoid(f * r.square(), r) / C)


def isotropic(metric, center, sd, **options):
    """One component with covariance sd^2 in the metric."""
    mean = torch.tensor([center], dtype=torch.float64)
    return Land.from_parameters(metric, mean, sd**2 * metric.tensor(mean).inverse(), solver=SOLVER, **options)


def test_the_rule_integrates_normal_moments_exactly():
    e, w, _ = student_rule(200, torch.zeros(1, 3, dtype=torch.float64), seeded())
    f = w * (-e.square().sum(1) / 2).exp() / (2 * math.pi) ** 1.5
    torch.testing.assert_close(f.sum(), torch.tensor(1.0, dtype=e.dtype))
    torch.testing.assert_close(f @ e, torch.zeros(3, dtype=e.dtype), rtol=0, atol=1e-12)
    torch.testing.assert_close((f[:, None] * e).T @ e, torch.eye(3, dtype=e.dtype), rtol=0, atol=1e-12)
    fourth = (f * e[:, 0] ** 4).sum()  # not calibrated: E x^4 = 3
    assert abs(float(fourth) - 3) < 0.3
    assert (w > 0).all()


def test_one_component_of_a_linear_decoder_is_the_normal_distribution(normal):
    """M = A^T A does not matter to the density against Lebesgue measure: sample mean and covariance."""
    z = normal(30, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]], dtype=torch.float64) + 1
    fit = fit_land(FLAT, z, options=LandOptions(num_nodes=256, regularization=0.0), solver=SOLVER, generator=seeded())
    assert fit.converged
    # The nodes of a round are exact for the moments with which it began, and off by little where it ends.
    torch.testing.assert_close(fit.land.means[0], z.mean(0), rtol=0, atol=5e-3)
    torch.testing.assert_close(fit.land.covariances[0], torch.cov(z.T, correction=0), rtol=5e-3, atol=5e-3)
    expected = MultivariateNormal(z.mean(0), torch.cov(z.T, correction=0)).log_prob(z)
    torch.testing.assert_close(fit.log_likelihood, expected.mean(), rtol=0, atol=2e-4)
    # Those of the answer are drawn for it: there is no error.
    own = MultivariateNormal(fit.land.means[0], fit.land.covariances[0]).log_prob(z)
    torch.testing.assert_close(fit.land.log_prob(z), own, rtol=0, atol=1e-7)
    assert float(fit.land.errors) < 1e-9
    assert (fit.responsibilities == 1).all()


def test_a_mixture_of_a_linear_decoder_is_that_of_scikit_learn(normal):
    z = torch.cat([normal(20, 2), 0.5 * normal(20, 2) + torch.tensor([3.0, 1.0])])
    options = LandOptions(num_nodes=128, regularization=0.0)
    fit = fit_land(FLAT, z, 2, options=options, solver=SOLVER, generator=seeded())
    theirs = GaussianMixture(2, means_init=fit.land.means.numpy(), tol=1e-9, reg_covar=0, max_iter=500).fit(z.numpy())
    torch.testing.assert_close(fit.land.means, torch.as_tensor(theirs.means_), rtol=0, atol=0.05)
    torch.testing.assert_close(fit.land.covariances, torch.as_tensor(theirs.covariances_), rtol=0, atol=0.05)
    assert float(fit.log_likelihood) == pytest.approx(theirs.score(z.numpy()), abs=2e-3)
    torch.testing.assert_close(
        fit.land.responsibilities(z), torch.as_tensor(theirs.predict_proba(z.numpy())), rtol=0, atol=0.05
    )


@pytest.mark.parametrize(
    ("metric", "center", "circumference", "longest", "sd"),
    [
        (SPHERE, [0.3, 0.2], torch.sin, math.pi, 0.3),
        (SPHERE, [0.3, 0.2], torch.sin, math.pi, 0.6),
        (HALF_PLANE, [0.0, 1.0], torch.sinh, 12.0, 0.8),
    ],
    ids=["sphere", "wide", "half-plane"],
)
def test_normalizers_and_second_moments_of_constant_curvature(metric, center, circumference, longest, sd):
    """``C = 2 pi int sin(r) exp(-r^2 / 2 sd^2) dr``, sinh for K = -1; in flat space it would be 2 pi sd^2."""
    exact, second = radial(sd, lambda r: 2 * math.pi * circumference(r), longest)
    land = isotropic(metric, center, sd, num_nodes=256, generator=seeded())
    error = abs(float(land.log_normalizers[0]) - math.log(exact))
    assert error < 0.02
    assert error < 4 * float(land.errors[0])
    # Outside of the half-plane there is nothing: nodes that fall there fail, and rightly count as zero.
    assert (int(land.failed_nodes[0]) > 0) == (metric is HALF_PLANE)
    if sd == 0.6:
        z = land.sample(200, num_steps=6, generator=seeded(1))
        d = torch.tensor(center, dtype=z.dtype)
        x, y = stereographic(z), stereographic(d[None])
        squares = (2 * ((x - y).norm(dim=1) / 2).arcsin()).square()
        assert abs(float(squares.mean()) - second) < 4 * float(squares.std()) / math.sqrt(200)


def test_the_density_integrates_to_one_on_a_grid():
    """Two components of the sphere, against Lebesgue measure; and by hand, from the density over the volume."""
    means = torch.tensor([[0.2, 0.0], [-0.3, 0.3]], dtype=torch.float64)
    covariances = torch.tensor([[[0.02, 0.01], [0.01, 0.03]], [[0.04, 0.0], [0.0, 0.01]]], dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    land = Land.from_parameters(SPHERE, means, covariances, weights, num_nodes=256, solver=SOLVER, generator=seeded())
    torch.testing.assert_close(land.weights, weights / 4)
    axis = torch.linspace(-1.4, 1.4, 29, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_prob = land.log_prob(grid)
    # The trapezoidal rule is exact for a normal density as wide as a cell: sd 0.1, cells of 0.1.
    assert abs(float(log_prob.exp().sum()) * 0.01 - 1) < 0.02
    over_volume = (log_prob - log_measure(SPHERE, grid)).exp()
    torch.testing.assert_close((over_volume * log_measure(SPHERE, grid).exp()).sum(), log_prob.exp().sum())


def test_samples_of_a_flat_mixture_have_its_moments():
    means = torch.tensor([[0.0, 0.0], [4.0, 1.0]], dtype=torch.float64)
    covariances = torch.tensor([[[1.0, 0.6], [0.6, 1.0]], [[0.2, 0.0], [0.0, 0.5]]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    land = Land.from_parameters(FLAT, means, covariances, weights, num_nodes=48, solver=SOLVER, generator=seeded())
    z = land.sample(400, num_steps=5, generator=seeded(2))
    assert z.unique(dim=0).shape == z.shape
    samples = torch.cat([z, (z[:, :, None] * z[:, None]).flatten(1)], dim=1)
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None]).flatten()
    error = samples.std(0) / math.sqrt(400)
    assert ((samples.mean(0) - torch.cat([mean, second])).abs() < 4 * error).all()
    assert torch.equal(z, land.sample(400, num_steps=5, generator=seeded(2)))
    assert land.sample(0).shape == (0, 2)


def test_a_fit_in_curved_space_has_the_moments_of_its_data():
    """The half-plane: at the optimum the component's own moments are the data's, and the mean is the drawn one's."""
    drawn = isotropic(HALF_PLANE, [0.0, 1.0], 0.5, num_nodes=128, generator=seeded())
    z = drawn.sample(40, num_steps=4, generator=seeded(1))
    options = LandOptions(num_nodes=64)
    fit = fit_land(HALF_PLANE, z, options=options, solver=SOLVER, generator=seeded(2))
    assert fit.converged
    # Standard errors of a mean and of a variance, four times.
    assert float(half_plane_distance(fit.land.means, drawn.means)) < 4 * 0.5 * math.sqrt(2 / 40)
    M = HALF_PLANE.tensor(fit.land.means)
    ratio = torch.linalg.eigvals(fit.land.covariances @ M).real / 0.25
    assert ((ratio > 1 - 4 * math.sqrt(2 / 40)) & (ratio < 1 + 4 * math.sqrt(2 / 40))).all()
    assert fit.log_likelihood > drawn.log_prob(z).mean() - 2 * float(fit.land.errors + drawn.errors)
    again = Land.from_parameters(
        HALF_PLANE, fit.land.means, fit.land.covariances, num_nodes=512, solver=SOLVER, generator=seeded(3)
    )
    difference = (again.log_normalizers - fit.land.log_normalizers).abs()
    assert (difference < 4 * (again.errors + fit.land.errors)).all()
    for scale in (0.6, 1.6):
        other = Land.from_parameters(
            HALF_PLANE, fit.land.means, scale * fit.land.covariances, num_nodes=512, solver=SOLVER, generator=seeded(3)
        )
        assert other.log_prob(z).mean() < again.log_prob(z).mean()


def test_a_linear_change_of_chart_changes_nothing(normal):
    """w = T z: the mixture moves along, and its Lebesgue density loses log det T."""
    T = torch.tensor([[2.0, 0.5], [0.0, 0.7]], dtype=torch.float64)
    z = 0.3 * normal(12, 2)
    covariance = torch.tensor([[[0.06, 0.02], [0.02, 0.1]]], dtype=z.dtype)
    first = Land.from_parameters(SPHERE, z[:1], covariance, num_nodes=256, solver=SOLVER, generator=seeded())
    moved = PullbackMetric(lambda w: stereographic(w @ T.inverse().mT))
    second = Land.from_parameters(
        moved,
        first.means @ T.mT,
        T @ first.covariances @ T.mT,
        num_nodes=256,
        solver=SOLVER,
        generator=seeded(),
    )
    # The factor of T Sigma T^T is T L, for T is triangular as well only up to a rotation: other nodes, other errors.
    torch.testing.assert_close(second.log_prob(z @ T.mT), first.log_prob(z) - T.det().log(), rtol=0, atol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_points_do_not_feel_each_other_and_lost_points_are_nan():
    land = isotropic(HALF_PLANE, [0.0, 1.0], 0.5, num_nodes=32, generator=seeded())
    z = torch.tensor([[0.1, 1.0], [torch.nan, 1.0], [0.5, 2.0], [0.0, -1.0]], dtype=torch.float64)
    together = land.log_prob(z)
    assert together.isnan().tolist() == [False, True, False, True]
    for i in (0, 2):
        torch.testing.assert_close(land.log_prob(z[i : i + 1])[0], together[i], rtol=1e-9, atol=1e-9)
    assert land.responsibilities(z).isnan()[:, 0].tolist() == [False, True, False, True]


@pytest.mark.filterwarnings("ignore")
def test_points_that_fail_are_left_out_of_a_fit(normal):
    z = normal(12, 2)
    bad = torch.cat([z, torch.tensor([[torch.nan, 0.0]], dtype=z.dtype)])
    options = LandOptions(num_nodes=32)
    found, expected = (
        fit_land(FLAT, x, labels=torch.zeros(len(x)).long(), options=options, solver=SOLVER, generator=seeded())
        for x in (bad, z)
    )
    torch.testing.assert_close(found.land.covariances, expected.land.covariances, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood)
    assert found.responsibilities[-1].isnan().all()


def test_labels_start_the_components_and_one_point_is_enough(normal):
    z = torch.cat([0.2 * normal(8, 2), torch.tensor([[5.0, 5.0]], dtype=torch.float64)])
    labels = torch.tensor([0] * 8 + [1])
    fit = fit_land(FLAT, z, 2, labels=labels, options=LandOptions(num_nodes=32, max_iter=6), solver=SOLVER)
    assert fit.log_likelihood.isfinite()
    torch.testing.assert_close(fit.land.weights, torch.tensor([8 / 9, 1 / 9], dtype=z.dtype), rtol=1e-6, atol=0)
    torch.testing.assert_close(fit.land.means[1], z[-1], rtol=0, atol=0.1)


def test_dtype_and_device_are_kept(device, dtype, normal):
    z = normal(12, 2).to(device, dtype)
    metric = PullbackMetric(lambda x: x @ LINEAR.mT.to(x))
    generator = torch.Generator(device).manual_seed(0)
    fit = fit_land(metric, z, options=LandOptions(num_nodes=32, max_iter=3), solver=SOLVER, generator=generator)
    for tensor in (fit.land.log_prob(z), fit.land.means, fit.land.sample(2, num_steps=2, generator=generator)):
        assert tensor.dtype == dtype
        assert tensor.device.type == device.type


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named(normal):
    z = normal(5, 2)
    eye = torch.eye(2, dtype=z.dtype)[None]
    with pytest.raises(ValueError, match=r"covariances must be \(K, d, d\)"):
        Land.from_parameters(FLAT, z, eye)
    with pytest.raises(ValueError, match="positive definite"):
        Land.from_parameters(FLAT, z[:1], -eye)
    with pytest.raises(ValueError, match="num_nodes must be at least 24 in 2 dimensions; got 10"):
        Land.from_parameters(FLAT, z[:1], eye, num_nodes=10)
    with pytest.raises(ValueError, match="from 1 to the 5 finite points; got 6"):
        fit_land(FLAT, z, 6)
    with pytest.raises(ValueError, match="every component from 0 to 1"):
        fit_land(FLAT, z, 2, labels=torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"labels must be \(n,\) = \(5,\); got \(4,\)"):
        fit_land(FLAT, z, 1, labels=torch.zeros(4, dtype=torch.long))
    for options in ({"num_nodes": 1}, {"max_iter": 0}, {"tol": 0.0}, {"regularization": -1.0}, {"flatness": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LandOptions(**options)
