"""What all tests share: reproducible randomness, float64 points, and skips for what is absent."""

import os
import sys

# Read once, when torch loads OpenMP: waiting threads sleep and leave the processor to those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]

# Under importlib mode a test imports no neighbor; this folder is on the path for `problems`, the table of
# all solvers, and `samples`.
sys.path.insert(0, str(ROOT / "tests"))

torch.set_num_threads(2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seed the global generator before each test; undo changes of the default dtype and of the threads after it."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator, fresh for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def normal(rng: torch.Generator) -> Callable[..., Tensor]:
    """`normal(*shape)`: standard normal numbers in float64, the same in every run."""
    return lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Shape annotations off, as they are for a user: what must speak up is the function itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, then the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both floating-point types."""
    return request.param


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Models and data that lie beside the repository and are no part of it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("no folder of shared models and data beside the repository")
    return path
