"""The command on many dimensions: both methods on a small row, and the lines of its table."""

import torch

from bench import dimensions
from geodesics import PullbackMetric, length


def test_both_methods_are_measured_alike(monkeypatch):
    """The solver is resolved, and no longer than Adam; a polyline's chords are below its length."""
    row = dimensions.Row("small", lambda: dimensions.map_decoder(4), 64)
    monkeypatch.setattr(dimensions, "ROWS", (row,))
    found = {method: dimensions.measure("small", method) for method in ("default", "adam")}
    ours, theirs = found["default"], found["adam"]
    assert ours["resolved"] == [True]
    assert ours["lengths"][0] <= theirs["lengths"][0]
    assert theirs["chords"][0] < theirs["lengths"][0] < theirs["straight"][0]
    lines = dimensions.table("small", found)
    assert [line.split("|")[6].strip() for line in lines] == ["default", "adam"]
    assert all(line.count("|") == 13 for line in lines)


def test_adam_keeps_the_ends():
    decoder = dimensions.map_decoder(4)
    z0, z1 = torch.zeros(2, 64, dtype=torch.float64), torch.ones(2, 64, dtype=torch.float64)
    curve, chords = dimensions.adam(decoder, z0, z1)
    assert torch.equal(curve.points[:, 0], z0)
    assert torch.equal(curve.points[:, -1], z1)
    with torch.no_grad():
        assert (chords <= length(PullbackMetric(decoder), curve)[0]).all()
