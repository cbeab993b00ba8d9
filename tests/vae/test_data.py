"""Data sets, the IDX reader, and published models."""

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vae import (
    Activation,
    RBFGenerator,
    from_arrays,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    load_published,
    read_idx,
)

ROOT = Path(__file__).resolve().parents[2]


def write_idx(path, array):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["tiny-idx3-ubyte", "tiny-idx3-ubyte.gz"])
def test_idx_reader(tmp_path, name):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", b"\x00\x00\x08\x01\x00\x00\x00\x05abc"]
)
def test_idx_reader_refuses_what_is_not_idx(tmp_path, content):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match=r"must (be an IDX file|hold)"):
        read_idx(tmp_path / "broken")


@pytest.mark.parametrize(("name", "load"), [("MNIST", load_mnist), ("FashionMNIST", load_fashion_mnist)])
def test_folder_of_images(tmp_path, name, load):
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2) * 12
    write_idx(raw / "t10k-images-idx3-ubyte.gz", images)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.array([7, 1, 0, 1, 7], dtype=np.uint8))
    data = load(tmp_path, train=False, classes=(1, 0))
    assert data.shape == (2, 2)
    assert data.labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(data.x, torch.tensor(images[1:4].reshape(3, 4) / 255, dtype=torch.float32))
    with pytest.raises(FileNotFoundError, match="train-images"):
        load(tmp_path, train=True)
    with pytest.raises(ValueError, match="classes must name labels"):
        load(tmp_path, train=False, classes=(5,))


def test_a_broken_torchvision_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ImportError, match="needs a working torchvision"):
        load_mnist(tmp_path, download=True)


def test_digits():
    data = load_digits()
    assert data.x.shape == (1797, 64)
    assert (data.x.min().item(), data.x.max().item()) == (0.0, 1.0)
    assert data.shape == (8, 8)
    some = load_digits(classes=[3, 8])
    assert set(some.labels.tolist()) == {3, 8}
    torch.testing.assert_close(some.x, data.x[(data.labels == 3) | (data.labels == 8)])


def test_own_arrays():
    data = from_arrays([[1, 2, 3, 4.0]], [5], (2, 2))
    assert (data.x.dtype, data.labels.tolist(), data.shape) == (torch.float32, [5], (2, 2))
    assert from_arrays(np.ones((3, 2))).labels.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"x must be \(N, D\)"):
        from_arrays(np.ones(3))
    with pytest.raises(ValueError, match=r"x must be \(N, D\)"):
        from_arrays(np.ones((0, 3)))
    with pytest.raises(ValueError, match="1 of 2 rows are not"):
        from_arrays([[1.0, np.nan], [0, 0]])
    with pytest.raises(ValueError, match="labels must be 2 integers"):
        from_arrays(np.ones((2, 2)), [1])
    with pytest.raises(ValueError, match="shape must have 4 elements"):
        from_arrays(np.ones((2, 4)), shape=(3, 2))


def test_importing_the_package_is_light():
    code = "import sys, vae; print(sorted({'torch', 'sklearn', 'torchvision'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_real_images_load(shared_dir):
    folder = shared_dir / "data"
    train = load_fashion_mnist(folder, classes=(0, 1, 7))
    test = load_fashion_mnist(folder, train=False, classes=(0, 1, 7))
    assert (len(train.x), len(test.x)) == (1608, 289)
    assert train.x.shape[1] == 784
    digits = load_mnist(folder, train=False)
    assert len(digits.x) == 10_000
    # Known of the MNIST test images: label counts, and a mean gray of 0.1325.
    assert torch.bincount(digits.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert digits.x.mean().item() == pytest.approx(0.1325, abs=1e-4)


def test_published_model(shared_dir):
    path = shared_dir / "models" / "fashion_mnist_3class_k64.npz"
    vae, rbf = load_published(path, dtype=torch.float64)
    assert (vae.config.data_dim, vae.config.latent_dim, vae.config.architecture.hidden) == (784, 2, (64, 32))
    generator = RBFGenerator(vae, rbf)
    z = torch.tensor([[-3.5, -1.0], [1.0, -2.0], [40.0, 40.0]], dtype=torch.float64)
    # The formulas once more, in NumPy on the raw arrays.
    raw = {name: value.astype(np.float64) for name, value in np.load(path).items()}
    h = z.numpy()
    for layer in ("layers.0", "layers.2"):
        h = np.tanh(h @ raw[f"VAE.decoder.{layer}.weight"].T + raw[f"VAE.decoder.{layer}.bias"])
    mean = 1 / (1 + np.exp(-(h @ raw["VAE.decoder.output_mu.0.weight"].T + raw["VAE.decoder.output_mu.0.bias"])))
    squares = ((z.numpy()[:, None] - raw["RBF.centers_rbf"]) ** 2).sum(-1)
    sigma = (np.exp(-raw["RBF.lambdas_k"][:, 0] * squares) @ raw["RBF.W_rbf"].T + 1e-6) ** -0.5
    np.testing.assert_allclose(generator(z).numpy(), np.concatenate([mean, sigma], 1), rtol=1e-11)
    np.testing.assert_allclose(sigma[2], 1e3)


def test_published_model_reconstructs_images(shared_dir):
    x = load_fashion_mnist(shared_dir / "data", train=False, classes=(0, 1, 7)).x
    vae, _ = load_published(shared_dir / "models" / "fashion_mnist_3class_k64.npz")
    with torch.no_grad():
        error = (vae.decode(vae.encode(x).mean).mean - x).square().mean()
    assert error < 0.5 * x.var(dim=0).mean()  # half of what the mean image leaves, at least, is explained


def test_published_surface(shared_dir):
    vae, rbf = load_published(shared_dir / "models" / "s_surface_k64.npz", xi=1e-3, mean_activation=Activation.IDENTITY)
    assert rbf.weights.shape == (3, 64)
    assert vae.config.data_dim == 3
    assert rbf.xi.tolist() == pytest.approx([1e-3] * 3)


def test_foreign_archive_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    with pytest.raises(ValueError, match="must hold the entry"):
        load_published(tmp_path / "other.npz")
