"""The core's small pieces, timed by pytest-benchmark: ``make bench``.

Each runs on one thread unless it says otherwise, on the shipped digits model in float64, or on a decoder of 28 x 28
images. What a piece can be held to is measured in the same run, in turns with it, printed, and stored as
``extra_info``: ratios hold on a busy machine where seconds do not. This module alone may import internals of the core.
"""

import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from bench.floors import (
    ROUNDS,
    in_blocks,
    products,
    products_in_blocks,
    random_positive,
    seconds,
    straight_curves,
)
from bench.learned import digits
from bench.problem_set import ProblemSet
from geodesics import EnergySolver, Generator, GraphPaths, PullbackMetric, geodesic, value_and_jacobian
from geodesics.block_cholesky import solve_chain
from geodesics.calculus import second_order
from geodesics.elements import make_elements
from geodesics.small_matrices import negative_part, solve_positive
from vae import VAE, RBFGenerator, RBFPrecision, VAEConfig

NUM_POINTS = 4096
NUM_CURVES = 256
NUM_SEGMENTS = 16
NUM_PAIRS = 256
MILLION = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def problems() -> ProblemSet:
    return digits()


@pytest.fixture(scope="module")
def generator(problems: ProblemSet) -> RBFGenerator:
    assert isinstance(problems.embedding, RBFGenerator)
    return problems.embedding


@pytest.fixture(scope="module")
def image_generator() -> RBFGenerator:
    """The published architecture, d = 2, D = 784 twice, 64 centres, with random weights, in float32."""
    rng = torch.Generator().manual_seed(0)
    centers, weights = torch.randn(64, 2, generator=rng), torch.rand(784, 64, generator=rng)
    precision = RBFPrecision(centers, torch.ones(64), weights, torch.full((784,), 1e-3))
    return RBFGenerator(VAE(VAEConfig(784), rng), precision)


@pytest.fixture(scope="module")
def points(problems: ProblemSet) -> Tensor:
    """Points spread over the straight lines of all pairs, ``(NUM_POINTS, d)``."""
    t = torch.linspace(0, 1, -(-NUM_POINTS // len(problems)), dtype=torch.float64)[:, None, None]
    return (problems.z0 + t * (problems.z1 - problems.z0)).flatten(0, 1)[:NUM_POINTS].contiguous()


@pytest.fixture(scope="module")
def graph(problems: ProblemSet) -> GraphPaths:
    assert problems.graph is not None
    return problems.graph()


@pytest.fixture
def report(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[dict[str, float]], None]:
    """Store figures with the benchmark, and print them."""

    def store(figures: dict[str, float]) -> None:
        benchmark.extra_info |= figures
        with capsys.disabled():
            print(f"\n{benchmark.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))

    return store


def timed(benchmark: BenchmarkFixture, function: Callable[[], Any]) -> Any:
    return benchmark.pedantic(function, rounds=ROUNDS, warmup_rounds=1)


def second_order_of(generator: Generator) -> Callable[[Tensor], Tensor]:
    """Value, Jacobian and a contracted Hessian."""

    def evaluate(z: Tensor) -> Tensor:
        F, _, contract = second_order(generator, z)
        return contract(F)

    return evaluate


def test_value_and_jacobian(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], generator: RBFGenerator, points: Tensor
) -> None:
    F, _ = timed(benchmark, lambda: value_and_jacobian(generator, points))
    own, floor = seconds(lambda: value_and_jacobian(generator, points), products(generator, len(points)))
    report({"ratio_to_products": own / floor})
    assert F.isfinite().all()


@pytest.mark.parametrize("threads", [1, 2])
def test_value_and_jacobian_of_images(
    benchmark: BenchmarkFixture,
    report: Callable[[dict[str, float]], None],
    image_generator: RBFGenerator,
    points: Tensor,
    threads: int,
) -> None:
    z = points.float()
    torch.set_num_threads(threads)
    F, _ = timed(benchmark, lambda: value_and_jacobian(image_generator, z))
    own, floor, own_in_blocks, floor_in_blocks = seconds(
        lambda: value_and_jacobian(image_generator, z),
        products(image_generator, len(z)),
        in_blocks(image_generator.value_and_jacobian, z),
        products_in_blocks(image_generator, z),
    )
    torch.set_num_threads(1)
    report({"ratio_to_products": own / floor, "ratio_in_blocks": own_in_blocks / floor_in_blocks})
    assert F.isfinite().all()


def test_metric_tensors(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], generator: RBFGenerator, points: Tensor
) -> None:
    metric = PullbackMetric(generator)
    M = timed(benchmark, lambda: metric.tensor(points))
    own, floor = seconds(lambda: metric.tensor(points), in_blocks(generator.value_and_jacobian, points, 1024))
    report({"ratio_to_jacobians": own / floor, "tensors_per_second": NUM_POINTS / own})
    assert M.isfinite().all()


def test_a_million_metric_tensors(
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], generator: RBFGenerator, points: Tensor
) -> None:
    """In one call; the floor is the chunked values and Jacobians of as many points, the memory that of the process."""
    z = points.repeat(-(-MILLION // len(points)), 1)[:MILLION]
    metric, unit = PullbackMetric(generator), 1 if sys.platform == "darwin" else 1024
    metric.tensor(points)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    M = benchmark.pedantic(lambda: metric.tensor(z), rounds=1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    own, floor = seconds(lambda: metric.tensor(z), in_blocks(generator.value_and_jacobian, z, 1024), rounds=1)
    report({"ratio_to_jacobians": own / floor, "tensors_per_second": MILLION / own, "megabytes_grown": grown / 1e6})
    assert M.isfinite().all()


@pytest.mark.parametrize("model", ["digits", "images"])
def test_linearize_path_energy(
    benchmark: BenchmarkFixture,
    report: Callable[[dict[str, float]], None],
    generator: RBFGenerator,
    image_generator: RBFGenerator,
    points: Tensor,
    model: str,
) -> None:
    """Energy, gradient and exact Hessian of cubic elements, against their evaluations of the generator alone."""
    decoder, z, count = (generator, points, NUM_CURVES) if model == "digits" else (image_generator, points.float(), 16)
    energy = PullbackMetric(decoder).path_energy(make_elements(3, 6, z))
    nodes = straight_curves(z, 3, NUM_SEGMENTS, count)
    profile = torch.full_like(energy.value(nodes, None)[1], 1 / NUM_SEGMENTS)
    samples = z.repeat(-(-count * energy.samples(NUM_SEGMENTS) // NUM_POINTS), 1)
    samples = samples[: count * energy.samples(NUM_SEGMENTS)]
    result = timed(benchmark, lambda: energy.linearize(nodes, profile))
    own, second, first, floor = seconds(
        lambda: energy.linearize(nodes, profile),
        in_blocks(second_order_of(decoder), samples),
        in_blocks(decoder.value_and_jacobian, samples),
        products_in_blocks(decoder, samples),
    )
    report(
        {
            "ratio_to_second_order": own / second,
            "ratio_to_jacobians": own / first,
            "ratio_to_products": own / floor,
            "microseconds_per_sample": 1e6 * own / len(samples),
        }
    )
    assert result.energy.isfinite().all()


@pytest.mark.parametrize("size", [2, 4])
def test_small_systems(benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], size: int) -> None:
    """The pivots of all elements of 1,024 chains, against the library's Cholesky factors and solutions."""
    A = random_positive(1024 * NUM_SEGMENTS, size)
    rhs = torch.cat([A, A[..., :1]], dim=-1)
    x, positive = timed(benchmark, lambda: solve_positive(A, rhs))
    own, library = seconds(
        lambda: solve_positive(A, rhs), lambda: torch.cholesky_solve(rhs, torch.linalg.cholesky_ex(A).L)
    )
    report({"ratio_to_library": own / library})
    assert positive.all()
    torch.testing.assert_close(x[..., :size], torch.eye(size, dtype=A.dtype).expand_as(A))


def test_negative_parts(benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None]) -> None:
    """At all samples of 256 curves for d = 2, against the two batched eigenvalue decompositions it would take."""
    M = random_positive(NUM_CURVES * 6 * NUM_SEGMENTS, 2)
    W = M - 4 * torch.eye(2, dtype=M.dtype)
    S = timed(benchmark, lambda: negative_part(W, M))
    own, library = seconds(lambda: negative_part(W, M), lambda: (torch.linalg.eigh(M), torch.linalg.eigh(W)))
    report({"ratio_to_eigenvalues": own / library})
    assert S.isfinite().all()


@pytest.mark.parametrize("d", [2, 10])
def test_block_solve(benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], d: int) -> None:
    """Chains of cubic elements; the floor is a Cholesky factor of the element matrices alone."""
    matrices = random_positive(NUM_CURVES * NUM_SEGMENTS, 4 * d).unflatten(0, (NUM_CURVES, NUM_SEGMENTS))
    loads = matrices.new_ones(NUM_CURVES, 3 * NUM_SEGMENTS + 1, d)
    _, positive = timed(benchmark, lambda: solve_chain(matrices, loads))
    own, floor = seconds(lambda: solve_chain(matrices, loads), lambda: torch.linalg.cholesky_ex(matrices))
    report({"ratio_to_cholesky": own / floor})
    assert positive.all()


def solve_all(
    benchmark: BenchmarkFixture,
    report: Callable[[dict[str, float]], None],
    metric: PullbackMetric,
    ends: tuple[Tensor, Tensor],
    initial: GraphPaths | None = None,
) -> None:
    """All pairs in one call, against as many evaluations of the generator in blocks.

    A solve counts points at which it needed first derivatives or more, J, and points at which it needed the value. The
    first are priced as value, Jacobian and contracted Hessian (``ratio_to_evaluations``; the certificate's points need
    no Hessian, the Newton steps' do), and as value and Jacobian alone (``ratio_to_jacobians``).
    """
    solver = EnergySolver()
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
    benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None], problems: ProblemSet, graph: GraphPaths
) -> None:
    assert isinstance(problems.metric, PullbackMetric)
    solve_all(benchmark, report, problems.metric, (problems.z0, problems.z1), graph)


def test_batched_solve_of_a_perceptron(benchmark: BenchmarkFixture, report: Callable[[dict[str, float]], None]) -> None:
    """A decoder that ends in a linear layer: the solver needs none of its 784 outputs, so the ratio may be under 1."""
    rng = torch.Generator().manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 784)).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5)
    z0, z1 = torch.randn(2, NUM_PAIRS, 2, generator=rng, dtype=torch.float64)
    solve_all(benchmark, report, PullbackMetric(decoder), (z0, z1))
