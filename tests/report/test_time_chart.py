"""Fooling against seconds per clip: attacks at equal samples and level only."""

from __future__ import annotations

from pathlib import Path

from tests.support.report_runs import ATTACKS, fake_clips, make_run

from staanet.report.charts import time_chart
from staanet.report.headlines import cells_of_equal_size, headlines
from staanet.results.run_folder import RunFolder

DRAWN = True
"""Of these tests the pictures are a part."""


def test_only_attacks_of_as_many_samples_at_one_epsilon_are_compared(tmp_path: Path) -> None:
    run = RunFolder.read(make_run(tmp_path / "run", fake_clips(4)))
    (lead,) = headlines(run)
    cells = cells_of_equal_size(run, lead)
    assert [cell.attack for cell in cells] == ["staa", "pgd_sparse", "random"]
    assert {cell.target for cell in cells} == {"emo18"}
    chart = time_chart(cells)
    assert chart is not None and "PGD, 20 steps, as many samples as STAA-Net" in chart.alt
    assert "in 2.1 s" in chart.alt and chart.png.startswith(b"\x89PNG")
    assert b"mathdefault" not in chart.svg and "2.1 s" in chart.wide


def test_an_attack_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    run = RunFolder.read(make_run(tmp_path / "run", fake_clips(4), attacks=ATTACKS[:1]))
    assert time_chart(cells_of_equal_size(run, headlines(run)[0])) is None
