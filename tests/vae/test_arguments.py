"""Options and points that do not fit are refused by name, with one wording for each kind of fact."""

import math

import pytest
import torch

from vae import (
    VAE,
    MeanGenerator,
    NeuralFieldConfig,
    NeuralFieldGenerator,
    PerceptronArchitecture,
    RBFConfig,
    RBFGenerator,
    TrainingConfig,
    VAEConfig,
    VAEGenerator,
    fit_neural_field,
    fit_neural_field_to_vae,
    fit_rbf,
    fit_rbf_to_vae,
    train_vae,
)
from vae.arguments import check_rows, check_variances

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.mark.parametrize(
    ("make", "name", "value", "error", "message"),
    [
        (TrainingConfig, "learning_rate", math.nan, ValueError, "learning_rate must be positive and finite; got nan"),
        (TrainingConfig, "epochs", 0, ValueError, "epochs must be at least 1; got 0"),
        (TrainingConfig, "batch_size", 2.5, TypeError, "batch_size must be an integer; got 2.5"),
        (RBFConfig, "xi", math.inf, ValueError, "xi must be positive and finite; got inf"),
        (RBFConfig, "tol", True, TypeError, "tol must be a number; got True"),
        (RBFConfig, "num_components", 0, ValueError, "num_components must be at least 1; got 0"),
        (RBFConfig, "num_centers", None, TypeError, "num_centers must be an integer; got None"),
        (NeuralFieldConfig, "penalty", "1", TypeError, "penalty must be a number; got '1'"),
        (NeuralFieldConfig, "steps", math.nan, TypeError, "steps must be an integer; got nan"),
    ],
)
def test_options_out_of_range_are_named(make, name, value, error, message):
    with pytest.raises(error) as caught:
        make(**{name: value})
    assert str(caught.value) == message


def test_a_default_of_none_passes():
    assert RBFConfig(num_components=None).num_components is None


def test_sizes_of_a_model_are_counts():
    with pytest.raises(ValueError, match="latent_dim must be at least 1; got 0"):
        VAEConfig(data_dim=4, latent_dim=0)
    with pytest.raises(TypeError, match=r"data_dim must be an integer; got 4\.0"):
        VAEConfig(data_dim=4.0, latent_dim=2)


def test_points_and_variances_that_do_not_fit_are_named():
    z, variances = torch.zeros(3, 2), torch.ones(3, 5)
    check_rows("z", z, 2)
    check_variances(z, variances, least=3)
    with pytest.raises(ValueError, match=r"z must be \(B, 4\); got \(3, 2\)"):
        check_rows("z", z, 4)
    with pytest.raises(ValueError, match=r"\(N, D\) with N >= 4; got \(3, 2\) and \(3, 5\)"):
        check_variances(z, variances, least=4)
    with pytest.raises(ValueError, match="variances finite and positive"):
        check_variances(z, variances * math.inf)


MODEL = VAE(VAEConfig(6, 2), torch.Generator().manual_seed(0))
X = torch.rand(8, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VAE(6), "config must be a VAEConfig; got int"),
        (lambda: VAE(MODEL.config, 0), "generator must be a Generator; got int"),
        (lambda: MODEL.encode(X.numpy()), "x must be a floating-point tensor; got ndarray"),
        (lambda: MODEL.decode(X[:, :2].double()), "z must have the model's torch.float32 on cpu; got torch.float64"),
        (lambda: VAEConfig(6, 2, PerceptronArchitecture), "architecture must be .*; got the class Perceptron"),
        (lambda: VAEConfig(6, 2, activation="tanh"), "activation must be a Activation; got str"),
        (lambda: PerceptronArchitecture((2.5,)), "hidden must be a tuple of integers"),
        (lambda: TrainingConfig(seed=0.5), "seed must be an integer"),
        (lambda: TrainingConfig(noise=math.inf), "noise must be finite"),
        (lambda: train_vae(X.numpy(), MODEL.config), "x must be a floating-point tensor"),
        (lambda: train_vae(X.long(), MODEL.config), "x must be a floating-point tensor"),
        (lambda: train_vae(X, MODEL), "config must be a VAEConfig; got VAE"),
        (lambda: train_vae(X, MODEL.config, TrainingConfig), "training must be a TrainingConfig; got the class"),
        (lambda: fit_rbf_to_vae(MODEL.decoder, X), "vae must be a VAE; got GaussianNetwork"),
        (lambda: fit_rbf_to_vae(MODEL, X[:, :3]), "x must be finite and"),
        (lambda: fit_rbf(X.tolist(), X), "latents must be a floating-point tensor"),
        (lambda: fit_rbf(X, X + 1, 3), "config must be a RBFConfig; got int"),
        (lambda: fit_neural_field(X, (X + 1).double()), "latents and variances must share dtype"),
        (lambda: fit_neural_field_to_vae(MODEL, None), "x must be a floating-point tensor"),
        (lambda: MeanGenerator(MODEL.decoder), "vae must be a VAE"),
        (lambda: VAEGenerator(VAE), "vae must be a VAE; got the class VAE"),
        (lambda: RBFGenerator(MODEL, None), "rbf must be a RBFPrecision; got NoneType"),
        (lambda: NeuralFieldGenerator(MODEL, MODEL), "field must be a NeuralField; got VAE"),
    ],
)
def test_each_door_names_its_argument(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()
