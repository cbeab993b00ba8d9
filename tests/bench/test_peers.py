"""The peers, where they are installed: they solve the problems that are set, and get the metrics that we have."""

import sys
from importlib.util import find_spec

import numpy
import pytest
import torch

from bench.contest.contestants import contestants, missing_peers, peers
from bench.contest.dense_length import dense_length
from bench.contest.time_limit import TimedMetric, TimeLimit
from bench.problems.closed_forms import closed_forms
from bench.problems.learned_metrics import digits

# Contestants and the packages that they need.
PACKAGES = {
    "stochman": "stochman",
    "georce-jax": "jax",
    "geomstats-straightening": "geomstats",
    "geomstats-bvp": "geomstats",
}


def needs(package: str) -> None:
    """Skip without a package, and leave it to the benchmark to import it: geomstats chooses its backend then."""
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("problem", ["sphere", "half-plane"])
def test_peers_find_geodesics(name, problem):
    needs(PACKAGES[name])
    problems = closed_forms()[problem]().part(slice(2))
    answer = contestants()[f"{name}/straight"].solve(problems, TimedMetric(problems.metric, float("inf")))
    torch.testing.assert_close(answer.curve.points[:, 0], problems.z0)
    torch.testing.assert_close(answer.curve.points[:, -1], problems.z1)
    length, _ = dense_length(problems, answer.curve, 4000)
    torch.testing.assert_close(length, problems.best, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_clock_stops_peers(name):
    needs(PACKAGES[name])
    problems = closed_forms()["sphere"]().part(slice(2))
    with pytest.raises(TimeLimit):
        contestants()[f"{name}/straight"].solve(problems, TimedMetric(problems.metric, 0.0))


def test_peers_leave_the_default_number_type():
    for peer in peers():
        problems = closed_forms()["sphere"]().part(slice(1))
        peer.solve(problems, TimedMetric(problems.metric, float("inf")))
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("name", [*sorted(closed_forms()), "digits"])
def test_jax_metrics_are_the_torch_ones(name):
    jnp = pytest.importorskip("jax.numpy")
    metrics = pytest.importorskip("bench.peers.jax_metrics")
    problems = (digits() if name == "digits" else closed_forms()[name]()).part(slice(4))
    ported = metrics.jax_metric(name)
    tensors = problems.metric.tensor(problems.z0)
    for z, v, M in zip(problems.z0, problems.z1, tensors, strict=True):
        x, u = jnp.asarray(z.numpy()), jnp.asarray(v.numpy())
        G = torch.from_numpy(numpy.array(ported.tensor(x)))
        torch.testing.assert_close(G, M, rtol=1e-10, atol=1e-12)
        assert float(ported.form(x, u)) == pytest.approx(float(v @ M @ v), rel=1e-10)


def test_georce_does_not_depend_on_the_batch():
    needs("jax")
    problems = closed_forms()["sphere"]().part(slice(5))
    georce = contestants()["georce-jax/straight"]
    together = georce.solve(problems, TimedMetric(problems.metric, float("inf"))).curve.points
    for i in range(5):
        part = problems.part(slice(i, i + 1))
        alone = georce.solve(part, TimedMetric(part.metric, float("inf"))).curve.points
        torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)


def test_what_is_missing_is_named(monkeypatch):
    assert missing_peers() == [name for name in ("stochman", "jax", "geomstats") if find_spec(name) is None]
    monkeypatch.setitem(sys.modules, "stochman", None)
    assert "stochman" in missing_peers()
    assert "stochman/straight" not in contestants()
