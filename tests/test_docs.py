"""Every Python block of the README and of the site runs and prints what the page says; no link leads nowhere."""

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import geodesics
import vae

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SITE = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [page for page in (README, ROOT / "CONTRIBUTING.md", *SITE) if page.exists()]
GROUPS = ("start", "how-to", "explanation", "reference")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.DOTALL | re.M)
OUTPUT = 'text title="Output"'
# A block that needs an optional library is titled by it: it runs where that is installed.
NEEDS = re.compile(r'python title="needs (?P<library>\w+)[^"]*"')
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\((?P<target>[^)\s]+)\)|<img src=\"(?P<image>[^\"]+)\"")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def python_blocks(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Line before the code, the code, and the output that the page shows, of every Python block; none may opt out."""
    code: tuple[int, str] | None = None
    skipped = False
    for match in FENCE.finditer(text):
        info, body = match["info"].strip(), textwrap.dedent(match["body"])
        if info == OUTPUT:
            if code is not None:
                yield *code, body
            else:
                assert skipped, "an output stands below the block that prints it"
            code, skipped = None, False
            continue
        if code is not None:
            yield *code, None
            code = None
        skipped = False
        if info.lower().startswith("py"):
            needs = NEEDS.fullmatch(info)
            assert info == "python" or needs, f"a block fenced as {info!r} would not be run: fence it as 'python'"
            skipped = needs is not None and importlib.util.find_spec(needs["library"]) is None
            if not skipped:
                code = text.count("\n", 0, match.start("body")), body
    if code is not None:
        yield *code, None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page share their names and run in order, in an empty folder, with no screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for line, code, shown in python_blocks(page.read_text("utf-8")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # The empty lines make a traceback name the line of the page.
            exec(compile("\n" * line + code, str(page), "exec"), names)
        if shown is not None:
            assert NUMBER.sub("#", printed.getvalue()).split() == NUMBER.sub("#", shown).split()
            numbers = (np.array(NUMBER.findall(text), dtype=float) for text in (printed.getvalue(), shown))
            np.testing.assert_allclose(*numbers, rtol=1e-3)


def test_blocks_are_found_and_none_opts_out() -> None:
    page = "text\n```python\na = 1\n```\n```text\nx = y\n```\n- item\n  ```python\n  b = 2\n  ```\n"
    page += f"\n  ```{OUTPUT}\n  3\n  ```\n"
    assert list(python_blocks(page)) == [(2, "a = 1\n", None), (9, "b = 2\n", "3\n")]
    with pytest.raises(AssertionError, match="would not be run"):
        list(python_blocks("```python notest\na = 1\n```\n"))


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts and mkdocs make it of plain words."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))


def broken_links(text: str, page: Path) -> list[str]:
    """Links of a page to files or headings of the project that do not exist."""
    found = [match["target"] or match["image"] for match in LINK.finditer(FENCE.sub("", text))]
    return [target for target in found if "://" not in target and not leads_somewhere(target, page)]


def leads_somewhere(target: str, page: Path) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_file() or ROOT not in file.parents:
        return False
    if not anchor:
        return True
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text("utf-8")), re.MULTILINE)
    return anchor in [slug(heading) for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """mkdocs checks the links of the site; those of the README and of CONTRIBUTING nothing else does."""
    assert broken_links(page.read_text("utf-8"), page) == []


def test_broken_links_are_found() -> None:
    text = "[a](docs/index.md#how-to) [b](docs/none.md) ![c](docs/index.md#none) [d](../x.md) [e](https://x.org)"
    text += '<img src="docs/images/measure.png" alt="f"><img src="none.png" alt="g">'
    assert broken_links(text, README) == ["docs/none.md", "docs/index.md#none", "../x.md", "none.png"]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    entries = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, re.MULTILINE)
    assert sorted(entries) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in SITE)


@pytest.mark.parametrize("page", [page for page in SITE if page.parent.name in GROUPS], ids=name_of)
def test_a_page_says_for_whom_it_is(page: Path) -> None:
    title, lead = page.read_text("utf-8").split("\n\n", 2)[:2]
    assert title.startswith("# ")
    assert lead.startswith("For ")


def documented(package: ModuleType) -> list[tuple[str, str]]:
    """Page and name of every entry of the reference that belongs to a package."""
    pattern = re.compile(rf"^::: {package.__name__}\.(\w+)$", re.MULTILINE)
    pages = sorted(ROOT.glob("docs/reference/*.md"))
    return [(page.stem, name) for page in pages for name in pattern.findall(page.read_text("utf-8"))]


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
    for page in (tmp_path / "site" / "reference").glob("*/index.html"):
        text = page.read_text("utf-8")
        assert ":math:" not in text, f"a formula of {page.parent.name} is shown as it was typed"
        # A first word with a colon and a line that is indented below it: taken for a section of the docstring.
        assert "<details" not in text, f"a sentence of {page.parent.name} became a box"
