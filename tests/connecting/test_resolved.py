"""What no answer may claim: a length below the chord of its ends' outputs, or a length that is not known."""

import warnings

import pytest
import torch
from problems import half_plane_tensor, sphere
from torch import nn

from geodesics import (
    AdamSolver,
    CollocationSolver,
    EnergySolver,
    FunctionMetric,
    GeorceSolver,
    LBFGSSolver,
    PullbackMetric,
    ShootingSolver,
    Status,
    distance,
    distance_matrix,
    frechet_mean,
    geodesic,
    log_map,
)
from geodesics.connecting.moving_ends import MovingEnds
from geodesics.curves.initial import straight
from geodesics.solvers.solution import GeodesicResult

HALF_PLANE = FunctionMetric(half_plane_tensor)
# Finer meshes would change no verdict, and cost time.
QUICK = EnergySolver(num_segments=4, max_segments=8, max_iter=3, max_meshes=1)
NET = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double().requires_grad_(False)


@torch.inference_mode()
def in_inference_mode(z):
    return NET(z)


def one_hot(z):
    """In which of six sectors round the origin a point lies."""
    sector = (torch.atan2(z[:, 1], z[:, 0]) * 3 / torch.pi).floor().long() + 3
    return nn.functional.one_hot(sector.clamp(0, 5), 6).to(z)


DROPPED = {
    "detached": lambda z: sphere(z).detach(),
    "data": lambda z: sphere(z).data,
    "inference mode": in_inference_mode,
    "rounded": lambda z: (sphere(z) * 255).round() / 255,
    "coarsely rounded": lambda z: sphere(z).round(),
    "one-hot": one_hot,
}
WITHOUT_DERIVATIVES = {
    "constant": lambda z: torch.ones_like(z),
    "underflowing": lambda z: 1e-200 * sphere(z),
    "step": lambda z: torch.cat([z, (z[:, :1] > 0).to(z)], dim=1),
}


def ends(count=3):
    z0 = torch.tensor([[-0.4, 0.3], [-0.1, -0.8], [-0.6, 0.9]], dtype=torch.float64)
    return z0[:count], z0[:count] * torch.tensor([-1.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("name", list(DROPPED))
def test_a_decoder_that_drops_its_derivatives_is_refused(name):
    metric = PullbackMetric(DROPPED[name])
    for call in (geodesic, distance, log_map):
        with pytest.raises(ValueError, match=r"generator .* drops"):
            call(metric, *ends(), solver=QUICK)


@pytest.mark.parametrize("name", list(WITHOUT_DERIVATIVES))
def test_a_decoder_without_derivatives_has_no_distances(name):
    metric = PullbackMetric(WITHOUT_DERIVATIVES[name])
    with pytest.warns(UserWarning, match="3 of 3 geodesics failed"):
        result = geodesic(metric, *ends(), solver=QUICK)
    assert (result.status == Status.FAILED).all()
    for field in (result.length, result.length_error, result.energy, result.curve.points):
        assert field.isnan().all()
    with pytest.warns(UserWarning, match="3 of 3 geodesics failed or are not resolved"):
        assert distance(metric, *ends(), solver=QUICK).isnan().all()
    with pytest.warns(UserWarning, match="did not converge"):
        assert log_map(metric, *ends(), solver=QUICK).isnan().all()


@pytest.mark.parametrize(
    "solver",
    [
        EnergySolver(max_segments=16),
        ShootingSolver(warm_start=EnergySolver(max_segments=16)),
        LBFGSSolver(max_iter=20),
        AdamSolver(max_iter=20),
        GeorceSolver(num_segments=20, max_iter=20),
        CollocationSolver(max_nodes=40),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_every_solver_is_held_to_the_chord_and_keeps_the_good_rows(solver):
    """Beyond x = 3 the decoder is rounded, and beyond x = 6 it is dead; the pair between is the plane's."""

    def decoder(z):
        rounded = torch.cat([z, z[:, :1]], dim=1).round()
        plane = torch.cat([z, z[:, :1]], dim=1)
        return torch.where(z[:, :1] > 6, 0.0, torch.where(z[:, :1] > 3, rounded, plane))

    z0 = torch.tensor([[0.0, 0.0], [4.0, 0.0], [8.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 0.5], [4.5, 2.0], [9.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="2 of 4 geodesics failed"):
        result = geodesic(PullbackMetric(decoder), z0, z1, solver=solver)
    assert (result.status[1:3] == Status.FAILED).all()
    assert result.length[1:3].isnan().all()
    exact = ((z1 - z0).square() * torch.tensor([2.0, 1.0])).sum(1).sqrt()[[0, 3]]
    torch.testing.assert_close(result.length[[0, 3]], exact, rtol=1e-6, atol=0)
    assert (result.status[[0, 3]] < Status.UNRESOLVED).all()


class Claiming:
    """A solver whose lengths are a share of the true ones, with an error to match."""

    length_tol = 2e-3

    def __init__(self, shares, errors):
        self.shares, self.errors = (torch.tensor(x, dtype=torch.float64) for x in (shares, errors))

    def solve(self, metric, starts) -> GeodesicResult:
        result = EnergySolver().solve(metric, starts)
        return result._replace(length=self.shares * result.length, length_error=self.errors * result.length)


def test_a_length_under_the_chord_is_refused_unless_its_error_covers_it():
    nan, inf = torch.nan, torch.inf
    solver = Claiming([1.0, 0.9, 0.995, 0.9, 0.9, 0.9995], [0.0, 0.2, 0.01, nan, inf, 1e-3])
    z0 = torch.zeros(6, 2, dtype=torch.float64)
    z1 = torch.arange(1.0, 13.0, dtype=torch.float64).view(6, 2)
    flat = PullbackMetric(lambda z: z)
    with pytest.warns(UserWarning, match="3 of 6 geodesics failed"):
        result = geodesic(flat, z0, z1, solver=solver)
    assert (result.status == Status.FAILED).tolist() == [False, True, False, True, True, False]
    assert result.length.isnan().tolist() == [False, True, False, True, True, False]
    assert result.resolved(2e-3).tolist() == [True, False, False, False, False, True]
    with pytest.warns(UserWarning, match="4 of 6 geodesics failed or are not resolved"):
        assert distance(flat, z0, z1, solver=solver).isnan().tolist() == [False, True, True, True, True, False]


def test_the_chord_costs_two_values_and_no_derivative():
    z0, z1 = ends()
    solver = Claiming([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    bare = solver.solve(PullbackMetric(sphere), [straight(z0, z1)])
    assert torch.equal(geodesic(PullbackMetric(sphere), z0, z1, solver=solver).values, bare.values + 2)
    up = torch.tensor([0.0, 2.0], dtype=torch.float64)
    bare = solver.solve(HALF_PLANE, [straight(z0 + up, z1 + up)])
    assert torch.equal(geodesic(HALF_PLANE, z0 + up, z1 + up, solver=solver).values, bare.values)


def test_an_axis_that_is_not_used_has_distance_zero():
    """There the curve of length zero is right, and the first row's neighbors are the plane's."""
    metric = PullbackMetric(lambda z: torch.cat([z[:, :1], z[:, :1].sin()], dim=1))
    z0 = torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    z1 = torch.tensor([[0.5, 2.0], [0.0, -1.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert distance(metric, z0, z1).tolist() == [0.0, 0.0]
        result = geodesic(metric, z0, z1)
    assert (result.status <= Status.SETTLED).all()
    assert result.length_error.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-4])
def test_rounding_of_near_points_fails_no_pair(scale, normal):
    """In float32 the outputs of two points so near differ by little more than their rounding."""
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 200)).requires_grad_(False)
    z0 = normal(60, 2).float()
    result = geodesic(PullbackMetric(net), z0, z0 + scale * normal(60, 2).float(), solver=QUICK)
    assert (result.status < Status.FAILED).all()


def across_the_end_of_the_half_plane():
    """No curve of finite length joins these pairs but the last one."""
    z0 = torch.tensor([[1.8, 1.06], [2.35, 0.42], [0.0, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[0.82, -0.23], [0.79, -0.19], [1.0, 1.0]], dtype=torch.float64)
    return z0, z1


def test_a_length_that_is_not_resolved_is_no_distance():
    z0, z1 = across_the_end_of_the_half_plane()
    with pytest.warns(UserWarning, match="2 of 3 geodesics failed or are not resolved") as caught:
        d = distance(HALF_PLANE, z0, z1, solver=EnergySolver(max_segments=16))
    assert len([w for w in caught if w.category is UserWarning]) == 1
    assert d.isnan().tolist() == [True, True, False]
    alone = distance(HALF_PLANE, z0[2:], z1[2:], solver=EnergySolver(max_segments=16))
    torch.testing.assert_close(d[2:], alone, rtol=1e-12, atol=0)


def test_the_statuses_of_a_matrix_can_be_had():
    z = torch.cat(across_the_end_of_the_half_plane())[[0, 2, 3]]
    with pytest.warns(UserWarning, match="2 of 3 geodesics failed or are not resolved"):
        D, status = distance_matrix(HALF_PLANE, z, solver=EnergySolver(max_segments=16), return_status=True)
    assert torch.equal(status, status.mT)
    assert (status.diagonal() == Status.CONVERGED).all()
    assert status[0, 1] == Status.CONVERGED
    assert (status[:2, 2] > Status.SETTLED).all()
    assert D.isnan().tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    with pytest.warns(UserWarning, match="not resolved"):
        bare = distance_matrix(HALF_PLANE, z, solver=EnergySolver(max_segments=16))
    torch.testing.assert_close(bare, D, equal_nan=True)


def test_a_looser_tolerance_resolves_more():
    """Two segments and no finer mesh: the length of a long geodesic is known to a percent or so."""
    z0 = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[40.0, 1.0]], dtype=torch.float64)
    coarse = EnergySolver(num_segments=2, max_segments=2, length_tol=1e-5)
    result = geodesic(HALF_PLANE, z0, z1, solver=coarse)
    share = float(result.length_error / result.length)
    assert share > 1e-5
    with pytest.warns(UserWarning, match="1 of 1 geodesics"):
        assert distance(HALF_PLANE, z0, z1, solver=coarse).isnan().all()
    loose = EnergySolver(num_segments=2, max_segments=2, length_tol=2 * share)
    assert distance(HALF_PLANE, z0, z1, solver=loose).isfinite().all()


def test_pairs_of_a_moving_end_have_no_logarithm_where_the_length_is_not_resolved():
    z0, z1 = across_the_end_of_the_half_plane()
    ends = MovingEnds(HALF_PLANE, 3, z0, EnergySolver(max_segments=16), None, None)
    for _ in range(2):  # afresh, and again
        found = ends.logarithms(torch.arange(3), z0, z1)
        for field in (found.vectors.isnan().any(1), found.lengths.isnan(), found.errors.isnan()):
            assert field.tolist() == [True, True, False]


def test_a_mean_does_not_use_what_is_not_resolved():
    z0, z1 = across_the_end_of_the_half_plane()
    points = torch.cat([z0, z1[:1]])
    start = z0[2:]
    with pytest.warns(UserWarning, match="1 of 4 geodesics from the means failed or are not resolved"):
        found = frechet_mean(HALF_PLANE, points, start=start, solver=EnergySolver(max_segments=16))
    expected = frechet_mean(HALF_PLANE, z0, start=start, solver=EnergySolver(max_segments=16))
    assert found.failed.tolist() == [1]
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-9, atol=0)
