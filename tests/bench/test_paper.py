"""The paper's experiments at reduced settings: they run, resume after a kill, and say what was measured."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from PIL import Image
from scipy.interpolate import CubicSpline

from bench.paper.__main__ import main, parse
from bench.paper.arrays import load_arrays, save_arrays
from bench.paper.catalog import EXPERIMENTS
from bench.paper.config import PaperConfig, configured, reduced
from bench.paper.data import draw_pairs
from bench.paper.experiment import Claim, Experiment, Outcome, Stored
from bench.paper.experiments.clustering import f_measure, matched
from bench.paper.experiments.density import COARSE, land_raster
from bench.paper.experiments.faithfulness import smallest_deviation_bandwidths
from bench.paper.experiments.graph_spline import (
    SplineGraph,
    build_graph,
    certified_lengths,
    connect_by_spline,
    smooth,
    spline,
)
from bench.paper.experiments.interpolation_figures import chosen
from bench.paper.figures import COLORS, DPI, LIMIT, class_color, write_png
from bench.paper.lab import Lab, Model
from bench.paper.paths import frames_at_equal_latent_steps, largest_deviation
from bench.paper.run import described, jsonable, run_experiments, stored, write_json
from bench.paper.statistics import bootstrap, mean
from geodesics import Curve, FunctionMetric, Land, PullbackMetric
from vae import RBFPrecision

ROOT = Path(__file__).resolve().parents[2]
NAMES = [experiment.name for experiment in EXPERIMENTS]
FLAT = FunctionMetric(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run at reduced settings, on the embedded digits."""
    folder = tmp_path_factory.mktemp("paper")
    # Shapes are checked in the library's own tests; here the checks would take longer than all the rest.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert main(["--quick", "--output", str(folder)]) == 0
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_writes_its_numbers_and_figures(output: Path, name: str) -> None:
    result = json.loads((output / f"{name}.json").read_text("utf-8"))
    assert set(result) == {
        "format",
        "experiment",
        "title",
        "data",
        "config",
        "environment",
        "seconds",
        "cpu_seconds",
        "figures",
        "claims",
        "numbers",
    }
    assert result["experiment"] == name
    assert result["data"] == "digits"
    assert result["config"] == described(configured(None, None, quick=True))
    assert {"device", "dtype", "date", "threads", "torch"} <= set(result["environment"])
    assert result["numbers"]
    for claim in result["claims"]:
        assert set(claim) == {"text", "held", "evidence"}
        assert claim["held"] in (True, False, None)
        assert claim["text"].endswith(".")
    for figure in result["figures"]:
        with Image.open(output / figure) as image:
            assert min(image.size) > 100
            assert len(image.getcolors(256)) > 8  # something is drawn
            assert image.info["dpi"] == pytest.approx((DPI, DPI), rel=1e-3)
        assert (output / figure).stat().st_size <= LIMIT


def test_the_numbers_of_the_pairs_fit_together(output: Path) -> None:
    numbers = json.loads((output / "interpolation.json").read_text("utf-8"))["numbers"]
    pairs = numbers["pairs"]
    count = numbers["number_of_pairs"]
    assert all(len(values) == count for values in pairs.values())
    assert sum(numbers["statuses"]["geodesic"].values()) == count
    straight, found = (np.array(pairs[f"{kind}.rbf_length"]) for kind in ("straight", "geodesic"))
    assert (straight >= found - np.array(pairs["geodesic.rbf_error"]) - 1e-5 * found).all()
    ratio = numbers["ratios"]["straight_over_geodesic"]["rbf_length"]
    assert ratio["value"] == pytest.approx(np.median(straight / found), rel=1e-4)
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    # The change along a curve in data space does not depend on how densely frames follow one another, up to them.
    even, paced = (np.array(pairs[f"geodesic.total_change_equal_{k}_steps"]) for k in ("latent", "riemannian"))
    np.testing.assert_allclose(even, paced, rtol=0.2)


def results_of(output: Path) -> list[Path]:
    """All results, figures and arrays in a folder."""
    return [path for path in output.glob("*.*") if path.name != "report.md"]


def test_figures_are_drawn_again_from_files_alone(output: Path, tmp_path: Path, monkeypatch) -> None:
    """Without models, data or kept tensors: the same pictures, and the same results."""
    for path in (*output.glob("*.json"), *output.glob("*.npz")):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr("bench.paper.run.Lab", None)
    assert main(["--draw", "--output", str(tmp_path)]) == 0
    assert {path.name for path in results_of(tmp_path)} == {path.name for path in results_of(output)}
    assert all(path.read_bytes() == (output / path.name).read_bytes() for path in results_of(tmp_path))


def test_there_must_be_something_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--draw", "--output", str(tmp_path)]) == 2
    assert "must hold results to draw" in capsys.readouterr().err


def test_small_dots_keep_their_colors(tmp_path: Path) -> None:
    """A dot of each class on a field of all grays: few colors in all, and these among them."""
    figure = Figure(figsize=(2, 2))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(np.linspace(0, 1, 4096).reshape(64, 64), cmap="bone", aspect="auto", extent=(0, 1, 0, 1))
    for k in range(10):
        ax.plot(0.05 + 0.1 * k, 0.5, "s", color=class_color(k), markersize=2, markeredgewidth=0)
    write_png(figure, tmp_path / "dots.png")
    with Image.open(tmp_path / "dots.png") as image:
        drawn = {color for _, color in image.convert("RGB").getcolors(1 << 16)}
    assert len(drawn) <= COLORS[0]
    assert drawn >= {tuple(round(255 * value) for value in class_color(k)) for k in range(10)}


def test_arrays_come_back_from_their_file(tmp_path: Path) -> None:
    arrays = {"a": {"x": torch.arange(3.0).double(), "K=2": np.array([1, 2])}, "names": ["b", "cd"], "n": 1.5}
    save_arrays(arrays, tmp_path / "a.npz")
    found = load_arrays(tmp_path / "a.npz")
    assert [list(found), list(found["a"])] == [["a", "names", "n"], ["x", "K=2"]]
    assert found["a"]["x"].dtype == np.float32
    assert found["a"]["x"].tolist() == [0, 1, 2]
    assert found["a"]["K=2"].tolist() == [1, 2]
    assert found["names"].tolist() == ["b", "cd"]
    assert float(found["n"]) == 1.5
    with pytest.raises(ValueError, match="names must hold no '/'; got 'a/b'"):
        save_arrays({"a/b": 1}, tmp_path / "b.npz")
    with pytest.raises(TypeError, match="numbers and text; got object"):
        save_arrays({"a": object()}, tmp_path / "b.npz")


def test_the_picture_of_a_density_is_the_density(tmp_path: Path) -> None:
    """On the half-plane, whose volume 1 / z_2^2 is exact in every pixel, and a normal distribution's only between."""
    metric = FunctionMetric(lambda z: torch.diag_embed((1 / z[:, 1:] ** 2).expand(-1, 2)))
    means, covariances = torch.tensor([[0.0, 1.0]]).double(), torch.eye(2).double()[None] / 4
    land = Land.from_parameters(metric, means, covariances, num_nodes=24, solver=COARSE)
    lab = Lab(replace(reduced(PaperConfig()), resolution=96), tmp_path, progress=False)
    found = land_raster(lab, land, (-0.5, 0.5, 0.6, 1.6))
    middles = (torch.arange(48).double() + 0.5) / 48
    plane = torch.cartesian_prod(0.6 + middles, middles - 0.5).flip(1)
    assert found["values"].shape == (48, 48)
    inside = (slice(2, -2), slice(2, -2))  # nothing is beyond the outer points of the coarse grid
    expected = land.log_prob(plane).view(48, 48)
    torch.testing.assert_close(found["values"][inside], expected[inside], atol=0.02, rtol=0)


def test_clusters_get_the_colors_of_classes_one_to_one() -> None:
    """Cluster 2 shares most with class 0, and cluster 0 nearly as much: it has to take what is left."""
    classes = np.array([0, 0, 0, 0, 0, 1, 1, 2])
    clusters = np.array([2, 2, 2, 0, 0, 1, 1, 1])
    assert matched(clusters, classes, 3).tolist() == [0, 0, 0, 2, 2, 1, 1, 1]


def test_strips_show_the_pair_of_the_largest_ratio_for_each_pair_of_classes() -> None:
    ends = np.array([[0, 1], [1, 0], [1, 2], [0, 1]])
    lengths = {"straight.rbf_length": [2.0, 9.0, 1.0, 4.0], "geodesic.rbf_length": [1.0, 3.0, 1.0, 2.0]}
    assert chosen(Stored({"pairs": lengths}, {"ends": ends})) == [1, 2]


def test_a_finished_run_is_not_done_again(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in results_of(output)}
    report = (output / "report.md").read_text("utf-8")
    assert main(["--quick", "--output", str(output)]) == 0
    assert {path: path.stat().st_mtime_ns for path in results_of(output)} == before
    assert (output / "report.md").read_text("utf-8") == report
    assert report in capsys.readouterr().out
    assert all(f"`{name}`" in report for name in NAMES)
    experiment = EXPERIMENTS[0]
    config = configured(None, None, quick=True)
    assert stored(experiment, config, output) is not None
    assert stored(experiment, replace(config, seed=1), output) is None


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed in its second experiment; the first is not done again, and a lost figure is drawn again."""
    done: list[str] = []

    def experiment(name: str, fails: bool) -> Experiment:
        def run(lab) -> Outcome:
            done.append(name)
            if fails:
                raise KeyboardInterrupt
            claims = (Claim("It runs.", True, "once"),)
            return Outcome({"value": torch.tensor(1.5), "none": math.nan}, claims, {"x": torch.arange(3)})

        def draw(stored: Stored) -> dict[str, Figure]:
            done.append(f"picture of {name}")
            assert (stored.numbers["value"], stored.arrays["x"].tolist()) == (1.5, [0, 1, 2])
            return {f"{name}.png": Figure()}

        return Experiment(name, f"The {name}", run, draw)

    config = reduced(PaperConfig())
    with pytest.raises(KeyboardInterrupt):
        run_experiments([experiment("one", False), experiment("two", True)], config, tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["one.json"]
    results = run_experiments([experiment("one", False), experiment("two", False)], config, tmp_path, progress=False)
    assert done == ["one", "picture of one", "two", "two", "picture of two"]
    assert [result["numbers"] for result in results] == [{"value": 1.5, "none": None}] * 2
    (tmp_path / "one.png").unlink()
    run_experiments([experiment("one", False)], config, tmp_path, progress=False)
    assert done[-1] == "picture of one"
    assert done.count("one") == 1
    assert (tmp_path / "one.png").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_what_took_long_is_kept(tmp_path: Path) -> None:
    lab, made = Lab(reduced(PaperConfig()), tmp_path, progress=False), []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"a": torch.arange(3.0)}

    for key in ("one", "one", "two"):
        assert lab.kept(key, make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 2
    assert Lab(lab.config, tmp_path, progress=False).kept("two", make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 2


@pytest.mark.slow
def test_a_process_that_is_killed_resumes_its_training(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.paper", "--quick", "--epochs", "3000", "--only", "latent-space"]
    command += ["--output", str(tmp_path), "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not list(tmp_path.glob("models/*.safetensors")):
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "latent-space.json").exists()
    killed = next(tmp_path.glob("models/*.safetensors")).stat().st_mtime_ns
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "/3000" in again.stderr  # the bar goes on where the training was
    assert next(tmp_path.glob("models/*.safetensors")).stat().st_mtime_ns >= killed
    assert json.loads((tmp_path / "latent-space.json").read_text("utf-8"))["experiment"] == "latent-space"


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json({"a": 1, "numbers": [[1.5, None], [2]]}, path)
    assert "[ 1.5, null ]" in path.read_text("utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"a": math.inf}, path)
    assert json.loads(path.read_text("utf-8")) == {"a": 1, "numbers": [[1.5, None], [2]]}


def test_results_are_made_of_what_json_knows() -> None:
    class Pair(NamedTuple):
        first: int
        second: Tensor

    value = {"a": Pair(1, torch.tensor([1.0, math.inf])), 2: (True, None, "text")}
    assert jsonable(value) == {"a": {"first": 1, "second": [1.0, None]}, "2": [True, None, "text"]}
    with pytest.raises(TypeError, match="got set"):
        jsonable({"a": {1}})
    # Where the data lie is no part of the result.
    assert "/somewhere" not in json.dumps(described(PaperConfig(data_root="/somewhere")))


def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in (
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--epochs", "0"], "--epochs must be at least 1; got 0"),
        (["--data-root", str(tmp_path / "nowhere")], "--data-root must be a folder"),
    ):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert message in capsys.readouterr().err
    assert main(["--data-root", str(tmp_path), "--output", str(tmp_path / "out"), "--only", NAMES[0]]) == 2
    assert "must hold" in capsys.readouterr().err


def test_the_paper_settings_are_the_default(tmp_path: Path) -> None:
    config = parse(["--data-root", str(tmp_path)]).config
    assert (config.hidden, config.epochs, config.batch_size, config.learning_rate) == ((64, 32), 800, 128, 8e-5)
    assert (config.classes, config.num_centers, config.bandwidth_factor) == ((0, 1, 7), 64, 1.25)
    assert config.variance_activation.value == "softplus"
    assert config.pairs >= 200
    assert parse(["--epochs", "7", "--quick"]).config.epochs == 7


def test_pairs_are_of_different_classes_and_each_as_often(rng: torch.Generator) -> None:
    labels = torch.tensor([0, 7, 1, 7, 0, 7, 7, 7])
    first, second = draw_pairs(labels, 300, rng)
    kinds, counts = torch.stack([labels[first], labels[second]], dim=1).unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[0, 1], [0, 7], [1, 7]]
    assert counts.tolist() == [100, 100, 100]
    assert set(first[labels[first] == 0].tolist()) == {0, 4}


def test_bootstrap_intervals_cover(rng: torch.Generator) -> None:
    """Of 400 intervals for the mean of 60 normal numbers, 95 % hold it, within three standard errors."""
    samples = torch.randn(400, 60, generator=rng, dtype=torch.float64)
    intervals = [bootstrap(row, rng, mean) for row in samples]
    covered = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert covered == pytest.approx(0.94, abs=3 * (0.05 * 0.95 / 400) ** 0.5 + 0.01)
    half = np.mean([(i.high - i.low) / 2 for i in intervals])
    assert half == pytest.approx(1.96 / 60**0.5, rel=0.05)


def test_bootstrap_leaves_out_what_is_not_finite(rng: torch.Generator) -> None:
    found = bootstrap(torch.tensor([1.0, math.nan, 3.0, math.inf]), rng)
    assert (found.value, found.count) == (2.0, 2)
    assert found.exceeds(0.5) is True
    assert found.exceeds(2.0) is None
    assert found.exceeds(4.0) is False
    assert bootstrap(torch.tensor([math.nan]), rng).count == 0


def test_f_measure_by_hand() -> None:
    """Class 0 of 4: clusters a (3 of it, 1 other) and b (1): F = 6/8; class 1 of 2: F with a 2/6, with b 2/3."""
    classes = torch.tensor([0, 0, 0, 0, 1, 1])
    clusters = torch.tensor([5, 5, 5, 9, 5, 9])
    assert f_measure(classes, clusters) == pytest.approx(4 / 6 * 6 / 8 + 2 / 6 * 2 / 4)
    assert f_measure(classes, classes + 3) == 1


def test_the_spline_is_scipys(rng: torch.Generator) -> None:
    """The curve in the library's form is the cubic spline itself: same points at all times, smooth at the knots."""
    path = torch.randn(7, 2, generator=rng, dtype=torch.float64).numpy()
    curve = spline(path)
    t = np.linspace(0, 1, 101)
    expected = CubicSpline(np.linspace(0, 1, 7), path)
    np.testing.assert_allclose(curve.evaluate(torch.as_tensor(t))[0], expected(t), atol=1e-12)
    np.testing.assert_allclose(curve.derivative(torch.as_tensor(t))[0], expected(t, 1), atol=1e-10)
    line = spline(path[:2])
    np.testing.assert_allclose(line.evaluate(torch.tensor([0.0, 1.0]).double())[0], path[:2])
    np.testing.assert_allclose(smooth(path)[[0, -1]], path[[0, -1]])
    np.testing.assert_allclose(smooth(path)[2], path[1:4].mean(0))


def chain(halved: bool) -> SplineGraph:
    """Points at 0, 1, 3, 7 on a line: with one neighbor each, the edges from 3 to 1 and from 7 to 3 are one-way."""
    nodes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]], dtype=torch.float64)
    return build_graph(FLAT, nodes, 1, halved)


def test_the_published_graph_halves_one_way_edges() -> None:
    whole, half = chain(False), chain(True)
    assert whole.one_way == pytest.approx(2 / 3)
    np.testing.assert_allclose(whole.weights.toarray()[[0, 1, 2], [1, 2, 3]], [1, 2, 4])
    np.testing.assert_allclose(half.weights.toarray()[[0, 1, 2], [1, 2, 3]], [1, 1, 2])
    np.testing.assert_allclose(half.weights.toarray(), half.weights.toarray().T)
    first, second = torch.tensor([0, 3]), torch.tensor([3, 1])
    assert connect_by_spline(whole, first, second).graph_length.tolist() == pytest.approx([7, 6])
    assert connect_by_spline(half, first, second).graph_length.tolist() == pytest.approx([4, 3])
    found = certified_lengths(FLAT, connect_by_spline(whole, first, second).curves)
    torch.testing.assert_close(found, torch.tensor([7.0, 6.0], dtype=torch.float64))


def test_a_pair_without_a_path_is_told() -> None:
    nodes = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]], dtype=torch.float64)
    found = connect_by_spline(build_graph(FLAT, nodes, 1), torch.tensor([0, 0]), torch.tensor([2, 1]))
    assert found.curves[0] is None
    assert certified_lengths(FLAT, found.curves).isnan().tolist() == [True, False]


def test_frames_are_at_equal_latent_steps() -> None:
    """Half the curve's time is spent on a tenth of its way: frames are equally far apart all the same."""
    points = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    z = frames_at_equal_latent_steps(Curve(points), 11)
    np.testing.assert_allclose(z[0, :, 0], np.linspace(0, 1, 11), atol=1e-3)


def test_the_largest_deviation_is_met_on_the_way() -> None:
    curves = Curve(torch.tensor([[[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]], dtype=torch.float64))
    found = largest_deviation(lambda z: (-(z[:, :1] ** 2)).exp() * torch.tensor([3.0, 4.0], dtype=z.dtype), curves)
    expected = (12.5**0.5) * torch.tensor([1.0, math.exp(-1)], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_smallest_deviations_are_of_the_axes(rng: torch.Generator) -> None:
    """Clusters of deviations (2, 0.5) about two centers: the bandwidths are those of 0.5; mean distances are larger."""
    noise = torch.randn(400, 2, generator=rng, dtype=torch.float64)
    noise = noise / noise.square().mean(0).sqrt() * torch.tensor([2.0, 0.5], dtype=torch.float64)
    centers = torch.tensor([[0.0, 0.0], [100.0, 0.0]], dtype=torch.float64)
    latents = torch.cat([centers[0] + noise, centers[1] + noise])
    ones = torch.ones(2, dtype=torch.float64)
    rbf = RBFPrecision(centers, ones, torch.ones(3, 2, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    model = Model("m", None, None, latents, latents, [], Path())
    found = smallest_deviation_bandwidths(model, rbf, 1.25).bandwidths
    torch.testing.assert_close(found, 0.5 / (1.25 * 0.5 * ones) ** 2)


def test_graph_lengths_are_certified_on_a_curved_metric() -> None:
    """On a cylinder's chart the edge of two nodes is as long as `length` says: the graph adds up what it has."""
    metric = PullbackMetric(lambda z: torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], dim=1))
    nodes = torch.stack([torch.linspace(0, 2, 9), torch.linspace(0, 1, 9)], dim=1).double()
    found = connect_by_spline(build_graph(metric, nodes, 2), torch.tensor([0]), torch.tensor([8]))
    assert found.graph_length[0] == pytest.approx(5**0.5, rel=1e-9)
