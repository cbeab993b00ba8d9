"""The benchmarks of speed: rates that count failures, exponents, the comparison of runs, and start-up."""

import json

import pytest
import torch

from bench import compare, scaling, throughput
from bench.contest.contestants import Answer, Contestant, contestants
from bench.contest.throughput_report import markdown
from bench.contest.time_limit import TimeLimit
from bench.problems.closed_forms import closed_forms
from bench.problems.many_pairs import many_pairs
from bench.start_up import seconds
from geodesics import Curve, PullbackMetric, geodesic


def straight(part, metric):
    """Straight lines for geodesics, with a claim."""
    unknown = torch.full_like(part.best, torch.nan)
    curve = Curve(torch.stack([part.z0, part.z1], dim=1))
    return Answer(curve, unknown, unknown, ~unknown.isfinite(), ["done"] * len(part), None, None)


def test_pairs_are_the_same_for_every_count():
    for name in ("sphere", "digits"):
        few, many = many_pairs(name, 3), many_pairs(name, 64)
        torch.testing.assert_close(few.z0, many.z0[:3])
        torch.testing.assert_close(few.best, many.best[:3])
    with pytest.raises(ValueError, match="1024"):
        many_pairs("sphere", 2000)


def test_every_second_pair_of_digits_is_a_reversal_and_references_are_not_beaten():
    pairs = many_pairs("digits", 1024)
    torch.testing.assert_close(pairs.z0[::2], pairs.z1[1::2])
    torch.testing.assert_close(pairs.best[::2], pairs.best[1::2])
    part = pairs.part(slice(8))
    length = geodesic(part.metric, part.z0, part.z1).length
    assert (length >= part.best * (1 - 1e-3)).all()


def test_digits_in_single_precision_are_judged_in_double(monkeypatch):
    monkeypatch.setattr(throughput, "SINGLES", 2)
    monkeypatch.setattr(throughput, "RUNS", 1)
    single, exact = many_pairs("digits-float32", 2), many_pairs("digits", 2)
    assert single.z0.dtype == torch.float32
    torch.testing.assert_close(single.z0.double(), exact.z0, rtol=1e-6, atol=1e-6)
    cell = throughput.measure(contestants()["energy/straight"], single, 1, 60, exact)
    assert cell["solved"] == 2
    assert cell["dense_error"] < 1e-6


def test_a_closed_form_draws_as_many_pairs_as_asked():
    assert {name: len(make(5)) for name, make in closed_forms().items()} == dict.fromkeys(closed_forms(), 5)


@pytest.fixture
def _few(monkeypatch):
    """Two pairs one by one and one timed run are enough to see what is counted."""
    monkeypatch.setattr(throughput, "SINGLES", 2)
    monkeypatch.setattr(throughput, "RUNS", 1)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_too_long_counts_for_nothing(batch):
    problems = many_pairs("sphere", 4)
    ours = throughput.measure(contestants()["energy/straight"], problems, batch, 60)
    lines = throughput.measure(Contestant("lines/straight", straight), problems, batch, 60)
    assert ours["found"] == ours["solved"] == (throughput.SINGLES if batch == 1 else batch)
    assert ours["found_rate"] == ours["rate"] > 0
    assert lines["found"] < lines["solved"]
    assert lines["found_rate"] == pytest.approx(lines["rate"] * lines["found"] / lines["solved"])
    assert lines["worst_excess"] > 1e-2


def test_a_contestant_without_batches_is_rated_by_what_it_reached():
    problems = many_pairs("sphere", throughput.SINGLES)
    asked = []

    def tiring(part, metric):
        asked.append(len(part))
        if len(asked) > 3:
            raise TimeLimit
        return straight(part, metric)

    cell = throughput.measure(Contestant("tiring/straight", tiring, one_by_one=True), problems, 1, 60)
    assert (cell["solved"], cell["note"], asked) == (3, "time-out", [1] * 4)
    whole = throughput.measure(Contestant("tiring/straight", tiring), problems, 4, 60)
    assert (whole["rate"], whole["note"]) == (None, "time-out")


def test_the_comparison_takes_the_best_batch_of_either_side(tmp_path):
    def cell(contestant, batch, rate, found=1.0):
        rates = {"rate": rate, "found_rate": rate * found, "found": int(8 * found), "solved": 8, "runs": 5}
        known = {"median_excess": 1e-6, "worst_excess": None, "note": "8 of 8 found", "threads": 1, "set": "sphere"}
        return {"contestant": contestant, "batch": batch, **rates, **known}

    cells = [
        cell("energy/straight", 64, 100.0),
        cell("energy/straight", 1024, 400.0),
        cell("georce-jax/straight", 64, 200.0),
        cell("georce-jax/straight", 1024, 50.0),
        cell("stochman/straight", 1024, 900.0, found=0.0),
    ]
    report = markdown({"cells": {str(i): c for i, c in enumerate(cells)}, "environment": {"device": "test"}})
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith("| sphere |")]
    assert [row[-1].rstrip(" |") for row in rows[:2]] == ["0.5", "2"]


@pytest.mark.usefixtures("_few")
def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "source_digest", lambda: "source")
    monkeypatch.setattr(throughput.os, "sched_setaffinity", lambda *_: None, raising=False)
    measured = []
    real = throughput.measure
    monkeypatch.setattr(throughput, "measure", lambda *given: measured.append(given[2]) or real(*given))
    options = throughput.Options(("sphere",), ("energy/straight",), (1, 2), (1,), 60.0, tmp_path)
    threads = torch.get_num_threads()
    for _ in range(2):
        throughput.work(options)
    torch.set_num_threads(threads)
    assert measured == [1, 2]
    stored = json.loads((tmp_path / "throughput.json").read_text("utf-8"))["cells"]
    assert [cell["batch"] for cell in stored.values()] == [1, 2]


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_exponents_are_those_of_power_laws(power):
    sizes = (2, 4, 8, 16, 32)
    assert scaling.exponent(sizes, [3 * n**power for n in sizes]) == pytest.approx(power, abs=1e-9)
    # The smaller half, where overhead rules, does not count.
    assert scaling.exponent(sizes, [7, 7, *(n**power for n in sizes[2:])]) == pytest.approx(power, abs=1e-9)


def test_scaling_writes_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "RUNS", 1)
    monkeypatch.setattr(scaling, "closed_forms", lambda: {"sphere": closed_forms()["sphere"]})
    threads = torch.get_num_threads()
    scaling.main(["--quick", "--out", str(tmp_path)])
    torch.set_num_threads(threads)
    results = json.loads((tmp_path / "scaling.json").read_text("utf-8"))
    assert [len(law["values"]) for law in results["laws"]] == [len(law["sizes"]) for law in results["laws"]]
    worst = {(row["set"], row["kind"]): row["worst_excess"] for row in results["precision"]}
    assert worst["sphere", "float32"] < 1e-5
    assert worst["sphere", "float32, then float64"] < 1e-6
    assert (tmp_path / "scaling.md").read_text("utf-8") in capsys.readouterr().out


def test_the_scaling_decoder_is_smooth_and_of_its_size():
    decoder = scaling.Decoder(5, 7)
    z = torch.randn(3, 5, dtype=torch.float64)
    assert decoder(z).shape == (3, 7)
    assert (PullbackMetric(decoder).tensor(z) - PullbackMetric(scaling.Decoder(5, 7)).tensor(z)).abs().max() == 0


def run_of(path, **pieces):
    listed = [{"name": f"test_{name}", "extra_info": {"ratio_to_floor": ratio}} for name, ratio in pieces.items()]
    path.write_text(json.dumps({"benchmarks": [*listed, {"name": "test_free", "extra_info": {}}]}), encoding="utf-8")
    return str(path)


def test_a_slower_core_is_seen(tmp_path, capsys):
    stored = ["--stored", str(tmp_path / "core.json")]
    first = run_of(tmp_path / "first.json", solve=2.0, chain=3.0)
    assert compare.main([first, "--store", *stored]) == 0
    assert compare.main([run_of(tmp_path / "same.json", solve=2.9, chain=1.0, fresh=9.0), *stored]) == 0
    slow = run_of(tmp_path / "slow.json", solve=3.1, chain=3.0)
    capsys.readouterr()
    assert compare.main([slow, *stored]) == 1
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line.endswith("SLOWER")] == ["solve:"]
    assert compare.main([slow, "--limit", "2", *stored]) == 0
    assert compare.main([run_of(tmp_path / "gone.json", solve=2.0), *stored]) == 1


def test_importing_is_light():
    """0.05 s of processor time were measured; four times that is the promise."""
    assert seconds("from geodesics import EnergySolver, PullbackMetric, geodesic", runs=3) < 0.2


def test_options_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        throughput.main(["--batches", "0"])
    assert "--batches" in capsys.readouterr().err
