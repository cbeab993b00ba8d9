"""Fewer outputs, the same metric."""

import pytest
import torch
from torch import nn

from geodesics import PullbackMetric, ReducibleGenerator, Stack, geodesic, value_and_jacobian
from geodesics.generators.reduction import reduced
from vae import VAE, Activation, MeanGenerator, PerceptronArchitecture, VAEConfig, VAEGenerator


def perceptron(outputs, features=4):
    return nn.Sequential(nn.Linear(2, features), nn.Tanh(), nn.Linear(features, outputs)).double().eval()


def vae_generator(kind, mean):
    config = VAEConfig(19, 2, architecture=PerceptronArchitecture((7, 5)), mean_activation=mean)
    return kind(VAE(config, torch.Generator().manual_seed(0)).double())


REDUCIBLE = [
    (perceptron(11), 4),
    (nn.Sequential(nn.Linear(2, 9)).double(), 2),
    (Stack(perceptron(11), torch.sin, perceptron(8, features=3)), 4 + 2 + 3),
    (vae_generator(MeanGenerator, Activation.IDENTITY), 7),
    (vae_generator(VAEGenerator, Activation.IDENTITY), 7 + 19),
]


@pytest.mark.parametrize(("generator", "outputs"), REDUCIBLE)
def test_chords_and_metric_are_kept(generator, outputs, normal):
    """Inner products of differences of outputs, and J^T J, with the number of outputs that was promised."""
    z = normal(30, 2)
    fewer = reduced(generator)
    F, J = value_and_jacobian(generator, z)
    f, j = value_and_jacobian(fewer, z)
    assert f.shape[1] == outputs < F.shape[1]
    F, f = F - F[:1], f - f[:1]
    torch.testing.assert_close(f @ f.mT, F @ F.mT)
    torch.testing.assert_close(torch.einsum("ibo,jbo->bij", j, j), torch.einsum("ibo,jbo->bij", J, J))


class Subclass(nn.Linear):
    """Not what its weights say."""

    def forward(self, x):
        return super().forward(x).square()


def hooked():
    decoder = perceptron(11)
    decoder[-1].register_forward_hook(lambda *_: torch.zeros(1))
    return decoder


@pytest.mark.parametrize(
    "generator",
    [
        torch.sin,
        perceptron(3),
        nn.Sequential(),
        nn.Sequential(nn.Linear(2, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(2, 4), nn.Tanh(), Subclass(4, 9)),
        hooked(),
        vae_generator(MeanGenerator, Activation.SIGMOID),
    ],
)
def test_what_cannot_be_reduced_is_left_alone(generator):
    assert reduced(generator) is generator


def test_the_solver_finds_the_same_geodesics(normal):
    """The decoder hidden in a function cannot be reduced."""
    decoder = perceptron(40)
    z0, z1 = normal(2, 6, 2)
    ours = geodesic(PullbackMetric(decoder), z0, z1)
    plain = geodesic(PullbackMetric(lambda z: decoder(z)), z0, z1)
    assert ours.converged.all()
    torch.testing.assert_close(ours.length, plain.length, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours.curve.points, plain.curve.points, rtol=1e-5, atol=1e-5)


def test_weights_are_those_of_the_call(normal):
    """Nothing is kept: a decoder that is trained on has the metric of its new weights."""
    decoder, z = perceptron(40), normal(400, 2)
    metric = PullbackMetric(decoder)
    with torch.no_grad():
        before = metric.tensor(z)
        decoder[-1].weight.mul_(3)
        torch.testing.assert_close(metric.tensor(z), 9 * before)


def test_gradients_to_the_weights_are_kept(normal):
    decoder = perceptron(40)
    PullbackMetric(decoder).tensor(normal(400, 2)).sum().backward()
    assert decoder[-1].weight.grad.abs().max() > 0


def test_the_protocol_is_seen_by_structure():
    assert isinstance(vae_generator(MeanGenerator, Activation.SIGMOID), ReducibleGenerator)
    assert not isinstance(perceptron(3), ReducibleGenerator)
