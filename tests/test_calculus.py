"""Derivatives of generators against an independent route: reverse mode, one row at a time."""

import pytest
import torch
from torch import nn
from torch.func import hessian, jacrev

from geodesics import SecondOrderGenerator, contracted_hessian, directional_second_derivative, value_and_jacobian
from geodesics.calculus import basis_tangents, directional_derivative, second_order


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
            raise AssertionError("the generator's own derivatives are enough")

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
