"""Formulas of the site come out as MathML, or stop the build."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("latex2mathml")
markdown = pytest.importorskip("markdown")
pytest.importorskip("pymdownx")

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("formulas", ROOT / "docs/formulas.py")
formulas = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(formulas)


def page(text: str) -> str:
    """A page as mkdocs makes it."""
    body = markdown.markdown(
        text,
        extensions=["tables", "pymdownx.arithmatex", "pymdownx.superfences"],
        extension_configs={"pymdownx.arithmatex": {"generic": True}},
    )
    return formulas.on_page_content(body, page=None, config=None, files=None)


def test_a_formula_in_a_line() -> None:
    found = page("The metric $M_k < J^\\top J$ of a decoder.")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">' in found
    assert "<msub><mi>M</mi><mi>k</mi></msub>" in found
    assert "&#x0003C;" in found  # the sign <, written as HTML wants it
    assert "arithmatex" not in found


def test_a_formula_of_its_own() -> None:
    found = page("Before.\n\n$$\nE = \\frac{1}{2} \\int_0^1 \\lVert c' \\rVert^2 \\, dt\n$$\n\nAfter.")
    assert 'display="block"' in found
    assert "<mfrac>" in found
    assert "arithmatex" not in found


def test_formulas_in_tables_and_code_that_is_none() -> None:
    assert "<td><math" in page("| symbol |\n|---|\n| $z_0$ |\n")
    assert "<math" not in page("`a $x$ b`\n\n```text\n$y$\n```\n")
    assert "<math" not in page("It costs 3 $ and 4 $ more.")


@pytest.mark.parametrize(
    "latex", ["\\unknown", "\\begin{gathered} a \\\\ b \\end{gathered}", "\\begin{aligned} a &= b \\end{aligned}"]
)
def test_what_cannot_be_shown_stops_the_build(latex: str) -> None:
    with pytest.raises(ValueError, match="cannot show"):
        page(f"A ${latex}$ here.")
