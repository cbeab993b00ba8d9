"""Nodes of LAND's normalizing integrals, trees on a graph that choose them, and the concave M-step on them."""

import math

import pytest
import torch

from geodesics import EnergySolver, FunctionMetric, GraphPaths, Land, LandOptions, PullbackMetric, fit_land
from geodesics.graphs.tree_logarithms import GraphTrees
from geodesics.land.climb import Climber, Parameters, State
from geodesics.land.covariances import fit_covariances
from geodesics.land.draws import draw_candidates, systematic
from geodesics.land.nodes import Nodes, normalize

SOLVER = EnergySolver(num_segments=2, length_tol=1e-2)
DEVIATION = 0.3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stereographic(z):
    r2 = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, r2 - 1], dim=1) / (1 + r2)


def sphere_distance(a, b):
    return 2 * ((stereographic(a) - stereographic(b)).norm(dim=1) / 2).arcsin()


SPHERE = PullbackMetric(stereographic)


@pytest.fixture(scope="module")
def graph():
    z = 1.5 * torch.rand(300, 2, generator=seeded(), dtype=torch.float64) - 0.75
    return GraphPaths(SPHERE, z, num_nodes=1500)


@pytest.fixture(scope="module")
def exact():
    """log C of an isotropic normal of the sphere: ``2 pi int sin(r) exp(-r^2 / 2 s^2) dr``."""
    r = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    return float(torch.trapezoid(2 * math.pi * r.sin() * (-r.square() / (2 * DEVIATION**2)).exp(), r).log())


def isotropic(mean):
    return torch.linalg.cholesky(DEVIATION**2 * SPHERE.tensor(mean).inverse())


MEAN = torch.tensor([[0.1, -0.1]], dtype=torch.float64)


def test_trees_give_logarithms_to_some_percent(graph):
    z0 = torch.tensor([[0.0, 0.1], [0.4, -0.3]], dtype=torch.float64)
    z = graph.nodes[::40] + 0.004
    trees = GraphTrees(graph.graph)
    base = torch.arange(2).repeat_interleave(len(z))
    v = trees.logarithms(trees.grow(z0), trees.graph.join(z.repeat(2, 1)), base)
    d = sphere_distance(z0[base], z.repeat(2, 1))
    assert ((SPHERE.norm(z0[base], v) / d > 0.98) & (SPHERE.norm(z0[base], v) / d < 1.1)).all()
    # In the direction of the great circle: the tangent at z0 of the arc, in the chart (conformal: angles are right).
    X, Y = stereographic(z0[base]), stereographic(z.repeat(2, 1))
    tangent = Y - (X * Y).sum(1, keepdim=True) * X
    pushed = torch.func.jvp(stereographic, (z0[base],), (v,))[1]
    cosine = torch.nn.functional.cosine_similarity(tangent, pushed)
    assert float(cosine.acos().rad2deg().median()) < 10


def test_a_tree_does_not_depend_on_the_others(graph):
    trees = GraphTrees(graph.graph)
    z0 = torch.tensor([[0.0, 0.1], [0.01, 0.1], [torch.nan, 0.0]], dtype=torch.float64)
    z = torch.cat([graph.nodes[:40] + 0.003, torch.full((1, 2), torch.nan, dtype=torch.float64)])
    base = torch.arange(3).repeat_interleave(41)
    together = trees.logarithms(trees.grow(z0), trees.graph.join(z.repeat(3, 1)), base).view(3, 41, 2)
    for k in range(2):
        alone = trees.logarithms(trees.grow(z0[k : k + 1]), trees.graph.join(z), torch.zeros(41, dtype=torch.long))
        torch.testing.assert_close(alone, together[k], rtol=1e-12, atol=1e-12, equal_nan=True)
    assert together[:2].isnan().all(-1).sum() == 2  # the point that is not a number, seen from both
    assert together[2].isnan().all()


def test_paths_on_trees_lead_from_start_to_end(graph):
    z0 = torch.tensor([[0.0, 0.1], [0.4, -0.3], [0.0, 0.1]], dtype=torch.float64)
    z1 = torch.tensor([[0.5, 0.5], [-0.5, 0.2], [0.02, 0.1]], dtype=torch.float64)
    (curve,) = GraphTrees(graph.graph)(z0, z1)
    assert torch.equal(curve.points[:, 0], z0)
    assert torch.equal(curve.points[:, -1], z1)
    steps = curve.points.diff(dim=1)
    lengths = SPHERE.norm(curve.points[:, :-1].flatten(0, 1), steps.flatten(0, 1)).view(3, -1).sum(1)
    assert (lengths < 1.1 * sphere_distance(z0, z1)).all()


def test_candidates_integrate_over_all_space(graph):
    """Their weights are one over their density: C of the trees' own kernel in a flat metric is that of a normal."""
    flat = PullbackMetric(lambda z: 2 * z)
    plane = GraphPaths(flat, graph.nodes[:300], num_nodes=1500)
    trees = GraphTrees(plane.graph)
    L = torch.tensor([[[0.3, 0.0], [0.1, 0.15]]], dtype=torch.float64)
    forest = trees.grow(MEAN)
    _, candidates = draw_candidates(trees, forest, L, 20000, seeded())
    found = normalize(candidates, candidates.points - MEAN[:, None], L)
    expected = math.log(2 * math.pi * 4 * float(L[0].diagonal().prod()))
    assert abs(float(found.log_normalizers[0]) - expected) < 4 * float(found.errors[0])
    assert float(found.errors[0]) < 0.02


def test_few_nodes_of_a_graph_give_the_normalizer(graph, exact):
    L = isotropic(MEAN)
    land = Land.from_parameters(SPHERE, MEAN, L @ L.mT, num_nodes=48, solver=SOLVER, initial=graph, generator=seeded())
    assert abs(float(land.log_normalizers[0]) - exact) < 4 * float(land.errors[0])
    assert float(land.errors[0]) < 0.04
    assert float(land.effective_nodes[0]) > 0.8 * 48
    samples = land.sample(100, num_steps=2, generator=seeded(1))
    squares = sphere_distance(MEAN.expand(100, -1), samples).square()
    r = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    f = r.sin() * (-r.square() / (2 * DEVIATION**2)).exp()
    second = float(torch.trapezoid(f * r.square(), r) / torch.trapezoid(f, r))
    assert abs(float(squares.mean()) - second) < 4 * float(squares.std()) / 10


@pytest.mark.parametrize("with_graph", [False, True])
def test_standard_errors_are_those_of_repetition(graph, exact, with_graph):
    L = isotropic(MEAN)
    initial = graph if with_graph else None
    found = [
        Land.from_parameters(SPHERE, MEAN, L @ L.mT, num_nodes=32, solver=SOLVER, initial=initial, generator=seeded(i))
        for i in range(12)
    ]
    log_C = torch.cat([land.log_normalizers for land in found])
    told = torch.cat([land.errors for land in found]).square().mean().sqrt()
    spread = (log_C - exact).square().mean().sqrt()
    # Quasi-random and systematic draws do better than independent ones: errors may be told too large, not too small.
    assert float(spread) < 2 * float(told)


def test_the_covariance_has_the_moments_of_the_data(normal):
    """A concave problem: where its gradient vanishes, weighted points and data have the same second moments."""
    v = normal(2, 200, 2)
    log_weights = v.square().sum(-1) / 2 + 0.3 * normal(2, 200)  # about those of Lebesgue measure
    second = torch.tensor([[[0.8, 0.3], [0.3, 0.6]], [[0.5, -0.1], [-0.1, 0.9]]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    found = fit_covariances(second, v, log_weights, eye, eye)
    kernel = -torch.einsum("ksi,kij,ksj->ks", v, found.inverse(), v) / 2
    share = torch.softmax(log_weights + kernel, dim=1)
    torch.testing.assert_close(torch.einsum("ks,ksi,ksj->kij", share, v, v), second, rtol=0, atol=1e-8)
    broken = v.clone()
    broken[1] = torch.nan
    alone = fit_covariances(second[:1], v[:1], log_weights[:1], eye[:1], eye[:1])
    for other in (fit_covariances(second, broken, log_weights, eye, eye)[0], alone[0]):
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-9)


def test_a_covariance_in_bounded_space_grows_no_further_than_flatness_lets_it(normal):
    """Data at the rim of a square, where no normal density has their moments: not even the widest, E v v^T = 1/3."""
    v = (2 * torch.rand(1, 2000, 2, generator=seeded(), dtype=torch.float64) - 1) * torch.tensor([1.0, 3.0]).double()
    second = torch.diag(torch.tensor([0.5, 0.4], dtype=torch.float64))[None]
    log_weights, a = torch.zeros(1, 2000, dtype=torch.float64), 0.05
    found = {}
    for flatness in (0.0, a):
        sigma = [second]
        for _ in range(12):  # as rounds of nodes do: each trusts its points to a factor of 3
            sigma.append(fit_covariances(second, v, log_weights, torch.linalg.cholesky(sigma[-1]), sigma[-1], flatness))
        found[flatness] = sigma
    assert float(found[0.0][-1][0, 0, 0] / found[0.0][-2][0, 0, 0]) > 2.9  # without end
    assert float(found[0.0][-1][0, 0, 0]) > 1e4
    at_rest = found[a][-1]
    torch.testing.assert_close(at_rest, found[a][-2], rtol=1e-6, atol=0)
    share = torch.softmax(-torch.einsum("ksi,kij,ksj->ks", v, at_rest.inverse(), v) / 2, dim=1)
    moments = torch.einsum("ks,ksi,ksj->kij", share, v, v)
    torch.testing.assert_close(moments + a * at_rest, (1 + a) * second, rtol=0, atol=1e-7)
    assert (torch.linalg.eigvalsh((1 + 1 / a) * second - at_rest) > 0).all()


def test_labels_hold_a_component_that_begins_with_a_wall(normal):
    """Its first covariance reaches a wall: by its normalizer it loses its points to the other before it shrinks."""
    near, far = normal(2, 400, 2), torch.tensor([[[8.0, 0.0]], [[40.0, 0.0]]], dtype=torch.float64).expand(2, 20, 2)
    v = torch.cat([near, far], dim=1)
    wall = torch.tensor([80.0, -torch.inf], dtype=torch.float64)[:, None].expand(2, 20)
    log_weights = torch.cat([near.square().sum(-1) / 2 - math.log(400), wall], dim=1)
    eye = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    nodes = Nodes(v, log_weights, v.new_zeros(2, 420, 0), eye, v.new_zeros(2))
    own = 0.4 * normal(2, 20, 2)
    shift = torch.tensor([2.0, 0.0], dtype=torch.float64)
    data = torch.stack([torch.cat([own[0], own[1] + shift]), torch.cat([own[0] - shift, own[1]])])
    parameters = Parameters(torch.full((2,), 0.5).double(), torch.zeros(2, 2).double(), eye)
    state = State(parameters, nodes, data, v)
    labels = torch.eye(2, dtype=torch.float64).repeat_interleave(20, 1)
    climber = Climber(SPHERE, torch.zeros(40, dtype=torch.float64), 1e-6 * eye[0], 1e-4, 0.0)
    held, _ = climber.settle(state, labels)
    assert (held.parameters.weights - 0.5).abs().max() < 0.05
    alone, _ = climber.settle(state, None)
    assert float(alone.parameters.weights[0]) < 1e-3


def test_systematic_draws_are_as_many_as_their_due(normal):
    p = torch.softmax(normal(3, 50), dim=1)
    chosen = systematic(p, 200, seeded())
    counts = torch.nn.functional.one_hot(chosen, 50).sum(1)
    assert ((counts - 200 * p).abs() < 1 + 1e-9).all()


def test_a_fit_with_a_graph_finds_what_was_drawn(graph):
    means = torch.tensor([[-0.35, 0.0], [0.35, 0.1]], dtype=torch.float64)
    covariances = 0.12**2 * SPHERE.tensor(means).inverse()
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    drawn = Land.from_parameters(
        SPHERE, means, covariances, weights, num_nodes=64, solver=SOLVER, initial=graph, generator=seeded()
    )
    z = drawn.sample(60, num_steps=2, generator=seeded(1))
    options = LandOptions(num_nodes=64, num_candidates=2048, max_rounds=2)
    fit = fit_land(SPHERE, z, 2, options=options, solver=SOLVER, initial=graph, generator=seeded(2))
    order = fit.land.means[:, 0].argsort()
    assert fit.converged
    assert (sphere_distance(fit.land.means[order], means) < 4 * 0.12 / math.sqrt(24)).all()
    assert abs(float(fit.land.weights[order][0]) - 0.4) < 4 * math.sqrt(0.24 / 60)
    assert (fit.land.errors < 0.1).all()
    assert fit.log_likelihood > drawn.log_prob(z).mean() - 0.02


def test_a_component_beyond_the_metric_harms_no_other():
    """The half-plane ends at y = 0: the second component has no node at all."""

    def tensor(z):
        inside = torch.diag_embed((1 / z[:, 1:] ** 2).expand(-1, 2))
        return torch.where((z[:, 1] > 0)[:, None, None], inside, torch.nan)

    metric = FunctionMetric(tensor)
    means = torch.tensor([[0.0, 1.0], [0.0, -5.0]], dtype=torch.float64)
    covariances = 0.01 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    both = Land.from_parameters(metric, means, covariances, num_nodes=32, solver=SOLVER, generator=seeded())
    alone = Land.from_parameters(metric, means[:1], covariances[:1], num_nodes=32, solver=SOLVER, generator=seeded())
    torch.testing.assert_close(both.log_normalizers[:1], alone.log_normalizers, rtol=1e-9, atol=1e-9)
    assert int(both.failed_nodes[1]) == 32
