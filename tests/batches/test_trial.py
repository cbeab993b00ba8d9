"""Decoders at the door: sensible outputs are taken as they are, all others are refused in words that help."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from geodesics import (
    FunctionMetric,
    PullbackMetric,
    Stack,
    christoffel_symbols,
    contracted_hessian,
    directional_second_derivative,
    distance,
    gaussian_curvature,
    geodesic,
    log_measure,
    norm,
    pullback_acceleration,
    value_and_jacobian,
)
from geodesics.batches.trial import modules_of

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


class Surface(nn.Module):
    """A smooth map from the plane to 12 numbers, as `last` shapes them."""

    def __init__(self, last=lambda x: x):
        super().__init__()
        self.layers, self.last = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 12)), last
        for i, parameter in enumerate(self.parameters()):
            values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
            parameter.data.copy_(values)
        self.double()

    def forward(self, z):
        return self.last(self.layers(z))


class Pair(NamedTuple):
    mean: torch.Tensor
    log_variance: torch.Tensor


def deviation(x):
    return 0.1 + x.square()


FLAT = Surface()
STOCHASTIC = Stack(FLAT, lambda z: deviation(FLAT(z)))
Z = torch.tensor([[0.1, -0.3], [0.6, 0.4], [-0.5, 0.2]], dtype=torch.float64)
W = Z.flip(0) + 0.3


@pytest.mark.parametrize(
    ("last", "plain"),
    [
        (lambda x: x.unflatten(1, (3, 2, 2)), FLAT),
        (lambda x: x.unflatten(1, (4, 3)), FLAT),
        (lambda x: Normal(x, deviation(x)), STOCHASTIC),
        (lambda x: Independent(Normal(x, deviation(x)), 1), STOCHASTIC),
        (lambda x: Normal(x.unflatten(1, (3, 2, 2)), deviation(x).unflatten(1, (3, 2, 2))), STOCHASTIC),
        (lambda x: Independent(Normal(x.unflatten(1, (4, 3)), deviation(x).unflatten(1, (4, 3))), 2), STOCHASTIC),
        (lambda x: Normal(x, 0.5), FLAT),
    ],
)
def test_images_and_normal_distributions_are_what_they_say(last, plain):
    decoder = Surface(last)
    expected, metric = PullbackMetric(plain), PullbackMetric(decoder)
    torch.testing.assert_close(distance(metric, Z[:1], W[:1]), distance(expected, Z[:1], W[:1]))
    for call in (
        lambda m: m.tensor(Z),
        lambda m: norm(m, Z, W),
        lambda m: log_measure(m, Z),
        lambda m: gaussian_curvature(m, Z),
        lambda m: m.acceleration(Z, W),
    ):
        torch.testing.assert_close(call(PullbackMetric(decoder)), call(expected))
    columns = value_and_jacobian(decoder, Z)[0].shape[1]
    w = torch.ones(3, columns, dtype=Z.dtype)
    same = w if plain is STOCHASTIC or columns == 12 else w[:, :12]
    torch.testing.assert_close(contracted_hessian(decoder, Z, w), contracted_hessian(plain, Z, same))
    torch.testing.assert_close(pullback_acceleration(decoder, Z, W), pullback_acceleration(plain, Z, W))
    first, second = directional_second_derivative(decoder, Z, W)
    for found, known in zip((first, second), directional_second_derivative(plain, Z, W), strict=True):
        torch.testing.assert_close(found.norm(dim=1), known.norm(dim=1))


def test_a_stack_takes_images_and_distributions_too():
    images = Surface(lambda x: x.unflatten(1, (3, 2, 2)))
    spread = Surface(lambda x: Normal(x, deviation(x)))
    found = PullbackMetric(Stack(images, spread)).tensor(Z)
    torch.testing.assert_close(found, PullbackMetric(Stack(FLAT, STOCHASTIC)).tensor(Z))


def test_distributions_are_validated_again_afterwards():
    PullbackMetric(Surface(lambda x: Normal(x, deviation(x)))).tensor(Z)
    with pytest.raises(ValueError, match="scale"):
        Normal(torch.zeros(2), -torch.ones(2))


def test_latents_that_are_images_in_one_line():
    """As the page on decoders of one's own says."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1)).double()
    latents = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"pass each\.flatten\(1\), with lambda z: decoder\(z\.unflatten"):
        distance(PullbackMetric(decoder), latents, latents + 1)
    with pytest.raises(ValueError, match=r"for latents \(B, C, H, W\) pass lambda z: decoder\(z\.unflatten"):
        PullbackMetric(decoder).tensor(latents.flatten(1))
    metric = PullbackMetric(lambda z: decoder(z.unflatten(1, (1, 2, 2))))
    length = distance(metric, latents[:2].flatten(1), latents[2:].flatten(1))
    assert bool((length > 0).all())


NET32 = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5))
SINGLE = r"has torch.float32 weights and the points are torch.float64; pass points.float\(\), or decoder.double\(\)"


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (NET32, SINGLE),
        (lambda z: NET32(z), SINGLE),
        (NET32.forward, SINGLE),
        (partial(lambda net, z: net(z), NET32), SINGLE),
        (lambda z: (z, z), r"got \(2, 2\) -> tuple of 2: pass one of them, as lambda z: decoder\(z\)\[0\]"),
        (lambda z: Pair(z, z), r"Pair of mean, log_variance: pass one of them, as lambda z: decoder\(z\).mean"),
        (lambda z: {"sample": z}, r"dict of sample: pass one of them, as lambda z: decoder\(z\)\['sample'\]"),
        (lambda z: type("Output", (), {"__init__": lambda s: setattr(s, "x", z)})(), r"Output of x: .*decoder\(z\).x"),
        (lambda z: None, "None: does it return its output?"),
        (lambda z: Bernoulli(z.sigmoid()), r"Bernoulli: pass lambda z: decoder\(z\).mean"),
        (lambda z: torch.from_numpy(z.numpy()), "must be written in operations of torch; it calls NumPy"),
        (lambda z: z.detach().numpy(), "ndarray: it must be written in operations of torch"),
        (lambda z: z.tolist(), r"list of 2: pass one of them"),
        (lambda z: z.float(), "must keep dtype and device"),
        (lambda z: z.long(), "must keep dtype and device"),
        (lambda z: z * 1j, "must keep dtype and device"),
        (lambda z: z.to_sparse(), "dense; got torch.sparse_coo"),
        (lambda z: z[:, 0], r"got \(2, 2\) -> \(2,\)"),
        (lambda z: z.sum(), r"got \(2, 2\) -> \(\)"),
        (lambda z: z[:1], r"got \(2, 2\) -> \(1, 2\)"),
        (lambda z: z[:, :0], r"got \(2, 2\) -> \(2, 0\)"),
        (lambda z: z.T, r"got \(5, 2\) -> \(2, 5\)"),
        (nn.Linear(3, 4).double(), r"must map \(B, d\) to \(B, D\); for z \(2, 2\), .* it raised RuntimeError: mat1"),
        (lambda z: {}["key"], "it raised KeyError: 'key'"),
        (lambda z, y: z, "it raised TypeError: .*missing 1 required positional argument"),
        (lambda z: z - z.mean(0), "something random or normalized over the batch"),
        (lambda z: z + torch.rand_like(z), "something random or normalized over the batch"),
    ],
)
def test_other_outputs_are_refused_in_words(decoder, message):
    for call in (
        lambda: geodesic(PullbackMetric(decoder), Z, W),
        lambda: log_measure(PullbackMetric(decoder), Z),
        lambda: value_and_jacobian(decoder, Z),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^generator .*{message}"):
            call()


class Decoding(nn.Module):
    """A model of which only `decode` is used."""

    def __init__(self, *layers):
        super().__init__()
        self.decoder, self.encoder = nn.Sequential(*layers), nn.Dropout(0.5)

    def decode(self, z):
        return self.decoder(z)


COUPLED = (
    (nn.BatchNorm1d(4), True, "BatchNorm1d '1' is in training mode; call decoder.eval"),
    (nn.BatchNorm1d(4, track_running_stats=False), False, "BatchNorm1d '1' has no running statistics"),
    (nn.Dropout(0.5), True, "Dropout '1' is in training mode"),
    (nn.AlphaDropout(0.5), True, "AlphaDropout '1' is in training mode"),
    (nn.RReLU(), True, "RReLU '1' is in training mode"),
)


@pytest.mark.parametrize(("layer", "training", "message"), COUPLED)
@pytest.mark.parametrize("number", [1, 3])
def test_coupled_rows_are_refused_and_nothing_has_changed(layer, training, message, number):
    net = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 5)).double().train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for decoder in (net, lambda z: net(z), net.forward, Stack(FLAT, net)):
        with pytest.raises(ValueError, match=r"generator must give a row the same values in every batch|it raised"):
            geodesic(PullbackMetric(decoder), Z[:number], W[:number])
    with pytest.raises(ValueError, match=message):
        geodesic(PullbackMetric(net), Z, W)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_module_that_is_trained_elsewhere_may_stay_in_training_mode():
    decode = Decoding(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5)).double().train().decode
    assert bool((distance(PullbackMetric(decode), Z, W) > 0).all())
    assert any(isinstance(module, nn.Dropout) for _, module in modules_of(decode))
    plain = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Dropout(0.0), nn.BatchNorm1d(4)).double().train()
    with pytest.raises(ValueError, match="BatchNorm1d '3'"):
        log_measure(PullbackMetric(plain), Z)
    plain[3] = nn.Linear(4, 5).double()
    assert bool(log_measure(PullbackMetric(plain), Z).isfinite().all())


def test_a_metric_looks_again_when_its_decoder_is_trained_on():
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 5)).double().eval()
    metric = PullbackMetric(net)
    assert bool(log_measure(metric, Z).isfinite().all())
    net.train()
    with pytest.raises(ValueError, match="Dropout '2' is in training mode"):
        log_measure(metric, Z)
    net.eval()
    with pytest.raises(ValueError, match=r"has torch.float64 weights and the points are torch.float32"):
        log_measure(metric, Z.float())


def test_points_that_say_nothing_are_no_reason_to_refuse():
    nowhere = torch.full_like(Z, torch.nan)
    assert bool(norm(PullbackMetric(FLAT), nowhere, W).isnan().all())
    holes = torch.cat([nowhere[:1], Z])
    assert log_measure(PullbackMetric(FLAT), holes).isnan().tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="KeyError"):
        log_measure(PullbackMetric(lambda z: {}[0]), holes)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda z: z, ValueError, r"function must map \(B, d\) to \(B, d, d\); got \(2, 2\) -> \(2, 2\)"),
        (lambda z: [z], TypeError, "-> list"),
        (
            lambda z: z.new_tensor([[1, 2], [0, 1.0]]).expand(len(z), 2, 2),
            ValueError,
            "must give symmetric tensors",
        ),
        (lambda z: torch.eye(2).expand(len(z), 2, 2), ValueError, "function must keep dtype and device"),
        (lambda z: torch.eye(2).to(z) * torch.rand(len(z), 1, 1).to(z), ValueError, "the same values in every batch"),
        (lambda z: z.no_such_thing, ValueError, r"function must map \(B, d\) to \(B, d, d\); .* AttributeError"),
    ],
)
def test_tensor_fields_at_the_door(function, error, message):
    for call in (
        lambda: geodesic(FunctionMetric(function), Z, W),
        lambda: norm(FunctionMetric(function), Z, W),
    ):
        with pytest.raises(error, match=message):
            call()
    with pytest.raises(error, match=message.replace("function", "tensor")):
        christoffel_symbols(function, Z)


@pytest.mark.parametrize("inside", [True, False])
def test_points_made_in_inference_mode_are_points(inside):
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5)).double()  # its weights want gradients
    calls = (
        lambda z, v: norm(PullbackMetric(network), z, v),
        lambda z, v: log_measure(PullbackMetric(network), z),
        lambda z, v: gaussian_curvature(PullbackMetric(network), z),
        lambda z, v: distance(PullbackMetric(network), z, v),
        lambda z, v: value_and_jacobian(network, z)[1],
        lambda z, v: directional_second_derivative(network, z, v)[1],
        lambda z, v: contracted_hessian(network, z, torch.ones(3, 5, dtype=Z.dtype)),
    )
    for call in calls:
        expected = call(Z, W).detach()
        with torch.inference_mode():
            z, v = Z.clone(), W.clone()
            answer = call(z, v) if inside else None
        answer = call(z, v).detach() if answer is None else answer
        torch.testing.assert_close(answer, expected)


def test_a_class_is_no_decoder():
    with pytest.raises(TypeError, match=r"generator must be callable, .* got the class Surface"):
        PullbackMetric(Surface).tensor(Z)
    with pytest.raises(TypeError, match="generator 1 must be callable"):
        Stack(FLAT, None)
