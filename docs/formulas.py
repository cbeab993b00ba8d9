"""Formulas of the site as MathML: a hook of mkdocs (``hooks`` in mkdocs.yml), run when the site is built.

Pages write ``$...$`` in a line and ``$$...$$`` for a formula of its own, which code hosts draw as well. Arithmatex of
pymdown-extensions finds them and this hook translates them, so that no script and no network is needed to read a page.
"""

import html
import re

from latex2mathml.converter import convert

# What arithmatex makes of a formula, in its generic form.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def mathml(latex: str, display: str) -> str:
    """One formula as a ``<math>`` element; display is "inline" or "block".

    Raises:
        ValueError: when the formula holds a command or an alignment that the translation does not know.
    """
    translated = convert(latex.strip(), display=display)
    if any(sign in translated for sign in ("\\", "<mi>&</mi>", 'linebreak="newline"')):
        raise ValueError(f"formula that MathML cannot show: {latex.strip()}")
    return translated


def on_page_content(page_html: str, page: object, config: object, files: object) -> str:
    """The HTML of a page with its formulas translated; mkdocs calls it for every page, and names its arguments."""
    translated = _BLOCK.sub(lambda found: mathml(html.unescape(found[1]), "block"), page_html)
    return _INLINE.sub(lambda found: mathml(html.unescape(found[1]), "inline"), translated)
