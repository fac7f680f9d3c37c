"""A run's paragraph: every figure with its N, interval and control, and only figures of the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.commands import staanet
from tests.support.report_runs import fake_clips, make_run

from staanet import report
from staanet.errors import InvalidInput
from staanet.report.headlines import headlines
from staanet.results import formatting
from staanet.results.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "emodb", fake_clips())


def test_the_paragraph_names_figure_interval_number_control_and_version(run: Path) -> None:
    lead = headlines(RunFolder.read(run))[0]
    quoted = report.cite(run)
    assert lead.control is not None
    for rate in (lead.cell.fooling_rate, lead.control.fooling_rate):
        shown = (
            f"{formatting.percent(rate.value)} of clips (95 % interval {formatting.interval(rate)}"
        )
        assert shown in quoted.text and f"N = {rate.count})" in quoted.text
    for word in (lead.cell.title, lead.cell.target, "SNR", "clustered by speaker", "staanet "):
        assert word in quoted.text
    assert "\n" not in quoted.text
    assert quoted.bibtex.count("@") == 2 and quoted.bibtex.count("{") == quoted.bibtex.count("}")


def test_the_command_prints_it_and_builds_nothing(run: Path) -> None:
    done = staanet("report", run, "--cite", "--json", cwd=run)
    quoted = json.loads(done.stdout)
    assert quoted["text"] == report.cite(run).text and "@software{" in quoted["bibtex"]
    assert not (run / "report").exists()


def test_a_figure_that_is_not_that_of_the_files_is_not_quoted(tmp_path: Path) -> None:
    broken = make_run(tmp_path / "emodb", fake_clips(4))
    path = broken / "results" / "summary.json"
    summary = json.loads(path.read_text())
    summary["cells"][0]["fooling_rate"]["value"] = 0.123
    path.write_text(json.dumps(summary))
    with pytest.raises(InvalidInput, match="by its rows"):
        report.cite(broken)
