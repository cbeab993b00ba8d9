"""Derivatives of generators against an independent route: reverse mode, one row at a time."""

import pytest
import torch
from torch import nn
from torch.func import hessian, jacrev, jvp, vmap
from torch.nn import functional

from geodesics import SecondOrderGenerator, contracted_hessian, directional_second_derivative, value_and_jacobian
from geodesics.generators.derivatives import basis_tangents, directional_derivative, second_order


class Convolutional(nn.Module):
    """A small decoder whose reshape names the batch size, which breaks a vmap over rows."""

    def __init__(self, d):
        super().__init__()
        self.dense = nn.Linear(d, 8)
        self.up = nn.ConvTranspose2d(2, 3, kernel_size=3, stride=2)
        self.last = nn.Conv2d(3, 1, kernel_size=2)

    def forward(self, z):
        image = self.dense(z).tanh().view(z.shape[0], 2, 2, 2)
        return self.last(self.up(image).tanh()).sigmoid().view(z.shape[0], -1)


def decoder(kind, d):
    torch.manual_seed(d)
    if kind == "convolutional":
        return Convolutional(d).double().eval()
    return nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 13), nn.Softplus()).double()


CASES = [("perceptron", 1), ("perceptron", 2), ("perceptron", 5), ("convolutional", 2), ("convolutional", 3)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}{case[1]}")
def case(request, normal):
    """A decoder, points and directions."""
    kind, d = request.param
    return decoder(kind, d), normal(6, d), normal(6, d)


def one_row(generator):
    return lambda z: generator(z[None])[0]


def test_jacobian_is_that_of_reverse_mode_row_by_row(case):
    generator, z, _ = case
    F, J = value_and_jacobian(generator, z)
    torch.testing.assert_close(F, generator(z))
    rows = torch.stack([jacrev(one_row(generator))(row) for row in z])  # (B, D, d)
    torch.testing.assert_close(J, rows.permute(2, 0, 1))


def test_contracted_hessian_is_that_of_reverse_mode_row_by_row(case, normal):
    generator, z, _ = case
    w = normal(*generator(z).shape)
    expected = [torch.einsum("o,oij->ij", w[i], hessian(one_row(generator))(row)) for i, row in enumerate(z)]
    result = contracted_hessian(generator, z, w)
    torch.testing.assert_close(result, torch.stack(expected))
    torch.testing.assert_close(result, result.mT)


def test_directional_derivatives_contract_the_full_ones(case):
    generator, z, v = case
    first, second = directional_second_derivative(generator, z, v)
    _, J = value_and_jacobian(generator, z)
    full = torch.stack([hessian(one_row(generator))(row) for row in z])
    torch.testing.assert_close(first, torch.einsum("kbo,bk->bo", J, v))
    torch.testing.assert_close(directional_derivative(generator, z, v), first)
    torch.testing.assert_close(second, torch.einsum("boij,bi,bj->bo", full, v, v))


def test_every_output_counts():
    """With D > d all D outputs are in J: A z has Jacobian A^T, not its first d columns."""
    A = torch.arange(1.0, 11.0, dtype=torch.float64).reshape(5, 2)
    F, J = value_and_jacobian(lambda z: z @ A.mT, torch.zeros(3, 2, dtype=torch.float64))
    assert F.shape == (3, 5)
    torch.testing.assert_close(J, A.mT[:, None, :].expand(2, 3, 5))


def test_rows_are_independent(case, normal):
    """Alone == batched == permuted, and a NaN row changes no other."""
    generator, z, v = case
    w = normal(*generator(z).shape)
    permutation = torch.tensor([3, 0, 5, 1, 4, 2])
    poisoned = z.clone()
    poisoned[2] = torch.nan
    others = torch.arange(6) != 2
    for function, extra in (
        (lambda z, _: value_and_jacobian(generator, z)[1].movedim(1, 0), w),
        (lambda z, w: contracted_hessian(generator, z, w), w),
        (lambda z, v: directional_second_derivative(generator, z, v)[1], v),
    ):
        batched = function(z, extra)
        alone = torch.cat([function(z[i : i + 1], extra[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(alone, batched)
        torch.testing.assert_close(function(z[permutation], extra[permutation]), batched[permutation])
        torch.testing.assert_close(function(poisoned, extra)[others], batched[others])


def test_own_derivatives_are_preferred(normal):
    class Own:
        def __call__(self, z):
            return z * torch.nan  # the generator's own derivatives are enough

        def value_and_jacobian(self, z):
            return z, basis_tangents(z)

        def contracted_hessian(self, z, w):
            return torch.full((len(z), 2, 2), 7.0, dtype=z.dtype)

    z = normal(3, 2)
    torch.testing.assert_close(value_and_jacobian(Own(), z)[0], z)
    assert (contracted_hessian(Own(), z, z) == 7).all()


def test_second_order_is_both_derivatives(case, normal):
    generator, z, _ = case
    w = normal(*generator(z).shape)
    F, J, contract = second_order(generator, z)
    torch.testing.assert_close((F, J), value_and_jacobian(generator, z))
    torch.testing.assert_close(contract(w), contracted_hessian(generator, z, w))


def test_own_second_order_is_preferred(normal):
    class Own:
        def __call__(self, z):
            raise AssertionError("the generator's own derivatives are enough")

        def second_order(self, z):
            return z, basis_tangents(z), lambda w: w[:, :, None] * w[:, None, :]

    assert isinstance(Own(), SecondOrderGenerator)
    z = normal(3, 2)
    F, J, contract = second_order(Own(), z)
    torch.testing.assert_close((F, J), (z, basis_tangents(z)))
    torch.testing.assert_close(contract(z), torch.einsum("bi,bj->bij", z, z))


def test_basis_tangents_are_the_unit_vectors_on_every_row(normal):
    tangents = basis_tangents(normal(4, 3))
    torch.testing.assert_close(tangents.movedim(1, 0), torch.eye(3, dtype=torch.float64).expand(4, 3, 3))


class OnImages(nn.Module):
    """A module on images (B, C, H, W), for rows."""

    def __init__(self, module, *shape):
        super().__init__()
        self.module, self.shape = module, shape

    def forward(self, x):
        return self.module(x.view(x.shape[0], *self.shape)).flatten(1)


class Attention(nn.Module):
    """Self-attention over four tokens of eight features, written out."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x.view(-1, 4, 8)).chunk(3, dim=-1)
        return ((q @ k.mT).softmax(dim=-1) @ v).flatten(1)


def masked_attention(x):
    """Torch's own attention under both kinds of masks and a scale."""
    tokens = x.view(-1, 2, 4, 4)
    seen = torch.tensor([[True, True, False, True]] * 4)
    shut = functional.scaled_dot_product_attention(tokens, tokens.flip(-1), tokens, attn_mask=seen, scale=0.7)
    biased = functional.scaled_dot_product_attention(tokens, shut, tokens, attn_mask=torch.eye(4).to(x))
    return biased.flatten(1)


def grouped_attention(x):
    """Two heads of queries to one of keys and values, none of which sees what comes after it."""
    tokens = x.view(-1, 2, 4, 4)
    keys = tokens[:, :1]
    return functional.scaled_dot_product_attention(tokens, keys, keys, is_causal=True, enable_gqa=True).flatten(1)


class Own(nn.Module):
    """A plain function as a module."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def batch_norm():
    module = nn.BatchNorm1d(32)
    nn.init.normal_(module.running_mean)
    nn.init.uniform_(module.running_var, 0.5, 2)
    return module


# Layers on 32 features. Torch's own nested forward mode is wrong for the normalizations above GLU, which has none.
LAYERS = {
    "layer norm": lambda: nn.LayerNorm(32),
    "layer norm without weights": lambda: nn.LayerNorm((4, 8), elementwise_affine=False),
    "torch.layer_norm": lambda: Own(lambda x: torch.layer_norm(x, (32,), None, x.new_ones(32), 1e-3)),
    "torch.native_layer_norm": lambda: Own(lambda x: torch.native_layer_norm(x, (32,), None, None, 1e-5)[0]),
    "instance norm": lambda: OnImages(nn.InstanceNorm2d(2, affine=True), 2, 4, 4),
    "glu": lambda: nn.GLU(),
    "glu over channels": lambda: OnImages(nn.GLU(dim=1), 2, 4, 4),
    "group norm": lambda: nn.GroupNorm(4, 32),
    "rms norm": lambda: nn.RMSNorm(32),
    "instance norm with statistics": lambda: OnImages(nn.InstanceNorm2d(2, track_running_stats=True), 2, 4, 4),
    "batch norm": batch_norm,
    "normalize": lambda: Own(lambda x: functional.normalize(x, dim=-1)),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softmax": lambda: nn.Softmax(dim=-1),
    "attention": Attention,
    "masked attention": lambda: Own(masked_attention),
    "causal attention of grouped queries": lambda: Own(grouped_attention),
    "transformer": lambda: OnImages(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 4, 8),
    "convolution": lambda: OnImages(nn.ConvTranspose2d(2, 3, 3, stride=2), 2, 4, 4),
}


def layered(name):
    """A decoder with the layer inside, in eval mode, its weights far from those of the start."""
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    shaped = layer if name != "layer norm without weights" else OnImages(layer, 4, 8)
    return nn.Sequential(nn.Linear(2, 32), nn.Softplus(), shaped, nn.Tanh()).double().eval()


def along(function, z, v, h=1e-4):
    """Derivative of a function along v by central differences of order four."""

    def difference(h):
        return (function(z + h * v) - function(z - h * v)) / (2 * h)

    return (4 * difference(h) - difference(2 * h)) / 3


@pytest.mark.parametrize("switched_on", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_of_derivatives_are_those_of_finite_differences(name, switched_on, normal):
    """Of every layer, each derivative against differences of the one before."""
    generator, z, v = layered(name), normal(5, 2), normal(5, 2)
    with torch.set_grad_enabled(switched_on):
        F, J = value_and_jacobian(generator, z)
        first, second = directional_second_derivative(generator, z, v)
        w = normal(*F.shape)
        form = torch.einsum("bij,bi,bj->b", contracted_hessian(generator, z, w), v, v)
    with torch.no_grad():
        torch.testing.assert_close(F, generator(z))
        close = {"rtol": 1e-7, "atol": 1e-8}  # of differences, whose step is 1e-4
        torch.testing.assert_close(first, along(generator, z, v), **close)
        torch.testing.assert_close(torch.einsum("kbo,bk->bo", J, v), first)
        torch.testing.assert_close(second, along(lambda z: directional_derivative(generator, z, v), z, v), **close)
        torch.testing.assert_close(form, (w * second).sum(1))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "torch.native_layer_norm"])
def test_second_derivatives_and_jacobians_can_be_differentiated_forward(name, normal):
    """Shooting does, with vmapped passes through both. (`native_layer_norm` itself is out of reach.)"""
    generator, z, v = layered(name), normal(3, 2), normal(3, 2)
    for function in (
        lambda z: directional_second_derivative(generator, z, v)[1],
        lambda z: value_and_jacobian(generator, z)[1].movedim(0, 1),
    ):
        with torch.enable_grad():
            forward = vmap(lambda u, function=function: jvp(function, (z,), (u,))[1])(torch.stack([v, -2 * v]))
        torch.testing.assert_close(forward[0].detach(), along(function, z, v).detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(forward[1], -2 * forward[0])
