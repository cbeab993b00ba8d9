"""The published alternatives on closed forms: accuracy and order, honest statuses, no coupling of rows."""

import math
import warnings

import pytest
import torch
from problems import (
    CASES,
    PROBLEMS,
    half_plane_distance,
    half_plane_tensor,
    sphere,
    sphere_distance,
    sphere_tensor,
)

from geodesics import (
    AdamSolver,
    CollocationSolver,
    Curve,
    FunctionMetric,
    GeorceSolver,
    LBFGSSolver,
    PullbackMetric,
    Status,
    describe,
    geodesic,
)

# Each with the relative accuracy of the length that it documents, on problems as smooth as the table's:
# left-point segments, N = 100: (1/T)^2; chords, N = 64; cubics, N = 16: N^-6; SciPy's tolerance.
SOLVERS = {
    "georce": (GeorceSolver(), 1e-4),
    "lbfgs": (LBFGSSolver(), 1e-9),
    "adam": (AdamSolver(num_segments=32), 1e-4),
    "collocation": (CollocationSolver(), 1e-9),
}
SMALL = {
    "georce": GeorceSolver(num_segments=20, length_tol=0.1),
    "lbfgs": LBFGSSolver(num_segments=8),
    "adam": AdamSolver(num_segments=8, learning_rate=5e-3, max_iter=300, length_tol=1e-2),
    "collocation": CollocationSolver(),
}
# Adam's hundreds of iterations are spent on one form of each problem only.
RUNS = [
    (name, case)
    for name in SOLVERS
    for case in CASES
    if name != "adam" or (case.problem.name in ("sphere", "fisher", "torus", "linear2") and case.form == "function")
]


def chart(points, low, high):
    """Standard normal numbers as points of a box."""
    return low + (high - low) * torch.special.ndtr(points)


def sphere_pairs(normal, batch):
    """Pairs of points on the sphere, away from the poles."""
    return chart(normal(batch, 2), 0.8, 2.2), chart(normal(batch, 2), 0.8, 2.2)


@pytest.mark.parametrize(("name", "case"), RUNS, ids=lambda value: getattr(value, "name", value))
def test_closed_forms(name, case):
    """Converged to the documented accuracy, the error estimate covers the truth, counts are plausible."""
    solver, accuracy = SOLVERS[name]
    result = geodesic(case.metric, *case.problem.ends(), solver=solver)
    gap = (result.length - case.problem.distance).abs()
    assert result.status.tolist() == [Status.CONVERGED], describe(result.status[0])
    assert (gap <= accuracy * case.problem.distance).all()
    assert (gap <= result.length_error).all()
    assert result.minimum.all()
    assert (result.jacobians > 0).all()
    z0, z1 = case.problem.ends()
    assert torch.equal(result.curve.points[:, 0], z0)
    assert torch.equal(result.curve.points[:, -1], z1)


@pytest.mark.parametrize(
    ("make", "order"),
    [
        (lambda n: GeorceSolver(num_segments=4 * n, tol=1e-9), 2),
        (lambda n: LBFGSSolver(num_segments=2 * n, degree=1, num_samples=1, tol=1e-9), 2),
        (lambda n: LBFGSSolver(num_segments=n, degree=2, num_samples=4, tol=1e-9), 4),
    ],
    ids=["georce", "lbfgs-chords", "lbfgs-quadratics"],
)
def test_order(make, order):
    """The observed order of the length, within 0.1, from the two finest of three meshes."""
    problem = next(problem for problem in PROBLEMS if problem.name == "half_plane")
    metric = FunctionMetric(problem.tensor)
    gaps = [float(geodesic(metric, *problem.ends(), solver=make(n)).length) - problem.distance for n in (8, 16, 32)]
    assert math.log2(gaps[1] / gaps[2]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", SMALL)
def test_rows_do_not_mix(name, normal):
    """Alone, batched and permuted agree, iteration counts included, although some rows are harder."""
    solver, metric = SMALL[name], PullbackMetric(sphere)
    z0, z1 = sphere_pairs(normal, 4)
    z1[0] = z0[0] + 1e-3  # near and easy
    batched = geodesic(metric, z0, z1, solver=solver)
    order = torch.tensor([2, 0, 3, 1])
    permuted = geodesic(metric, z0[order], z1[order], solver=solver)
    for field in ("length", "status", "iterations", "jacobians"):
        torch.testing.assert_close(getattr(permuted, field), getattr(batched, field)[order], rtol=1e-9, atol=0)
    for row in range(2):
        alone = geodesic(metric, z0[row : row + 1], z1[row : row + 1], solver=solver)
        for field in ("length", "status", "iterations"):
            expected = getattr(batched, field)[row : row + 1]
            torch.testing.assert_close(getattr(alone, field), expected, rtol=1e-9, atol=0)
    gap = (batched.length - sphere_distance(z0, z1)).abs()
    assert (gap <= batched.length_error)[batched.converged].all()
    t = torch.linspace(0, 1, 9, dtype=z0.dtype)
    torch.testing.assert_close(permuted.curve.evaluate(t), batched.curve.evaluate(t)[order], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("form", "d"), [("function", 2), ("pullback", 3)])
@pytest.mark.parametrize("name", SMALL)
def test_a_lost_row_harms_only_itself(name, form, d, normal):
    """A metric that is not finite beyond a line: the row there fails, the others do not notice."""
    if form == "pullback":
        metric = PullbackMetric(lambda z: torch.cat([z, (5 - z[:, :1]).sqrt() + z[:, 1:2].square()], dim=1))
    else:
        eye = torch.eye(d, dtype=torch.float64)
        metric = FunctionMetric(lambda z: (1 + (5 - z[:, 0]).log()).square()[:, None, None] * eye)
    z0, z1 = 0.5 * normal(3, d), 0.5 * normal(3, d)
    clean = geodesic(metric, z0[[0, 2]], z1[[0, 2]], solver=SMALL[name])
    z1[1, 0] = 7.0
    with pytest.warns(UserWarning, match="1 of 3"):
        result = geodesic(metric, z0, z1, solver=SMALL[name])
    assert result.status[1] == Status.FAILED
    assert result.length[1].isnan()
    assert result.curve.points[1].isnan().all()
    for field in ("length", "status", "iterations"):
        torch.testing.assert_close(getattr(result, field)[[0, 2]], getattr(clean, field), rtol=1e-9, atol=0)


@pytest.mark.parametrize("max_iter", [1, 3])
@pytest.mark.parametrize("make", [GeorceSolver, LBFGSSolver, AdamSolver])
def test_an_exhausted_limit_is_no_convergence(make, max_iter):
    problem = PROBLEMS[0]
    result = geodesic(PullbackMetric(sphere), *problem.ends(), solver=make(max_iter=max_iter))
    assert result.status.tolist() == [Status.MAX_ITER]
    assert result.iterations.tolist() == [max_iter]
    assert (result.length - problem.distance).abs() <= result.length_error


def test_too_few_nodes_are_no_convergence():
    """SciPy's own limit: a mesh of at most nine nodes cannot meet the tolerance."""
    problem = PROBLEMS[0]
    solver = CollocationSolver(num_segments=4, max_nodes=8, tol=1e-10)
    result = geodesic(PullbackMetric(sphere), *problem.ends(), solver=solver)
    assert result.status.tolist() == [Status.MAX_ITER]


@pytest.mark.parametrize("name", SMALL)
def test_a_conjugate_point_is_seen(name):
    """Beyond the antipode the equator is a geodesic, and a saddle."""
    z0 = torch.tensor([[math.pi / 2, 0.0]], dtype=torch.float64)
    z1 = torch.tensor([[math.pi / 2, 4.0]], dtype=torch.float64)
    result = geodesic(FunctionMetric(sphere_tensor), z0, z1, solver=SMALL[name])
    assert result.status.tolist() == [Status.NOT_MINIMUM]
    assert not result.minimum.any()


@pytest.mark.parametrize("name", SMALL)
def test_a_coarse_mesh_is_unresolved(name):
    """A length tolerance that the mesh cannot meet is said not to be met."""
    tight = {
        "georce": GeorceSolver(num_segments=5, length_tol=1e-6),
        "lbfgs": LBFGSSolver(num_segments=3, degree=1, num_samples=1, length_tol=1e-6),
        "adam": AdamSolver(num_segments=3, learning_rate=1e-2, length_tol=1e-6),
        "collocation": CollocationSolver(length_tol=1e-30),
    }
    result = geodesic(FunctionMetric(sphere_tensor), *PROBLEMS[0].ends(), solver=tight[name])
    assert result.status.tolist() == [Status.UNRESOLVED]
    assert (result.length - PROBLEMS[0].distance).abs() <= result.length_error


def test_straight_solutions_on_a_kink_are_not_converged():
    """Piecewise linear decoders have no second derivative: the ODE's straight line is no geodesic, and the
    energy
    says so."""
    metric = PullbackMetric(lambda z: torch.cat([z, 3 * z[:, :1].relu()], dim=1))
    z0 = torch.tensor([[-1.0, 0.0]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    result = geodesic(metric, z0, z1, solver=CollocationSolver())
    assert not result.converged.any()


class BothWays:
    """The straight line, and a detour round it: the second start is far from the minimum."""

    def __call__(self, z0, z1):
        bend = torch.tensor([0.6, 0.0]).to(z0)
        middle = torch.stack([z0, (z0 + z1) / 2 + bend, z1], dim=1)
        return [Curve(middle), Curve(torch.stack([z0, z1], dim=1))]


@pytest.mark.parametrize("name", SMALL)
def test_the_shortest_start_wins(name, normal):
    """All starts lead to the one minimum; the winner is the shortest and the work is added up."""
    metric = FunctionMetric(sphere_tensor)
    z0, z1 = sphere_pairs(normal, 3)
    one = geodesic(metric, z0, z1, solver=SMALL[name])
    two = geodesic(metric, z0, z1, solver=SMALL[name], initial=BothWays())
    assert (two.length <= one.length * (1 + 1e-6)).all()
    assert (two.iterations > one.iterations).all()
    assert (two.jacobians > one.jacobians).all()
    assert ((two.starts == 0) | (two.starts == 1)).all()
    assert ((two.length - sphere_distance(z0, z1)).abs() <= two.length_error)[two.converged].all()


@pytest.mark.parametrize("name", SMALL)
def test_no_claim_is_false(name, normal):
    """Wherever CONVERGED is claimed, the truth lies within the error estimate and the gradient is small."""
    z0, z1 = normal(6, 2), normal(6, 2)
    z0[:, 1], z1[:, 1] = (z[:, 1].mul(0.7).exp() for z in (z0, z1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = geodesic(FunctionMetric(half_plane_tensor), z0, z1, solver=SMALL[name])
    gap = (result.length - half_plane_distance(z0, z1)).abs()
    assert (gap <= result.length_error)[result.converged].all()
    assert result.minimum[result.converged].all()
    assert (result.gradient <= 1e-3)[result.converged].all()
    assert result.length.isfinite().all()
    if name in ("lbfgs", "georce"):
        assert (result.status != Status.MAX_ITER).all()


@pytest.mark.parametrize("name", ["georce", "lbfgs"])
def test_dtype_is_kept(name):
    problem = PROBLEMS[0]
    result = geodesic(FunctionMetric(problem.tensor), *problem.ends(torch.float32), solver=SMALL[name])
    assert result.length.dtype == result.curve.points.dtype == torch.float32
    assert result.converged.all()
    assert float(result.length) == pytest.approx(problem.distance, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (GeorceSolver, {"num_segments": 0}),
        (GeorceSolver, {"tol": -1.0}),
        (LBFGSSolver, {"history": 0}),
        (LBFGSSolver, {"num_samples": 2}),
        (LBFGSSolver, {"length_tol": 0.0}),
        (AdamSolver, {"max_iter": 0}),
        (AdamSolver, {"num_samples": 0}),
        (AdamSolver, {"learning_rate": 0.0}),
        (CollocationSolver, {"max_nodes": 3}),
        (CollocationSolver, {"tol": 0.0}),
    ],
)
def test_options_out_of_range_raise(make, options):
    with pytest.raises(ValueError, match="must be"):
        make(**options)
