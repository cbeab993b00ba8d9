"""Every check of an argument: its one wording, what passes; and that each public door names its own."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

from geodesics import (
    AdamSolver,
    CollocationSolver,
    Curve,
    EnergySolver,
    FunctionMetric,
    GeorceSolver,
    GraphPaths,
    Land,
    LandOptions,
    LBFGSSolver,
    PullbackMetric,
    ShootingOptions,
    Straight,
    brownian_drift,
    brownian_motion,
    check_generator,
    christoffel_symbols,
    constant_speed,
    contracted_hessian,
    describe,
    directional_second_derivative,
    distance,
    distance_matrix,
    energy,
    exp_map,
    fit_land,
    frechet_mean,
    gaussian_curvature,
    general_acceleration,
    geodesic,
    geodesic_flow,
    inner,
    k_medoids,
    length,
    log_map,
    log_measure,
    norm,
    plot_curves,
    plot_decoded,
    plot_field,
    plot_latents,
    plot_measure,
    plot_speeds,
    plot_strips,
    pullback_acceleration,
    random_walk,
    riemannian_k_means,
    sectional_curvature,
    straight_lines,
    value_and_jacobian,
)
from geodesics.batches import arguments as checks

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

POINTS = torch.zeros(3, 2)
TORN = torch.tensor([[0.0, torch.nan]])


@dataclass(frozen=True)
class Options:
    count: object = 3
    most: object = 5
    tol: object = None
    size: object = 1.0


class Half:
    """A metric that lacks some of its methods."""

    def tensor(self, z):
        return z

    norm = tensor


WORDINGS = [
    (lambda: checks.check_count("n", 0), ValueError, "n must be at least 1; got 0"),
    (lambda: checks.check_count("n", 1, 2), ValueError, "n must be at least 2; got 1"),
    (lambda: checks.check_count("n", 2.0), TypeError, "n must be an integer; got 2.0"),
    (lambda: checks.check_count("n", math.nan), TypeError, "n must be an integer; got nan"),
    (lambda: checks.check_count("n", True), TypeError, "n must be an integer; got True"),
    (lambda: checks.check_count("n", "3"), TypeError, "n must be an integer; got str"),
    (lambda: checks.check_count_of("k", 4, 3, "points"), ValueError, "k must be from 1 to the 3 points; got 4"),
    (lambda: checks.check_count_of("k", -1, 3, "points"), ValueError, "k must be from 1 to the 3 points; got -1"),
    (lambda: checks.check_count_of("k", 1.5, 3, "points"), TypeError, "k must be an integer; got 1.5"),
    (lambda: checks.check_positive("h", 0.0), ValueError, "h must be positive and finite; got 0.0"),
    (lambda: checks.check_positive("h", math.nan), ValueError, "h must be positive and finite; got nan"),
    (lambda: checks.check_positive("h", math.inf), ValueError, "h must be positive and finite; got inf"),
    (lambda: checks.check_positive("h", True), TypeError, "h must be a number; got True"),
    (lambda: checks.check_positive("h", None), TypeError, "h must be a number; got None"),
    (lambda: checks.check_positive("h", Fraction(1, 2)), TypeError, "h must be a number; got Fraction"),
    (lambda: checks.check_positive("h", torch.ones(1)), TypeError, "h must be a number; got Tensor"),
    (lambda: checks.check_not_negative("r", -1), ValueError, "r must be finite and not negative; got -1"),
    (lambda: checks.check_not_negative("r", math.nan), ValueError, "r must be finite and not negative; got nan"),
    (lambda: checks.check_not_negative("r", math.inf), ValueError, "r must be finite and not negative; got inf"),
    (
        lambda: checks.check_not_below(Options(most=2), "most", "count"),
        ValueError,
        "most must be at least count; got 2 < 3",
    ),
    (lambda: checks.check_not_below(Options(most=9.5), "most", "count"), TypeError, "most must be an integer; got 9.5"),
    (lambda: checks.check_counts(Options(count=0), "most", "count"), ValueError, "count must be at least 1; got 0"),
    (lambda: checks.check_sizes(Options(tol=0.0), "tol"), ValueError, "tol must be positive and finite; got 0.0"),
    (lambda: checks.check_sizes(Options(size=None), "size"), TypeError, "size must be a number; got None"),
    (
        lambda: checks.check_floating("z", POINTS.half()),
        TypeError,
        "z must be a floating-point tensor, float32 or float64; got torch.float16: pass z.double()",
    ),
    (
        lambda: checks.check_floating("z", np.zeros((3, 2))),
        TypeError,
        "z must be a floating-point tensor, float32 or float64; got ndarray: "
        "pass torch.as_tensor(z, dtype=torch.float64)",
    ),
    (lambda: checks.check_points("z", POINTS[0]), ValueError, "z must be (n, d); got (2,): pass z[None] for one point"),
    (lambda: checks.check_points("z", POINTS[:, :0]), ValueError, "z must be (n, d); got (3, 0)"),
    (lambda: checks.check_points("z", POINTS, "B", 4), ValueError, "z must be (B, d) with B >= 4; got (3, 2)"),
    (
        lambda: checks.check_points("z", POINTS.to("meta")),
        ValueError,
        "z must hold values; got a tensor on the meta device",
    ),
    (
        lambda: checks.check_ends(POINTS, POINTS[:2]),
        ValueError,
        "z0 and z1 must both be (B, d); got (3, 2) and (2, 2)",
    ),
    (
        lambda: checks.check_ends(POINTS, POINTS.double()),
        ValueError,
        "z0 and z1 must share dtype and device; got torch.float32 on cpu and torch.float64 on cpu",
    ),
    (
        lambda: checks.check_alike({"z": POINTS, "u": POINTS, "v": POINTS[:1]}),
        ValueError,
        "z, u and v must all be (B, d); got (3, 2), (3, 2) and (1, 2)",
    ),
    (
        lambda: checks.check_alike({"z": POINTS[:, :1], "v": POINTS[:, :1]}, least_dimension=2),
        ValueError,
        "z and v must both be (B, d) with d >= 2; got (3, 1) and (3, 1)",
    ),
    (
        lambda: checks.check_shape("start", POINTS, "(K, d)", (2, 2)),
        ValueError,
        "start must be (K, d) = (2, 2); got (3, 2)",
    ),
    (
        lambda: checks.check_shape("start", [0.0], "(K, d)", (2, 2)),
        TypeError,
        "start must be a tensor (K, d) = (2, 2); got list",
    ),
    (lambda: checks.check_finite("z", TORN), ValueError, "z must be finite; got 1 of 2 entries that are not"),
    (
        lambda: checks.check_output("generator", POINTS, POINTS[:, 0], "(B, d) to (B, D)"),
        ValueError,
        "generator must map (B, d) to (B, D); got (3, 2) -> (3,)",
    ),
    (
        lambda: checks.check_output("generator", POINTS, POINTS[:2], "(B, d) to (B, D)"),
        ValueError,
        "generator must map (B, d) to (B, D); got (3, 2) -> (2, 2)",
    ),
    (
        lambda: checks.check_output("function", POINTS, POINTS, "(B, d) to (B, d, d)", (3, 2, 2)),
        ValueError,
        "function must map (B, d) to (B, d, d); got (3, 2) -> (3, 2)",
    ),
    (
        lambda: checks.check_output("generator", POINTS, (POINTS, POINTS), "(B, d) to (B, D)"),
        TypeError,
        "generator must map (B, d) to (B, D); got (3, 2) -> tuple",
    ),
    (
        lambda: checks.check_kept("generator", POINTS, POINTS.double()),
        ValueError,
        "generator must keep dtype and device; got torch.float32 on cpu -> torch.float64 on cpu",
    ),
    (
        lambda: checks.check_callable("generator", POINTS, "(B, d) -> (B, D)"),
        TypeError,
        "generator must be callable, (B, d) -> (B, D); got Tensor",
    ),
    (
        lambda: checks.check_metric(torch.nn.Linear(2, 3)),
        TypeError,
        "metric must be a Metric, such as PullbackMetric(decoder); got Linear",
    ),
    (
        lambda: checks.check_metric(PullbackMetric),
        TypeError,
        "metric must be a Metric, such as PullbackMetric(decoder); got the class PullbackMetric",
    ),
    (
        lambda: checks.check_solver("shooting"),
        TypeError,
        "solver must be a Solver, such as EnergySolver(); got str",
    ),
    (
        lambda: checks.check_metric(Half()),
        TypeError,
        "metric must be a Metric, such as PullbackMetric(decoder); got Half without acceleration and path_energy",
    ),
    (
        lambda: checks.check_fits(PullbackMetric(lambda z: None), POINTS),
        TypeError,
        "generator must map (B, d) to (B, D); got (2, 2) -> None: does it return its output?",
    ),
    (lambda: checks.check_solving(EnergySolver(), None, 0), ValueError, "chunk_size must be at least 1; got 0"),
    (
        lambda: checks.check_solving(None, Straight, None),
        TypeError,
        "initial must be an instance, such as Straight(); got the class Straight",
    ),
    (
        lambda: checks.check_solving(None, 3, None),
        TypeError,
        "initial must be callable, (z0, z1) -> list of Curve; got int",
    ),
    (
        lambda: checks.check_random(0, torch.device("cpu")),
        TypeError,
        "generator must be a torch.Generator or None; got 0",
    ),
    (
        lambda: checks.check_random(torch.Generator(), torch.device("meta")),
        ValueError,
        "generator must be on the points' device meta; got cpu",
    ),
    (lambda: checks.check_seed(-1), ValueError, "seed must be from 0 to 2^32 - 1; got -1"),
    (lambda: checks.check_seed(None), TypeError, "seed must be an integer; got None"),
    (
        lambda: checks.check_is("curve", POINTS, Curve, "as geodesic(...).curve"),
        TypeError,
        "curve must be a Curve, as geodesic(...).curve; got Tensor",
    ),
    (lambda: checks.check_count("n", 2**31), ValueError, "n must be at most 2147483647; got 2147483648"),
    (lambda: checks.check_count("n", 10**5000), ValueError, "n must be at most 2147483647; got an integer beyond 2^63"),
    (
        lambda: checks.check_positive("h", 10**400),
        ValueError,
        "h must be positive and finite; got an integer beyond 2^63",
    ),
    (
        lambda: checks.check_floating("z", POINTS.to_sparse()),
        TypeError,
        "z must be a dense tensor; got torch.sparse_coo",
    ),
    (
        lambda: checks.check_ends(POINTS.view(3, 1, 2), POINTS.view(3, 1, 2)),
        ValueError,
        "z0 and z1 must both be (B, d); got (3, 1, 2) and (3, 1, 2): pass each.flatten(1), with "
        "lambda z: decoder(z.unflatten(1, (1, 2))) as the decoder",
    ),
]


@pytest.mark.parametrize(("check", "error", "message"), WORDINGS, ids=[wording[2][:60] for wording in WORDINGS])
def test_each_fact_has_one_wording(check, error, message):
    with pytest.raises(error) as caught:
        check()
    assert str(caught.value) == message


def test_what_fits_passes():
    checks.check_count("n", np.int64(1))
    checks.check_count("n", 0, 0)
    checks.check_count_of("k", 3, 3, "points")
    checks.check_positive("h", np.float32(0.5))
    checks.check_positive("h", 1)
    checks.check_not_negative("r", 0)
    checks.check_not_below(Options(most=3), "most", "count")
    checks.check_sizes(Options(), "tol", "size")
    checks.check_points("z", POINTS[:0])
    checks.check_ends(POINTS, POINTS + 1)
    checks.check_shape("start", POINTS, "(K, d)", (3, 2))
    checks.check_finite("z", POINTS)
    checks.check_output("generator", POINTS, torch.zeros(3, 5), "(B, d) to (B, D)")
    checks.check_metric(PullbackMetric(lambda z: z))
    checks.check_solver(EnergySolver())


def test_every_check_is_tested_above():
    """A new kind of fact joins the table of wordings."""
    names = {name for name in vars(checks) if name.startswith("check_")}
    used = {name for check, _, _ in WORDINGS for name in check.__code__.co_names}
    assert names == used & names


class Lazy:
    """A solver that gives no answer."""

    def solve(self, metric, starts):
        return starts


FLAT = FunctionMetric(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))
PLANE = PullbackMetric(lambda z: z)
Z = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.3, 2.0]], dtype=torch.float64)
W = Z + 1
EYE = torch.eye(2, dtype=torch.float64)[None]
LINE = Curve(torch.stack([Z, W], dim=1))
INTEGERS = Z.long()

# What is called with what is wrong, and the argument that the message names.
DOORS = [
    *((call, "metric") for call in (
        lambda: geodesic(torch.nn.Linear(2, 3), Z, W),
        lambda: distance(None, Z, W),
        lambda: distance_matrix(torch.nn.Tanh(), Z),
        lambda: log_map(PullbackMetric, Z, W),
        lambda: exp_map(torch.tanh, Z, W),
        lambda: geodesic_flow(None, Z, W, torch.linspace(0, 1, 3, dtype=Z.dtype)),
        lambda: norm(None, Z, W),
        lambda: inner(None, Z, W, W),
        lambda: log_measure(torch.tanh, Z),
        lambda: gaussian_curvature(None, Z),
        lambda: sectional_curvature(None, Z, W, Z),
        lambda: energy(None, LINE),
        lambda: constant_speed(None, LINE, 3),
        lambda: GraphPaths(torch.tanh, Z),
        lambda: frechet_mean(None, Z),
        lambda: riemannian_k_means(None, Z, 2),
        lambda: random_walk(None, Z, 2, 0.1),
        lambda: brownian_motion(None, Z, 2, 0.1),
        lambda: fit_land(None, Z),
        lambda: Land.from_parameters(None, Z[:1], EYE),
    )),
    *((call, "z") for call in (
        lambda: distance_matrix(FLAT, Z.tolist()),
        lambda: exp_map(FLAT, INTEGERS, W),
        lambda: norm(FLAT, Z.numpy(), W),
        lambda: inner(FLAT, Z[0], W, W),
        lambda: log_measure(FLAT, Z.numpy()),
        lambda: gaussian_curvature(FLAT, INTEGERS),
        lambda: check_generator(torch.tanh, Z.tolist()),
        lambda: frechet_mean(FLAT, Z[:0]),
        lambda: riemannian_k_means(FLAT, INTEGERS, 2),
        lambda: fit_land(FLAT, Z[:1]),
    )),
    *((call, "z0") for call in (
        lambda: geodesic(FLAT, Z.half(), W.half()),
        lambda: log_map(FLAT, Z.tolist(), W),
        lambda: random_walk(FLAT, Z[0], 2, 0.1),
        lambda: brownian_motion(FLAT, INTEGERS, 2, 0.1),
    )),
    *((call, "v") for call in (
        lambda: exp_map(FLAT, Z, W[:1]),
        lambda: norm(FLAT, Z, W.float()),
        lambda: sectional_curvature(FLAT, Z, W, INTEGERS),
    )),
    *((call, "tol") for value in (math.nan, math.inf, -1.0, True, "1e-3") for call in (
        lambda value=value: EnergySolver(tol=value),
        lambda value=value: LBFGSSolver(tol=value),
        lambda value=value: AdamSolver(tol=value),
        lambda value=value: GeorceSolver(tol=value),
        lambda value=value: CollocationSolver(tol=value),
        lambda value=value: ShootingOptions(tol=value),
        lambda value=value: LandOptions(tol=value),
        lambda value=value: exp_map(FLAT, Z, W, tol=value),
        lambda value=value: frechet_mean(FLAT, Z, tol=value),
        lambda value=value: riemannian_k_means(FLAT, Z, 2, tol=value),
    )),
    (lambda: AdamSolver(tol=None), "tol"),
    (lambda: CollocationSolver(max_nodes=16), "max_nodes"),
    *((call, "max_iter") for value in (0.5, math.nan, -1) for call in (
        lambda value=value: EnergySolver(max_iter=value),
        lambda value=value: frechet_mean(FLAT, Z, max_iter=value),
        lambda value=value: riemannian_k_means(FLAT, Z, 2, max_iter=value),
        lambda value=value: k_medoids(torch.cdist(Z, Z), 1, max_iter=value),
    )),
    *((call, "chunk_size") for value in (0, 2.5, math.nan, True) for call in (
        lambda value=value: geodesic(FLAT, Z, W, chunk_size=value),
        lambda value=value: distance(FLAT, Z, W, chunk_size=value),
        lambda value=value: distance_matrix(FLAT, Z, chunk_size=value),
    )),
    (lambda: geodesic(FLAT, Z, W, solver=EnergySolver), "solver"),
    (lambda: log_map(FLAT, Z, W, solver="shooting"), "solver"),
    (lambda: geodesic(FLAT, Z, W, initial=3), "initial"),
    (lambda: geodesic(FLAT, Z, W, initial=lambda z0, z1: []), "initial"),
    (lambda: geodesic(FLAT, Z, W, initial=lambda z0, z1: [z0]), "initial"),
    (lambda: geodesic(PullbackMetric(lambda z: (z, z)), Z, W), "generator"),
    (lambda: geodesic(PullbackMetric(lambda z: z.float()), Z, W), "generator"),
    (lambda: geodesic(FunctionMetric(lambda z: None), Z, W), "function"),
    (lambda: frechet_mean(FLAT, Z, [1.0, 1.0, 1.0]), "weights"),
    (lambda: frechet_mean(FLAT, Z, start=[0.0, 0.0]), "start"),
    (lambda: riemannian_k_means(FLAT, Z, 2, start=Z), "start"),
    (lambda: riemannian_k_means(FLAT, Z, 1.0), "num_clusters"),
    (lambda: k_medoids(torch.cdist(Z, Z), 4), "num_clusters"),
    (lambda: k_medoids([[0.0]], 1), "distances"),
    (lambda: random_walk(FLAT, Z, 2.0, 0.1), "num_steps"),
    (lambda: random_walk(FLAT, Z, 2, math.nan), "step_size"),
    (lambda: brownian_motion(FLAT, Z, 2, math.inf), "time_step"),
    (lambda: fit_land(FLAT, Z, 0), "num_components"),
    (lambda: fit_land(FLAT, Z, labels=[0, 0, 0]), "labels"),
    (lambda: LandOptions(flatness=math.nan), "flatness"),
    (lambda: LandOptions(regularization=math.inf), "regularization"),
    (lambda: Land.from_parameters(FLAT, Z[:1], EYE, num_nodes=math.nan), "num_nodes"),
    (lambda: Land.from_parameters(FLAT, Z, EYE), "covariances"),
    (lambda: Land.from_parameters(FLAT, Z[:1], EYE, [1.0]), "weights"),
    (lambda: exp_map(FLAT, Z, W, max_steps=math.nan), "max_steps"),
    (lambda: geodesic_flow(FLAT, Z, W, [0.0, 1.0]), "times"),
    (lambda: energy(PLANE, LINE, 0), "num_points"),
    (lambda: constant_speed(PLANE, LINE, 2.5), "num_points"),
    (lambda: Curve(LINE.points.numpy()), "points"),
    (lambda: Curve(LINE.points, degree=1.0), "degree"),
    (lambda: GraphPaths(FLAT, Z.long()), "latents"),
    (lambda: GraphPaths(FLAT, Z, num_nodes=2.5), "num_nodes"),
    (lambda: check_generator(3, Z), "generator"),
    (lambda: distance_matrix(None, Z[:1]), "metric"),
    (lambda: distance_matrix(FLAT, Z[:1], solver=EnergySolver), "solver"),
    (lambda: frechet_mean(FLAT, Z, solver=EnergySolver), "solver"),
    (lambda: riemannian_k_means(FLAT, Z, 1, initial=3), "initial"),
    (lambda: fit_land(FLAT, Z, chunk_size=0), "chunk_size"),
    (lambda: fit_land(FLAT, Z, options=LandOptions), "options"),
    (lambda: fit_land(FLAT, Z, labels=Z[:, 0]), "labels"),
    (lambda: Land.from_parameters(FLAT, Z[:1], EYE.float()), "covariances"),
    (lambda: Land.from_parameters(FLAT, Z[:1], -EYE), "covariances"),
    (lambda: Land.from_parameters(FLAT, Z[:1], EYE.cumsum(1)), "covariances"),
    (lambda: Land.from_parameters(FLAT, Z[:1], EYE, Z[:1, 0]), "weights"),
    (lambda: Land.from_parameters(FLAT, Z[:1] / 0, EYE), "means"),
    (lambda: brownian_drift(FLAT, Z.tolist()), "z"),
    (lambda: random_walk(FLAT, Z, 2, 0.1, generator=0), "generator"),
    (lambda: GraphPaths(FLAT, Z, seed=0.5), "seed"),
    (lambda: length(FLAT, Z), "curve"),
    (lambda: energy(FLAT, None), "curve"),
    (lambda: constant_speed(FLAT, LINE.points, 3), "curve"),
    (lambda: LINE.evaluate([0.5]), "t"),
    (lambda: LINE.evaluate(torch.zeros(2)), "t"),  # float32
    (lambda: LINE.derivative(Z[:2]), "t"),
    (lambda: LINE[0], "rows"),
    (lambda: LINE.with_segments(0), "count"),
    (lambda: Curve(LINE.points, torch.tensor([[0.0, 0.5]] * 3, dtype=Z.dtype)), "knots"),
    (lambda: Curve(LINE.points, LINE.knots.float()), "knots"),
    (lambda: Curve(LINE.points[..., None]), "points"),
    (lambda: value_and_jacobian(None, Z), "generator"),
    (lambda: value_and_jacobian(torch.tanh, Z[0]), "z"),
    (lambda: contracted_hessian(torch.tanh, Z, Z[:1]), "w"),
    (lambda: directional_second_derivative(torch.tanh, Z, Z.float()), "v"),
    (lambda: pullback_acceleration(torch.tanh, Z, None), "v"),
    (lambda: christoffel_symbols(None, Z), "tensor"),
    (lambda: general_acceleration(torch.tanh, Z, W), "tensor"),
    (lambda: geodesic(FLAT, Z, W).resolved(math.nan), "length_tol"),
    (lambda: describe(2.5), "status"),
    (lambda: geodesic(FLAT, Z, W, solver=Lazy()), "solver"),
    (lambda: geodesic(FLAT, Z, W, initial=lambda z0, z1: None), "initial"),
    (lambda: geodesic(FLAT, Z, W, initial=lambda z0, z1: [Curve(LINE.points.float())]), "initial"),
    (lambda: plot_curves(Z), "curves"),
    (lambda: plot_curves(LINE, num_points=1), "num_points"),
    (lambda: plot_speeds(FLAT, Z), "curves"),
    (lambda: plot_latents(Z.numpy()), "latents"),
    (lambda: plot_latents(Z, [0, 1, 2]), "labels"),
    (lambda: plot_measure(None, Z), "metric"),
    (lambda: plot_field(3, Z), "field"),
    (lambda: plot_field(lambda z: z[:, 0], Z, extent="wide"), "extent"),
    (lambda: plot_decoded(torch.tanh, Z, 2), "image_shape"),
    (lambda: plot_decoded(lambda z: None, Z, (1, 1)), "decode"),
    (lambda: plot_strips(FLAT, torch.tanh, Z, (1, 1)), "curves"),
    (lambda: straight_lines(Z), "curves"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name"), DOORS, ids=[f"{name}-{i}" for i, (_, name) in enumerate(DOORS)])
def test_each_door_names_its_argument(call, name):
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b.* must "):
        call()


def test_a_graph_names_points_that_do_not_fit_it(normal):
    paths = GraphPaths(FLAT, normal(60, 2), num_nodes=40)
    for z0, message in ((Z.float(), "z0 must be torch.float64 on cpu"), (torch.zeros(3, 3).double(), r"\(n, 2\)")):
        with pytest.raises(ValueError, match=message):
            paths(z0, z0 + 1)
    with pytest.raises(ValueError, match=r"z must be \(n, 2\)"):
        paths.distances(torch.zeros(3, 3, dtype=torch.float64))


def test_a_graph_answers_no_pairs_with_no_curves(normal):
    for num_paths, batches in ((1, 1), (3, 4)):
        curves = GraphPaths(FLAT, normal(60, 2), num_nodes=40, num_paths=num_paths)(Z[:0], Z[:0])
        assert [len(curve) for curve in curves] == [0] * batches
