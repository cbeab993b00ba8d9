"""The energy minimizer on the whole table: accuracy, order, honesty, and rows that do not see each other."""

import math

import pytest
import torch
from problems import (
    CASES,
    CURVED,
    disk_distance,
    disk_tensor,
    half_plane_distance,
    half_plane_tensor,
    sphere,
    sphere_distance,
    sphere_tensor,
    torus,
    torus_tensor,
)
from torch import nn

from geodesics import Curve, EnergySolver, FunctionMetric, PullbackMetric, Status, geodesic, length

HALF_PLANE = FunctionMetric(half_plane_tensor)


def named(cases):
    return {"argvalues": cases, "ids": [case.name for case in cases]}


class Given:
    """Initial curves given outright."""

    def __init__(self, *curves):
        self.curves = curves

    def __call__(self, z0, z1):
        return list(self.curves)


def half_plane_pairs(normal, count):
    """Pairs within about two units of each other."""
    z = normal(2, count, 2)
    z = torch.stack([z[..., 0], (0.5 * z[..., 1]).exp()], dim=-1)
    return z[0], z[1]


def assert_same(result, other, rows=slice(None)):
    """Equal answers up to rounding and the square of the gradient tolerance, 1e-12."""
    for name in ("length", "energy"):
        torch.testing.assert_close(getattr(result, name), getattr(other, name)[rows], rtol=1e-10, atol=1e-12)
    assert torch.equal(result.status, other.status[rows])
    t = torch.linspace(0, 1, 17, dtype=result.length.dtype)
    torch.testing.assert_close(
        result.curve.evaluate(t), other.curve[rows].evaluate(t), rtol=1e-5, atol=1e-5, equal_nan=True
    )


@pytest.mark.parametrize("segments", [None, 32])
@pytest.mark.parametrize("case", **named(CASES))
def test_distance_is_exact(case, segments):
    """Defaults to their length tolerance, 32 segments to 1e-8; the error estimate covers the truth."""
    solver = EnergySolver() if segments is None else EnergySolver(num_segments=segments)
    result = geodesic(case.metric, *case.problem.ends(), solver=solver)
    gap = abs(float(result.length[0]) - case.problem.distance)
    assert result.converged.all()
    assert result.minimum.all()
    assert gap <= (1e-8 if segments else 1e-3) * case.problem.distance
    assert gap <= float(result.length_error[0]) + 1e-12
    assert float(result.length_error[0]) <= solver.length_tol * case.problem.distance


@pytest.mark.parametrize("case", **named(CASES))
def test_the_result_describes_one_curve(case):
    """Ends, length by an outside quadrature, energy, constant speed, 2 E = L^2."""
    z0, z1 = case.problem.ends()
    result = geodesic(case.metric, z0, z1)
    ends = result.curve.evaluate(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.stack([z0, z1], dim=1))
    total, error = length(case.metric, result.curve)
    assert ((total - result.length).abs() <= error).all()
    torch.testing.assert_close(2 * result.energy, result.length**2)
    t = torch.linspace(0.01, 0.99, 40, dtype=torch.float64)
    c, v = result.curve.evaluate(t)[0], result.curve.derivative(t)[0]
    speed = case.metric.norm(c, v)
    # Knots are timed for equal speed element by element; inside an element the mesh lets it vary a little.
    torch.testing.assert_close(speed, result.length.expand(40), rtol=0.05, atol=0)


ORDERS = [(1, 2, 2), (2, 4, 4), (3, 6, 6)]
BENT = [case for case in CURVED if case.problem.name in ("sphere", "half_plane", "fisher", "disk", "torus")]


@pytest.mark.parametrize(("degree", "samples", "order"), ORDERS)
@pytest.mark.parametrize("case", **named(BENT))
def test_the_observed_order_is_the_documented_one(case, degree, samples, order):
    """Degree p: the length's error falls as N^(-2p); from 8 to 16 segments, before rounding shows."""
    errors = []
    for count in (8, 16):
        solver = EnergySolver(
            num_segments=count,
            max_segments=count,
            degree=degree,
            num_samples=samples,
            length_tol=1.0,
            tol=1e-8,
            max_iter=40,
        )
        result = geodesic(case.metric, *case.problem.ends(), solver=solver)
        errors.append(float(result.length[0]) - case.problem.distance)
        # A restricted minimum is an upper bound, and for low degrees the estimate is sharp to a few per cent.
        assert 0 < errors[-1] < 1.05 * float(result.length_error[0])
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("case", **named([case for case in CASES if case.problem.name == "sphere"]))
def test_as_many_samples_as_the_degree(case, degree):
    """m = p is allowed: the cheapest element."""
    solver = EnergySolver(num_segments=32, degree=degree, num_samples=degree)
    result = geodesic(case.metric, *case.problem.ends(), solver=solver)
    gap = abs(float(result.length[0]) - case.problem.distance)
    assert gap <= float(result.length_error[0])
    assert gap <= 1e-3


@pytest.mark.parametrize("case", **named(CASES))
def test_evaluations_on_smooth_metrics_stay_under_500(case):
    result = geodesic(case.metric, *case.problem.ends())
    assert int(result.jacobians[0]) < 500
    assert int(result.values[0]) < 500


def poisoned_batch(normal):
    """64 pairs of the half-plane, 5 of them bad: NaN and infinite ends, ends below and on the boundary,
    overflow.
    """
    z0, z1 = half_plane_pairs(normal, 64)
    z0[7, 0] = torch.nan
    z1[20, 1] = torch.inf
    z1[33] = torch.tensor([0.5, -1.0], dtype=torch.float64)
    z0[48, 1] = 0.0
    z0[63, 1] = 1e-200
    return z0, z1, torch.tensor([7, 20, 33, 48, 63])


@pytest.mark.filterwarnings("ignore:.*geodesics failed")
def test_five_poisoned_rows_of_64_leave_59_right_answers(normal):
    z0, z1, bad = poisoned_batch(normal)
    result = geodesic(HALF_PLANE, z0, z1)
    good = torch.ones(64, dtype=torch.bool)
    good[bad] = False
    exact = half_plane_distance(z0[good], z1[good])
    gap = (result.length[good] - exact).abs()
    assert (gap <= 1e-6 * exact).all()
    assert (gap <= result.length_error[good] + 1e-12).all()
    assert result.converged[good].all()
    assert not result.converged[bad].any()
    assert result.status[[7, 20]].tolist() == [Status.INVALID] * 2
    assert result.length[[7, 20]].isnan().all()
    assert result.curve.points[[7, 20]].isnan().all()
    clean = geodesic(HALF_PLANE, z0[good], z1[good])
    assert_same(clean, result, good)


@pytest.mark.filterwarnings("ignore:.*geodesics failed")
def test_a_failed_row_is_nan_throughout():
    """Where the metric is not finite, the row says FAILED and gives NaN, length and curve."""
    metric = FunctionMetric(lambda z: half_plane_tensor(z) * torch.where(z[:, 1] > 0, 1.0, torch.nan)[:, None, None])
    z0 = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    result = geodesic(metric, z0, z1)
    assert result.status.tolist() == [Status.CONVERGED, Status.FAILED]
    for field in (result.length, result.length_error, result.energy):
        assert field.isnan().tolist() == [False, True]
    assert result.curve.points[1].isnan().all()
    assert not result.minimum[1]


@pytest.mark.parametrize("form", ["half_plane", "sphere"])
def test_alone_batched_and_permuted_agree(form, normal):
    """Easy and hard pairs together, which end on different meshes."""
    if form == "half_plane":
        metric = HALF_PLANE
        z0, z1 = half_plane_pairs(normal, 6)
        z0[2, 1], z0[4, 1] = 0.02, 0.004
    else:
        metric = PullbackMetric(sphere)
        z0 = torch.tensor([1.2, 0.0], dtype=torch.float64) + 0.5 * normal(6, 2)
        z1 = torch.tensor([1.6, 1.5], dtype=torch.float64) + 0.5 * normal(6, 2)
    batched = geodesic(metric, z0, z1)
    for i in range(6):
        alone = geodesic(metric, z0[i : i + 1], z1[i : i + 1])
        assert_same(alone, batched, slice(i, i + 1))
        assert int(alone.jacobians[0]) == pytest.approx(int(batched.jacobians[i]), rel=0.1)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert_same(geodesic(metric, z0[order], z1[order]), batched, order)
    assert_same(geodesic(metric, z0, z1, chunk_size=2), batched)


@pytest.mark.parametrize(
    ("metric", "distance", "scale"),
    [
        (HALF_PLANE, half_plane_distance, None),
        (FunctionMetric(disk_tensor), disk_distance, 0.4),
        (PullbackMetric(sphere), sphere_distance, 0.5),
    ],
    ids=["half_plane", "disk", "sphere"],
)
def test_distances_of_random_pairs(metric, distance, scale, normal):
    """Right both ways, and the same both ways: d(a, b) = d(b, a) within the two error estimates."""
    if scale is None:
        z0, z1 = half_plane_pairs(normal, 16)
    else:
        z0, z1 = scale * normal(2, 16, 2).clamp(-1.5, 1.5)
        if distance is sphere_distance:
            z0, z1 = z0 + math.pi / 2, z1 + math.pi / 2
    there, back = geodesic(metric, z0, z1), geodesic(metric, z1, z0)
    exact = distance(z0, z1)
    for result in (there, back):
        assert ((result.length - exact).abs() <= result.length_error + 1e-12).all()
        assert (result.length_error <= 1e-3 * exact).all()
        assert result.converged.all()
    assert ((there.length - back.length).abs() <= there.length_error + back.length_error).all()
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(back.curve.evaluate(1 - t), there.curve.evaluate(t), rtol=1e-3, atol=1e-3)


def stereographic_tensor(z):
    """The sphere seen from its pole: no singular point anywhere in the chart."""
    return (4 / (1 + z.square().sum(-1)).square())[:, None, None] * torch.eye(2, dtype=z.dtype)


def stereographic(z):
    square = z.square().sum(-1, keepdim=True)
    return torch.cat([2 * z, square - 1], dim=-1) / (square + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("metric", "z0", "z1", "long_way"),
    [
        (PullbackMetric(stereographic), (-2.0, 0.0), (2.0, 0.0), 4 * math.atan(2)),
        (FunctionMetric(stereographic_tensor), (-2.0, 0.0), (2.0, 0.0), 4 * math.atan(2)),
        (PullbackMetric(torus), (0.0, 0.0), (2.2, 0.0), 6.6),
        (FunctionMetric(torus_tensor), (0.0, 0.0), (2.2, 0.0), 6.6),
    ],
    ids=["sphere-pullback", "sphere-function", "torus-pullback", "torus-function"],
)
def test_past_a_conjugate_point_no_minimum_is_claimed(metric, z0, z1, long_way, dtype):
    """A great circle longer than pi, and the outer equator of the torus past pi sqrt 3, from the line itself.

    Both are stationary by symmetry and no minima. The solver stays and claims none, or leaves for less.
    """
    ends = (torch.tensor([z], dtype=dtype) for z in (z0, z1))
    result = geodesic(metric, *ends, solver=EnergySolver(max_segments=8, max_iter=10))
    if float(result.length[0]) > 0.999 * long_way:
        assert not result.converged[0]
        assert not result.minimum[0]


def test_a_stationary_curve_that_is_no_minimum_is_left():
    """Equal steps along the outer equator solve the discrete equations exactly; a shorter way is found all the same."""
    z1 = torch.tensor([[2.2, 0.0]], dtype=torch.float64)
    for metric in (PullbackMetric(torus), FunctionMetric(torus_tensor)):
        result = geodesic(metric, torch.zeros_like(z1), z1)
        assert result.converged.all()
        assert result.minimum.all()
        assert float(result.length[0]) < 6.6 * 0.99


def test_before_the_conjugate_point_the_same_line_is_a_minimum():
    for dphi, metric in ((1.7, PullbackMetric(torus)), (1.7, FunctionMetric(torus_tensor))):
        z1 = torch.tensor([[dphi, 0.0]], dtype=torch.float64)
        result = geodesic(metric, torch.zeros(1, 2, dtype=torch.float64), z1)
        assert result.converged.all()
        assert float(result.length[0]) == pytest.approx(3 * dphi, rel=1e-12)


def test_the_shortest_of_several_starts_wins():
    """Both ways round the torus' tube: two local minima, one start in each basin, in both orders."""
    metric = PullbackMetric(torus)
    z0 = torch.tensor([[0.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[0.1, 1.0], [0.1, -1.0]], dtype=torch.float64)
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    straight = z0[:, None] + t * (z1 - z0)[:, None]
    bow = torch.stack([2.5 * (math.pi * t[:, 0]).sin(), torch.zeros(9, dtype=torch.float64)], dim=-1)
    direct, around = Curve(straight), Curve(straight + bow)
    first = geodesic(metric, z0, z1, initial=Given(direct, around))
    second = geodesic(metric, z0, z1, initial=Given(around, direct))
    single = geodesic(metric, z0, z1)
    assert first.starts.tolist() == [0, 0]
    assert_same(first, single)
    torch.testing.assert_close(first.length, second.length, rtol=1e-9, atol=0)
    # The work of all starts is reported.
    assert (first.jacobians + first.values > single.jacobians + single.values).all()


def test_float32_has_its_own_tolerance():
    """eps^(3/8) is 2.5e-3, half its square 3e-6 in the energy; rounding of 1e-7 per evaluation on top."""
    for case in CASES:
        result = geodesic(case.metric, *case.problem.ends(torch.float32))
        assert result.length.dtype == torch.float32
        assert result.converged.all(), case.name
        gap = abs(float(result.length[0]) - case.problem.distance)
        assert gap < 1e-5 * case.problem.distance, case.name
        assert gap < float(result.length_error[0]) + 1e-6 * case.problem.distance, case.name


@pytest.mark.parametrize("d", [1, 2, 3, 8, 16, 32])
def test_smooth_decoders_of_any_latent_dimension(d, normal):
    """Random tanh decoders: converged, never longer than the straight line, and 32 segments agree with 8."""
    torch.manual_seed(d)
    generator = nn.Sequential(nn.Linear(d, 64), nn.Tanh(), nn.Linear(64, 80)).double()
    metric = PullbackMetric(generator)
    z0, z1 = normal(2, 3, d) / math.sqrt(d)
    result = geodesic(metric, z0, z1)
    assert result.converged.all()
    straight, _ = length(metric, Curve(torch.stack([z0, z1], dim=1)))
    assert (result.length <= straight.detach() * (1 + 1e-12)).all()
    fine = geodesic(metric, z0, z1, solver=EnergySolver(num_segments=32))
    assert ((fine.length - result.length).abs() <= fine.length_error + result.length_error).all()
    assert (result.jacobians < 500).all()
    if d == 1:
        # One dimension: there is one path only.
        assert ((result.length - straight.detach()).abs() <= result.length_error).all()


def test_the_two_forms_of_one_metric_agree():
    """A stochastic decoder as a pullback and as the tensor field J^T J: lengths within both error estimates."""
    generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 12)).double()
    pullback = PullbackMetric(generator)
    z0 = torch.tensor([[-1.0, 0.5], [0.3, 1.0]], dtype=torch.float64)
    z1 = torch.tensor([[1.2, 0.1], [-0.8, -0.9]], dtype=torch.float64)
    one, two = geodesic(pullback, z0, z1), geodesic(FunctionMetric(pullback.tensor), z0, z1)
    assert one.converged.all()
    assert two.converged.all()
    assert ((one.length - two.length).abs() <= one.length_error + two.length_error).all()


def test_isometric_problems_have_equal_answers():
    """A rotation after the embedding, a shift of longitude, and a linear change of the chart."""
    z0 = torch.tensor([[0.9, 0.2]], dtype=torch.float64)
    z1 = torch.tensor([[1.9, 1.7]], dtype=torch.float64)
    base = geodesic(PullbackMetric(sphere), z0, z1)
    A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=torch.float64)
    turned = geodesic(PullbackMetric(lambda y: sphere(y @ A.mT)), z0 @ A.inverse().mT, z1 @ A.inverse().mT)
    shift = torch.tensor([0.0, 5.0], dtype=torch.float64)
    moved = geodesic(FunctionMetric(sphere_tensor), z0 + shift, z1 + shift)
    scaled = geodesic(PullbackMetric(lambda z: 1e3 * sphere(z)), z0, z1)
    for other, factor in ((turned, 1.0), (moved, 1.0), (scaled, 1e3)):
        assert other.converged.all()
        gap = (other.length / factor - base.length).abs()
        assert (gap <= base.length_error + other.length_error / factor).all()


def test_a_wall_is_not_jumped():
    """A Gaussian ridge of height 50 and width 0.05 across the way: its length is reported, or a way round
    it.
    """

    def ridge(z):
        height = 50 * torch.exp(-((z[:, :1] / 0.05) ** 2) / 2)
        return torch.cat([z, height], dim=-1)

    z0 = torch.tensor([[-1.0, 0.0], [-0.7, 0.3]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 0.0], [0.9, -0.4]], dtype=torch.float64)
    result = geodesic(PullbackMetric(ridge), z0, z1)
    dense = result.curve.evaluate(torch.linspace(0, 1, 20001, dtype=torch.float64))
    chords = (ridge(dense.flatten(0, 1)).view(2, 20001, 3)).diff(dim=1).norm(dim=-1).sum(1)
    assert (chords > 100).all()
    # The chords' own error: 100 units of length in 20,000 steps, second order, below 1e-3.
    assert ((result.length - chords).abs() <= result.length_error + 1e-3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_segments": 0}, "num_segments must be at least 1; got 0"),
        ({"degree": 0}, "degree must be at least 1"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"max_meshes": 0}, "max_meshes must be at least 1"),
        ({"num_segments": 16, "max_segments": 8}, "max_segments must be at least num_segments; got 8"),
        ({"degree": 3, "num_samples": 2}, "num_samples must be at least degree; got 2 < 3"),
        ({"length_tol": 0.0}, "must be positive"),
        ({"tol": -1.0}, "must be positive"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EnergySolver(**options)


def test_limits_are_obeyed_and_reported():
    """One step on one mesh is not enough: MAX_ITER; a length tolerance out of reach: UNRESOLVED on the
    finest mesh.
    """
    z0 = torch.tensor([[0.0, 0.01]], dtype=torch.float64)
    z1 = torch.tensor([[3.0, 0.4]], dtype=torch.float64)
    short = geodesic(HALF_PLANE, z0, z1, solver=EnergySolver(max_iter=1, max_meshes=1, max_segments=8))
    assert int(short.status[0]) == Status.MAX_ITER
    assert int(short.iterations[0]) == 1
    strict = EnergySolver(num_segments=4, max_segments=8, length_tol=1e-15)
    coarse = geodesic(HALF_PLANE, z1, z1 + 1, solver=strict)
    assert int(coarse.status[0]) == Status.UNRESOLVED
    assert coarse.curve.num_segments == 8
