"""The table of solvers: what it counts, that it keeps failures in, and that a killed run goes on."""

import json
import shutil
from dataclasses import replace
from functools import cache

import pytest
import torch

from bench import solvers
from bench.contest import cell as cell_module
from bench.contest import environment
from bench.contest.cell import run_cell
from bench.contest.contestants import Answer, Contestant, contestants
from bench.contest.dense_length import dense_length
from bench.contest.solvers_report import markdown, summarize
from bench.problems.closed_forms import closed_forms
from bench.problems.learned_metrics import digits, digits_model
from geodesics import Curve, EnergySolver, GraphPaths, PullbackMetric, geodesic, straight_lines

CHORDS = 2000


@pytest.fixture(autouse=True)
def _timed_once(monkeypatch):
    """One timed run of each cell, and sources that stand still while they are worked on."""
    monkeypatch.setattr(cell_module, "RUNS", 1)
    monkeypatch.setattr(solvers, "source_digest", lambda: "source")


def options(out, names, others, **changes):
    tiny = solvers.Options(names, others, out, time_limit=20, threads=1, count=2, shared=None, chords=CHORDS)
    return replace(tiny, **changes)


def contestant(answer):
    return Contestant("tester/straight", lambda problems, metric: answer(problems, metric))


def exact_answer(problems, claim=True, length_factor=1.0):
    """What the library answers, with a claim and a reported length of one's own."""
    result = geodesic(problems.metric, problems.z0, problems.z1)
    claims = torch.full_like(result.converged, claim)
    words = ["done"] * len(problems)
    length = length_factor * result.length
    return Answer(result.curve, length, result.length_error, claims, words, result.jacobians, result.values)


@pytest.mark.parametrize("name", sorted(closed_forms()))
def test_closed_forms_are_the_distances(name):
    problems = closed_forms()[name]().part(slice(4))
    result = geodesic(problems.metric, problems.z0, problems.z1, solver=EnergySolver(length_tol=1e-7))
    assert result.converged.all()
    torch.testing.assert_close(result.length, problems.best, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["sphere", "half-plane"])
def test_dense_length_is_of_fourth_order(name):
    """Chords are of second order; extrapolated, halving them divides the error by 16."""
    problems = closed_forms()[name]().part(slice(4))
    line = Curve(torch.stack([problems.z0, problems.z1], dim=1))
    exact, own = dense_length(problems, line, 20_000)
    errors = [(dense_length(problems, line, n)[0] - exact).abs() for n in (32, 64)]
    order = (errors[0] / errors[1]).log2()
    torch.testing.assert_close(order, torch.full_like(order, 4), rtol=0, atol=0.1)
    assert (own < 1e-7 * exact).all()


def test_dense_length_confirms_the_quadrature_on_the_digits():
    problems = digits().part(slice(3))
    result = geodesic(problems.metric, problems.z0, problems.z1)
    measured, own = dense_length(problems, result.curve)
    assert ((measured - result.length).abs() <= result.length_error + own).all()
    # The best lengths known are no longer than what one default call finds, up to rounding.
    assert (measured >= problems.best * (1 - 1e-9)).all()


def test_the_shipped_reference_belongs_to_the_shipped_model():
    problems, model = digits(), digits_model()
    gaps = (problems.z0[:, None] - model.latents).norm(dim=-1).amin(1)
    assert len(problems) == 24
    assert gaps.amax() < 1e-12
    lines, _ = dense_length(problems, straight_lines(Curve(torch.stack([problems.z0, problems.z1], dim=1))), CHORDS)
    assert (lines >= problems.best * (1 - 1e-6)).all()


def test_counts_what_is_found_true_and_claimed():
    problems = closed_forms()["sphere"]().part(slice(3))
    summary = summarize(run_cell(contestant(lambda p, m: exact_answer(p)), problems, 20, CHORDS).to_dict())
    assert (summary.found, summary.true, summary.claimed, summary.false_claims, summary.failed) == (3, 3, 3, 0, 0)


def test_a_wrong_length_is_not_true_and_a_claim_on_it_is_false():
    problems = closed_forms()["sphere"]().part(slice(3))
    cell = run_cell(contestant(lambda p, m: exact_answer(p, length_factor=0.9)), problems, 20, CHORDS)
    summary = summarize(cell.to_dict())
    assert (summary.found, summary.true, summary.false_claims) == (3, 0, 3)


def test_a_long_curve_is_not_found_and_a_claim_on_it_is_false():
    problems = closed_forms()["half-plane"]().part(slice(4))
    problems = replace(problems, best=0.9 * problems.best)

    def lines(part, metric):
        unknown = torch.full_like(part.best, torch.nan)
        curve = Curve(torch.stack([part.z0, part.z1], dim=1))
        return Answer(curve, unknown, unknown, unknown.isnan(), ["done"] * len(part), None, None)

    summary = summarize(run_cell(contestant(lines), problems, 20, CHORDS).to_dict())
    assert (summary.found, summary.checked, summary.claimed, summary.false_claims) == (0, 0, 4, 4)
    assert summary.jacobians == "–"


def test_failures_stay_in_the_table():
    """A NaN curve, an exception and a time-out: each is a row, and none of their problems counts as found."""
    problems = closed_forms()["sphere"]().part(slice(4))

    def lost(part, metric):
        good = exact_answer(part, claim=False)
        nothing = torch.full_like(good.length, torch.nan)
        return good._replace(curve=Curve(torch.full_like(good.curve.points, torch.nan)), length=nothing)

    def broken(part, metric):
        raise RuntimeError("broken on purpose")

    def slow(part, metric):
        while True:
            metric.norm(part.z0, part.z1)

    cells = {}
    for name, solve, limit in (("lost", lost, 20), ("broken", broken, 20), ("slow", slow, 0.05)):
        cell = run_cell(contestant(solve), problems, limit, CHORDS)
        settings = {"time_limit": limit, "source": "s"}
        cells[name] = {"set": "sphere", "contestant": name, "settings": settings, **cell.to_dict()}
    assert summarize(cells["lost"]).failed == 4
    assert summarize(cells["broken"]).failed == 4
    assert cells["slow"]["timed_out"]
    results = {"environment": {"source": "s", "chords": CHORDS}, "cells": cells, "graphs": {}}
    table = markdown(results, list(cells))
    assert table.count("| 0/4 |") == 3
    assert "raised after 0: RuntimeError: broken on purpose" in table
    assert "time-out: 0 of 4 reached in 0.05 s" in table


def test_the_clock_changes_no_answer():
    problems = closed_forms()["sphere"]().part(slice(3))
    cell = run_cell(contestants()["energy/straight"], problems, 20, CHORDS)
    result = geodesic(PullbackMetric(problems.embedding), problems.z0, problems.z1)
    torch.testing.assert_close(torch.tensor(cell.columns.length, dtype=torch.float64), result.length)
    assert cell.columns.jacobians == result.jacobians.tolist()


def test_a_run_is_stored_and_goes_on_where_it_was(tmp_path, monkeypatch):
    chosen = options(tmp_path, ("sphere", "fisher"), ("energy/straight", "lbfgs/straight"))
    measured = []

    def counting(one, problems, limit, chords):
        measured.append((problems.name, one.name))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return run_cell(one, problems, limit, chords)

    monkeypatch.setattr(solvers, "run_cell", counting)
    with pytest.raises(KeyboardInterrupt):
        solvers.run(chosen)
    stored = json.loads((tmp_path / "solvers.json").read_text("utf-8"))
    assert len(stored["cells"]) == 2
    table = solvers.run(chosen)
    assert measured[2:] == [("fisher", "energy/straight")] * 2 + [("fisher", "lbfgs/straight")]
    assert (tmp_path / "solvers.md").read_text("utf-8") == table
    assert table.count("| 2/2 |") == 8  # found, and true, in four rows
    solvers.run(replace(chosen, solvers=("energy/straight",), time_limit=19))
    assert measured[5:] == [("sphere", "energy/straight"), ("fisher", "energy/straight")]


def test_graph_starts_are_for_metrics_with_data(tmp_path, monkeypatch):
    model = digits_model()
    graph = cache(lambda: GraphPaths(model.metric, model.latents, num_nodes=500))
    monkeypatch.setattr(solvers, "digits", lambda: replace(digits(), graph=graph))
    table = solvers.run(options(tmp_path, ("sphere", "digits"), ("energy/graph",), count=1))
    cells = json.loads((tmp_path / "solvers.json").read_text("utf-8"))["cells"]
    assert list(cells) == ["digits energy/graph"]
    assert "Graph of starts on digits" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--problems", "nowhere"], "nowhere"), (["--solvers", "nobody"], "nobody"), (["--time-limit", "-1"], "-1")],
)
def test_wrong_arguments_are_named(arguments, said, capsys):
    with pytest.raises(SystemExit):
        solvers.parse(arguments)
    assert said in capsys.readouterr().err


def test_quick_is_small():
    quick = solvers.parse(["--quick", "--problems", "sphere"])
    assert (quick.problems, quick.count, quick.time_limit) == (("sphere",), 4, 5.0)


def test_the_digest_of_the_sources_covers_what_answers_depend_on(tmp_path, monkeypatch):
    """A change of the core, of a problem or of a peer gives another digest; a page of results does not."""
    before = environment.source_digest()
    for package in ("geodesics", "vae", "bench"):
        shutil.copytree(environment.ROOT / package, tmp_path / package)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.source_digest() == before
    (tmp_path / "bench" / "results" / "solvers.md").write_text("")
    assert environment.source_digest() == before
    for name in ("geodesics/solvers/energy.py", "bench/problems/closed_forms.py", "bench/peers/georce_jax.py"):
        changed = tmp_path / name
        changed.write_text(changed.read_text() + "\n")
        after = environment.source_digest()
        assert after != before
        before = after
