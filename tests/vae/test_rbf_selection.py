"""The rule for centers and bandwidth, against formulas written down again and on data whose answer is known."""

import math

import pytest
import torch

from vae import (
    VAE,
    Activation,
    PerceptronArchitecture,
    RBFConfig,
    TrainingConfig,
    VAEConfig,
    fit_rbf_to_vae,
    score_deviation,
    select_rbf,
    train_vae,
)
from vae.deviation.rbf_selection import nearest_distance, points_off_the_data

F64 = torch.float64
D = 6


def model(d=2, rng=None):
    rng = rng or torch.Generator().manual_seed(1)
    vae = VAE(VAEConfig(D, d, PerceptronArchitecture((8,))), rng).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(3)  # untrained weights spread the codes too little to tell data from none
    return vae


def data(vae, rng, count=240):
    """Data of the model's own: decoded codes of three clusters with the decoder's noise."""
    d = vae.config.latent_dim
    middle = 3 * torch.randn(3, D, generator=rng, dtype=F64)
    x = middle[torch.arange(count) % 3] + 0.5 * torch.randn(count, D, generator=rng, dtype=F64)
    assert vae.encode(x).mean.shape == (count, d)
    return x[: 2 * count // 3], x[2 * count // 3 :]


def test_score_by_its_definition(rng):
    vae = model()
    train, held_out = data(vae, rng)
    deviation = lambda z: 0.3 + z.square().sum(1, keepdim=True).expand(-1, D) / 10  # noqa: E731
    score = score_deviation(vae, deviation, train, held_out, seed=4)
    with torch.no_grad():
        z = vae.encode(held_out).mean
        rows = torch.distributions.Normal(vae.decode(z).mean, deviation(z)).log_prob(held_out).sum(1)
        away = points_off_the_data(vae, train, held_out, torch.Generator().manual_seed(4))
    assert score.log_likelihood == pytest.approx(rows.mean().item())
    assert score.standard_error == pytest.approx(rows.std().item() / math.sqrt(len(rows)))
    expected = deviation(away).log().mean() - deviation(z).log().mean()
    assert score.contrast == pytest.approx(expected.item())


def test_a_constant_deviation_has_no_contrast(rng):
    vae = model()
    score = score_deviation(vae, lambda z: torch.full((len(z), D), 0.2, dtype=F64), *data(vae, rng))
    assert score.contrast == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_points_off_the_data_are_off_the_data_and_near(rng, d):
    vae = model(d)
    train, held_out = data(vae, rng)
    away = points_off_the_data(vae, train, held_out, rng)
    with torch.no_grad():
        codes, own = vae.encode(train).mean, vae.encode(held_out).mean
    radius = torch.cdist(own, codes).amin(1).quantile(0.99)
    assert nearest_distance(away, codes).min() > radius
    assert torch.cdist(away, own).amin(1).max() <= 3 * radius * (1 + 1e-12)


def test_distances_in_pieces(monkeypatch, normal):
    z, codes = normal(7, 3), normal(5, 3)
    expected = (z[:, None] - codes).norm(dim=2).amin(1)
    monkeypatch.setattr("vae.deviation.rbf_selection._ROWS", 2)
    torch.testing.assert_close(nearest_distance(z, codes), expected)


def test_the_rule_is_the_most_cautious_within_one_standard_error(rng):
    vae = model()
    train, held_out = data(vae, rng)
    candidates = [RBFConfig(k, a, max_iter=100) for k in (5, 20) for a in (0.3, 1.0, 2.0, 4.0)]
    selection = select_rbf(vae, train, held_out, candidates, progress=False)
    assert [line.config for line in selection.table] == candidates
    for line in selection.table:
        network = fit_rbf_to_vae(vae, train, line.config)
        assert line.score == score_deviation(vae, network.standard_deviation, train, held_out)
    best = max(selection.table, key=lambda line: line.score.log_likelihood).score
    least = best.log_likelihood - best.standard_error
    admitted = [line for line in selection.table if line.score.log_likelihood >= least]
    assert [line for line in selection.table if line.admitted] == admitted
    chosen = max(admitted, key=lambda line: line.score.contrast)
    assert selection.config == chosen.config
    with torch.no_grad():
        z = vae.encode(held_out).mean
    torch.testing.assert_close(selection.precision(z), fit_rbf_to_vae(vae, train, chosen.config)(z))


def trained(train):
    """A model that explains the data: what is left to the rule is the standard deviation."""
    config = VAEConfig(
        D,
        2,
        PerceptronArchitecture((16,)),
        mean_activation=Activation.IDENTITY,
        variance_activation=Activation.IDENTITY,
    )
    return train_vae(train, config, TrainingConfig(epochs=60, batch_size=40, learning_rate=1e-2), progress=False).vae


def test_kernels_that_miss_held_out_data_and_kernels_that_see_nothing_are_refused(rng):
    """Slits of kernels leave held-out codes in the dark; a kernel over everything has no contrast."""
    train, held_out = data(model(), rng, 480)
    vae = trained(train)
    narrow, fair, wide = (RBFConfig(20, a, max_iter=200) for a in (0.05, 1.5, 50.0))
    selection = select_rbf(vae, train, held_out, [wide, narrow, fair], progress=False)
    lines = dict(zip(("wide", "narrow", "fair"), selection.table, strict=True))
    assert not lines["narrow"].admitted
    assert lines["narrow"].score.log_likelihood < lines["fair"].score.log_likelihood - 10
    assert lines["wide"].score.contrast < 0.1 < lines["fair"].score.contrast
    assert selection.config == fair


def test_bad_input_is_named(rng):
    vae = model()
    train, held_out = data(vae, rng)
    with pytest.raises(ValueError, match="candidates must name at least one"):
        select_rbf(vae, train, held_out, [])
    with pytest.raises(ValueError, match="must leave room around it"):
        score_deviation(vae, lambda z: z, train[:1].repeat(4, 1), train[:1].repeat(4, 1))
