"""What the pieces that `make bench` times have in common."""

from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.problems.learned_metrics import digits
from bench.problems.problem_set import ProblemSet


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


@pytest.fixture
def report(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> Callable[[dict[str, float]], None]:
    """Store figures with the benchmark, and print them."""

    def store(figures: dict[str, float]) -> None:
        benchmark.extra_info |= figures
        with capsys.disabled():
            print(f"\n{benchmark.name}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))

    return store
