"""Files: written whole or not at all, by any number of writers, and refused by name when damaged or foreign."""

import gzip
import json
import os
import random
import stat
import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import vae as package
import vae.files.tensor_files
from vae import (
    VAE,
    NeuralFieldConfig,
    PerceptronArchitecture,
    RBFPrecision,
    TrainingConfig,
    VAEConfig,
    fit_neural_field,
    load_neural_field,
    load_optimizer,
    load_published,
    load_rbf,
    load_vae,
    read_idx,
    save_neural_field,
    save_optimizer,
    save_rbf,
    save_vae,
    train_vae,
)

CONFIG = VAEConfig(6, 2, PerceptronArchitecture((5,)))
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.fixture
def model():
    return VAE(CONFIG, torch.Generator().manual_seed(0))


@pytest.fixture
def field(rng):
    latents, variances = torch.randn(20, 2, generator=rng), torch.rand(20, 6, generator=rng) + 0.1
    return fit_neural_field(latents, variances, NeuralFieldConfig(hidden=(4,), steps=2), progress=False)


def content_of(path):
    """Tensors and metadata of a file of tensors, read by hand."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return raw, json.loads(raw[8 : 8 + length])["__metadata__"]


@pytest.mark.parametrize("writers", [4])
def test_many_writers_of_one_path_leave_whole_files(model, tmp_path, writers):
    path, troubles = tmp_path / "model", []

    def work():
        try:
            for _ in range(10):
                save_vae(model, path)
                load_vae(path)
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=work) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_links_and_permissions_survive(model, tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "model", tmp_path / "link"
    link.symlink_to(target)  # to a file that is yet to come
    save_vae(model, link)
    assert link.is_symlink()
    target.chmod(0o604)
    save_vae(model, link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    mask = os.umask(0o027)
    try:
        save_vae(model, tmp_path / "new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_path_that_cannot_be_written_is_named(model, tmp_path):
    for path, error in ((tmp_path, IsADirectoryError), (tmp_path / "no" / "model", FileNotFoundError)):
        with pytest.raises(error, match=str(path)):
            save_vae(model, path)
    with pytest.raises(OSError, match="cannot be written: it is a pipe, a socket or a device"):
        save_vae(model, "/dev/null")
    with pytest.raises(TypeError, match="path must be a file's name"):
        save_vae(model, 3)


def test_long_names_and_shared_weights_are_saved(model, tmp_path):
    path = tmp_path / ("m" * 250)
    model.encoder.output_mu[0].bias = model.encoder.output_logvar[0].bias
    save_vae(model, path)
    assert torch.equal(load_vae(path).encoder.output_mu[0].bias, model.encoder.output_mu[0].bias)


def test_a_loaded_model_does_not_hang_on_its_file(model, tmp_path):
    save_vae(model, tmp_path / "m")
    loaded = load_vae(tmp_path / "m")
    size = (tmp_path / "m").stat().st_size
    (tmp_path / "m").write_bytes(b"\0" * size)  # in place, not by `save_vae`
    assert torch.equal(loaded.decoder.layers[0].weight, model.decoder.layers[0].weight)


def test_what_cannot_be_loaded_is_not_saved(model, tmp_path):
    with torch.no_grad():
        model.decoder.layers[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"vae must hold finite weights; not finite: decoder\.layers\.0\.weight"):
        save_vae(model, tmp_path / "m")
    with pytest.raises(TypeError, match="vae must be a VAE; got Linear"):
        save_vae(torch.nn.Linear(2, 2), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def wrong_files(model, tmp_path):
    """Maker of a file with other tensors, or other JSON, than a model's."""
    save_vae(model, tmp_path / "model")
    text = content_of(tmp_path / "model")[1]["json"]
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}

    def make(tensors=None, kind="vae", **changes):
        values = {**json.loads(text), **changes}
        header = {"kind": kind, "format": "1", "json": json.dumps(values)}
        path = tmp_path / "wrong"
        path.write_bytes(save(weights if tensors is None else tensors(weights), metadata=header))
        return path

    return make


@pytest.mark.parametrize(
    "tensors",
    [
        lambda weights: dict(list(weights.items())[1:]),
        lambda weights: {**weights, "more": torch.ones(1)},
        lambda _: {},
        lambda weights: {name: value.flatten() for name, value in weights.items()},
        lambda weights: {name: value.long() for name, value in weights.items()},
        lambda weights: {name: value * torch.nan for name, value in weights.items()},
        lambda weights: {name: value * torch.inf for name, value in weights.items()},
        lambda weights: {**weights, "decoder.layers.0.bias": weights["decoder.layers.0.bias"].double()},
        lambda weights: {name: value.to(torch.float8_e4m3fn) for name, value in weights.items()},
    ],
)
def test_wrong_weights_are_refused(wrong_files, tensors):
    path = wrong_files(tensors)
    with pytest.raises(ValueError, match=str(path)):
        load_vae(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": {"kind": "other"}},
        {"architecture": {"kind": "perceptron", "hidden": "5"}},
        {"architecture": None},
        {"latent_dim": "2"},
        {"latent_dim": 10**15},
        {"data_dim": 10**30},
        {"data_dim": None},
        {"activation": "none"},
        {"activation": []},
    ],
)
def test_wrong_configurations_are_refused(wrong_files, changes):
    path = wrong_files(**changes)
    with pytest.raises(ValueError, match=str(path)):
        load_vae(path)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "3", "null", "{", "[" * 100_000])
def test_wrong_json_is_refused(model, tmp_path, text):
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    header = {"kind": "vae", "format": "1"} | ({} if text is None else {"json": text})
    (tmp_path / "m").write_bytes(save(weights, metadata=header))
    with pytest.raises(ValueError, match=str(tmp_path / "m")):
        load_vae(tmp_path / "m")


def test_every_cut_and_every_changed_byte_is_noticed(model, field, tmp_path):
    rbf = RBFPrecision(torch.zeros(3, 2), torch.ones(3), torch.ones(6, 3), torch.ones(6))
    optimizer = torch.optim.Adam(model.parameters())
    for save_it, load_it, thing in (
        (save_vae, load_vae, model),
        (save_rbf, load_rbf, rbf),
        (save_neural_field, load_neural_field, field),
        (save_optimizer, lambda path: load_optimizer(optimizer, path), optimizer),
    ):
        path = tmp_path / "file"
        save_it(thing, path)
        raw = path.read_bytes()
        draws = np.random.default_rng(0)
        damaged = [raw[:n] for n in draws.integers(0, len(raw), 20)] + [raw + b"\0"]
        places = draws.integers(0, len(raw), 60)
        damaged += [raw[:i] + bytes([raw[i] ^ (1 << draws.integers(8))]) + raw[i + 1 :] for i in places]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(ValueError, match=str(path)):
                load_it(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"\x80\x04N.", b"PK\x03\x04" + b"\0" * 40])
def test_foreign_files_are_refused(tmp_path, content):
    for name in ("file", "file.gz"):
        (tmp_path / name).write_bytes(content)
        for load in (load_vae, load_rbf, load_neural_field, load_published, read_idx):
            with pytest.raises(ValueError, match=str(tmp_path / name)):
                load(tmp_path / name)


def test_folders_pipes_and_names_of_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for load in (load_vae, load_rbf, load_neural_field, load_published, read_idx):
        with pytest.raises(ValueError, match="must be a file; it is a folder"):
            load(tmp_path)
        with pytest.raises(ValueError, match="must be a file; it is a pipe"):
            load(tmp_path / "pipe")
        with pytest.raises(FileNotFoundError, match="nothing: there is no such file"):
            load(tmp_path / "nothing")
        with pytest.raises(TypeError, match="path must be a file's name"):
            load(None)


def test_packed_files_that_are_damaged(tmp_path):
    packed = gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 3) + b"abc")
    for content in (packed[:-6], packed[:-8] + b"\0\0\0\0" + packed[-4:], packed[:12] + b"\xff\xff" + packed[14:]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.gz must be a gzip file, whole and undamaged"):
            read_idx(tmp_path / "a.gz")
    (tmp_path / "axes").write_bytes(b"\0\0\x08\xff" + struct.pack(">I", 1) * 255 + b"a")
    with pytest.raises(ValueError, match="axes"):
        read_idx(tmp_path / "axes")
    (tmp_path / "large").write_bytes(b"\0\0\x08\x03" + struct.pack(">I", 2**22) * 3)  # 2^66 bytes: 4 modulo 2^64
    with pytest.raises(ValueError, match="large must hold"):
        read_idx(tmp_path / "large")
    (tmp_path / "none").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", 0))
    assert read_idx(tmp_path / "none").shape == (0,)


@pytest.mark.parametrize("arrays", [{"a": np.array(["text"])}, {"a": np.array([{}], dtype=object)}, {"a": np.ones(2)}])
def test_foreign_archives_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "a.npy", arrays["a"])
    for name in ("a.npz", "a.npy"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            load_published(tmp_path / name)


def test_an_optimizer_of_another_kind_is_refused_and_left_alone(model, tmp_path):
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    model.encode(torch.ones(3, 6)).mean.sum().backward()
    adam.step()
    path = tmp_path / "state"
    save_optimizer(adam, path)
    other = VAE(VAEConfig(7, 2, PerceptronArchitecture((5,))), torch.Generator())
    for optimizer in (torch.optim.SGD(model.parameters(), lr=0.5), torch.optim.Adam(other.parameters(), lr=0.5)):
        with pytest.raises(ValueError, match=str(path)):
            load_optimizer(optimizer, path)
        assert optimizer.param_groups[0]["lr"] == 0.5
        assert not optimizer.state
    header = {"kind": "optimizer", "format": "1"}
    for values in ({}, {"param_groups": []}, {"param_groups": [{"params": [0]}]}, {"param_groups": 3}):
        path.write_bytes(save({"0.step": torch.ones(1)}, metadata={**header, "json": json.dumps(values)}))
        with pytest.raises(ValueError, match=str(path)):
            load_optimizer(adam, path)


def test_the_global_generator_is_left_alone(model, field, rng, tmp_path):
    x = torch.rand(40, 6, generator=rng)
    rbf = package.fit_rbf_to_vae(model, x, package.RBFConfig(num_centers=3))
    for save_it, thing in ((save_vae, model), (save_rbf, rbf), (save_neural_field, field)):
        save_it(thing, tmp_path / type(thing).__name__)
    calls = {
        "VAE": lambda: VAE(CONFIG, torch.Generator()),
        "load_vae": lambda: load_vae(tmp_path / "VAE"),
        "load_rbf": lambda: load_rbf(tmp_path / "RBFPrecision"),
        "load_neural_field": lambda: load_neural_field(tmp_path / "NeuralField"),
        "train_vae": lambda: train_vae(x, CONFIG, TrainingConfig(epochs=1), progress=False),
        "fit_rbf": lambda: package.fit_rbf_to_vae(model, x, package.RBFConfig(num_centers=3)),
        "fit_neural_field": lambda: package.fit_neural_field_to_vae(model, x, NeuralFieldConfig(steps=1), False),
        "generators": lambda: package.NeuralFieldGenerator(model, field)(torch.zeros(1, 2)),
        "select_rbf": lambda: package.select_rbf(model, x[:30], x[30:], [package.RBFConfig(3)], progress=False),
    }
    for name, call in calls.items():
        before, numbers = torch.get_rng_state(), random.getstate()
        call()
        assert torch.equal(before, torch.get_rng_state()), name
        assert numbers == random.getstate(), name


def test_a_field_larger_than_its_file_is_refused(field, tmp_path):
    weights = {name: value.contiguous() for name, value in field.state_dict().items()}
    sizes = {"latent_dim": 2, "data_dim": 6, "hidden": [4], "xi": 1e-6}
    wrong = ({"hidden": [10**12]}, {"data_dim": 10**12}, {"xi": np.inf}, {"xi": None}, {"hidden": None}, {"hidden": []})
    for changes in wrong:
        header = {"kind": "neural field", "format": "1", "json": json.dumps({**sizes, **changes})}
        (tmp_path / "f").write_bytes(save(weights, metadata=header))
        with pytest.raises(ValueError, match=str(tmp_path / "f")):
            load_neural_field(tmp_path / "f")


def test_an_unwritable_checkpoint_is_refused_before_the_first_epoch(rng, tmp_path, monkeypatch):
    x, epochs = torch.rand(20, 6, generator=rng), []
    monkeypatch.setattr("vae.training._epoch", lambda *_: epochs.append(1))
    (tmp_path / "file").write_bytes(b"something else")
    for path, error in (
        (tmp_path / "no" / "run", FileNotFoundError),
        (tmp_path, ValueError),
        (tmp_path / "file", ValueError),
        (tmp_path / "file" / "run", OSError),
        (3, TypeError),
    ):
        with pytest.raises(error, match=str(path) if isinstance(path, Path) else "checkpoint must be"):
            train_vae(x, CONFIG, TrainingConfig(epochs=3), path, progress=False)
    assert not epochs


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission_is_refused(rng, tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match="cannot be written"):
        train_vae(torch.rand(20, 6, generator=rng), CONFIG, TrainingConfig(epochs=3), tmp_path / "run", progress=False)


def test_a_finished_training_goes_on(rng, tmp_path):
    x, path = torch.rand(50, 6, generator=rng), tmp_path / "run"
    short = TrainingConfig(epochs=4, batch_size=16, learning_rate=1e-2)
    first = train_vae(x, CONFIG, short, path, progress=False)
    longer = replace(short, epochs=30, checkpoint_every=3)
    second = train_vae(x, CONFIG, longer, path, progress=False)
    assert second.history[:4] == first.history
    assert [record.epoch for record in second.history] == list(range(30))
    assert [record.r for record in second.history[3:]] == [1.0] * 27  # annealed once
    assert second.history[-1].loss < first.history[-1].loss
    again = train_vae(x, CONFIG, longer, path, progress=False)
    assert again.history == second.history
    with pytest.raises(ValueError, match="run has 30 epochs; epochs must be as many or more to go on with it, got 4"):
        train_vae(x, CONFIG, short, path, progress=False)


def test_a_damaged_checkpoint_is_refused(rng, tmp_path):
    x, path = torch.rand(20, 6, generator=rng), tmp_path / "run"
    training = TrainingConfig(epochs=2)
    train_vae(x, CONFIG, training, path, progress=False)
    tensors, header = vae.files.tensor_files.read(path, "training")[0], content_of(path)[1]
    values = json.loads(header["json"])
    wrong = [
        ({name: t for name, t in tensors.items() if name != "rng"}, values),
        ({**tensors, "rng": torch.ones(3)}, values),
        ({**tensors, "model.decoder.layers.0.bias": torch.full((5,), torch.nan)}, values),
        ({**tensors, "optimizer.0.exp_avg": torch.ones(7)}, values),
        ({**tensors, "optimizer.99.exp_avg": torch.ones(7)}, values),
        (tensors, {**values, "history": [[0, 1.0]]}),
        (tensors, {**values, "history": [[1, 0.0, 1.0, 1.0, 1.0]]}),
        (tensors, {**values, "history": [[0, 0.0, np.nan, 1.0, 1.0]]}),
        (tensors, {**values, "identity": {}}),
        (tensors, {**values, "optimizer": {}}),
        (tensors, {}),
    ]
    for some, json_values in wrong:
        path.write_bytes(save(some, metadata={"kind": "training", "format": "1", "json": json.dumps(json_values)}))
        with pytest.raises(ValueError, match=str(path)):
            train_vae(x, CONFIG, training, path, progress=False)


def test_weights_that_blow_up_in_the_last_step_are_not_returned(rng, tmp_path, monkeypatch):
    x = torch.rand(20, 6, generator=rng)
    latents, variances = torch.randn(20, 2, generator=rng), torch.rand(20, 6, generator=rng) + 0.1
    training, fit = TrainingConfig(epochs=1, learning_rate=1e39), NeuralFieldConfig(steps=1, learning_rate=1e39)

    def both(message):
        with pytest.raises(FloatingPointError, match=message):
            train_vae(x, CONFIG, training, tmp_path / "run", progress=False)
        with pytest.raises(FloatingPointError, match=message):
            fit_neural_field(latents, variances, fit, progress=False)
        assert list(tmp_path.iterdir()) == []

    both("a step is beyond the weights' dtype")  # 1e39 is none of float32

    def blow_up(optimizer):
        optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr("torch.optim.Adam.step", blow_up)
    both(r"weights are not finite after (epoch 0|1 steps)")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_outside(rng, mode):
    x, training = torch.rand(30, 6, generator=rng), TrainingConfig(epochs=2, learning_rate=1e-2)
    usual = train_vae(x, CONFIG, training, progress=False)
    latents, variances = x[:, :2].contiguous(), x + 0.1
    field = fit_neural_field(latents, variances, NeuralFieldConfig(hidden=(4,), steps=3), progress=False)
    with mode():
        inside = train_vae(x.clone(), CONFIG, training, progress=False)
        other = fit_neural_field(latents * 1, variances * 1, NeuralFieldConfig(hidden=(4,), steps=3), progress=False)
    assert inside.history == usual.history
    assert torch.equal(field(latents), other(latents))
    assert all(parameter.requires_grad and not parameter.is_inference() for parameter in inside.vae.parameters())


def test_data_that_want_gradients_get_none(rng):
    x = torch.rand(30, 6, generator=rng).requires_grad_()
    train_vae(x, CONFIG, TrainingConfig(epochs=1), progress=False)
    fit_neural_field(x[:, :2], x + 0.1, NeuralFieldConfig(hidden=(4,), steps=2), progress=False)
    assert x.grad is None
