"""The zoo: it loads, a row tells the truth, an error estimate that is too small is seen, shorter lengths are kept."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from bench.gpu.models import Given
from bench.zoo import __main__ as command
from bench.zoo import members, starts
from bench.zoo.continuation import coarsened, continued, own_segments
from bench.zoo.measure import Setting, judged, measure, summarize
from bench.zoo.models import path_of
from bench.zoo.pairs import load, merge_files, merged, store
from bench.zoo.recipes import RECIPES, Kind
from bench.zoo.report import markdown
from bench.zoo.search import Effort, search
from bench.zoo.starts import GraphSettings
from geodesics import Curve, EnergySolver, geodesic

SMALL = GraphSettings(num_nodes=600, num_paths=1)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(starts, "CACHE", tmp_path / "starts")


@pytest.fixture
def sheet():
    """Two pairs of the cheapest member, D = 3."""
    (member,) = members(["sheet"], half="practice")
    return member.rows(torch.tensor([0, 3]))


@pytest.fixture
def unfinished(sheet):
    """Curves after a single step from straight lines through bent ones."""
    t = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
    bend = torch.sin(torch.pi * t) * torch.tensor([1.5, -1.2], dtype=torch.float64)
    points = sheet.z0[:, None] + t * (sheet.z1 - sheet.z0)[:, None] + bend
    solver = EnergySolver(max_segments=8, max_iter=1, max_meshes=1)
    return geodesic(sheet.metric, sheet.z0, sheet.z1, solver=solver, initial=Given(points[None]))


def test_members_load_with_pairs_of_both_halves():
    found = members()
    assert {recipe.name for recipe in RECIPES} <= {member.name for member in found}
    for member in found:
        assert member.z0.dtype == torch.float64
        assert member.metric.tensor(member.z0[:2]).isfinite().all()
        assert ((member.best > 0) & member.best.isfinite()).all(), member.name
        if member.group == "zoo":
            assert 16 <= len(member.pairs) <= 24
            assert int(member.held_out.sum()) == len(member.pairs) // 2
            assert len(member.half("practice").pairs) == len(member.half("held-out").pairs)


def test_models_are_many_and_small():
    assert len(RECIPES) >= 8
    assert {2, 3, 8, 16, 32} <= {recipe.latent_dim for recipe in RECIPES}
    assert {recipe.kind for recipe in RECIPES} == set(Kind)
    assert all(path_of(recipe.name).stat().st_size < 300_000 for recipe in RECIPES)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match="must name members"):
        members(["nobody"])
    with pytest.raises(ValueError, match="half must be"):
        members(half="third")


def test_a_row_is_measured_from_end_to_end(sheet):
    row = measure(sheet, "small", Setting(EnergySolver(), SMALL), "practice").to_dict()
    outcome = row["outcome"]
    assert outcome["pair"] == [0, 3]
    assert max(outcome["excess"]) < 0.05
    assert outcome["status"] == ["CONVERGED"] * 2
    assert outcome["holds"] == [True, True]
    assert all(0 < count <= 12 for count in outcome["segments"])
    assert not any(outcome["below_chord"])
    summary = summarize([outcome], tested=True)
    assert (summary.checked, summary.holds, summary.far, summary.false) == (2, 2, 0, 0)


def test_stored_starts_are_those_of_the_graph(sheet):
    first = sheet.starts(SMALL).starts
    assert len(list(starts.CACHE.glob("sheet-*.npz"))) == 1
    assert torch.equal(sheet.starts(SMALL).starts, first)
    assert torch.equal(sheet.rows(torch.tensor([1])).starts(SMALL).starts, first[:, 1:])
    sheet.starts(replace(SMALL, seed=1))
    assert len(list(starts.CACHE.glob("sheet-*.npz"))) == 2


def test_an_estimate_that_is_too_small_is_seen(sheet, unfinished):
    honest = continued(sheet.metric, unfinished._replace(length_error=unfinished.length))
    assert honest.holds.all()
    fall = unfinished.length - honest.length
    assert (fall > 0.005 * unfinished.length).all()
    too_small = continued(sheet.metric, unfinished._replace(length_error=torch.stack([fall[0] / 2, fall[1] / 4])))
    assert too_small.checked.all()
    assert not too_small.holds.any()
    assert too_small.far.tolist() == [False, True]
    unknown = continued(sheet.metric, unfinished._replace(length_error=torch.full_like(fall, torch.inf)))
    assert not unknown.checked.any()


def test_a_false_claim_is_counted(sheet, unfinished):
    claimed = unfinished._replace(length_error=0 * unfinished.length, status=torch.zeros_like(unfinished.status))
    summary = summarize([asdict(judged(sheet, claimed))], tested=True)
    assert (summary.checked, summary.holds, summary.far, summary.false, summary.found) == (2, 0, 2, 2, 0)


def test_the_elements_of_a_curve_are_found_again(normal):
    curve = Curve(normal(1, 37, 2), None, 3)
    assert own_segments(curve) == 12
    cut = curve.with_segments(32)
    assert own_segments(cut) == 12
    torch.testing.assert_close(coarsened(cut, 12).points, curve.points)


def test_merging_keeps_what_is_shorter(sheet, tmp_path):
    pairs = sheet.pairs
    shorter, longer = pairs.best * torch.tensor([0.9, 1.1]), pairs.best * torch.tensor([1.1, torch.nan])
    better = merged(pairs, shorter, 0 * shorter, "me")
    assert better.best.tolist() == [float(shorter[0]), float(pairs.best[1])]
    assert better.by == ("me", pairs.by[1])
    assert torch.equal(merged(better, longer, 0 * longer, "another").best, better.best)
    store(tmp_path / "a.json", pairs)
    store(tmp_path / "b.json", better)
    assert merge_files(tmp_path / "a.json", tmp_path / "b.json") == 1
    assert torch.equal(load(tmp_path / "a.json").best, better.best)
    store(tmp_path / "c.json", replace(better, z0=better.z0 + 1))
    with pytest.raises(ValueError, match="must hold the same pairs"):
        merge_files(tmp_path / "a.json", tmp_path / "c.json")


def test_the_search_finds_what_is_known(sheet, monkeypatch):
    monkeypatch.setattr("bench.zoo.search.DEFAULT", SMALL)
    unknown = replace(sheet, pairs=replace(sheet.pairs, best=torch.full_like(sheet.best, torch.inf)))
    kept = []
    found = search(unknown, Effort(600, 2, 1, 64), kept.append, lambda line: None)
    torch.testing.assert_close(found.best, sheet.best, rtol=1e-2, atol=0)
    assert torch.equal(kept[-1].best, found.best)


def test_a_run_goes_on_where_it_was(sheet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "members", lambda only, half, shared: [sheet])
    monkeypatch.setitem(command.SETTINGS, "default", Setting(EnergySolver(), SMALL))
    arguments = ["measure", "--out", str(tmp_path), "--no-continuation"]
    command.main(arguments)
    monkeypatch.setattr(command, "measure", None)  # called again it would fail
    command.main(arguments)
    rows = json.loads((tmp_path / "zoo.json").read_text())["rows"]
    assert list(rows) == ["sheet default both"]
    assert "| sheet | 2 | 2 of 2 (100%) |" in (tmp_path / "zoo.md").read_text()
    assert "| sheet | 2 | 2 of 2 (100%) |" in markdown({"environment": {"device": "", "dtype": ""}, "rows": rows})
