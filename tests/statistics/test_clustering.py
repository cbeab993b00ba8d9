"""Clustering: exhaustive optima, the equations of Lloyd's algorithm, and distances that are not known."""

import itertools
import warnings

import pytest
import torch
from problems import half_plane_distance, half_plane_tensor
from sklearn.cluster import KMeans

from geodesics import EnergySolver, FunctionMetric, PullbackMetric, frechet_mean, k_medoids, riemannian_k_means

HALF_PLANE = FunctionMetric(half_plane_tensor)
SOLVER = EnergySolver(num_segments=4, length_tol=1e-2)
CENTERS = torch.tensor([[0.0, 1.0], [3.0, 1.0], [0.0, 8.0]], dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def groups(normal, per_group=5, spread=0.2):
    """Three groups of the half-plane, as wide as they are high up: one size by the metric."""
    z = CENTERS[:, None] + spread * CENTERS[:, None, 1:] * normal(3, per_group, 2).clamp(-2, 2)
    return z.flatten(0, 1)


def same_partition(a, b):
    return torch.equal(a[:, None] == a, b[:, None] == b)


def exhaustive(D, k):
    return min(float(D[:, list(c)].amin(1).sum()) for c in itertools.combinations(range(len(D)), k))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_medoids_are_the_best_of_all(k, normal):
    x = normal(11, 2)
    D = torch.cdist(x, x)
    result = k_medoids(D, k, generator=seeded())
    assert result.converged
    assert float(result.inertia) == pytest.approx(exhaustive(D, k), rel=1e-12)
    assert len(set(result.medoids.tolist())) == k
    assert torch.equal(result.labels, D[:, result.medoids].argmin(1))
    assert torch.equal(result.labels[result.medoids], torch.arange(k))


def test_every_start_ends_where_no_swap_helps(normal):
    x = normal(30, 2)
    D = torch.cdist(x, x)
    for seed in range(5):
        result = k_medoids(D, 4, num_starts=1, generator=seeded(seed))
        for place, point in itertools.product(range(4), range(30)):
            medoids = result.medoids.clone()
            medoids[place] = point
            assert D[:, medoids].amin(1).sum() >= result.inertia * (1 - 1e-12)


def test_medoids_do_not_depend_on_the_order_of_the_points(normal):
    x = normal(12, 2)
    D = torch.cdist(x, x)
    order = torch.randperm(12, generator=seeded())
    first, permuted = (k_medoids(d, 3, num_starts=20, generator=seeded()) for d in (D, D[order][:, order]))
    assert same_partition(first.labels[order], permuted.labels)


def test_unknown_distances_decide_nothing(normal):
    """One lost pair, and one point all of whose geodesics failed."""
    z = groups(normal)
    D = half_plane_distance(z.repeat_interleave(15, 0), z.repeat(15, 1)).view(15, 15)
    D.fill_diagonal_(0)
    expected = k_medoids(D, 3, generator=seeded())
    harmed = torch.zeros(16, 16, dtype=D.dtype)
    harmed[:15, :15] = D
    harmed[15, :15] = harmed[:15, 15] = torch.nan
    harmed[2, 5] = harmed[5, 2] = harmed[0, 13] = harmed[13, 0] = torch.nan
    result = k_medoids(harmed, 3, generator=seeded())
    assert same_partition(result.labels[:15], expected.labels)
    assert result.labels[15] == -1
    assert 15 not in result.medoids
    assert float(result.inertia) == pytest.approx(float(expected.inertia), rel=0.05)
    lost = D.clone()
    lost[:5, 5:] = lost[5:, :5] = torch.nan  # two groups that know nothing of each other
    result = k_medoids(lost, 3, generator=seeded())
    assert result.inertia.isfinite()
    assert same_partition(result.labels, expected.labels)


def test_points_that_coincide_and_few_points():
    D = torch.zeros(4, 4)
    result = k_medoids(D, 3, generator=seeded())
    assert result.inertia == 0
    assert len(set(result.medoids.tolist())) == 3
    one = k_medoids(D[:1, :1], 1)
    assert one.labels.tolist() == [0]


def test_k_means_of_a_linear_decoder_is_that_of_scikit_learn(normal):
    """In the coordinates A z; both from the same start."""
    A, z = normal(4, 2), torch.cat([normal(15, 2), normal(15, 2) + 3])
    start = z[[0, 1, 20]]
    ours = riemannian_k_means(PullbackMetric(lambda x: x @ A.mT), z, 3, start=start, solver=SOLVER)
    theirs = KMeans(3, init=(start @ A.mT).numpy(), n_init=1, tol=0).fit((z @ A.mT).numpy())
    assert torch.equal(ours.labels, torch.as_tensor(theirs.labels_).long())
    torch.testing.assert_close(ours.centers @ A.mT, torch.as_tensor(theirs.cluster_centers_), rtol=0, atol=1e-8)
    assert float(ours.inertia) == pytest.approx(theirs.inertia_, rel=1e-8)
    assert ours.converged


def test_k_means_finds_the_groups_of_the_half_plane(normal):
    z = groups(normal)
    result = riemannian_k_means(HALF_PLANE, z, 3, solver=SOLVER, generator=seeded(1))
    assert result.converged
    assert same_partition(result.labels, torch.arange(3).repeat_interleave(5))
    to_centers = half_plane_distance(z.repeat_interleave(3, 0), result.centers.repeat(15, 1)).view(15, 3)
    assert torch.equal(result.labels, to_centers.argmin(1))
    torch.testing.assert_close(result.distances, to_centers.amin(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(result.inertia, to_centers.amin(1).square().sum(), rtol=1e-4, atol=0)
    members = (result.labels == torch.arange(3)[:, None]).to(z)
    torch.testing.assert_close(result.centers, frechet_mean(HALF_PLANE, z, members).mean, rtol=0, atol=2e-3)


def test_bounds_save_geodesics_and_change_no_label(normal):
    """From a bad start labels change several times; all distances at every turn would cost more."""
    z = groups(normal, 6, 0.4)
    result = riemannian_k_means(HALF_PLANE, z, 3, start=z[:3], solver=SOLVER)
    to_centers = half_plane_distance(z.repeat_interleave(3, 0), result.centers.repeat(18, 1)).view(18, 3)
    assert result.converged
    assert result.iterations > 1
    assert torch.equal(result.labels, to_centers.argmin(1))
    assert result.geodesics < 54 * (result.iterations + 1) + 18 * 5 * result.iterations


@pytest.mark.filterwarnings("ignore")
def test_points_that_fail_decide_nothing(normal):
    z = groups(normal, 4)
    bad = torch.cat([z, torch.tensor([[torch.nan, 1.0]], dtype=z.dtype)])
    start = z[[0, 5, 9]]
    found = riemannian_k_means(HALF_PLANE, bad, 3, start=start, solver=SOLVER)
    expected = riemannian_k_means(HALF_PLANE, z, 3, start=start, solver=SOLVER)
    assert torch.equal(found.labels[:-1], expected.labels)
    assert found.labels[-1] == -1
    assert found.distances[-1].isnan()
    torch.testing.assert_close(found.centers, expected.centers, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.inertia, expected.inertia)
    again = riemannian_k_means(HALF_PLANE, bad, 3, solver=SOLVER, generator=seeded(2))
    assert again.centers.isfinite().all()


def test_as_many_clusters_as_points_and_a_cluster_without_points():
    z = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = riemannian_k_means(HALF_PLANE, z, 3, generator=seeded())
        far = torch.tensor([[0.5, 1.5], [0.0, 500.0]], dtype=torch.float64)
        empty = riemannian_k_means(HALF_PLANE, z, 2, start=far)
        equal = riemannian_k_means(HALF_PLANE, z[:1].repeat(3, 1), 2, generator=seeded())
    assert sorted(each.labels.tolist()) == [0, 1, 2]
    assert each.inertia == 0
    assert empty.labels.tolist() == [0, 0, 0]
    assert torch.equal(empty.centers[1], far[1])
    assert equal.inertia == 0


def test_dtype_and_device_are_kept(device, dtype, normal):
    z = groups(normal, 2).to(device, dtype)
    generator = torch.Generator(device).manual_seed(0)
    result = riemannian_k_means(HALF_PLANE, z, 2, solver=SOLVER, max_iter=1, generator=generator)
    medoids = k_medoids(torch.cdist(z, z), 2, generator=torch.Generator(device).manual_seed(0))
    for tensor in (result.centers, result.inertia, result.distances, medoids.inertia):
        assert tensor.dtype == dtype
        assert tensor.device.type == device.type


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named():
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match="from 1 to the 3 finite points; got 4"):
        riemannian_k_means(HALF_PLANE, z, 4)
    with pytest.raises(ValueError, match=r"start must be \(K, d\) = \(2, 2\); got \(3, 2\)"):
        riemannian_k_means(HALF_PLANE, z, 2, start=z)
    with pytest.raises(ValueError, match="max_iter must be at least 1; got 0"):
        riemannian_k_means(HALF_PLANE, z, 2, max_iter=0)
    with pytest.raises(ValueError, match=r"distances must be \(n, n\); got \(3, 2\)"):
        k_medoids(z, 1)
    with pytest.raises(ValueError, match="not be negative"):
        k_medoids(-torch.ones(3, 3), 1)
    with pytest.raises(ValueError, match="from 1 to the 3 points with distances; got 0"):
        k_medoids(torch.ones(3, 3), 0)
    with pytest.raises(TypeError, match="floating-point"):
        k_medoids(torch.ones(3, 3, dtype=torch.long), 1)


class Rough:
    """A solver whose lengths are off by up to a fifth, in a way that no descent could follow."""

    def solve(self, metric, starts):
        result = EnergySolver().solve(metric, starts)
        ends = starts[0].points[:, [0, -1]].flatten(1)
        noise = 1 + 0.2 * (1e4 * ends.sum(1)).sin()
        return result._replace(length=result.length * noise, length_error=0 * result.length)


@pytest.mark.parametrize("seed", [1, 4, 9, 10])
def test_more_iterations_never_end_with_a_higher_inertia(seed):
    z = torch.randn(20, 2, generator=seeded(seed), dtype=torch.float64)
    metric = FunctionMetric(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))
    found = [
        riemannian_k_means(metric, z, 3, solver=Rough(), max_iter=count, generator=seeded(0)) for count in range(1, 6)
    ]
    inertia = [float(one.inertia) for one in found]
    assert inertia == sorted(inertia, reverse=True)
    for one in found:
        torch.testing.assert_close(one.distances.square().sum(), one.inertia)
