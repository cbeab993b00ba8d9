"""Neural field: derivatives by hand against automatic ones, doubt away from the data, geodesics that keep to them."""

import math
from itertools import pairwise

import pytest
import torch

from geodesics import Curve, PullbackMetric, Stack, geodesic, length, straight_lines
from vae import (
    VAE,
    NeuralField,
    NeuralFieldConfig,
    NeuralFieldGenerator,
    PerceptronArchitecture,
    RBFPrecision,
    VAEConfig,
    fit_neural_field,
    fit_neural_field_to_vae,
    load_neural_field,
    load_rbf,
    save_neural_field,
    save_rbf,
)
from vae.deviation.neural_field_fit import off_data_points, spacing, uncertainty_floor
from vae.generators.output_links import log_precision_link

F64 = torch.float64
D = 12
QUICK = NeuralFieldConfig(hidden=(64, 64), xi=1e-2, steps=1200, batch_size=128)
SD = 0.1


def field_and_vae(d=2, rng=None):
    rng = rng or torch.Generator().manual_seed(3)
    shift, scale = torch.randn(d, generator=rng, dtype=F64), 0.5 + torch.rand(d, generator=rng, dtype=F64)
    field = NeuralField(d, D, (7, 5), shift, scale, 1e-2, rng)
    return field, VAE(VAEConfig(D, d, PerceptronArchitecture((9, 7))), rng).double()


@pytest.fixture(scope="module")
def ring():
    """400 codes near the unit circle, all of variance SD^2, and the field fitted to them."""
    rng = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(400, generator=rng, dtype=F64)
    radius = 1 + 0.02 * torch.randn(400, generator=rng, dtype=F64)
    latents = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    field = fit_neural_field(latents, torch.full((400, 2), SD**2, dtype=F64), QUICK, progress=False)
    return latents, field


def test_field_by_its_formula(normal):
    field, _ = field_and_vae()
    z = normal(5, 2)
    h = (z - field.shift) / field.scale
    for i in (0, 2):
        h = torch.tanh(h @ field.layers[i].weight.T + field.layers[i].bias)
    beta = torch.exp(h @ field.head.weight.T + field.head.bias) + 1e-2
    torch.testing.assert_close(field(z), beta)
    torch.testing.assert_close(field.standard_deviation(z), beta**-0.5)
    torch.testing.assert_close(field.log_variance(z), -beta.log())
    torch.testing.assert_close(field.unscaled_layers()(z), h)


def test_sigma_never_exceeds_the_root_of_one_over_xi():
    link = log_precision_link(1e-2)
    u = torch.tensor([-1e3, -50.0, 0.0, 30.0], dtype=F64)
    torch.testing.assert_close(link.value(u), torch.tensor([10, 10, 1.01**-0.5, math.exp(-15)], dtype=F64))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_derivatives_by_hand_are_the_automatic_ones(d, normal):
    field, vae = field_and_vae(d)
    generator = NeuralFieldGenerator(vae, field)
    z, w = normal(4, d), normal(4, 2 * D)
    plain = Stack(lambda z: vae.decode(z).mean, field.standard_deviation)
    torch.testing.assert_close(generator(z), plain(z))
    single = lambda point: plain(point[None])[0]  # noqa: E731
    value, jacobian = generator.value_and_jacobian(z)
    torch.testing.assert_close(value, plain(z), rtol=1e-10, atol=1e-10)
    expected = torch.func.vmap(torch.func.jacrev(single))(z).permute(2, 0, 1)
    torch.testing.assert_close(jacobian, expected, rtol=1e-10, atol=1e-10)
    hessians = [torch.func.hessian(lambda p, c=c: (c * single(p)).sum())(p) for p, c in zip(z, w, strict=True)]
    torch.testing.assert_close(generator.contracted_hessian(z, w), torch.stack(hessians), rtol=1e-10, atol=1e-10)


def test_rows_do_not_meet(normal):
    field, vae = field_and_vae()
    generator, z, w = NeuralFieldGenerator(vae, field), normal(9, 2), normal(9, 2 * D)
    value, jacobian = generator.value_and_jacobian(z)
    curvature = generator.contracted_hessian(z, w)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(generator.value_and_jacobian(z[order])[1], jacobian[:, order])
    torch.testing.assert_close(generator.contracted_hessian(z[order], w[order]), curvature[order])
    torch.testing.assert_close(generator(z[4:5])[0], value[4])
    z[3] = torch.nan
    good = torch.arange(9) != 3
    torch.testing.assert_close(generator.value_and_jacobian(z)[1][:, good], jacobian[:, good])
    torch.testing.assert_close(generator.contracted_hessian(z, w)[good], curvature[good])


def test_a_generator_is_a_frozen_copy(normal):
    field, vae = field_and_vae()
    generator, z = NeuralFieldGenerator(vae, field), normal(3, 2)
    before = generator(z)
    with torch.no_grad():
        for tensor in (*vae.parameters(), *field.parameters(), *field.buffers()):
            tensor.mul_(2)
    assert torch.equal(generator(z), before)
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_checkpoint_round_trip(tmp_path, normal):
    field, vae = field_and_vae(3)
    path = tmp_path / "field.safetensors"
    save_neural_field(field, path)
    loaded, z = load_neural_field(path), normal(4, 3)
    assert torch.equal(loaded(z), field(z))
    assert torch.equal(NeuralFieldGenerator(vae, loaded)(z), NeuralFieldGenerator(vae, field)(z))
    save_neural_field(field.float(), path)
    assert load_neural_field(path).head.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="must hold kind 'rbf'"):
        load_rbf(path)


def test_spacing_by_hand():
    z = torch.tensor([[0.0], [1.0], [3.0], [6.0], [10.0]], dtype=F64)  # nearest others at 1, 1, 2, 3, 4
    assert spacing(z, 0.5) == 2
    assert spacing(z, 0.75) == 3
    with pytest.raises(ValueError, match="must not coincide"):
        spacing(torch.ones(5, 2), 0.5)


def test_floor_by_hand():
    codes, logs = torch.tensor([[0.0], [10.0]], dtype=F64), torch.tensor([[-2.0, 0.0], [1.0, 3.0]], dtype=F64)
    z = torch.tensor([[0.5], [-3.0], [8.0], [100.0]], dtype=F64)
    # Nothing is demanded within ell = 1 of a code; at 3 the excess is 2, half its square 2; far out it is capped.
    expected = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [1.5, 3.5], [4.0, 4.0]], dtype=F64)
    torch.testing.assert_close(uncertainty_floor(z, codes, logs, 1.0, 4.0), expected)


def test_points_off_the_data_reach_everywhere(rng):
    codes = torch.randn(50, 3, generator=rng, dtype=F64) * torch.tensor([2.0, 1.0, 0.1])
    points = off_data_points(codes, 3000, 4.0, 0.2, rng)
    assert points.shape == (3000, 3)
    along, beside, far = points.split(1000)
    # On a line through two codes: the smallest distance to any of the 1225 lines is rounding.
    first, second = torch.triu_indices(50, 50, 1)
    axis = torch.nn.functional.normalize(codes[second] - codes[first], dim=1)
    offset = along[:20, None] - codes[first]
    across = (offset - (offset * axis).sum(2, keepdim=True) * axis).norm(dim=2)
    assert across.amin(1).max() < 1e-12
    assert torch.cdist(beside, codes).amin(1).max() <= 8 * 0.2
    # The width is drawn between 1 and 4 deviations: its mean square is 7 of them.
    assert far.std(0).square() / codes.std(0).amax().square() == pytest.approx(7, rel=0.25)


def test_fit_keeps_the_variance_at_the_data_and_doubts_away_from_them(ring):
    latents, field = ring
    at_data = field.standard_deviation(latents)
    assert (at_data / SD).log().abs().median() < 0.1
    direction = torch.nn.functional.normalize(latents, dim=1)
    profile = [field.standard_deviation(r * direction).median() for r in (1.0, 1.1, 1.2, 1.5, 4.0)]
    assert all(inner < outer for inner, outer in pairwise(profile[:-1]))
    assert profile[-1] == pytest.approx(10, rel=1e-3)  # xi^(-1/2)
    hole = field.standard_deviation(torch.zeros(1, 2, dtype=F64))
    assert hole.min() > 20 * SD


def test_geodesics_go_around_the_hole_of_a_ring(ring):
    """With the identity as mean and a constant sigma on the ring, the way around is pi long, the straight one 2 and
    the wall twice."""
    _, field = ring
    metric = PullbackMetric(Stack(lambda z: z, field.standard_deviation))
    angle = torch.tensor([0.3, 1.2, 2.5], dtype=F64)
    z0 = torch.stack([angle.cos(), angle.sin()], dim=1)
    t = torch.linspace(0, math.pi, 65, dtype=F64)
    arcs = Curve(torch.stack([(angle[:, None] + t).cos(), (angle[:, None] + t).sin()], dim=2))
    result = geodesic(metric, z0, -z0, initial=lambda z0, z1: [arcs])
    assert bool((result.status <= 1).all())
    along, _ = length(metric, arcs)
    straight, _ = length(metric, straight_lines(result.curve))
    assert bool((result.length <= along * (1 + 1e-6)).all())
    assert bool((result.length > 0.9 * math.pi).all())  # the ring has a width: its inner side is shorter
    assert bool((straight > 2 + 2 * 2**0.5 * 50 * SD).all())
    assert bool((straight > 3 * result.length).all())
    torch.testing.assert_close(along, torch.full_like(along, math.pi), rtol=0.01, atol=0)
    radius = result.curve.evaluate(torch.linspace(0, 1, 101, dtype=F64)).norm(dim=2)
    assert radius.min() > 0.85


def test_fit_of_a_vae_is_the_fit_of_its_variances_and_reproducible(rng):
    _, vae = field_and_vae()
    x = torch.rand(60, D, generator=rng, dtype=F64)
    config = NeuralFieldConfig(hidden=(8,), steps=5, batch_size=16)
    fitted = fit_neural_field_to_vae(vae, x, config, progress=False)
    with torch.no_grad():
        z = vae.encode(x).mean
        again = fit_neural_field(z, vae.decode(z).log_variance.exp(), config, progress=False)
    assert torch.equal(fitted(z), again(z))
    assert not any(p.requires_grad for p in fitted.parameters())
    other = fit_neural_field_to_vae(vae, x, NeuralFieldConfig((8,), steps=5, batch_size=16, seed=1), progress=False)
    assert not torch.equal(fitted(z), other(z))


def test_single_precision(rng):
    z = torch.randn(40, 2, generator=rng)
    config = NeuralFieldConfig(hidden=(8,), steps=5)
    assert fit_neural_field(z, torch.ones(40, 3), config, progress=False)(z).dtype == torch.float32


def test_bad_input_is_named(rng, tmp_path, unchecked_shapes):
    field, _ = field_and_vae()
    z, s = torch.randn(20, 2, generator=rng, dtype=F64), torch.ones(20, 3, dtype=F64)
    with pytest.raises(ValueError, match=r"latents and variances must be \(N, d\) and \(N, D\)"):
        fit_neural_field(z, s[:-1])
    with pytest.raises(ValueError, match="variances finite and positive"):
        fit_neural_field(z, 0 * s)
    with pytest.raises(ValueError, match="must not coincide"):
        fit_neural_field(torch.ones(5, 2), torch.ones(5, 2))
    with pytest.raises(ValueError, match="xi must be positive"):
        NeuralFieldConfig(xi=0.0)
    with pytest.raises(ValueError, match="quantile"):
        NeuralFieldConfig(quantile=1.0)
    with pytest.raises(ValueError, match="hidden"):
        NeuralField(2, 3, (), torch.zeros(2), torch.ones(2), 1.0, rng)
    with pytest.raises(ValueError, match="scale and xi must be positive"):
        NeuralField(2, 3, (4,), torch.zeros(2), torch.zeros(2), 1.0, rng)
    with pytest.raises(ValueError, match=r"shift must be finite and \(2,\)"):
        NeuralField(2, 3, (4,), torch.zeros(3), torch.ones(2), 1.0, rng)
    with pytest.raises(ValueError, match=r"z must be \(B, 2\)"):
        field(torch.zeros(3, 4, dtype=F64))
    with pytest.raises(ValueError, match=r"vae and field must agree on \(d, D\)"):
        NeuralFieldGenerator(VAE(VAEConfig(D, 3)).double(), field)
    path = tmp_path / "rbf.safetensors"
    save_rbf(RBFPrecision(torch.ones(1, 2), torch.ones(1), torch.ones(3, 1), torch.ones(3)), path)
    with pytest.raises(ValueError, match="must hold kind 'neural field'"):
        load_neural_field(path)
