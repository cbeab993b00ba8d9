"""Chunks of rows, and memory that stays."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from geodesics import PullbackMetric, norm
from geodesics.batches.rows import available_memory, rows_in_memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_fill_the_budget(dtype, monkeypatch):
    monkeypatch.setattr("geodesics.batches.rows._CACHED", 8000)
    like = torch.zeros(1, dtype=dtype)
    assert rows_in_memory(like, 10) == 800 // like.element_size()
    assert rows_in_memory(like, 10**9) == 1  # one row at least, whatever it needs
    assert rows_in_memory(like, 0) == 8000 // like.element_size()


@pytest.mark.cuda
def test_memory_of_a_gpu_is_what_is_left_of_it():
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    before = available_memory(device)
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    assert 0 < available_memory(device) <= before - held.numel() // 2 < total


def test_chunks_change_no_metric_tensor(normal, monkeypatch):
    """A batch of several chunks, an uneven last one among them, and none."""
    metric, z, v = PullbackMetric(lambda z: torch.cat([z.sin(), z.prod(1, keepdim=True)], 1)), *normal(2, 25, 2)
    whole, speeds = metric.tensor(z), norm(metric, z, v)
    monkeypatch.setattr("geodesics.batches.rows._CACHED", 7 * 8 * 2 * 3 * 3)
    torch.testing.assert_close(metric.tensor(z), whole)
    torch.testing.assert_close(norm(metric, z, v), speeds)
    assert metric.tensor(z[:0]).shape == (0, 2, 2)


def test_largest_block_does_not_grow_with_the_batch(normal):
    """The Jacobians of a million points would be 6 GB; what the decoder is given at a time stays the same."""
    sizes = []

    def decoder(z):
        sizes.append(len(z))
        return z.repeat(1, 200)

    metric = PullbackMetric(decoder)
    metric.tensor(normal(3000, 2))
    few = max(sizes)
    metric.tensor(normal(30000, 2))
    assert max(sizes) == few < 3000


FAULTS = """
import resource
import torch
from geodesics.batches.rows import rows_in_memory

rows_in_memory(torch.zeros(1), 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks = [torch.zeros(2**18, dtype=torch.float64) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have rules of their own")
def test_blocks_let_go_stay_with_the_process():
    """Fifty times eight blocks of 2 MB are mapped page by page a few times, not fifty times."""
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    assert int(run.stdout) < 10 * 2**24 / resource.getpagesize()
