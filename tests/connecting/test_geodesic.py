"""The door: bad input, trivial problems, chunks, warnings."""

import warnings

import pytest
import torch
from problems import half_plane_tensor

from geodesics import (
    EnergySolver,
    FunctionMetric,
    GraphPaths,
    PullbackMetric,
    Status,
    Straight,
    describe,
    geodesic,
)
from geodesics.connecting.geodesic import check_ends

HALF_PLANE = FunctionMetric(half_plane_tensor)
FLAT = PullbackMetric(lambda z: z)
T = torch.linspace(0, 1, 9, dtype=torch.float64)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("z0", "z1", "error", "message"),
    [
        (torch.zeros(8, 2), torch.zeros(8, 3), ValueError, r"both be \(B, d\); got \(8, 2\) and \(8, 3\)"),
        (torch.zeros(8, 2), torch.zeros(7, 2), ValueError, r"got \(8, 2\) and \(7, 2\)"),
        (torch.zeros(2), torch.zeros(2), ValueError, r"got \(2,\) and \(2,\)"),
        (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), ValueError, "both be"),
        (torch.zeros(3, 0), torch.zeros(3, 0), ValueError, "both be"),
        (
            torch.zeros(1, 2),
            torch.zeros(1, 2).double(),
            ValueError,
            "dtype and device; got torch.float32 on cpu",
        ),
        (
            torch.zeros(1, 2, dtype=torch.long),
            torch.zeros(1, 2),
            TypeError,
            r"z0 must be a floating-point.*int64",
        ),
        (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.cfloat), TypeError, "z1 must be a floating-point"),
        (torch.zeros(1, 2), [[0.0, 0.0]], TypeError, "z1 must be a floating-point tensor.*got list"),
    ],
    ids=["dimension", "batch", "one-point", "rank", "no-dimension", "dtypes", "integers", "complex", "list"],
)
def test_ends_that_do_not_fit_are_refused(z0, z1, error, message):
    with pytest.raises(error, match=message):
        geodesic(FLAT, z0, z1)
    with pytest.raises(error, match=message):
        check_ends(z0, z1)


def test_devices_must_agree():
    with pytest.raises(ValueError, match="share dtype and device"):
        check_ends(torch.zeros(1, 2), torch.zeros(1, 2, device="meta"))


@pytest.mark.parametrize("chunk_size", [0, -3])
def test_a_chunk_holds_at_least_one(chunk_size):
    with pytest.raises(ValueError, match=f"chunk_size must be at least 1; got {chunk_size}"):
        geodesic(FLAT, torch.zeros(1, 2), torch.ones(1, 2), chunk_size=chunk_size)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "metric",
    [
        PullbackMetric(lambda z: z.sum(-1)),
        PullbackMetric(lambda z: z[:1]),
        FunctionMetric(lambda z: z),
        FunctionMetric(lambda z: torch.eye(3).expand(len(z), 3, 3)),
    ],
    ids=["generator-rank", "generator-rows", "tensor-rank", "tensor-size"],
)
def test_a_metric_of_the_wrong_shape_is_refused_by_name(metric):
    with pytest.raises(ValueError, match=r"generator|function"):
        geodesic(metric, torch.zeros(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_an_empty_batch_has_an_empty_answer(d):
    empty = torch.zeros(0, d, dtype=torch.float64)
    result = geodesic(FLAT, empty, empty)
    assert len(result.curve) == 0
    assert result.curve.evaluate(T).shape == (0, 9, d)
    assert all(field.shape == (0,) for field in result[1:])
    assert result.converged.shape == (0,)


def test_equal_ends_have_the_constant_curve():
    """Zero length without a step, beside a real problem, and alone."""
    z0 = torch.tensor([[0.0, 1.0], [0.3, 2.0]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 1.0], [0.3, 2.0]], dtype=torch.float64)
    result = geodesic(HALF_PLANE, z0, z1)
    assert result.converged.all()
    assert result.minimum.all()
    assert [float(field[1]) for field in (result.length, result.length_error, result.energy)] == [0, 0, 0]
    assert int(result.iterations[1]) == 0
    torch.testing.assert_close(result.curve.evaluate(T)[1], z0[1].expand(9, 2), rtol=0, atol=1e-14)
    alone = geodesic(HALF_PLANE, z0[1:], z1[1:])
    assert float(alone.length[0]) == 0
    torch.testing.assert_close(alone.curve.evaluate(T)[0], z0[1].expand(9, 2), rtol=0, atol=1e-14)


def test_nearly_equal_ends():
    """1e-9 apart: the length is the local norm of the step."""
    z0 = torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    step = torch.tensor([[1e-9, 0.0]], dtype=torch.float64)
    result = geodesic(HALF_PLANE, z0, z0 + step)
    # Rounding of coordinates of size 2 against a step of 1e-9.
    assert float(result.length[0]) == pytest.approx(0.5e-9, rel=1e-5)


def test_invalid_ends_are_counted_in_one_warning():
    z0 = torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [0.0, 1.0], [0.0, torch.inf]], dtype=torch.float64)
    z1 = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, -torch.inf], [0.0, torch.inf]], dtype=torch.float64)
    with pytest.warns(UserWarning, match="3 of 4 geodesics failed") as caught:
        result = geodesic(HALF_PLANE, z0, z1, chunk_size=1)
    assert len(caught) == 1
    assert result.status.tolist() == [Status.CONVERGED] + 3 * [Status.INVALID]
    assert result.length.isnan().tolist() == [False, True, True, True]
    assert result.curve.points[1:].isnan().all()
    assert not result.minimum[1:].any()


def test_a_failing_metric_is_a_status_and_not_an_error():
    metric = FunctionMetric(lambda z: half_plane_tensor(z) * torch.nan)
    with pytest.warns(UserWarning, match="1 of 1 geodesics failed"):
        result = geodesic(metric, torch.zeros(1, 2).double() + 1, torch.ones(1, 2).double() + 1)
    assert result.status.tolist() == [Status.FAILED]
    assert result.length.isnan().all()


def test_success_warns_of_nothing():
    z = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geodesic(HALF_PLANE, z, z + 1)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 100])
def test_chunks_change_no_answer(chunk_size, normal):
    z0, z1 = (torch.stack([z[:, 0], z[:, 1].exp()], dim=-1) for z in 0.7 * normal(2, 5, 2))
    whole, parts = geodesic(HALF_PLANE, z0, z1), geodesic(HALF_PLANE, z0, z1, chunk_size=chunk_size)
    torch.testing.assert_close(parts.length, whole.length, rtol=1e-10, atol=0)
    torch.testing.assert_close(parts.curve.evaluate(T), whole.curve.evaluate(T), rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.status, whole.status)


def test_gradients_and_inputs_are_left_alone():
    """Ends that ask for gradients, a module in training, a global no-grad: nothing is changed, nothing
    tracked.
    """
    module = torch.nn.Linear(2, 4).double()
    z0 = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    z1 = torch.ones(1, 2, dtype=torch.float64)
    copies = z0.detach().clone(), z1.clone()
    result = geodesic(PullbackMetric(module), z0, z1)
    assert not result.length.requires_grad
    assert module.training
    assert module.weight.grad is None
    torch.testing.assert_close((z0.detach(), z1), copies)
    with torch.inference_mode():
        inside = geodesic(PullbackMetric(module), z0, z1)
    torch.testing.assert_close(inside.length, result.length)


def test_device_and_dtype_are_the_inputs(device, dtype):
    z0 = torch.tensor([[0.0, 1.0]], dtype=dtype, device=device)
    result = geodesic(HALF_PLANE, z0, z0 + 1)
    for field in (result.length, result.length_error, result.energy, result.curve.points, result.curve.knots):
        assert field.dtype == dtype
        assert field.device.type == device.type
    assert result.converged.all()


def test_summary_and_sentences():
    z = torch.tensor([[0.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    text = geodesic(HALF_PLANE, z, z + 1).summary()
    assert "2  CONVERGED" in text
    assert len({describe(status) for status in Status}) == len(Status)
    with pytest.raises(ValueError, match="99"):
        describe(99)


def test_any_solver_and_any_start_fit_the_door():
    """The protocols are structural: an object with `solve`, a callable that returns curves."""

    class Counting:
        def __init__(self):
            self.calls = []

        def solve(self, metric, starts):
            self.calls.append((len(starts), len(starts[0])))
            return EnergySolver().solve(metric, starts)

    class Twice:
        def __call__(self, z0, z1):
            return 2 * Straight()(z0, z1)

    solver = Counting()
    z = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    geodesic(HALF_PLANE, z, z + torch.tensor([[1.0], [0.0], [1.0]]).double(), solver=solver, initial=Twice())
    assert solver.calls == [(2, 2)]  # the pair of equal ends never reaches the solver


def test_graph_paths_fit_the_door(normal):
    latents = normal(60, 2)
    paths = GraphPaths(FLAT, latents, num_nodes=80, num_neighbors=6)
    result = geodesic(FLAT, latents[:3], latents[3:6], initial=paths)
    torch.testing.assert_close(result.length, (latents[:3] - latents[3:6]).norm(dim=-1), rtol=1e-9, atol=0)
