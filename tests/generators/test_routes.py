"""Derivatives of decoders that torch differentiates in part, wrongly or not at all: right, or refused in words."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from geodesics import (
    EnergySolver,
    FunctionMetric,
    GraphPaths,
    PullbackMetric,
    ShootingSolver,
    Stack,
    brownian_drift,
    check_generator,
    contracted_hessian,
    directional_second_derivative,
    distance,
    distance_matrix,
    exp_map,
    frechet_mean,
    geodesic,
    log_map,
    log_measure,
    norm,
    value_and_jacobian,
)
from geodesics.curves.elements import make_elements
from geodesics.generators.derivatives import directional_derivative, mixed_second_derivative, transposed_derivative
from geodesics.generators.routes import first_way, second_way

# The same iterations on both sides; no finer meshes.
QUICK = EnergySolver(num_segments=2, max_segments=4, max_iter=6, max_meshes=1)


def network(outputs=12):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, outputs)).double().eval()


NET = network()
CENTERS = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WEIGHTS = 20 * torch.rand(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def explicit_rbf(z):
    """A standard deviation that grows off some centers."""
    return (torch.exp(-2 * (z[:, None] - CENTERS).square().sum(-1)) @ WEIGHTS.mT + 1e-2).rsqrt()


def rbf_by_cdist(z):
    return (torch.exp(-2 * torch.cdist(z, CENTERS).square()) @ WEIGHTS.mT + 1e-2).rsqrt()


class OldTanh(torch.autograd.Function):
    """As custom functions were written before `torch.func`: no forward rule, no vmap."""

    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].square())


class OnceTanh(OldTanh):
    """Not even a second backward pass."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].square())


class Sine(torch.autograd.Function):
    """A sine by rules of one's own, right."""

    generate_vmap_rule = True
    forward_factor, backward_factor = 1, 1

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @classmethod
    def backward(cls, ctx, g):
        return cls.backward_factor * g * ctx.saved_tensors[0].cos()

    @classmethod
    def jvp(cls, ctx, t):
        return cls.forward_factor * t * ctx.saved_tensors[0].cos()


def sine(forward_factor, backward_factor):
    """A sine whose derivatives are wrong by factors."""
    factors = {"forward_factor": forward_factor, "backward_factor": backward_factor}
    return type("Sine", (Sine,), factors).apply


class CellTwice(nn.Module):
    """A recurrent network of two steps."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRU(2, 8, batch_first=True), nn.Linear(8, 6)

    def forward(self, z):
        return self.out(self.cell(torch.stack([z, z.flip(1)], dim=1))[0][:, -1])


PICTURE = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def moved_picture(z):
    """An image read off at moving places, by bicubic interpolation."""
    grid = 0.3 * (z @ z.new_tensor([[1.0, 0.3], [-0.2, 1.0]])).tanh()[:, None, None, :]
    places = grid + torch.linspace(-0.5, 0.5, 4, dtype=z.dtype)[None, :, None, None]
    return functional.grid_sample(
        PICTURE.expand(len(z), -1, -1, -1), places, mode="bicubic", align_corners=True
    ).flatten(1)


def by_numpy(z):
    return torch.from_numpy(np.tanh(z.detach().numpy() @ np.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.7]])))


SINES = sine(2, 1), sine(1, 3)


@torch.no_grad()
def squared_without_grad(z):
    return NET(z).square()


def potential_slope(z):
    """A map that takes a gradient itself."""
    with torch.enable_grad():
        x = z if z.requires_grad else z.detach().requires_grad_()
        return torch.autograd.grad(NET(x).square().sum(), x, create_graph=True)[0]


def with_item(z):
    """A scale that depends on no row, by a call that `vmap` does not take."""
    return NET(z) * (1 + 0 * z.detach().abs().max().item())


# Decoders, and the same maps written so that forward mode does.
SECOND_ROUTES = {
    "function without jvp": (lambda z: NET[2](OldTanh.apply(NET[0](z))), NET),
    "differentiable once": (lambda z: NET[2](OnceTanh.apply(NET[0](z))), NET),
    "checkpoint": (lambda z: checkpoint(NET, z, use_reentrant=False), NET),
    "reentrant checkpoint": (lambda z: checkpoint(NET, z, use_reentrant=True), NET),
    "numpy": (by_numpy, lambda z: (z @ z.new_tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.7]])).tanh()),
    "item": (with_item, NET),
    "no_grad": (torch.no_grad()(lambda z: NET(z)), NET),
    "no_grad in part": (lambda z: NET(z) + squared_without_grad(z), lambda z: NET(z) + NET(z).square()),
    "wrong jvp": (lambda z: SINES[0](NET(z)), lambda z: NET(z).sin()),
    "wrong backward": (lambda z: SINES[1](NET(z)), lambda z: NET(z).sin()),
    "gradient of a potential": (potential_slope, torch.func.grad(lambda z: NET(z).square().sum())),
    "cdist": (rbf_by_cdist, explicit_rbf),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SECOND_ROUTES)
def test_derivatives_are_those_of_the_same_map_in_forward_mode(name, normal):
    generator, plain = SECOND_ROUTES[name]
    z, u, v = normal(5, 2), normal(5, 2), normal(5, 2)
    w = normal(*plain(z).shape)
    close = {"rtol": 1e-7, "atol": 1e-7}  # differences of differences
    for function, extra in (
        (value_and_jacobian, ()),
        (directional_derivative, (v,)),
        (transposed_derivative, (w,)),
        (directional_second_derivative, (v,)),
        (mixed_second_derivative, (u, v)),
        (contracted_hessian, (w,)),
    ):
        found, expected = function(generator, z, *extra), function(plain, z, *extra)
        torch.testing.assert_close(found, expected, **close)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SECOND_ROUTES)
def test_geodesics_are_those_of_the_same_map_in_forward_mode(name, normal):
    generator, plain = SECOND_ROUTES[name]
    ours, theirs = PullbackMetric(generator), PullbackMetric(plain)
    z0, z1 = 0.7 * normal(2, 1, 2)
    found, expected = (geodesic(metric, z0, z1, solver=QUICK) for metric in (ours, theirs))
    torch.testing.assert_close(found.length, expected.length, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.acceleration(z0, z1), theirs.acceleration(z0, z1), rtol=1e-6, atol=1e-6)


def test_shooting_goes_without_forward_mode(normal):
    """Its Newton steps need derivatives of derivatives, which then are differences."""
    generator, plain = SECOND_ROUTES["checkpoint"]
    z0, z1 = 0.7 * normal(2, 1, 2)
    found, expected = (geodesic(PullbackMetric(f), z0, z1, solver=ShootingSolver()) for f in (generator, plain))
    assert found.converged.all()
    torch.testing.assert_close(found.length, expected.length, rtol=1e-7, atol=0)
    found, expected = (exp_map(PullbackMetric(f), z0, 0.2 * z1) for f in (generator, plain))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("make", [CellTwice, lambda: moved_picture], ids=["gru", "grid_sample"])
def test_derivatives_are_differences_of_values(make, normal):
    torch.manual_seed(0)
    generator = make()
    generator = generator.double() if isinstance(generator, nn.Module) else generator
    z, v, h = normal(4, 2), normal(4, 2), 1e-3
    with torch.no_grad():
        values = torch.stack([generator(z + k * h * v) for k in (-2, -1, 0, 1, 2)])
    slope = torch.einsum("k,kbo->bo", z.new_tensor([1, -8, 0, 8, -1]) / (12 * h), values)
    bend = torch.einsum("k,kbo->bo", z.new_tensor([-1, 16, -30, 16, -1]) / (12 * h**2), values)
    _, J = value_and_jacobian(generator, z)
    first, second = directional_second_derivative(generator, z, v)
    close = {"rtol": 1e-6, "atol": 1e-7}  # the differences are of order four
    torch.testing.assert_close(torch.einsum("kbo,bk->bo", J, v), first, **close)
    torch.testing.assert_close(first, slope, **close)
    torch.testing.assert_close(second, bend, **close)


def test_distances_by_cdist_are_those_written_out(normal):
    """For two norms and more, points that are centers among them: there the square is smooth, its root is not."""
    z, v = torch.cat([normal(3, 2), CENTERS[:2]]), normal(5, 2)
    F, J = value_and_jacobian(rbf_by_cdist, z)
    torch.testing.assert_close((F, J), value_and_jacobian(explicit_rbf, z))
    first, second = directional_second_derivative(rbf_by_cdist, z, v)
    torch.testing.assert_close((first, second), directional_second_derivative(explicit_rbf, z, v))
    for p in (1.0, 3.0, torch.inf):

        def by_cdist(z, p=p):
            return torch.cdist(z, CENTERS, p=p)

        def by_norm(z, p=p):
            return torch.linalg.vector_norm(z[:, None] - CENTERS, p, dim=-1)

        found = directional_second_derivative(by_cdist, z[:3], v[:3])
        torch.testing.assert_close(found, directional_second_derivative(by_norm, z[:3], v[:3]))


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: torch.norm(x, dim=-1),
        lambda x: torch.norm(x, 2, -1),
        lambda x: x.norm(dim=-1),
        lambda x: torch.linalg.norm(x, dim=-1),
        lambda x: torch.linalg.vector_norm(x, dim=-1),
        lambda x: torch.linalg.vector_norm(x, 2.0, [-1]),
    ],
)
def test_squares_of_norms_are_smooth_at_zero(norm, normal):
    """At a center of an RBF network, torch's second derivative of the norm is zero, and so that of its square."""

    def by_norm(z):
        return torch.exp(-(norm(z[:, None] - CENTERS) ** 2))

    def written_out(z):
        return torch.exp(-(z[:, None] - CENTERS).square().sum(-1))

    z, v, w = torch.cat([CENTERS[:2], normal(2, 2)]), normal(4, 2), normal(4, 10)
    torch.testing.assert_close(value_and_jacobian(by_norm, z), value_and_jacobian(written_out, z))
    torch.testing.assert_close(contracted_hessian(by_norm, z, w), contracted_hessian(written_out, z, w))
    torch.testing.assert_close(
        directional_second_derivative(by_norm, z, v), directional_second_derivative(written_out, z, v)
    )


def test_a_variance_network_by_cdist_has_the_lengths_of_the_explicit_one(normal):
    z0, z1 = 0.7 * normal(2, 3, 2)

    def kernel(by_cdist):
        spread = (CENTERS[:, None] - CENTERS).square().sum(1)

        def field(z):
            squares = torch.cdist(z, CENTERS).square() if by_cdist else (z[:, None] - CENTERS).square().sum(-1)
            return torch.diag_embed(1 / (torch.exp(-squares / 0.5) @ spread + 1e-2))

        return FunctionMetric(field)

    pairs = [
        (PullbackMetric(Stack(NET, rbf_by_cdist)), PullbackMetric(Stack(NET, explicit_rbf))),
        (kernel(True), kernel(False)),
    ]
    for ours, plain in pairs:
        found, expected = (geodesic(metric, z0, z1, solver=QUICK) for metric in (ours, plain))
        torch.testing.assert_close(found.length, expected.length, rtol=1e-6, atol=0)
        torch.testing.assert_close(ours.acceleration(z0, z1), plain.acceleration(z0, z1))


class Image(nn.Module):
    """Tokens to channels first, a strided view, to group normalization, as behind the attention of autoencoders."""

    def __init__(self, contiguous):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.norm, self.out = nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.Conv2d(8, 5, 3, padding=1)
        self.contiguous = contiguous

    def forward(self, z):
        x = self.tokens(z.reshape(len(z), 4, 4)).tanh().transpose(1, 2).reshape(len(z), 8, 2, 2)
        x = x.contiguous() if self.contiguous else x
        return self.out(functional.silu(self.norm(x))).flatten(1)


def test_group_norm_takes_inputs_of_any_strides(normal):
    strided, plain = (Image(contiguous).double().eval() for contiguous in (False, True))
    z, v, w = normal(4, 16), normal(4, 16), normal(4, 20)
    torch.testing.assert_close(value_and_jacobian(strided, z), value_and_jacobian(plain, z))
    torch.testing.assert_close(contracted_hessian(strided, z, w), contracted_hessian(plain, z, w))
    torch.testing.assert_close(directional_second_derivative(strided, z, v), directional_second_derivative(plain, z, v))
    ours, theirs = PullbackMetric(strided), PullbackMetric(plain)
    found, expected = (geodesic(metric, z[:2], z[2:], solver=QUICK) for metric in (ours, theirs))
    torch.testing.assert_close(found.length, expected.length, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.acceleration(z, v), theirs.acceleration(z, v))
    assert check_generator(strided, z).ok


def test_no_grad_inside_is_told_once_and_derivatives_are_right(normal):
    @torch.no_grad()
    def decode(z):
        return NET(z)

    z, v = normal(3, 2), normal(3, 2)
    with pytest.warns(UserWarning, match="generator decode drops derivatives in reverse mode, as torch.no_grad"):
        found = directional_second_derivative(decode, z, v)
    torch.testing.assert_close(found, directional_second_derivative(NET, z, v))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drift = brownian_drift(PullbackMetric(decode), z)
    torch.testing.assert_close(drift, brownian_drift(PullbackMetric(NET), z))
    report = check_generator(decode, z)
    assert not report.ok
    assert not report.differentiable
    assert report.second_derivatives == "nested forward mode"
    assert any("torch.no_grad" in message for message in report.messages)


@torch.inference_mode()
def in_inference_mode(z):
    return NET(z)


DROPPED = {
    "inference_mode": in_inference_mode,
    "detach": lambda z: NET(z).detach(),
    "data": lambda z: NET(z).data,
    "a factor detached": lambda z: NET(z) * (2 + NET(z).tanh()).detach(),
    "a part detached": Stack(NET, lambda z: explicit_rbf(z).detach()),
    "an axis detached": lambda z: NET(torch.cat([z[:, :1], z[:, 1:].detach()], 1)),
    "rounded": lambda z: (NET(z).sigmoid() * 255).round() / 255,
    "integers": lambda z: (NET(z).sigmoid() * 255).to(torch.uint8).to(z.dtype) / 255,
    "wrong rules of its own": lambda z: sine(2, 3)(NET(z)),
    "argmax": lambda z: functional.one_hot((9 * NET(z)).argmax(1), 12).to(z.dtype),
    "rounded in part": Stack(NET, lambda z: (NET(z).sigmoid() * 255).round() / 255),
}
CALLS = {
    "value_and_jacobian": lambda m, z: value_and_jacobian(m.generator, z),
    "directional_second_derivative": lambda m, z: directional_second_derivative(m.generator, z, z),
    "contracted_hessian": lambda m, z: contracted_hessian(m.generator, z, torch.ones_like(m.generator(z))),
    "tensor": lambda m, z: m.tensor(z),
    "norm": lambda m, z: m.norm(z, z),
    "log_measure": log_measure,
    "distance": lambda m, z: distance(m, z, z.flip(0)),
    "distance_matrix": distance_matrix,
    "shooting": lambda m, z: geodesic(m, z, z.flip(0), solver=ShootingSolver()),
    "exp_map": lambda m, z: exp_map(m, z, z),
    "log_map": lambda m, z: log_map(m, z, z.flip(0)),
    "brownian_drift": brownian_drift,
    "frechet_mean": frechet_mean,
    "GraphPaths": lambda m, z: GraphPaths(m, z.repeat(10, 1), num_nodes=20, num_paths=1),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", DROPPED)
def test_dropped_derivatives_are_refused_everywhere(name, dtype, normal):
    generator = DROPPED[name]
    if dtype is torch.float32 and name == "a factor detached":
        pytest.skip("a twentieth of the derivative, which differences in float32 do not tell from rounding")
    if dtype is torch.float32:
        generator = lambda z: DROPPED[name](z.double()).float()  # noqa: E731
    z = normal(6, 2).to(dtype)
    calls = CALLS.values() if dtype is torch.float64 else [CALLS["tensor"]]
    for call in calls:
        with pytest.raises(ValueError, match=r"generator .* drops"):
            call(PullbackMetric(generator), z)
    report = check_generator(generator, z)
    assert not report.differentiable
    assert any("drops" in message for message in report.messages)


def test_a_function_metric_that_drops_derivatives_is_refused(normal):
    def field(z):
        return torch.diag_embed(1 + z.square().detach())

    with pytest.raises(ValueError, match="function field has derivatives that contradict its values"):
        exp_map(FunctionMetric(field), normal(2, 2), normal(2, 2))


def test_the_tensor_of_a_relu_decoder_may_change_in_steps(normal):
    metric = PullbackMetric(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 5)).double())
    assert (FunctionMetric(metric.tensor).acceleration(normal(6, 2), normal(6, 2)).abs() < 1e-12).all()


def doubled_in_place(z):
    z *= 2
    return torch.cat([z, z**2], 1)


IN_PLACE = {
    "times": (doubled_in_place, lambda z: torch.cat([2 * z, (2 * z) ** 2], 1)),
    "activation": (nn.Sequential(nn.ELU(inplace=True), NET), nn.Sequential(nn.ELU(), NET)),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_generator_that_writes_into_its_argument_is_given_copies(name, normal):
    generator, clean = IN_PLACE[name]
    z, v = normal(4, 2), normal(4, 2)
    points = z.clone()
    ours, plain = PullbackMetric(generator), PullbackMetric(clean)
    torch.testing.assert_close(ours.tensor(points), plain.tensor(z))
    torch.testing.assert_close(ours.norm(points, v), plain.norm(z, v))
    torch.testing.assert_close(ours.acceleration(points, v), plain.acceleration(z, v))
    torch.testing.assert_close(ours.chord(points[:2], points[2:]), plain.chord(z[:2], z[2:]))
    torch.testing.assert_close(distance(ours, points[:2], points[2:]), distance(plain, z[:2], z[2:]))
    assert torch.equal(points, z)
    report = check_generator(generator, points)
    assert torch.equal(points, z)
    assert not report.argument_kept
    assert any("writes into its argument" in message for message in report.messages)


def test_modules_stay_as_they_are(normal):
    """Running statistics too, when a call is refused or fails."""
    module = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh()).double().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for generator in (module, nn.Sequential(module, nn.Identity())):
        first_way(generator, normal(6, 2))
        second_way(generator, normal(6, 2))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(ValueError, match="drops"):
        value_and_jacobian(lambda z: NET(z).detach(), normal(6, 2))
    assert all(p.grad is None for p in NET.parameters())


def test_a_generator_is_looked_at_once(normal):
    calls = []

    def counted(z):
        calls.append(len(z))
        return NET(z)

    z, w = normal(5, 2), normal(5, 12)
    first = [value_and_jacobian(counted, z), contracted_hessian(counted, z, w), len(calls)]
    again = [value_and_jacobian(counted, z), contracted_hessian(counted, z, w)]
    assert len(calls) == first[2] + 3  # two derivatives, and one value that tells the shape of the weights
    assert sum(calls[: first[2]]) < 200
    torch.testing.assert_close(again, first[:2])


@pytest.mark.parametrize("first", ["whole", "reduced"])
def test_a_reduced_generator_is_known_by_the_whole_one(first, normal):
    """Whichever is looked at first: they are made of the same operations, and have other numbers of outputs."""
    module, z = network(40), normal(400, 2)
    metric = PullbackMetric(Stack(module, module))
    with torch.no_grad():
        expected = metric.tensor(z[:3]) if first == "whole" else metric.tensor(z)
        energy = metric.path_energy(make_elements(3, 3, z))
        linear = energy.linearize(z[:40].view(4, 10, 2), None)
        assert linear.hessian.isfinite().all()
        torch.testing.assert_close(metric.tensor(z)[:3], expected[:3])
        assert metric.acceleration(z, z).isfinite().all()


def test_points_without_a_finite_row_come_after_others(normal):
    def constant(z):
        return torch.zeros_like(z)

    z = normal(4, 2)
    metric = PullbackMetric(constant)
    metric.chord(z, z + 1)  # values have been seen, derivatives have not
    assert bool(norm(metric, z * torch.nan, z).isfinite().all())


def test_weights_may_change_after_a_generator_was_looked_at(normal):
    module, z, v = network(), normal(5, 2), normal(5, 2)
    value_and_jacobian(module, z)
    with torch.no_grad():
        module[0].weight.mul_(1.5)
    plain = nn.Sequential(*module)
    torch.testing.assert_close(directional_second_derivative(module, z, v), directional_second_derivative(plain, z, v))


KINKED = [nn.ReLU(), nn.LeakyReLU(0.1), nn.Hardtanh(), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Softshrink()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_kinks_walls_and_units_raise_no_alarm(dtype, scale, normal):
    """At their kinks too, as those of a network without biases at zero."""
    torch.manual_seed(0)
    generators = [
        nn.Sequential(nn.Linear(2, 64, bias=bias), kink, nn.Linear(64, outputs, bias=bias), last).to(dtype)
        for kink in KINKED
        for bias in (True, False)
        for outputs, last in ((3, nn.Identity()), (200, nn.Hardtanh(0, 1)))
    ]
    generators += [
        lambda z: torch.cat([(30 * z).sin(), z.cos()], 1),
        lambda z: torch.cat([z, z.square().sum(1, keepdim=True).mul(20).clamp(max=60).exp()], 1),
        lambda z: 1000 + 0.01 * torch.cat([z.sin(), z.cos()], 1),
    ]
    for generator in generators:
        for z in (scale * normal(20, 2).to(dtype), torch.zeros(2, 2, dtype=dtype)):

            def scaled(z, generator=generator):
                return generator(z / scale)

            assert first_way(scaled, z).words == "forward mode"
            assert second_way(scaled, z).words == "forward over reverse mode"
