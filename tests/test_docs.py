"""Every Python block of the README and of the site runs, and the site builds without a warning."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import geodesics
import vae

ROOT = Path(__file__).resolve().parents[1]
PAGES = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if path.exists()]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.DOTALL | re.M)


def python_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Line before the code, and the code, of every Python block of a page; no block may opt out."""
    for match in FENCE.finditer(text):
        info = match["info"].strip()
        if info.lower().startswith("py"):
            assert info == "python", f"a block fenced as {info!r} would not be run: fence it as 'python'"
            yield text.count("\n", 0, match.start("body")), textwrap.dedent(match["body"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page share their names and run in order, in an empty folder, with no screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in python_blocks(page.read_text("utf-8")):
        # The empty lines make a traceback name the line of the page.
        exec(compile("\n" * line + code, str(page), "exec"), names)


def documented(package: ModuleType) -> list[tuple[str, str]]:
    """Page and name of every entry of the reference that belongs to a package."""
    pattern = re.compile(rf"^::: {package.__name__}\.(\w+)$", re.MULTILINE)
    pages = sorted(ROOT.glob("docs/reference/*.md"))
    return [(page.stem, name) for page in pages for name in pattern.findall(page.read_text("utf-8"))]


def test_blocks_are_found_and_none_opts_out() -> None:
    page = "text\n```python\na = 1\n```\n```text\nx = y\n```\n- item\n  ```python\n  b = 2\n  ```\n"
    assert list(python_blocks(page)) == [(2, "a = 1\n"), (9, "b = 2\n")]
    with pytest.raises(AssertionError, match="would not be run"):
        list(python_blocks("```python notest\na = 1\n```\n"))


@pytest.mark.parametrize("package", [geodesics, vae], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package: ModuleType) -> None:
    assert sorted(name for _, name in documented(package)) == sorted(package.__all__)


def test_names_are_on_the_page_of_their_folder() -> None:
    for page, name in documented(geodesics):
        assert getattr(geodesics, name).__module__.split(".")[1] == page, name


def test_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "site" / "index.html").exists()
