"""Findings of axe-core in a page of the headless browser."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.headless import Page

SCRIPT = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = ("serious", "critical")


def axe_core() -> str:
    """The text of axe-core, or a skip that says how to provide it; ``AXE_CORE`` may name the file."""
    path = Path(os.environ.get("AXE_CORE", SCRIPT))
    if not path.exists():
        pytest.skip("axe-core: npm install --no-save axe-core@4")
    return path.read_text(encoding="utf-8")


def serious_findings(page: Page) -> list[str]:
    """Rule, place and reason of each serious or critical finding of axe-core."""
    page.run(f"{axe_core()}; 0")
    report = json.loads(
        page.run("axe.run({iframes: false}).then(found => JSON.stringify(found.violations))")
    )
    return [
        f"{rule['id']}: {node['html'][:200]} ({node.get('failureSummary', '')[:300]})"
        for rule in report
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]
