"""The demo, small: it trains, resumes, prints every pair and writes what it says."""

import csv
import json

import pytest
import torch

from geodesics import Status
from vae import demo

pytest.importorskip("matplotlib")

from PIL import Image

# After far fewer epochs the encoder has not spread the digits yet, and the metric is of no interest.
SMALL = ["--epochs", "100", "--pairs", "4", "--seed", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """Exit code, output folder and printed text of one small run, in a folder that is not there yet."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr(
            demo,
            "print",
            lambda *lines, sep=" ", **_: printed.append(sep.join(map(str, lines))),
            raising=False,
        )
        code = demo.main(["--out", str(out), *SMALL])
    return code, out, "\n".join(printed)


def test_writes_what_it_says(run):
    code, out, text = run
    assert code == 0
    names = {path.name for path in out.iterdir()}
    pictures = {"measure.png", "strips.png", "speeds.png"}
    assert names == pictures | {"table.csv", "table.json", "training_seed1_epochs100.safetensors"}
    assert all(str(out / name) in text for name in names)
    for name in pictures:
        with Image.open(out / name) as image:
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((200, 200), rel=1e-3)  # fit for print


def test_table_holds_every_pair_with_its_status(run):
    _, out, text = run
    with (out / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    report = json.loads((out / "table.json").read_text("utf-8"))
    assert len(rows) == len(report["rows"]) == sum(report["statuses"].values()) == 4
    for row, saved in zip(rows, report["rows"], strict=True):
        assert row == {key: str(value) for key, value in saved.items()}
        assert row["status"] in Status.__members__
        assert row["first_digit"] != row["second_digit"]
        assert f"{float(row['geodesic']):.4f} ± {float(row['geodesic_error']):.4f}" in text
    for status, count in report["statuses"].items():
        assert f"{count} {status}" in text


def test_geodesics_are_not_longer_than_straight_lines(run):
    rows = json.loads((run[1] / "table.json").read_text("utf-8"))["rows"]
    for row in rows:
        assert row["geodesic"] - row["geodesic_error"] <= row["straight"] + row["straight_error"]
        assert row["straight_error"] <= 1e-3 * row["straight"]
        assert row["ratio"] == pytest.approx(row["straight"] / row["geodesic"])
    assert "4 of 4 are no longer than the straight line" in run[2]


def test_a_second_run_goes_on_from_the_checkpoint(run):
    """Nothing is left to train, and the checkpoint is not written again."""
    _, out, _ = run
    path = out / "training_seed1_epochs100.safetensors"
    written = path.stat().st_mtime_ns
    scene = demo.build_scene(demo.parse(["--out", str(out), *SMALL]))
    assert path.stat().st_mtime_ns == written
    assert scene.latents.shape == (1797, 2)
    assert scene.latents.dtype == torch.float64


def test_a_broken_checkpoint_is_an_error_in_words(tmp_path, capsys):
    (tmp_path / "training_seed1_epochs100.safetensors").write_bytes(b"no tensors")
    assert demo.main(["--out", str(tmp_path), *SMALL]) == 2
    assert "error:" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_an_error_in_words(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert demo.main(["--out", str(tmp_path / "file"), *SMALL]) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number, at least 1; got '0'"),
        (["--pairs", "many"], "argument --pairs: must be a whole number, at least 1; got 'many'"),
        (["--seed", "-1"], "argument --seed: must be a whole number, at least 0; got '-1'"),
    ],
)
def test_wrong_arguments_are_named(arguments, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        demo.parse(arguments)
    assert sentence in capsys.readouterr().err


def test_defaults():
    options = demo.parse([])
    assert (str(options.out), options.epochs, options.pairs, options.seed) == ("demo_output", 400, 48, 0)


def test_pairs_are_of_different_digits_and_follow_the_seed():
    labels = torch.tensor([0] * 50 + [1, 2])
    first, second = demo.draw_pairs(labels, 500, seed=3)
    assert first.shape == second.shape == (500,)
    assert (labels[first] != labels[second]).all()
    assert all(torch.equal(a, b) for a, b in zip(demo.draw_pairs(labels, 500, 3), (first, second), strict=True))
    assert not torch.equal(demo.draw_pairs(labels, 500, 4)[0], first)
    with pytest.raises(ValueError, match="at least two classes"):
        demo.draw_pairs(torch.zeros(5), 2, 0)
