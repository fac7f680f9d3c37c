"""The notebook runs from top to bottom, and the stored one was run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

STORY = Path(__file__).parent.parent / "docs" / "story.ipynb"


def test_the_stored_notebook_was_run_and_carries_no_audio() -> None:
    text = STORY.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds and "error" not in kinds
    assert "audio/" not in text and len(text) < 400_000
    assert not re.search(r"/(?:home|work|root|Users)/", text)


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip(
        "nbclient", reason="extra notebook: pip install 'staanet[notebook]'"
    )
    pytest.importorskip("ipykernel", reason="extra notebook: pip install 'staanet[notebook]'")
    pytest.importorskip("espeakng_loader", reason="extra demo: pip install 'staanet[demo]'")
    import nbformat

    import staanet

    source = str(Path(staanet.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    story = nbformat.read(STORY, as_version=4)
    nbclient.NotebookClient(story, timeout=900, kernel_name="python3").execute()
    text = json.dumps(story)
    (before,) = re.findall(r"on test speakers ([01]\.\d\d)", text)
    assert float(before) > 0.4  # chance is 0.25
    assert re.search(r"\d+ samples changed, \d+\.\d dB SNR", text) and "audio/" in text
    tables = [
        "".join(output["data"]["text/markdown"])
        for cell in story.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]
    assert len(tables) == 2 and all("%" in table for table in tables)
