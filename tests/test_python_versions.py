"""Every source file parses as the oldest Python that `pyproject.toml` admits."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
FOLDERS = ("geodesics", "vae", "bench", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py"))


def test_oldest_is_the_declared_one() -> None:
    assert f'requires-python = ">={OLDEST[0]}.{OLDEST[1]},' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_parses(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), filename=str(path), feature_version=OLDEST)
