"""Model, training, resuming, files."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vae import (
    VAE,
    Activation,
    ConvolutionalArchitecture,
    PerceptronArchitecture,
    RBFConfig,
    TrainingConfig,
    VAEConfig,
    fit_rbf_to_vae,
    load_optimizer,
    load_rbf,
    load_vae,
    save_optimizer,
    save_rbf,
    save_vae,
    train_vae,
)

CONFIG = VAEConfig(6, 2, PerceptronArchitecture((8, 5)))
TRAINING = TrainingConfig(epochs=6, batch_size=32, learning_rate=1e-2, seed=4, checkpoint_every=2)
CONVOLUTIONAL = VAEConfig(35, 3, ConvolutionalArchitecture((1, 7, 5), (3, 4), 8), Activation.SILU)


@pytest.fixture
def x(rng):
    # A noisy curve in the unit cube.
    t = torch.rand(100, 1, generator=rng)
    return torch.sigmoid(2 * torch.sin(3 * t + torch.arange(6)) + 0.1 * torch.randn(100, 6, generator=rng))


def assert_same(first: VAE, second: VAE) -> None:
    for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_defaults_are_the_published_ones():
    vae = VAE(VAEConfig(784))
    shapes = {name: tuple(value.shape) for name, value in vae.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        "encoder.layers.0.weight": (64, 784),
        "encoder.layers.2.weight": (32, 64),
        "encoder.output_mu.0.weight": (2, 32),
        "encoder.output_logvar.0.weight": (2, 32),
        "decoder.layers.0.weight": (32, 2),
        "decoder.layers.2.weight": (64, 32),
        "decoder.output_mu.0.weight": (784, 64),
        "decoder.output_logvar.0.weight": (784, 64),
    }
    assert (TrainingConfig().epochs, TrainingConfig().batch_size, TrainingConfig().learning_rate) == (
        800,
        128,
        8e-5,
    )


def test_softplus_bounds_the_variance_and_a_linear_head_does_not(normal):
    z = 3 * normal(50, 2).float()
    rng = torch.Generator().manual_seed(0)
    assert bool((VAE(CONFIG, rng).decode(z).log_variance > 0).all())
    linear = replace(CONFIG, variance_activation=Activation.IDENTITY)
    assert bool((VAE(linear, rng).decode(z).log_variance < 0).any())


def test_reparametrization_has_the_posterior_s_moments(x):
    vae = VAE(CONFIG, torch.Generator().manual_seed(0))
    posterior = vae.encode(x[:1].expand(40_000, -1))
    z = vae.reparametrize(posterior, torch.Generator().manual_seed(1))
    # Four standard errors of a mean and of a variance over 40,000 samples.
    sigma = posterior.standard_deviation[0]
    assert bool(((z.mean(0) - posterior.mean[0]).abs() < 4 * sigma / 200).all())
    assert bool(((z.var(0) / sigma**2 - 1).abs() < 4 * 2**0.5 / 200).all())


@pytest.mark.parametrize("config", [CONFIG, CONVOLUTIONAL])
def test_rows_do_not_meet(config):
    vae = VAE(config, torch.Generator().manual_seed(0)).double()
    z = torch.randn(9, config.latent_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, order = vae.decode(z).mean, torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert x.shape == (9, config.data_dim)
    for whole, part in ((vae.encode(x), vae.encode(x[order])), (vae.decode(z), vae.decode(z[order]))):
        torch.testing.assert_close(part.mean, whole.mean[order])
        torch.testing.assert_close(part.log_variance, whole.log_variance[order])
    torch.testing.assert_close(vae.decode(z[4:5]).mean, x[4:5])


def test_training_learns_and_anneals(x):
    history = train_vae(x, CONFIG, replace(TRAINING, epochs=30), progress=False).history
    assert [record.epoch for record in history] == list(range(30))
    assert [record.r for record in history[:11]] == pytest.approx([i / 10 for i in range(11)])
    assert history[-1].nll < history[0].nll
    assert history[-1].loss == pytest.approx(0.5 * history[-1].nll + history[-1].kl)


def test_a_seed_decides_everything(x):
    first = train_vae(x, CONFIG, TRAINING, progress=False)
    torch.manual_seed(99)  # the global generator has no say
    again = train_vae(x, CONFIG, TRAINING, progress=False)
    assert_same(first.vae, again.vae)
    assert first.history == again.history
    other = train_vae(x, CONFIG, replace(TRAINING, seed=5), progress=False)
    assert not torch.equal(first.vae.encoder.layers[0].weight, other.vae.encoder.layers[0].weight)


@pytest.mark.parametrize("killed_in_epoch", [1, 3, 5])
def test_resumed_equals_uninterrupted(x, tmp_path, monkeypatch, killed_in_epoch):
    whole = train_vae(x, CONFIG, TRAINING, progress=False)
    path = tmp_path / "run.safetensors"
    epochs = []

    def killed(epoch, total):
        epochs.append(epoch)
        if epoch == killed_in_epoch:
            raise KeyboardInterrupt
        return min(1.0, 3 * epoch / total)

    with monkeypatch.context() as patch:
        patch.setattr("vae.training.annealing", killed)
        with pytest.raises(KeyboardInterrupt):
            train_vae(x, CONFIG, TRAINING, path, progress=False)
    assert path.exists() == (killed_in_epoch >= 2)
    resumed = train_vae(x, CONFIG, TRAINING, path, progress=False)
    assert_same(whole.vae, resumed.vae)
    assert whole.history == resumed.history
    # A finished run is only read.
    assert_same(train_vae(x, CONFIG, TRAINING, path, progress=False).vae, whole.vae)


def test_resumed_after_a_real_kill(tmp_path):
    path = tmp_path / "run.safetensors"
    code = (
        "import sys, torch; from vae import *; torch.set_num_threads(1)\n"
        "x = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))\n"
        "config = VAEConfig(6, 2, PerceptronArchitecture((8, 5)))\n"
        "training = TrainingConfig(epochs=int(sys.argv[2]), batch_size=16, checkpoint_every=1)\n"
        "train_vae(x, config, training, sys.argv[1], progress=False)\n"
    )
    command = [sys.executable, "-c", code, str(path), "2000"]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with safe_open(path, "pt") as file:  # whole, whenever the kill came
        done = len(json.loads(file.metadata()["json"])["history"])
    assert 1 <= done < 2000
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
    config, training = (
        VAEConfig(6, 2, PerceptronArchitecture((8, 5))),
        TrainingConfig(2000, 16, checkpoint_every=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        # Both runs stop twenty epochs later: enough to show that they are one.
        patch.setattr("vae.training.tqdm", lambda epochs, **_: _Bar(range(epochs.start, done + 20)))
        resumed = train_vae(x, config, training, path, progress=False)
        whole = train_vae(x, config, training, progress=False)
    torch.set_num_threads(threads)
    assert resumed.history == whole.history
    assert_same(resumed.vae, whole.vae)


class _Bar:
    def __init__(self, epochs):
        self.epochs = epochs

    def __iter__(self):
        return iter(self.epochs)

    def set_postfix(self, **values):
        pass


def test_noise_bounds_the_variance_of_a_constant_column(x):
    x = x.clone()
    x[:, 2] = 0.5
    config = replace(CONFIG, variance_activation=Activation.IDENTITY, mean_activation=Activation.IDENTITY)
    training = replace(TRAINING, epochs=150, noise=0.2)
    vae = train_vae(x, config, training, progress=False).vae
    with torch.no_grad():
        sigma = vae.decode(vae.encode(x).mean).standard_deviation[:, 2]
    # The best sigma is the noise itself; Adam at 1e-2 leaves it within a third.
    assert bool(((sigma > 0.2 / 1.33) & (sigma < 0.2 * 1.33)).all())


def test_checkpoint_of_another_run_is_refused(x, tmp_path):
    path = tmp_path / "run.safetensors"
    train_vae(x, CONFIG, TRAINING, path, progress=False)
    with pytest.raises(ValueError, match="of another training"):
        train_vae(x, CONFIG, replace(TRAINING, seed=0), path, progress=False)
    with pytest.raises(ValueError, match="of another data"):
        train_vae(x.flip(0), CONFIG, TRAINING, path, progress=False)
    with pytest.raises(ValueError, match="of another model"):
        train_vae(x, replace(CONFIG, latent_dim=3), TRAINING, path, progress=False)


def test_convolutional_variant_trains(tmp_path, rng):
    x = torch.rand(20, 35, generator=rng)
    path = tmp_path / "run.safetensors"
    trained = train_vae(x, CONVOLUTIONAL, TRAINING, path, progress=False)
    assert trained.history[-1].nll < trained.history[0].nll
    assert_same(train_vae(x, CONVOLUTIONAL, TRAINING, path, progress=False).vae, trained.vae)


@pytest.mark.parametrize("config", [CONFIG, CONVOLUTIONAL])
def test_files_hold_models_exactly(config, tmp_path):
    vae = VAE(config, torch.Generator().manual_seed(0)).double()
    save_vae(vae, tmp_path / "vae.safetensors")
    loaded = load_vae(tmp_path / "vae.safetensors")
    assert loaded.config == config
    assert_same(vae, loaded)
    x = torch.rand(30, config.data_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rbf = fit_rbf_to_vae(vae, x, RBFConfig(num_centers=4))
    save_rbf(rbf, tmp_path / "rbf.safetensors")
    again = load_rbf(tmp_path / "rbf.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(rbf.buffers(), again.buffers(), strict=True))
    with pytest.raises(ValueError, match="must hold kind 'vae'"):
        load_vae(tmp_path / "rbf.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rbf.safetensors", "vae.safetensors"]


def test_optimizer_goes_on_from_its_file(x, tmp_path):
    def step(vae, optimizer):
        optimizer.zero_grad()
        vae.encode(x).mean.square().sum().backward()
        optimizer.step()

    vaes = [VAE(CONFIG, torch.Generator().manual_seed(0)) for _ in range(2)]
    optimizers = [torch.optim.Adam(vae.parameters(), lr=1e-2) for vae in vaes]
    for _ in range(3):
        step(vaes[0], optimizers[0])
    save_optimizer(optimizers[0], tmp_path / "adam.safetensors")
    vaes[1].load_state_dict(vaes[0].state_dict())
    load_optimizer(optimizers[1], tmp_path / "adam.safetensors")
    for vae, optimizer in zip(vaes, optimizers, strict=True):
        step(vae, optimizer)
    assert_same(*vaes)


def test_bad_input_is_named(x, unchecked_shapes):
    with pytest.raises(ValueError, match=r"x must be finite and \(N, 6\)"):
        train_vae(x[:, :4], CONFIG, TRAINING, progress=False)
    with pytest.raises(ValueError, match=r"x must be finite and \(N, 6\)"):
        train_vae(x.log() * torch.inf, CONFIG, TRAINING, progress=False)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        TrainingConfig(epochs=0)
    with pytest.raises(ValueError, match="noise must be finite and not negative"):
        TrainingConfig(noise=-0.1)
    with pytest.raises(ValueError, match="data_dim must be C H W"):
        VAEConfig(10, architecture=ConvolutionalArchitecture((1, 3, 3)))
    with pytest.raises(ValueError, match="hidden must be"):
        PerceptronArchitecture(())
    with pytest.raises(ValueError, match=r"z must be \(B, 2\)"):
        VAE(CONFIG).decode(x)
    with pytest.raises(ValueError, match=r"x must be \(B, 6\)"):
        VAE(CONFIG).encode(x[:, :2])
    with pytest.raises(FloatingPointError, match="the loss is"):
        train_vae(x * 1e30, CONFIG, TRAINING, progress=False)
