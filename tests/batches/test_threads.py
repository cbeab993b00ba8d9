"""Many threads call the library at once, and processes are forked meanwhile: all answers are those of one thread."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from geodesics import (
    CollocationSolver,
    FunctionMetric,
    GeorceSolver,
    PullbackMetric,
    ShootingSolver,
    check_generator,
    exp_map,
    forward_mode,
    gaussian_curvature,
    geodesic,
    geodesic_flow,
    log_measure,
    value_and_jacobian,
)
from vae import VAE, ConvolutionalArchitecture, MeanGenerator, VAEConfig, VAEGenerator

ROOT = Path(__file__).resolve().parents[2]
F64 = torch.float64


def sphere(z):
    squared = z.square().sum(1, keepdim=True)
    return torch.cat([2 * z, squared - 1], 1) / (1 + squared)


def half_plane(z):
    return torch.eye(2, dtype=z.dtype) / z[:, 1].exp().square()[:, None, None]


def convolutional():
    config = VAEConfig(16, 2, ConvolutionalArchitecture((1, 4, 4), (3,), 5))
    return VAE(config, torch.Generator().manual_seed(0)).double()


def calls(normal):
    """Ways into the library that take forward derivatives."""
    z, v = 0.7 * normal(5, 2), normal(5, 2)
    sphere_metric, plane = PullbackMetric(sphere), FunctionMetric(half_plane)
    learned = PullbackMetric(VAEGenerator(VAE(VAEConfig(6, 2), torch.Generator().manual_seed(0)).double()))
    images = MeanGenerator(convolutional())
    return {
        "geodesic": lambda: geodesic(sphere_metric, z, v).length,
        "learned": lambda: geodesic(learned, z, v).length,
        "images": lambda: geodesic(PullbackMetric(images), z, v).length,
        "images' Jacobian": lambda: images.value_and_jacobian(z)[1],
        "plane": lambda: geodesic(plane, z, v, solver=GeorceSolver()).length,
        "shooting": lambda: geodesic(sphere_metric, z[:2], v[:2] / 3, solver=ShootingSolver()).length,
        "collocation": lambda: geodesic(plane, z[:1], v[:1], solver=CollocationSolver()).length,
        "exp_map": lambda: exp_map(sphere_metric, z, v),
        "flow": lambda: geodesic_flow(plane, z, v, torch.linspace(0, 1, 3, dtype=F64)).points,
        "curvature": lambda: gaussian_curvature(plane, z),
        "measure": lambda: log_measure(sphere_metric, z),
        "Jacobian": lambda: value_and_jacobian(sphere, z)[1],
        "check": lambda: torch.tensor(check_generator(sphere, z).ok),
    }


def test_threads_at_once_get_the_answers_of_one(normal):
    ways = calls(normal)
    alone = {name: call() for name, call in ways.items()}
    names = [name for name in ways for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: ways[name](), names))
    for name, answer in zip(names, together, strict=True):
        torch.testing.assert_close(answer, alone[name], rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_own_forward_derivatives_beside_the_library(normal):
    z, troubles, done = normal(4, 2), [], threading.Event()
    expected = torch.func.jvp(sphere, (z,), (z,))[1]

    def own():
        while not done.is_set():
            with forward_mode():
                if not torch.equal(torch.func.jvp(sphere, (z,), (z,))[1], expected):
                    troubles.append("another derivative")

    thread = threading.Thread(target=own)
    thread.start()
    try:
        for _ in range(300):
            value_and_jacobian(sphere, z)
    finally:
        done.set()
        thread.join()
    assert troubles == []


def test_a_decoder_may_call_the_library(normal):
    metric = PullbackMetric(sphere)

    def decoder(z):
        return torch.cat([sphere(z), log_measure(metric, z)[:, None]], dim=1)

    z = 0.5 * normal(3, 2)
    h, e = 1e-6, torch.tensor([1.0, 0.0], dtype=F64)
    difference = (decoder(z + h * e) - decoder(z - h * e)) / (2 * h)
    torch.testing.assert_close(value_and_jacobian(decoder, z)[1][0], difference, rtol=1e-8, atol=1e-9)


def test_a_derivative_that_raises_leaves_the_lock_free(normal):
    def broken(z):
        raise ZeroDivisionError("a fault of the decoder")

    with pytest.raises(ValueError, match="ZeroDivisionError: a fault of the decoder"):
        value_and_jacobian(broken, normal(2, 2))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(value_and_jacobian, sphere, normal(2, 2)).result(timeout=60)[1].shape == (2, 2, 3)


FORKS = """
import os, sys, threading, torch
from geodesics import value_and_jacobian
torch.set_num_threads(1)
z = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)
expected = value_and_jacobian(torch.sin, z)[1]
done = threading.Event()
def busy():
    while not done.is_set():
        value_and_jacobian(torch.sin, z)
threads = [threading.Thread(target=busy) for _ in range(2)]
[thread.start() for thread in threads]
statuses = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(value_and_jacobian(torch.sin, z)[1], expected) else 1)
    statuses.append(os.waitpid(child, 0)[1])
done.set()
[thread.join() for thread in threads]
sys.exit(any(statuses))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_meanwhile_may_call_the_library():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=120, check=False).returncode == 0
