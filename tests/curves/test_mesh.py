"""Meshes of equal mixed arc length."""

import pytest
import torch
from problems import half_plane_tensor

from geodesics import Curve, FunctionMetric
from geodesics.curves.elements import make_elements
from geodesics.curves.mesh import (
    allot_pieces,
    cell_arcs,
    distortion,
    equal_mixed_nodes,
    interpolate,
    mixed_arc,
)


def test_interpolation_is_linear_between_and_exact_at_the_nodes(normal):
    nodes = torch.tensor([[0.0, 0.2, 0.5, 1.0], [0.0, 0.1, 0.9, 1.0]], dtype=torch.float64)
    values = normal(2, 4)
    torch.testing.assert_close(interpolate(nodes, nodes, values), values)
    middle = (nodes[:, 1:] + nodes[:, :-1]) / 2
    torch.testing.assert_close(interpolate(middle, nodes, values), (values[:, 1:] + values[:, :-1]) / 2)


def test_interpolation_over_a_cell_of_no_width():
    """Equal neighboring nodes, a cell of no length, give one of the two values and no NaN."""
    nodes = torch.tensor([[0.0, 0.5, 0.5, 1.0]], dtype=torch.float64)
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    at = torch.tensor([[0.25, 0.5, 0.75]], dtype=torch.float64)
    result = interpolate(at, nodes, values)
    torch.testing.assert_close(result[:, [0, 2]], torch.tensor([[0.5, 2.5]], dtype=torch.float64))
    assert 1 <= float(result[0, 1]) <= 2


def test_mixed_arc_is_the_mean_of_both_shares():
    riemannian = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    latent = torch.tensor([[30.0, 10.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.5 * 0.25 + 0.5 * 0.75, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(mixed_arc(riemannian, latent), expected)


def half_plane_climb(count=16, degree=3):
    """The vertical line from y = 1 to y = 0.02, where the metric grows by 2,500."""
    t = torch.linspace(0, 1, count * degree + 1, dtype=torch.float64)
    y = torch.stack([1 - 0.98 * t, 1 - 0.5 * t])
    return torch.stack([torch.zeros_like(y), y], dim=-1)


@pytest.mark.parametrize("degree", [1, 3])
def test_moved_nodes_have_equal_mixed_arc(degree):
    points = half_plane_climb(degree=degree)
    elements = make_elements(degree, 6, points)
    path_energy = FunctionMetric(half_plane_tensor).path_energy(elements)
    before = None
    for _ in range(6):
        speed = path_energy.value(points, None)[1]
        arc, times = cell_arcs(points, speed, elements)
        if before is None:
            before = distortion(arc, 16)
        moved = equal_mixed_nodes(Curve(points, None, degree), arc, times, degree, 16)
        assert torch.equal(moved[:, [0, -1]], points[:, [0, -1]])
        points = moved
    arc, _ = cell_arcs(points, path_energy.value(points, None)[1], elements)
    after = distortion(arc, 16)
    assert float(before[0]) > 3
    # The rule of 6 cells per element bounds how equal the elements can get.
    assert float(after.max()) < 1.1
    torch.testing.assert_close(points[..., 0], torch.zeros_like(points[..., 0]))
    assert (points[:, 1:, 1] < points[:, :-1, 1]).all()


def test_rows_are_independent(normal):
    points = half_plane_climb()
    elements = make_elements(3, 6, points)
    path_energy = FunctionMetric(half_plane_tensor).path_energy(elements)

    def move(points):
        speed = path_energy.value(points, None)[1]
        arc, times = cell_arcs(points, speed, elements)
        return equal_mixed_nodes(Curve(points, None, 3), arc, times, 3, 16)

    batched = move(points)
    torch.testing.assert_close(torch.cat([move(points[:1]), move(points[1:])]), batched)
    torch.testing.assert_close(move(points.flip(0)).flip(0), batched)
    poisoned = points.clone()
    poisoned[0, 5] = torch.nan
    torch.testing.assert_close(move(poisoned)[1], batched[1])


def test_pieces_follow_the_shares_where_nothing_is_wrong():
    """Weights 4, 1, 1, 2 and eight pieces: two per unit of weight are impossible, 4 / 4 = 2 / 2 = 1 is the least."""
    share = torch.tensor([[4.0, 1.0, 1.0, 2.0]], dtype=torch.float64) / 8
    length, mismatch = torch.ones_like(share), torch.zeros_like(share)
    assert allot_pieces(share, length, mismatch, 8).tolist() == [[4, 1, 1, 2]]


def test_a_mismatch_attracts_pieces_and_rows_are_independent():
    share = torch.full((3, 6), 1 / 6, dtype=torch.float64)
    length, mismatch = torch.ones_like(share), torch.zeros_like(share)
    mismatch[1, 4] = 0.1
    share[2] = torch.nan
    pieces = allot_pieces(share, length, mismatch, 9)
    assert pieces.sum(1).tolist() == [9, 9, 9]
    assert pieces[1].tolist() == [1, 1, 1, 1, 4, 1]
    assert pieces[0].tolist() == [2, 2, 2, 1, 1, 1]  # equal elements: by their order
    assert (allot_pieces(share[:1], length[:1], mismatch[:1], 9) == pieces[:1]).all()
