"""Sections of ``results.md`` that a command of their own writes, and that other commands keep."""

from __future__ import annotations

import re
from pathlib import Path

from staanet import storage

RESULTS = Path(__file__).parent / "results.md"
MARK = re.compile(r"<!-- (?P<name>[\w-]+) -->\n.*?\n<!-- /(?P=name) -->", re.DOTALL)


def kept(text: str) -> list[str]:
    """The marked sections of a text, marks and all.

    >>> kept("a\\n<!-- b -->\\nc\\n<!-- /b -->\\nd")
    ['<!-- b -->\\nc\\n<!-- /b -->']
    """
    return [found.group() for found in MARK.finditer(text)]


def replaced(text: str, name: str, body: str) -> str:
    """The text with the section of that name in place of its old one, or at the end.

    >>> replaced("a\\n<!-- b -->\\nc\\n<!-- /b -->\\nd", "b", "new")
    'a\\n<!-- b -->\\nnew\\n<!-- /b -->\\nd'
    """
    section = f"<!-- {name} -->\n{body.strip()}\n<!-- /{name} -->"
    for old in MARK.finditer(text):
        if old["name"] == name:
            return text[: old.start()] + section + text[old.end() :]
    return f"{text.rstrip()}\n\n{section}\n"


def write(name: str, body: str) -> None:
    """Put a section into ``results.md``."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    storage.write_bytes(RESULTS, replaced(text, name, body).encode())
