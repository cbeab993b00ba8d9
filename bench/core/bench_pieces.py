"""The core's small pieces, timed by pytest-benchmark: ``make bench``.

Each runs on one thread unless it says otherwise, on the shipped digits model in float64, or on a decoder of 28 x 28
images. What a piece can be held to is measured in the same run, in turns with it, printed, and stored as
``extra_info``: ratios hold on a busy machine where seconds do not. This module alone may import internals of the core.
"""

import resource
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.core.floors import (
    ROUNDS,
    in_blocks,
    products,
    products_in_blocks,
    random_positive,
    seconds,
    straight_curves,
)
from bench.problems.problem_set import ProblemSet
from geodesics import Generator, PullbackMetric, value_and_jacobian
from geodesics.batches.small_matrices import negative_part, solve_positive
from geodesics.curves.elements import make_elements
from geodesics.generators.derivatives import second_order
from geodesics.minimization.block_cholesky import solve_chain
from vae import VAE, RBFGenerator, RBFPrecision, VAEConfig

NUM_POINTS = 4096
NUM_CURVES = 256
NUM_SEGMENTS = 16
MILLION = 1_000_000


@pytest.fixture(scope="module")
def generator(problems: ProblemSet) -> RBFGenerator:
    assert isinstance(problems.embedding, RBFGenerator)
    return problems.embedding


@pytest.fixture(scope="module")
def image_generator() -> RBFGenerator:
    """The published architecture, d = 2, D = 784 twice, 64 centers, with random weights, in float32."""
    rng = torch.Generator().manual_seed(0)
    centers, weights = torch.randn(64, 2, generator=rng), torch.rand(784, 64, generator=rng)
    precision = RBFPrecision(centers, torch.ones(64), weights, torch.full((784,), 1e-3))
    return RBFGenerator(VAE(VAEConfig(784), rng), precision)


@pytest.fixture(scope="module")
def points(problems: ProblemSet) -> Tensor:
    """Points spread over the straight lines of all pairs, ``(NUM_POINTS, d)``."""
    t = torch.linspace(0, 1, -(-NUM_POINTS // len(problems)), dtype=torch.float64)[:, None, None]
    return (problems.z0 + t * (problems.z1 - problems.z0)).flatten(0, 1)[:NUM_POINTS].contiguous()


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
