"""The core's small pieces, timed by pytest-benchmark: ``make bench``.

Each runs on one thread, on the shipped digits model in float64, or on a decoder of 28 x 28 images. What a
piece can be held to is measured in the same run and stored with it as ``extra_info``: ratios hold on a busy
machine where seconds do not. This module alone may import internals of the core.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.learned import digits
from bench.problem_set import ProblemSet
from geodesics import EnergySolver, GraphPaths, PullbackMetric, geodesic, value_and_jacobian
from geodesics.block_cholesky import solve_chain
from geodesics.elements import make_elements
from vae import VAE, RBFGenerator, RBFPrecision, VAEConfig

NUM_POINTS = 4096
NUM_CURVES = 256
NUM_SEGMENTS = 16
ROUNDS = 9


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


def gemm_floor(generator: RBFGenerator, points: Tensor) -> Callable[[], None]:
    """The matrix products that a value and Jacobian cannot do without: 1 + d times all weights of both heads."""
    rows = (1 + points.shape[1]) * len(points)
    weights = [p for p in (*generator.parameters(), *generator.buffers()) if p.ndim == 2]
    pairs = [(torch.randn(rows, w.shape[1], dtype=w.dtype), w.mT.contiguous()) for w in weights]
    outputs = [torch.empty(rows, w.shape[1], dtype=w.dtype) for _, w in pairs]

    def products() -> None:
        for (left, right), out in zip(pairs, outputs, strict=True):
            torch.mm(left, right, out=out)

    return products


def seconds(function: Callable[[], Any]) -> float:
    """Median time of a call, after a warm-up."""
    function()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def timed(benchmark: BenchmarkFixture, function: Callable[[], Any], floor: Callable[[], Any] | None = None) -> Any:
    """Benchmark a function; with a floor, the ratio of both, measured one after the other."""
    result = benchmark.pedantic(function, rounds=ROUNDS, warmup_rounds=1)
    if floor is not None:
        benchmark.extra_info["floor_seconds"] = seconds(floor)
        benchmark.extra_info["ratio_to_floor"] = seconds(function) / seconds(floor)
    return result


def median_seconds(benchmark: BenchmarkFixture) -> float:
    """Of the runs that pytest-benchmark has timed."""
    assert benchmark.stats is not None
    return float(benchmark.stats.stats.median)


def curves(points: Tensor, degree: int) -> Tensor:
    """Nodes of straight curves between points, ``(NUM_CURVES, N p + 1, d)``."""
    t = torch.linspace(0, 1, NUM_SEGMENTS * degree + 1, dtype=points.dtype)[:, None]
    start, end = points[:NUM_CURVES, None], points[-NUM_CURVES:, None]
    return start + t * (end - start)


def test_value_and_jacobian(benchmark: BenchmarkFixture, generator: RBFGenerator, points: Tensor) -> None:
    F, _ = timed(benchmark, lambda: value_and_jacobian(generator, points), gemm_floor(generator, points))
    assert F.isfinite().all()


def test_value_and_jacobian_of_images(
    benchmark: BenchmarkFixture, image_generator: RBFGenerator, points: Tensor
) -> None:
    z = points.float()
    F, _ = timed(benchmark, lambda: value_and_jacobian(image_generator, z), gemm_floor(image_generator, z))
    assert F.isfinite().all()


def test_metric_tensors(benchmark: BenchmarkFixture, generator: RBFGenerator, points: Tensor) -> None:
    metric = PullbackMetric(generator)
    M = timed(benchmark, lambda: metric.tensor(points), lambda: value_and_jacobian(generator, points))
    benchmark.extra_info["tensors_per_second"] = NUM_POINTS / median_seconds(benchmark)
    assert M.isfinite().all()


def test_linearize_path_energy(benchmark: BenchmarkFixture, generator: RBFGenerator, points: Tensor) -> None:
    """Energy, gradient and exact Hessian of cubic elements; the floor is one value and Jacobian per sample."""
    elements = make_elements(3, 6, points)
    energy = PullbackMetric(generator).path_energy(elements)
    nodes = curves(points, degree=3)
    _, speed = energy.value(nodes, None)
    profile = torch.full_like(speed, 1 / NUM_SEGMENTS)
    samples = points.repeat(-(-NUM_CURVES * energy.samples(NUM_SEGMENTS) // NUM_POINTS), 1)
    samples = samples[: NUM_CURVES * energy.samples(NUM_SEGMENTS)]
    model = timed(benchmark, lambda: energy.linearize(nodes, profile), lambda: value_and_jacobian(generator, samples))
    assert model.energy.isfinite().all()


@pytest.mark.parametrize("d", [2, 10])
def test_block_solve(benchmark: BenchmarkFixture, d: int) -> None:
    """Chains of cubic elements; the floor is a Cholesky factor of the element matrices alone."""
    rng = torch.Generator().manual_seed(0)
    size = 4 * d
    root = torch.randn(NUM_CURVES, NUM_SEGMENTS, size, size, generator=rng, dtype=torch.float64)
    matrices = root @ root.mT + torch.eye(size, dtype=torch.float64)
    loads = torch.randn(NUM_CURVES, 3 * NUM_SEGMENTS + 1, d, generator=rng, dtype=torch.float64)
    _, positive = timed(benchmark, lambda: solve_chain(matrices, loads), lambda: torch.linalg.cholesky_ex(matrices))
    assert positive.all()


def test_batched_solve(benchmark: BenchmarkFixture, problems: ProblemSet, graph: GraphPaths) -> None:
    """All pairs in one call from the graph; the floor is as many values and Jacobians in one batch."""
    assert isinstance(problems.embedding, RBFGenerator)
    generator = problems.embedding
    result = benchmark.pedantic(
        lambda: geodesic(problems.metric, problems.z0, problems.z1, solver=EnergySolver(), initial=graph),
        rounds=5,
        warmup_rounds=1,
    )
    spent = int(result.jacobians.sum())
    z = problems.z0.repeat(-(-spent // len(problems)), 1)[:spent]
    floor = seconds(lambda: value_and_jacobian(generator, z))
    median_run = median_seconds(benchmark)
    benchmark.extra_info |= {
        "geodesics_per_second": len(problems) / median_run,
        "jacobians_per_geodesic": spent / len(problems),
        "ratio_to_floor": median_run / floor,
        "converged": float(result.converged.double().mean()),
    }
    assert result.length.isfinite().all()
