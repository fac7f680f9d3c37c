"""One version, one list of dependencies, a citation and a workflow that fit the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_stands_in_one_place_and_the_citation_says_the_same():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited is not None and cited[1] == PROJECT["version"]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]
    assert not [text for text in sources if re.search(r"__version__\s*=\s*[\"']", text)]


def test_the_workflow_runs_what_we_run_on_each_supported_python():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    versions = re.search(r"python: \[(.+)\]", text)
    assert versions is not None and "run: .ci/run" in text
    oldest = versions[1].replace('"', "").split(", ")[0]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert "ubuntu-latest" in text and "macos-latest" in text


def test_every_example_is_short_and_says_how_it_is_run():
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 40, path.name
        assert f"python examples/{path.name}" in text, path.name
