"""The pictures of the documentation's pages, drawn for real."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWN = True


def test_concepts_has_a_picture_of_each_term_in_the_colours_of_the_page() -> None:
    concepts = runpy.run_path(str(ROOT / "docs" / "hooks" / "concepts.py"))
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    assert concepts["MARK"].findall(page) == [*concepts["PICTURES"]]
    drawn = concepts["drawing"]("interval")
    assert drawn.count("<svg") == 2 and "var(--vermilion)" in drawn and "40 speakers" in drawn
    marked = "a\n\n<!-- picture budget -->\n"
    assert "<svg" in concepts["on_page_markdown"](marked, None, None, None)
