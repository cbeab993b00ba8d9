"""Experiment 8 on the embedded digits with few of everything: its numbers fit together."""

import math
from dataclasses import replace

import jaxtyping
import pytest
import torch

pytest.importorskip("matplotlib")

from bench.paper.config import configured
from bench.paper.lab import Lab
from bench.paper.open_questions import activations as open_questions_activations
from bench.paper.open_questions import dimensions as open_questions_dimensions
from bench.paper.open_questions import neural_field as open_questions_field
from bench.paper.open_questions.config import OpenQuestionsConfig
from bench.paper.open_questions.flatness import curvatures, verdict
from bench.paper.open_questions.studies import (
    candidates,
    chosen_rbf,
    connect_pairs,
    measured,
    open_model,
    own_space,
    rbf_space,
)
from bench.paper.run import run_experiments
from geodesics import length, sectional_curvature
from vae import Activation

TINY = replace(OpenQuestionsConfig.quick(), epochs=30, pairs=3, graph_nodes=150, field_steps=40, curvature_points=6)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A laboratory of the embedded digits, whose models all tests share."""
    config = replace(configured(None, None, True), open_questions=TINY, resolution=16)
    return Lab(config, tmp_path_factory.mktemp("paper"), progress=False)


@pytest.fixture(scope="module")
def results(lab):
    """What the runner stores of the three experiments, by name."""
    experiments = [m.EXPERIMENT for m in (open_questions_dimensions, open_questions_activations, open_questions_field)]
    # Shapes are checked in the library's own tests; here the checks would take longer than all the rest.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        found = run_experiments(experiments, lab.config, lab.output, progress=False)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return {result["experiment"]: result for result in found}


def chosen_space(lab):
    """The plane with its chosen RBF network."""
    return rbf_space(open_model(lab), chosen_rbf(lab, open_model(lab)).precision)


def test_every_part_has_its_figures_and_claims(lab, results):
    figures = {name for result in results.values() for name in result["figures"]}
    names = ("selection", "dimensions", "curvature", "activations", "field")
    assert figures == {f"open-{name}.png" for name in names}
    assert all((lab.output / name).stat().st_size > 2000 for name in figures)
    assert [len(result["claims"]) for result in results.values()] == [5, 2, 3]


def test_the_choice_is_a_line_of_the_table(results):
    for entry in results["open-dimensions"]["numbers"].values():
        assert len(entry["table"]) == len(TINY.centers) * len(TINY.factors)
        line = open_questions_dimensions.chosen_line(entry)
        admitted = [other for other in entry["table"] if other["admitted"]]
        assert line in admitted
        assert line["contrast"] == max(other["contrast"] for other in admitted)


def test_the_chosen_network_is_kept_in_a_file(lab):
    model = open_model(lab)
    first, again = chosen_rbf(lab, model), chosen_rbf(lab, model)
    assert first.config == again.config
    assert first.config in candidates(lab)
    assert torch.equal(first.precision(model.latents), again.precision(model.latents))


def test_all_spaces_connect_the_same_images(lab):
    own, rbf = own_space(open_model(lab)), chosen_space(lab)
    torch.testing.assert_close(own.metric.generator(own.model.latents)[:, 64:], own.deviation(own.model.latents))
    torch.testing.assert_close(rbf.metric.generator(rbf.model.latents)[:, 64:], rbf.deviation(rbf.model.latents))
    ends = [connect_pairs(lab, space, "").straight.points[:, [0, -1]] for space in (own, rbf)]
    assert torch.equal(*ends)


def test_measurements_are_those_of_the_library(lab):
    space = chosen_space(lab)
    connected = connect_pairs(lab, space, "")
    numbers = measured(lab, space, connected)
    ratio = length(space.metric, connected.straight)[0] / connected.result.length
    assert numbers["straight_over_geodesic"]["value"] == pytest.approx(float(ratio.quantile(0.5)))
    # A geodesic that is longer than the straight line is a failure of the solver.
    assert float(ratio.min()) > 1 - 1e-3
    assert sum(numbers["statuses"].values()) == numbers["pairs"] == TINY.pairs


def test_curvatures_are_of_planes_towards_other_images(lab):
    space = own_space(open_model(lab, 4))
    bent, z = curvatures(lab, space), space.model.latents
    rng = lab.rng(86)
    at, first, second = (z[torch.randint(len(z), (len(bent),), generator=rng)] for _ in range(3))
    torch.testing.assert_close(bent, sectional_curvature(space.metric, at, first - at, second - at))


def test_relu_decoders_have_next_to_no_acceleration(results):
    numbers = results["open-activations"]["numbers"]
    alone = {name: entry["mean_alone"]["acceleration"] for name, entry in numbers.items()}
    assert set(alone) == {Activation.TANH.value, Activation.RELU.value}
    assert alone["relu"] < 0.1 * alone["tanh"]


def test_the_decoder_does_not_doubt_off_the_data_and_the_others_do(results):
    for entry in results["open-field"]["numbers"].values():
        contrast = {name: entry[name]["score"]["contrast"] for name in ("own", "rbf", "field")}
        assert abs(contrast["own"]) < 0.2 < min(contrast["rbf"], contrast["field"])
        assert entry["rbf"]["unsure_far_away"] == 1
        assert entry["own"]["unsure_far_away"] < 0.5
        assert all(math.isfinite(entry[name]["misfit"]) for name in contrast)


def test_verdicts():
    interval = lambda low, high: {"low": low, "high": high}  # noqa: E731
    assert verdict([interval(0, 1), interval(1, 2)], 3.0) is True
    assert verdict([interval(0, 1), interval(4, 5)], 3.0) is False
    assert verdict([interval(0, 1), interval(2, 5)], 3.0) is None
