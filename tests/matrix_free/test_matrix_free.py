"""The solver of many dimensions: closed forms, agreement with Newton, rows kept apart, and no large object."""

import math
import warnings

import pytest
import torch
from problems import PROBLEMS, sphere
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geodesics import (
    EnergySolver,
    LBFGSSolver,
    MatrixFreeSolver,
    PullbackMetric,
    Status,
    distance,
    distance_matrix,
    exp_map,
    frechet_mean,
    geodesic,
    log_map,
    pullback_acceleration,
)
from geodesics.connecting.default_solver import default_solver
from geodesics.metrics.connection import acceleration_by_products

MANY = 300


def unit(z):
    """The sphere in R^n: rays are one point, so the metric is singular along them."""
    return z / z.norm(dim=1, keepdim=True)


def angle(z0, z1):
    """Distance on the unit sphere."""
    return (unit(z0) * unit(z1)).sum(1).clamp(-1, 1).arccos()


def network(d, width=48, outputs=80, seed=0):
    """A smooth random decoder."""
    torch.manual_seed(seed)
    hidden = nn.Linear(d, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
    return nn.Sequential(*hidden, nn.Linear(width, outputs)).double().requires_grad_(False)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // 8)
        return out


def test_the_sphere_in_many_dimensions(normal):
    """Known distances at d = 300, to the tolerance and within the error estimate; the default finds the solver."""
    z0, z1 = normal(4, MANY), normal(4, MANY)
    result = geodesic(PullbackMetric(unit), z0, z1)
    gap = (result.length - angle(z0, z1)).abs()
    assert result.converged.all()
    assert (gap <= 1e-5).all()
    assert (gap <= result.length_error).all()
    assert (result.length_error <= 2e-3 * result.length).all()
    assert torch.equal(result.curve.points[:, 0], z0)
    assert torch.equal(result.curve.points[:, -1], z1)
    torch.testing.assert_close(distance(PullbackMetric(unit), z0, z1), result.length)


def test_flat_in_many_dimensions(normal):
    """A linear decoder, more latents than outputs: lengths are chords, although the metric is singular."""
    A = normal(40, MANY) / MANY**0.5
    z0, z1 = normal(3, MANY), normal(3, MANY)
    result = geodesic(PullbackMetric(lambda z: z @ A.mT), z0, z1)
    assert result.converged.all()
    torch.testing.assert_close(result.length, ((z1 - z0) @ A.mT).norm(dim=1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("problem", PROBLEMS[:1], ids=lambda problem: problem.name)
def test_order(problem):
    """The elements keep their order, 2 p in the length."""
    lengths = [
        geodesic(
            PullbackMetric(sphere),
            *problem.ends(),
            solver=MatrixFreeSolver(num_segments=n, max_segments=2 * n, tol=1e-8, length_tol=1e-13),
        ).length
        for n in (1, 2, 4)
    ]
    gaps = [abs(float(length) - problem.distance) for length in lengths]
    assert math.log2(gaps[1] / gaps[2]) > 5.5
    assert gaps[2] < 1e-9


@pytest.mark.parametrize("d", [2, 12, 40])
def test_as_newton(d, normal):
    """Where both can be had, the same lengths and the same curves, as `EnergySolver`."""
    metric = PullbackMetric(network(d))
    z0, z1 = 0.7 * normal(4, d), 0.7 * normal(4, d)
    exact = geodesic(metric, z0, z1, solver=EnergySolver())
    found = geodesic(metric, z0, z1, solver=MatrixFreeSolver())
    assert (exact.status <= Status.SETTLED).all()
    assert (found.status <= Status.SETTLED).all()
    assert ((found.length - exact.length).abs() <= found.length_error + exact.length_error).all()
    torch.testing.assert_close(found.length, exact.length, rtol=1e-4, atol=0)


def test_units_of_axes_do_not_matter(normal):
    """Axes stretched by up to a thousand, and one that the decoder does not see: as many steps, nearly."""
    decoder, unit_of = network(80), torch.logspace(-1.5, 1.5, 80, dtype=torch.float64)
    unit_of[3] = 0.0
    z0, z1 = 0.7 * normal(3, 80), 0.7 * normal(3, 80)
    blind = geodesic(PullbackMetric(lambda z: decoder(z * (unit_of > 0))), z0, z1)
    scale = torch.where(unit_of > 0, unit_of, 1.0)
    stretched = geodesic(PullbackMetric(lambda z: decoder(z * unit_of)), z0 / scale, z1 / scale)
    torch.testing.assert_close(stretched.length, blind.length, rtol=2e-3, atol=0)
    assert (stretched.iterations <= 2 * blind.iterations + 20).all()


def test_rows_do_not_mix(normal):
    """Alone, batched and permuted agree, although some rows are harder.

    Dozens of steps amplify rounding: lengths that are known to 1e-3 agree to 1e-6.
    """
    metric = PullbackMetric(network(70, width=100, outputs=150))
    z0, z1 = normal(4, 70), normal(4, 70)
    z1[0] = z0[0] + 1e-3
    batched = geodesic(metric, z0, z1)
    assert (batched.status <= Status.SETTLED).all()
    order = torch.tensor([2, 0, 3, 1])
    permuted = geodesic(metric, z0[order], z1[order])
    torch.testing.assert_close(permuted.length, batched.length[order], rtol=1e-6, atol=0)
    for row in range(2):
        alone = geodesic(metric, z0[row : row + 1], z1[row : row + 1])
        torch.testing.assert_close(alone.length, batched.length[row : row + 1], rtol=1e-6, atol=0)


def test_a_lost_row_harms_only_itself(normal):
    """A decoder that is not finite beyond a line."""
    inner = network(70)
    metric = PullbackMetric(lambda z: inner(z) + (5 - z[:, :1]).sqrt())
    z0, z1 = 0.5 * normal(3, 70), 0.5 * normal(3, 70)
    clean = geodesic(metric, z0[[0, 2]], z1[[0, 2]])
    z1[1, 0] = 7.0
    with pytest.warns(UserWarning, match="1 of 3"):
        result = geodesic(metric, z0, z1)
    assert result.status[1] == Status.FAILED
    assert result.length[1].isnan()
    assert (result.status[[0, 2]] <= Status.SETTLED).all()
    torch.testing.assert_close(result.length[[0, 2]], clean.length, rtol=1e-6, atol=0)


def test_a_conjugate_point_is_seen():
    """Beyond the antipode the equator is a geodesic, and a saddle, although the gradient vanishes by symmetry."""
    z0 = torch.tensor([[math.pi / 2, 0.0]], dtype=torch.float64)
    z1 = torch.tensor([[math.pi / 2, 4.0]], dtype=torch.float64)
    result = geodesic(PullbackMetric(sphere), z0, z1, solver=MatrixFreeSolver())
    assert result.status.tolist() == [Status.NOT_MINIMUM]
    assert not result.minimum.any()


def test_no_large_object_is_formed(normal):
    """Not a single tensor of d d or D d numbers, in any function that works there."""
    d = 1000
    decoder = network(d, width=10, outputs=1000)
    metric = PullbackMetric(decoder)
    z = 0.5 * normal(2, d)
    weights = d * 10
    with LargestTensor() as largest:
        result = geodesic(metric, z[:1], z[1:])
        log_map(metric, z[:1], z[1:])
        exp_map(metric, z[:1], 0.01 * (z[1:] - z[:1]), tol=1e-2)
        distance_matrix(metric, z)
    assert result.converged.all()
    assert weights < largest.numbers < d * 1000 / 3


def test_acceleration_by_products_is_that_of_the_jacobian(normal):
    decoder, z, v = network(30), normal(4, 30), normal(4, 30)
    expected = pullback_acceleration(decoder, z, v)
    torch.testing.assert_close(acceleration_by_products(decoder, z, v), expected, rtol=1e-6, atol=1e-7)


def test_maps_in_many_dimensions(normal):
    """exp after log comes back, and the mean of two points halves their distance."""
    A = normal(66, 20) / 66**0.5
    metric = PullbackMetric(lambda z: torch.cat([z, (2 * z @ A).sin()], dim=1))
    z0, z1 = 0.3 * normal(1, 66), 0.3 * normal(1, 66)
    v = log_map(metric, z0, z1)
    apart = geodesic(metric, z0, z1).length
    torch.testing.assert_close(metric.norm(z0, v), apart, rtol=1e-3, atol=0)
    missed = metric.norm(z1, exp_map(metric, z0, v, tol=1e-4) - z1)
    assert (missed < 0.01 * apart).all()
    mean = frechet_mean(metric, torch.cat([z0, z1]), tol=1e-2)
    torch.testing.assert_close(mean.distances, (apart / 2).expand(1, 2), rtol=0.03, atol=0)


@pytest.mark.parametrize("solver", [EnergySolver(), LBFGSSolver()], ids=["energy", "lbfgs"])
def test_memory_is_not_exceeded(solver):
    """A decoder whose Jacobians would take terabytes: refused by name, with what would do."""
    metric = PullbackMetric(lambda z: (z.repeat(1, 2000)).sin())
    z = torch.linspace(0, 1, 2 * 4000, dtype=torch.float64).view(2, 4000)
    name = type(solver).__name__
    with pytest.raises(ValueError, match=rf"{name} with d = 4000 .*GiB of memory.*MatrixFreeSolver"):
        geodesic(metric, z[:1], z[1:], solver=solver)
    with pytest.raises(ValueError, match=r"metric tensor of 1 points, d = 4000.*GiB"):
        metric.tensor(z[:1])


def test_few_latents_and_very_many_outputs_take_this_solver(normal):
    """The default goes by the memory too."""
    metric = PullbackMetric(lambda z: z.sum(1, keepdim=True).expand(-1, 40_000_000))
    assert isinstance(default_solver(metric, normal(1, 60)), MatrixFreeSolver)
    assert isinstance(default_solver(PullbackMetric(sphere), normal(1, 2)), EnergySolver)


def test_an_exhausted_limit_is_no_convergence(normal):
    metric = PullbackMetric(network(70))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = geodesic(metric, 9 * normal(2, 70), 9 * normal(2, 70), solver=MatrixFreeSolver(2, 4, max_iter=1))
    assert (result.status > Status.SETTLED).all()


@pytest.mark.parametrize("options", [{"num_segments": 0}, {"max_segments": 1}, {"history": 0}, {"tol": 0.0}])
def test_options_out_of_range_raise(options):
    with pytest.raises(ValueError, match="must be"):
        MatrixFreeSolver(**options)
