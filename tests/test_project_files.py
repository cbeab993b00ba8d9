"""The files round the code say what is so: versions, commands, hooks, and what the source archive holds."""

import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def load(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def of_the_project(key: str) -> str:
    """A line of the table [project] of pyproject.toml; Python 3.10 has no reader of TOML."""
    (value,) = re.findall(rf'^{key} = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return value


def test_the_citation_is_that_of_this_version() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == of_the_project("version")
    assert citation["license"] == of_the_project("license")
    assert citation["abstract"] == of_the_project("description")
    # What the format, version 1.2.0, requires of every file.
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Arvanitidis", "Hansen", "Hauberg"]


def test_hooks_download_nothing_and_run_targets_that_exist() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0] == "make"
        assert hook["entry"].split()[-1] in TARGETS


def test_continuous_integration_runs_lint_types_and_tests_last() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    (targets,) = re.findall(r"^for target in (.+); do$", script, re.MULTILINE)
    assert targets.split() == ["lint", "types", "test"]
    assert set(targets.split()) <= TARGETS


@pytest.mark.parametrize(("failing", "code"), [("", 0), ("lint", 3), ("test", 4), ("lint test", 3)])
def test_continuous_integration_reports_the_first_failure_and_runs_all(tmp_path: Path, failing: str, code: int) -> None:
    codes = {"lint": 3, "types": 5, "test": 4}
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    make = tmp_path / "make"
    exits = "; ".join(f'[ "$1" = {name} ] && exit {codes[name]}' for name in failing.split())
    make.write_text(f"#!/bin/sh\necho ran $1\n{exits}\nexit 0\n")
    make.chmod(0o755)
    run = subprocess.run(
        ["bash", str(script)], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert run.stdout.split("\n")[:3] == ["ran lint", "ran types", "ran test"]
    assert run.returncode == code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_pages_name_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    commands = re.findall(r"`make ([a-z-]+)", text)
    commands += [
        name
        for block in re.findall(r"```.*?```", text, re.DOTALL)
        for name in re.findall(r"^make ([a-z-]+)", block, re.M)
    ]
    assert set(commands) <= TARGETS
    for module in re.findall(r"python -m ((?:bench|vae)(?:\.[a-z_]+)*)", text):
        assert find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_that_pages_name_exist(page: Path) -> None:
    """In code, where no link checks them."""
    named = re.findall(r"`((?:bench|docs|geodesics|tests|vae|\.ci)/[\w./-]*)`", page.read_text("utf-8"))
    # Results that nobody has measured yet have no file.
    wanted = [path for path in named if not path.startswith("bench/results/")]
    assert [path for path in wanted if not (ROOT / path).exists()] == []


def test_the_source_archive_holds_what_a_clone_holds(tmp_path: Path) -> None:
    """All that is needed to build, test, document and cite."""
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = [item.name for item in ROOT.iterdir() if item.is_file() and not item.name.startswith(".")]
    assert set(files) <= names
    for page in PAGES:
        assert page.relative_to(ROOT).as_posix() in names
    assert {"geodesics/__init__.py", "vae/__init__.py", "bench/__init__.py", "tests/conftest.py"} <= names
    assert {".ci/run", ".pre-commit-config.yaml"} <= names
