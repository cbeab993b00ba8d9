"""Polynomial elements: nodes, bases, rules, and the sharing of end nodes."""

import math

import numpy as np
import pytest
import torch

from geodesics.curves.elements import (
    basis_at,
    elevate,
    gather,
    gauss_rule,
    join,
    lagrange_basis,
    lobatto_nodes,
    make_elements,
    scatter_add,
)

DEGREES = range(1, 9)


def test_lobatto_nodes_of_low_degree():
    """The textbook's nodes on [-1, 1]: 0; 1/sqrt 5; 0 and sqrt(3/7)."""
    np.testing.assert_allclose(2 * lobatto_nodes(1) - 1, [-1, 1])
    np.testing.assert_allclose(2 * lobatto_nodes(2) - 1, [-1, 0, 1], atol=1e-15)
    np.testing.assert_allclose(2 * lobatto_nodes(3) - 1, [-1, -1 / math.sqrt(5), 1 / math.sqrt(5), 1])
    np.testing.assert_allclose(2 * lobatto_nodes(4) - 1, [-1, -math.sqrt(3 / 7), 0, math.sqrt(3 / 7), 1], atol=1e-15)


@pytest.mark.parametrize("p", DEGREES)
def test_lobatto_nodes_integrate_to_their_order(p):
    """Interpolatory weights on the p + 1 nodes are exact to degree 2 p - 1, as only Lobatto's are."""
    nodes = lobatto_nodes(p)
    assert nodes[0] == 0
    assert nodes[-1] == 1
    at, gauss = gauss_rule(p + 1)
    weights = gauss @ lagrange_basis(nodes, at)[0]
    for k in range(2 * p):
        assert weights @ nodes**k == pytest.approx(1 / (k + 1), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_gauss_rule_is_exact_to_its_order(count):
    nodes, weights = gauss_rule(count)
    for k in range(2 * count):
        assert weights @ nodes**k == pytest.approx(1 / (k + 1), rel=1e-13)
    # And to no more: the first even power beyond is missed.
    assert abs(weights @ (2 * nodes - 1) ** (2 * count) - 1 / (2 * count + 1)) > 1e-8


@pytest.mark.parametrize("p", DEGREES)
def test_bases_reproduce_polynomials_and_their_slopes(p, rng):
    polynomial = np.polynomial.Polynomial(torch.randn(p + 1, generator=rng, dtype=torch.float64).numpy())
    nodes, at = lobatto_nodes(p), np.linspace(0, 1, 11)
    nodal = polynomial(nodes)
    for values, slopes in (lagrange_basis(nodes, at), basis_at(p, torch.as_tensor(at))):
        # Rounding grows with the condition of the monomial basis, below 1e4 at degree 8.
        np.testing.assert_allclose(np.asarray(values) @ nodal, polynomial(at), atol=1e-11)
        np.testing.assert_allclose(np.asarray(slopes) @ nodal, polynomial.deriv()(at), atol=1e-10)


@pytest.mark.parametrize(("p", "m"), [(1, 1), (1, 4), (2, 3), (3, 6), (4, 8)])
def test_element_matrices_act_on_polynomials(p, m, rng):
    """A latent polynomial of degree p, sampled m + 1 times, has its own slopes and values at the Gauss
    points.
    """
    elements = make_elements(p, m, torch.zeros(1, dtype=torch.float64))
    polynomial = np.polynomial.Polynomial(torch.randn(p + 1, generator=rng, dtype=torch.float64).numpy())
    nodal = torch.as_tensor(polynomial(lobatto_nodes(p)))
    points = gauss_rule(m)[0]
    samples = elements.to_samples @ nodal
    np.testing.assert_allclose(samples, polynomial(lobatto_nodes(m)), atol=1e-13)
    np.testing.assert_allclose(elements.to_quadrature @ nodal, polynomial(points), atol=1e-13)
    np.testing.assert_allclose(elements.quadrature_slopes @ nodal, polynomial.deriv()(points), atol=1e-12)
    np.testing.assert_allclose(elements.sample_slopes @ samples, polynomial.deriv()(points), atol=1e-12)
    assert float(elements.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_scatter_add_is_the_transpose_of_gather(p, normal):
    """<gather(x), y> = <x, scatter_add(y)>; and join is the left inverse of gather."""
    x, y = normal(3, 4 * p + 1, 2), normal(3, 4, p + 1, 2)
    torch.testing.assert_close((gather(x, p) * y).sum((1, 2, 3)), (x * scatter_add(y)).sum((1, 2)))
    torch.testing.assert_close(join(gather(x, p)), x)
    torch.testing.assert_close(gather(x, p)[:, 1:, 0], gather(x, p)[:, :-1, -1])


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_elevate_changes_no_polynomial(p, normal):
    x = normal(2, 3 * p + 1, 2)
    higher = elevate(x, p)
    at = torch.linspace(0, 1, 9, dtype=torch.float64)
    before = basis_at(p, at)[0] @ gather(x, p)
    after = basis_at(p + 1, at)[0] @ gather(higher, p + 1)
    torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)


def test_dtype_and_matrices_follow_the_points(dtype):
    elements = make_elements(2, 4, torch.zeros(1, dtype=dtype))
    assert {matrix.dtype for matrix in elements[2:]} == {dtype}
