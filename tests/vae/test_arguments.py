"""Options and points that do not fit are refused by name, with one wording for each kind of fact."""

import math

import pytest
import torch

from vae import NeuralFieldConfig, RBFConfig, TrainingConfig, VAEConfig
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
