"""Sections of the results that a command of their own writes: each is replaced, the rest is kept."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "bench" / "sections.py"


@pytest.fixture
def sections(tmp_path, monkeypatch):
    if not FILE.exists():
        pytest.skip("bench/ is not part of this distribution")
    spec = importlib.util.spec_from_file_location("sections", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.md")
    return module


def test_a_section_is_added_once_then_replaced_and_its_neighbours_stay(sections):
    sections.write("one", "## One\n\n1")
    sections.write("two", "## Two\n\n2")
    before = sections.RESULTS.read_text()
    sections.write("one", "## One\n\nnew")
    after = sections.RESULTS.read_text()
    assert after == before.replace("\n1\n", "\nnew\n") and after.count("## One") == 1
    assert after.startswith("# Results")
    sections.write("one", "## One\n\n1")
    assert sections.RESULTS.read_text() == before


def test_sections_survive_a_file_written_anew(sections):
    sections.write("one", "## One\n\n1")
    sections.write("two", "## Two\n\n2")
    found = sections.kept(sections.RESULTS.read_text())
    assert [part.splitlines()[0] for part in found] == ["<!-- one -->", "<!-- two -->"]
    assert sections.kept("\n\n".join(["# Results", *found])) == found
    assert sections.kept("no section") == []
