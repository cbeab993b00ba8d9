"""Hand-written derivatives against automatic ones, independence of rows, and exchangeability."""

import pytest
import torch
from torch.func import hessian, jacrev, jvp, vmap

from vae import (
    VAE,
    Activation,
    ConvolutionalArchitecture,
    MeanGenerator,
    PerceptronArchitecture,
    RBFGenerator,
    RBFPrecision,
    VAEConfig,
    VAEGenerator,
)
from vae.autoencoder.activations import differentiate

D = 12
KINDS = ["mean", "vae", "rbf"]


def model(latent_dim=2, rng=None, **options):
    rng = rng or torch.Generator().manual_seed(3)
    options.setdefault("architecture", PerceptronArchitecture((9, 7, 5)))
    vae = VAE(VAEConfig(D, latent_dim, **options), rng).double()
    rbf = RBFPrecision(
        torch.randn(6, latent_dim, generator=rng, dtype=torch.float64),
        0.1 + torch.rand(6, generator=rng, dtype=torch.float64),
        torch.rand(D, 6, generator=rng, dtype=torch.float64),
        torch.full((D,), 1e-2, dtype=torch.float64),
    )
    return vae, rbf


def generator_of(kind, vae, rbf):
    return {
        "mean": lambda: MeanGenerator(vae),
        "vae": lambda: VAEGenerator(vae),
        "rbf": lambda: RBFGenerator(vae, rbf),
    }[kind]()


def convolutional():
    return model(architecture=ConvolutionalArchitecture((1, 4, 3), (3, 4), 8))


def check_derivatives(generator, z, w):
    single = lambda point: generator(point[None])[0]  # noqa: E731
    value, jacobian = generator.value_and_jacobian(z)
    torch.testing.assert_close(value, generator(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(jacobian, vmap(jacrev(single))(z).permute(2, 0, 1), rtol=1e-10, atol=1e-10)
    expected = torch.stack([hessian(lambda p, c=c: (c * single(p)).sum())(p) for p, c in zip(z, w, strict=True)])
    torch.testing.assert_close(generator.contracted_hessian(z, w), expected, rtol=1e-10, atol=1e-10)
    v = (1 + z).cos()
    along = torch.einsum("kbo,bk->bo", jacobian, v)
    torch.testing.assert_close(generator.directional_derivative(z, v), along, rtol=1e-12, atol=1e-12)
    shared_value, shared_jacobian, contract = generator.second_order(z)
    torch.testing.assert_close((shared_value, shared_jacobian), (value, jacobian), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(contract(w), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(contract(2 * w), 2 * expected, rtol=1e-10, atol=1e-10)  # as often as one likes


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("kind", ["vae", "rbf"])
def test_derivatives_for_every_hidden_activation(kind, activation, normal):
    generator = generator_of(kind, *model(activation=activation))
    check_derivatives(generator, normal(4, 2), normal(4, generator.output_dim))


@pytest.mark.parametrize("variance", list(Activation))
@pytest.mark.parametrize("mean", [Activation.SIGMOID, Activation.IDENTITY, Activation.TANH])
def test_derivatives_for_every_head(mean, variance, normal):
    generator = generator_of("vae", *model(mean_activation=mean, variance_activation=variance))
    check_derivatives(generator, normal(4, 2), normal(4, generator.output_dim))


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_in_every_latent_dimension(kind, latent_dim, normal):
    generator = generator_of(kind, *model(latent_dim))
    check_derivatives(generator, normal(4, latent_dim), normal(4, generator.output_dim))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_of_a_convolutional_decoder(kind, normal):
    generator = generator_of(kind, *convolutional())
    check_derivatives(generator, normal(4, 2), normal(4, generator.output_dim))


@pytest.mark.parametrize("activation", list(Activation))
def test_activation_values_are_those_of_the_modules(activation):
    x = torch.tensor([-700.0, -30, -1, 0.5, 1, 30, 700], dtype=torch.float64)
    torch.testing.assert_close(differentiate(activation, x).value, activation.module()(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("make", [model, convolutional])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_meet(kind, make, normal, monkeypatch):
    monkeypatch.setattr("vae.generators.plugins.CPU_BLOCK", 1)  # blocks of 16 rows: 40 rows need three
    generator = generator_of(kind, *make())
    z, w = normal(40, 2), normal(40, generator.output_dim)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    value, jacobian = generator.value_and_jacobian(z)
    curvature = generator.contracted_hessian(z, w)
    shuffled = generator.value_and_jacobian(z[order])
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(generator.second_order(z)[2](w), curvature, **close)
    torch.testing.assert_close(shuffled[0], value[order], **close)
    pushed = generator.directional_derivative(z, z.cos())
    torch.testing.assert_close(generator.directional_derivative(z[order], z[order].cos()), pushed[order], **close)
    torch.testing.assert_close(shuffled[1], jacobian[:, order], **close)
    torch.testing.assert_close(generator.contracted_hessian(z[order], w[order]), curvature[order], **close)
    for row in (0, 17, 39):
        alone = generator.value_and_jacobian(z[row : row + 1])
        torch.testing.assert_close(alone[0][0], value[row], **close)
        torch.testing.assert_close(alone[1][:, 0], jacobian[:, row], **close)
    poisoned = z.clone()
    poisoned[3] = torch.nan
    good = torch.arange(40) != 3
    torch.testing.assert_close(generator(poisoned)[good], value[good], **close)
    torch.testing.assert_close(generator.value_and_jacobian(poisoned)[1][:, good], jacobian[:, good], **close)
    torch.testing.assert_close(generator.contracted_hessian(poisoned, w)[good], curvature[good], **close)


@pytest.mark.parametrize("kind", KINDS)
def test_both_precisions_and_devices(kind, dtype, device):
    vae, rbf = model()
    exact = generator_of(kind, vae, rbf)
    generator = generator_of(kind, vae, rbf).to(device=device, dtype=dtype)
    z = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = torch.randn(300, exact.output_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = (
        *generator.value_and_jacobian(z.to(device, dtype)),
        generator.contracted_hessian(z.to(device, dtype), w.to(device, dtype)),
    )
    expected = *exact.value_and_jacobian(z), exact.contracted_hessian(z, w)
    tolerance = 1e3 * torch.finfo(dtype).eps
    for result, reference in zip(results, expected, strict=True):
        assert result.dtype == dtype
        assert result.device.type == device.type
        scale = reference.abs().max()
        assert (result.double().cpu() - reference).abs().max() <= tolerance * scale


def test_generators_are_exchanged_in_one_word(normal):
    vae, rbf = model()
    z = normal(5, 2)
    mean, own, radial = (generator_of(kind, vae, rbf) for kind in KINDS)
    likelihood = vae.decode(z)
    torch.testing.assert_close(mean(z), likelihood.mean)
    torch.testing.assert_close(own(z), torch.cat([likelihood.mean, likelihood.standard_deviation], 1))
    torch.testing.assert_close(radial(z), torch.cat([likelihood.mean, rbf.standard_deviation(z)], 1))


def test_a_generator_is_a_frozen_copy(normal):
    vae, rbf = model()
    generator, z = RBFGenerator(vae, rbf), normal(3, 2)
    before = generator(z)
    with torch.no_grad():
        for tensor in (*vae.parameters(), *rbf.buffers()):
            tensor.mul_(2)
    assert torch.equal(generator(z), before)
    generator.float()
    assert next(vae.parameters()).dtype == torch.float64
    assert not any(parameter.requires_grad for parameter in generator.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_methods_are_differentiable_where_derivatives_are_asked_for(kind, normal):
    """Inside a transform, or where z requires a gradient, no derivative is lost to the fast in-place form."""
    generator = generator_of(kind, *model())
    z, w, v = normal(3, 2), normal(3, generator.output_dim), normal(3, 2)
    energy = lambda p: generator.value_and_jacobian(p)[1].square().sum()  # noqa: E731
    forward = jvp(energy, (z,), (v,))[1]
    h = 1e-6
    difference = (energy(z + h * v) - energy(z - h * v)) / (2 * h)
    torch.testing.assert_close(forward, difference, rtol=1e-7, atol=1e-7)
    leaf = z.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(energy(leaf), leaf)
    torch.testing.assert_close((reverse * v).sum(), forward)
    bent = jvp(lambda p: generator.directional_derivative(p, v), (z,), (v,))[1]
    ends = [generator.directional_derivative(z + sign * h * v, v) for sign in (1, -1)]
    torch.testing.assert_close(bent, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-6)
    third = jvp(lambda p: generator.contracted_hessian(p, w), (z,), (v,))[1]
    shifted = [generator.contracted_hessian(z + sign * h * v, w) for sign in (1, -1)]
    torch.testing.assert_close(third, (shifted[0] - shifted[1]) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_batch(kind):
    generator = generator_of(kind, *model())
    z = torch.empty(0, 2, dtype=torch.float64)
    value, jacobian = generator.value_and_jacobian(z)
    assert value.shape == (0, generator.output_dim)
    assert jacobian.shape == (2, 0, generator.output_dim)
    assert generator.contracted_hessian(z, value).shape == (0, 2, 2)
    assert generator.second_order(z)[2](value).shape == (0, 2, 2)
    assert generator.directional_derivative(z, z).shape == value.shape
    assert generator(z).shape == value.shape


def test_bad_input_is_named():
    vae, rbf = model()
    generator = VAEGenerator(vae)
    z = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"z must be \(B, 2\)"):
        generator(torch.zeros(3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"z must be torch.float64"):
        generator.value_and_jacobian(z.float())
    with pytest.raises(ValueError, match=r"w must be"):
        generator.contracted_hessian(z, z)
    with pytest.raises(ValueError, match=r"w must be"):
        generator.second_order(z)[2](z)
    with pytest.raises(ValueError, match=r"v must be"):
        generator.directional_derivative(z, z[:2])
    with pytest.raises(ValueError, match=r"agree on \(d, D\)"):
        RBFGenerator(VAE(VAEConfig(D, 3)).double(), rbf)
