"""Distances pair by pair and all pairs."""

import math

import pytest
import torch
from problems import half_plane_distance, half_plane_tensor, sphere, sphere_distance

from geodesics import EnergySolver, FunctionMetric, PullbackMetric, distance, distance_matrix

HALF_PLANE = FunctionMetric(half_plane_tensor)
SPHERE = PullbackMetric(sphere)
SOLVER = EnergySolver(num_segments=4, length_tol=1e-4)


def on_the_sphere(normal, n):
    """Points within 0.8 of the equator and of one meridian: no pair is near the poles or opposite."""
    return torch.tensor([math.pi / 2, 0.0], dtype=torch.float64) + (0.4 * normal(n, 2)).clamp(-0.8, 0.8)


def test_distances_are_the_closed_forms(normal):
    z = on_the_sphere(normal, 6)
    exact = sphere_distance(z[:3], z[3:])
    torch.testing.assert_close(distance(SPHERE, z[:3], z[3:]), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(distance(SPHERE, z[3:], z[:3]), exact, rtol=1e-6, atol=0)
    assert distance(SPHERE, z, z).tolist() == [0.0] * 6


def test_the_matrix_is_a_metric(normal):
    """Symmetric, zero on the diagonal, the closed form elsewhere, and no detour is shorter."""
    z = on_the_sphere(normal, 7)
    D = distance_matrix(SPHERE, z, solver=SOLVER)
    assert torch.equal(D, D.mT)
    assert (D.diagonal() == 0).all()
    i, j = torch.triu_indices(7, 7, offset=1)
    torch.testing.assert_close(D[i, j], sphere_distance(z[i], z[j]), rtol=1e-4, atol=0)
    detours = (D[:, :, None] + D[None]).amin(1)
    # Each of the two sides is right to 1e-4.
    assert (detours * (1 + 2e-4) >= D).all()


@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
def test_chunks_change_no_distance(chunk_size, normal):
    z = on_the_sphere(normal, 5)
    chunked = distance_matrix(SPHERE, z, solver=SOLVER, chunk_size=chunk_size)
    torch.testing.assert_close(chunked, distance_matrix(SPHERE, z, solver=SOLVER), rtol=1e-10, atol=0)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_points(n, normal):
    z = on_the_sphere(normal, n)
    D = distance_matrix(SPHERE, z)
    assert D.shape == (n, n)
    if n == 2:
        torch.testing.assert_close(D[0, 1], sphere_distance(z[:1], z[1:])[0], rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:.*geodesics failed")
def test_a_bad_point_harms_only_its_own_row_and_column():
    z = torch.tensor([[0.0, 1.0], [1.0, 1.0], [torch.nan, 1.0], [0.5, 2.0]], dtype=torch.float64)
    D = distance_matrix(HALF_PLANE, z)
    good = torch.tensor([0, 1, 3])
    torch.testing.assert_close(D[good][:, good], distance_matrix(HALF_PLANE, z[good]), rtol=1e-10, atol=0)
    assert D[2, good].isnan().all()
    assert D[good, 2].isnan().all()
    torch.testing.assert_close(D[0, 1], half_plane_distance(z[:1], z[1:2])[0], rtol=1e-6, atol=0)


def test_one_warning_for_the_whole_matrix():
    z = torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [0.5, 2.0], [0.1, 1.5]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="3 of 6 geodesics failed") as caught:
        distance_matrix(HALF_PLANE, z, chunk_size=2)
    assert len(caught) == 1


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("z", "options", "error", "message"),
    [
        (torch.zeros(3), {}, ValueError, r"z must be \(n, d\); got \(3,\)"),
        (torch.zeros(3, 2, dtype=torch.long), {}, TypeError, "floating-point"),
        (torch.zeros(1, 2, dtype=torch.long), {}, TypeError, "floating-point"),
        (torch.zeros(3, 2), {"chunk_size": 0}, ValueError, "chunk_size must be at least 1; got 0"),
    ],
    ids=["rank", "integers", "one-integer", "chunk"],
)
def test_bad_input_is_refused(z, options, error, message):
    with pytest.raises(error, match=message):
        distance_matrix(HALF_PLANE, z, **options)
