"""Tests of the damping by the spread of the curve."""

import pytest
import torch

from bench.zoo.members import members
from geodesics import PullbackMetric, Status, geodesic
from geodesics.curves.elements import make_elements
from geodesics.minimization.tether import tether_blocks

AXES = torch.tensor([[30.0, 1.0], [0.0, 1e-3]], dtype=torch.float64)


def sheet(z):
    return torch.cat([z, (2 * z).sin()], dim=1)


def tethers(generator, points, decrement):
    energy = PullbackMetric(generator).path_energy(make_elements(3, 6, points))
    return tether_blocks(energy.linearize(points, None), points, decrement)


def quadratic(blocks, moves):
    """Sum over all elements of what the moves cost."""
    local = moves.unfold(1, 4, 3).movedim(-1, 2).flatten(2)
    return torch.einsum("bsi,btij,bsj->b", local, blocks, local)


def test_a_change_of_axes_changes_no_tether(normal):
    points, moves = normal(2, 13, 2), normal(2, 13, 2)
    gradient = torch.full((2,), 0.05, dtype=torch.float64)
    blocks, strength = tethers(sheet, points, gradient)
    other, _ = tethers(lambda z: sheet(z @ AXES.inverse()), points @ AXES, gradient)
    torch.testing.assert_close(quadratic(other, moves @ AXES), quadratic(blocks, moves), rtol=1e-6, atol=0)
    torch.testing.assert_close(strength, gradient.square())


def test_a_move_by_the_spread_of_the_curve_costs_one_per_node():
    """Nearly: the hundredth of the length that is added is a twentieth of the smaller of the two spreads."""
    t = torch.linspace(-1, 1, 301, dtype=torch.float64)
    points = torch.stack([t, t.square()], dim=1)[None]
    blocks, _ = tethers(lambda z: torch.cat([z[:, :1], 0.5 * z[:, 1:]], 1), points, torch.ones_like(points[:, 0, 0]))
    for axis in torch.eye(2, dtype=torch.float64):
        moves = (points.std(1, correction=0)[:, None] * axis).expand(-1, 301, -1)
        assert 290 < float(quadratic(blocks, moves)) < 300


def test_curves_without_a_known_gradient_and_curves_that_stand_still_have_none(normal):
    points = normal(2, 13, 2)
    points[1] = 0
    blocks, strength = tethers(sheet, points, torch.tensor([torch.inf, 0.01], dtype=torch.float64))
    assert strength.tolist() == [0.0, pytest.approx(1e-4)]
    assert blocks[0].isfinite().all()


def test_a_metric_without_a_value_ties_nothing_and_harms_no_other_curve(normal):
    points, gradient = normal(3, 13, 2), torch.full((3,), 0.05, dtype=torch.float64)
    energy = PullbackMetric(sheet).path_energy(make_elements(3, 6, points))
    model = energy.linearize(points, None)
    alone, _ = tether_blocks(model, points, gradient)
    model.metric[0], model.metric[1] = torch.nan, -model.metric[1]
    blocks, _ = tether_blocks(model, points, gradient)
    assert not blocks[:2].any()
    assert torch.equal(blocks[2], alone[2])


def test_decoders_with_axes_that_carry_nothing_are_solved():
    """Eight latents of which four are used: from straight lines, all lengths are resolved and none is too long."""
    (member,) = members(["ten_digits"], "practice", None)
    result = geodesic(member.metric, member.z0, member.z1)
    assert (result.status <= Status.SETTLED).all()
    assert (result.length - result.length_error <= member.best).all()
    assert (result.length <= 1.002 * member.best).all()
