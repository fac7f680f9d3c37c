"""A headline whose budget tells nothing of its attack says so, and names one that would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.report_runs import ATTACKS, fake_clips, make_run

from staanet import report, storage
from staanet.report.budget_doubts import BUDGETS


def run_with(folder: Path, *, epsilon: float = 0.001, noise: float = 0.06) -> Path:
    attacks = [replace(a, white_box=noise) if a.attack == "random" else a for a in ATTACKS]
    return make_run(folder, fake_clips(), attacks=attacks, epsilon=epsilon)


def test_a_quiet_change_that_noise_does_not_match_has_no_doubt(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run")
    assert report.read_doubts(run) == []


@pytest.mark.parametrize(
    ("epsilon", "noise", "reason"),
    [
        (0.5, 0.0, "the change has a median SNR of -"),
        (0.001, 1.0, "random changes reach a fooling rate of 100"),
    ],
    ids=["loud", "strong control"],
)
def test_a_loud_change_or_a_strong_control_is_said_in_the_headline(
    tmp_path: Path, epsilon: float, noise: float, reason: str
) -> None:
    run = run_with(tmp_path / "run", epsilon=epsilon, noise=noise)
    (text,) = report.read_doubts(run)
    assert (
        text.startswith("This budget does not show the strength of STAA-Net: ") and reason in text
    )
    assert "staanet budget CORPUS --victim emo18" in text
    row = {"epsilon": "-31 dB", "max_density": 0.2, "snr_db": 36.2}
    storage.write_json(run / BUDGETS, {"emo18": [row]})
    (text,) = report.read_doubts(run)
    assert "fool less than 10 % up to epsilon -31 dB on 20.0 % of the samples (SNR 36 dB)." in text
    storage.write_json(run / BUDGETS, {"emo18": 3})  # no file of staanet
    assert "staanet budget CORPUS" in report.read_doubts(run)[0]


def test_the_page_has_the_doubt_in_its_first_sentence(tmp_path: Path) -> None:
    page = report.build(run_with(tmp_path / "run", noise=1.0)).read_text(encoding="utf-8")
    answer = page[page.index('<p class="answer">') :]
    assert "This budget does not show the strength of STAA-Net" in answer[: answer.index("</p>")]
