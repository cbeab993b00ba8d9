"""The figures of *How it works* are drawn, and are those that the page shows."""

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from bench.figures.__main__ import FIGURES, FOLDER, main
from bench.figures.walls import solve
from bench.problems.problem_set import ROOT
from geodesics import Status

PAGE = ROOT / "docs" / "explanation" / "how-it-works.md"


def test_the_page_shows_what_the_command_draws() -> None:
    names = sorted(f"{name}.svg" for name in FIGURES)
    assert sorted(path.name for path in FOLDER.iterdir()) == names
    assert sorted(re.findall(r"!\[[^\]]+\]\(\.\./images/how-it-works/([^)]+)\)", PAGE.read_text("utf-8"))) == names


def test_the_captions_say_what_is_drawn() -> None:
    page = " ".join(PAGE.read_text("utf-8").split())
    jumped, seen = solve(3), solve(6)
    assert f"takes the curve for {jumped.discrete:.2f} long, but its image is {jumped.length:.2f} long." in page
    error, status = float(jumped.result.length_error), Status(int(jumped.result.status)).name
    assert f"reports {jumped.length:.2f} with an error estimate of {error:.1f} and the status `{status}`." in page
    assert f"Both lengths are {seen.length:.2f}, and the status is `{Status(int(seen.result.status)).name}`." in page
    assert f"{seen.discrete:.2f}" == f"{seen.length:.2f}"


def test_the_command_draws(tmp_path: Path) -> None:
    main(["--quick", "--output", str(tmp_path)])
    for name in FIGURES:
        drawn = (tmp_path / f"{name}.svg").read_text("utf-8")
        assert drawn.rstrip().endswith("</svg>")
        assert "nan" not in " ".join(re.findall(r' d="([^"]*)"', drawn))
