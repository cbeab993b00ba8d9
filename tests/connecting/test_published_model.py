"""The published VAE with its RBF network, on encoded images: walls, tunnels and the best known length."""

import json

import pytest
import torch

from geodesics import GraphPaths, PullbackMetric, geodesic, length
from vae import RBFGenerator, load_fashion_mnist, load_published

CLASSES = (0, 1, 7)


@pytest.fixture(scope="module")
def model(shared_dir):
    """Metric of the published decoder in float64, and the latent means of the images."""
    vae, precision = load_published(
        shared_dir / "models" / "fashion_mnist_3class_k64.npz", xi=1e-6, dtype=torch.float64
    )
    images = load_fashion_mnist(shared_dir / "data", classes=CLASSES)
    with torch.no_grad():
        latents = vae.encode(images.x.double()).mean
    return PullbackMetric(RBFGenerator(vae, precision)), latents


@pytest.fixture(scope="module")
def found(model, shared_dir):
    """The published pair, solved with all defaults, and the best length known."""
    metric, latents = model
    z0, z1 = torch.tensor([[-3.5, -1.0], [1.0, -2.0]], dtype=torch.float64)[:, None]
    pairs = json.loads((shared_dir / "reference" / "fashion_mnist_3class_k64.json").read_text("utf-8"))
    (best,) = {pair["length"] for pair in pairs if (pair["z0"], pair["z1"]) == ([-3.5, -1.0], [1.0, -2.0])}
    return geodesic(metric, z0, z1, initial=GraphPaths(metric, latents)), best


def test_the_length_is_within_five_per_cent_of_the_best_known(found):
    result, best = found
    assert float(result.length[0] + result.length_error[0]) <= 1.05 * best
    assert float(result.length[0]) > 0.9 * best


def dense_length(metric, curve, count):
    """Chord length in data space of `count` points spread evenly over the knots; no quadrature of the
    library.
    """
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    with torch.no_grad():
        total, last = 0.0, None
        for part in curve.evaluate(t)[0].split(4096):
            F = metric.generator(part)
            F = F if last is None else torch.cat([last, F])
            total += float(F.diff(dim=0).norm(dim=-1).sum())
            last = F[-1:]
    return total


def test_a_dense_quadrature_confirms_the_length(found, model):
    """Chords are second order: two resolutions give the rule's own error, which adds to the estimate."""
    result, _ = found
    coarse, fine = (dense_length(model[0], result.curve, count) for count in (6001, 12001))
    own = 2 * abs(fine - coarse)
    assert own < 1e-3 * fine
    assert abs(fine - float(result.length[0])) <= float(result.length_error[0]) + own


def test_the_library_confirms_itself(found, model):
    result, _ = found
    ends = result.curve.evaluate(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends[0], torch.tensor([[-3.5, -1.0], [1.0, -2.0]], dtype=torch.float64))
    with torch.no_grad():
        total, error = length(model[0], result.curve)
    assert ((total - result.length).abs() <= error + result.length_error).all()
