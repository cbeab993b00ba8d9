"""The check of a user's decoder."""

import pytest
import torch
from torch import nn

from geodesics import check_generator


def decoder(*middle, d=2):
    return nn.Sequential(nn.Linear(d, 8), *middle, nn.Linear(8, 5)).double()


def test_a_smooth_decoder_is_fine(normal):
    report = check_generator(decoder(nn.Tanh()), normal(6, 2))
    assert report.ok
    assert report.messages == ()
    assert (report.latent_dimension, report.data_dimension) == (2, 5)
    assert report.rows_independent
    assert report.finite
    assert report.full_rank
    assert report.smooth
    assert report.consistent


def test_float32_is_fine_too(normal):
    assert check_generator(decoder(nn.Tanh()).float(), normal(6, 2).float()).ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", [nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.SiLU()], ids=["layer", "group", "silu"])
def test_normalized_decoders_are_fine(layer, dtype, normal):
    generator = nn.Sequential(decoder(layer, nn.Tanh()), nn.Linear(5, 784)).to(dtype)
    report = check_generator(generator, normal(16, 2).to(dtype))
    assert report.ok, report.messages


class Sine(torch.autograd.Function):
    """A sine whose forward rule holds the point for a constant, as some of torch's do."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx, t):
        return t * ctx.saved_tensors[0].detach().cos()


class OwnDerivatives:
    """sin(z) with derivatives of its own, one of them wrong by a factor."""

    def __init__(self, jacobian=1.0, hessian=1.0):
        self.jacobian, self.hessian = jacobian, hessian

    def __call__(self, z):
        return z.sin()

    def value_and_jacobian(self, z):
        return z.sin(), self.jacobian * torch.diag_embed(z.cos()).movedim(1, 0)

    def contracted_hessian(self, z, w):
        return -self.hessian * torch.diag_embed(w * z.sin())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_modules_of_torch_jit_are_found(normal):
    z, plain = normal(6, 2), decoder(nn.LayerNorm(8), nn.Tanh())
    for generator in (torch.jit.trace(plain, z), nn.Sequential(torch.jit.script(plain))):
        assert not check_generator(generator, z).consistent


def test_a_compiled_decoder_is_fine(normal):
    """With layer normalization, whose formula `torch.compile` must leave alone."""
    compiled = torch.compile(decoder(nn.LayerNorm(8), nn.Tanh()), backend="eager")
    report = check_generator(compiled, normal(6, 2))
    assert report.ok, report.messages


def test_derivatives_that_contradict_each_other_are_found(normal):
    z = normal(6, 2)
    assert check_generator(OwnDerivatives(), z).ok
    for generator in (OwnDerivatives(jacobian=1.001), OwnDerivatives(hessian=1.001), Sine.apply):
        report = check_generator(generator, z)
        assert not report.consistent
        assert any("contradict" in message for message in report.messages)


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Identity()], ids=["relu", "leaky", "linear"])
def test_piecewise_linear_decoders_are_not_smooth(middle, normal):
    report = check_generator(decoder(middle), normal(8, 2))
    assert not report.smooth
    assert report.rows_independent
    assert report.finite
    assert any("second derivatives vanish" in message for message in report.messages)


@pytest.mark.parametrize(
    "coupled",
    [
        lambda z: z - z.mean(dim=0),
        lambda z: z / z.norm(),
        lambda z: z.cumsum(dim=0).sin(),
        lambda z: torch.arange(len(z), dtype=z.dtype)[:, None] + z.sin(),
    ],
    ids=["mean", "norm", "cumsum", "index"],
)
def test_coupled_rows_are_found(coupled, normal):
    report = check_generator(coupled, normal(6, 2))
    assert not report.rows_independent
    assert any("eval mode" in message for message in report.messages)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.5)], ids=["batch-norm", "dropout"])
def test_train_mode_is_found_and_eval_mode_is_fine(layer, normal):
    generator = decoder(nn.Tanh(), layer)
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    report = check_generator(generator, normal(6, 2))
    assert not report.rows_independent
    assert check_generator(generator.eval(), normal(6, 2)).rows_independent
    after = generator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "a check changes no weights"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_found_and_not_called_coupled(bad, normal):
    z = normal(6, 2)

    def generator(z):
        return torch.where(z[:, :1] > 0.5, bad, 1.0) * z.sin()

    z[3, 0] = 1.0
    report = check_generator(generator, z)
    assert not report.finite
    assert any("not finite" in message for message in report.messages)
    assert report.rows_independent


def test_derivatives_that_are_not_finite_are_found():
    """sqrt |z| at zero: a finite value with an infinite slope."""
    z = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    assert not check_generator(lambda z: z.abs().sqrt(), z).finite


def test_singular_jacobians_are_found(normal):
    """One of two latent coordinates is ignored; and D < d can never have full rank."""
    z = normal(6, 2)
    for generator in (lambda z: torch.cat([z[:, :1].sin(), z[:, :1].cos()], dim=1), lambda z: z[:, :1].sin()):
        report = check_generator(generator, z)
        assert not report.full_rank
        assert any("singular" in message for message in report.messages)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("generator", "shape", "message"),
    [
        (lambda z: z, (1, 2), r"z must be \(B, d\) with B >= 2; got \(1, 2\)"),
        (lambda z: z, (2,), "z must be"),
        (lambda z: z.sum(-1), (4, 2), r"must map \(B, d\) to \(B, D\); got \(4, 2\) -> \(4,\)"),
        (lambda z: z[:2], (4, 2), r"got \(4, 2\) -> \(2, 2\)"),
        (
            lambda z: z.float(),
            (4, 2),
            "must keep dtype and device; got torch.float64 on cpu -> torch.float32",
        ),
    ],
    ids=["one-row", "rank", "output-rank", "output-rows", "dtype"],
)
def test_wrong_shapes_and_types_are_refused(generator, shape, message):
    with pytest.raises(ValueError, match=message):
        check_generator(generator, torch.ones(shape, dtype=torch.float64))
