"""Batched solves, timed by pytest-benchmark against the evaluations that they ask for: ``make bench``."""

from collections.abc import Callable

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.core.bench_pieces import second_order_of
from bench.core.floors import in_blocks, seconds
from bench.problems.many_pairs import many_pairs
from bench.problems.problem_set import QUICK_SOLVER, ProblemSet
from geodesics import EnergySolver, GraphPaths, PullbackMetric, geodesic, value_and_jacobian

NUM_PAIRS = 256


def solve_all(
    benchmark: BenchmarkFixture,
    report: Callable[[dict[str, float]], None],
    metric: PullbackMetric,
    ends: tuple[Tensor, Tensor],
    initial: GraphPaths | None = None,
    solver: EnergySolver | None = None,
) -> None:
    """All pairs in one call, against as many evaluations of the generator in blocks.

    A solve counts points at which it needed first derivatives or more, J, and points at which it needed the value. The
    first are priced as value, Jacobian and contracted Hessian (``ratio_to_evaluations``; the certificate's points need
    no Hessian, the Newton steps' do), and as value and Jacobian alone (``ratio_to_jacobians``).
    """
    solver = solver or EnergySolver()
    result = benchmark.pedantic(
        lambda: geodesic(metric, *ends, solver=solver, initial=initial), rounds=3, warmup_rounds=1
    )
    assert benchmark.stats is not None
    run = float(benchmark.stats.stats.median)
    z = (ends[0] + torch.linspace(0, 1, 16, dtype=ends[0].dtype)[:, None, None] * (ends[1] - ends[0])).flatten(0, 1)
    per_point = [
        spent / len(z)
        for spent in seconds(
            in_blocks(second_order_of(metric.generator), z),
            in_blocks(lambda block: value_and_jacobian(metric.generator, block), z),
            in_blocks(metric.generator, z),
        )
    ]
    derivatives, values = int(result.jacobians.sum()), int(result.values.sum())
    report(
        {
            "geodesics_per_second": len(ends[0]) / run,
            "jacobians_per_geodesic": derivatives / len(ends[0]),
            "values_per_geodesic": values / len(ends[0]),
            "ratio_to_evaluations": run / (derivatives * per_point[0] + values * per_point[2]),
            "ratio_to_jacobians": run / (derivatives * per_point[1] + values * per_point[2]),
            "converged": float(result.converged.double().mean()),
        }
    )
    assert result.length.isfinite().all()


def test_batched_solve_of_digits(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], problems: ProblemSet
) -> None:
    """Pairs around the shipped ones, from straight lines."""
    rng = torch.Generator().manual_seed(0)
    ends = tuple(
        z.repeat(-(-NUM_PAIRS // len(z)), 1)[:NUM_PAIRS]
        + 0.05 * torch.randn(NUM_PAIRS, z.shape[1], generator=rng, dtype=z.dtype)
        for z in (problems.z0, problems.z1)
    )
    assert isinstance(problems.metric, PullbackMetric)
    solve_all(benchmark, report, problems.metric, (ends[0], ends[1]))


def test_batched_solve_of_digits_from_the_graph(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], problems: ProblemSet
) -> None:
    assert isinstance(problems.metric, PullbackMetric)
    assert problems.graph is not None
    solve_all(benchmark, report, problems.metric, (problems.z0, problems.z1), problems.graph())


def test_batched_solve_of_many_digits_from_the_graph(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None]
) -> None:
    """1,024 pairs with the quick settings."""
    many = many_pairs("digits", 1024)
    assert isinstance(many.metric, PullbackMetric)
    assert many.quick_graph is not None
    solve_all(benchmark, report, many.metric, (many.z0, many.z1), many.quick_graph(), QUICK_SOLVER)


def test_batched_solve_of_a_perceptron(benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None]) -> None:
    """A decoder that ends in a linear layer: the solver needs none of its 784 outputs, so the ratio may be under 1."""
    rng = torch.Generator().manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 784)).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5)
    z0, z1 = torch.randn(2, NUM_PAIRS, 2, generator=rng, dtype=torch.float64)
    solve_all(benchmark, report, PullbackMetric(decoder), (z0, z1))
