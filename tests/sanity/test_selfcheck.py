"""Honest runs raise no alarm; the command, its file, and what the report shows of it."""

from __future__ import annotations

import json
import re

import pytest
from tests.support.hum_runs import (
    RICH,
    alarms,
    check_run,
    copy_victim,
    evaluate_again,
    failing,
    honest_run,
    selfcheck_json,
)
from typer.testing import CliRunner

from staanet import report, storage
from staanet.cli import app
from staanet.errors import InvalidInput
from staanet.results.run_folder import RunFolder
from staanet.sanity import selfcheck


def test_an_honest_run_raises_no_alarm_and_every_check_was_made(run):
    assert alarms(run) == [] and selfcheck_json(run)["failed"] == 0
    checks = {one["name"] for one in selfcheck_json(run)["checks"] if one["verdict"] == "pass"}
    assert checks == {
        "known_optimum",
        "eval_mode",
        "deterministic",
        "logits",
        "gradients",
        "clean_accuracy",
        "planted_example",
        "more_steps",
        "larger_epsilon",
        "huge_epsilon",
        "white_box_wins",
        "disk",
        "predictions",
        "beats_control",
        "direction",
        "clean_audio",
        "split",
        "content",
        "white_box_marks",
        "rates",
    }


def test_a_richer_recipe_is_understood(tmp_path):
    run = honest_run(tmp_path, 1, **RICH)
    found = {one["name"] for one in alarms(run)}
    assert found <= {"beats_control"}, "a generator of 60 steps need not beat a learned vector"
    verdicts = {(one["name"], one["subject"]): one for one in selfcheck_json(run)["checks"]}
    assert verdicts["predictions", "few__emo18"]["figures"]["count"] == 10 * 2 * 2
    assert verdicts["predictions", "staa__emo18"]["figures"]["count"] == 24 * 2 * 2
    assert verdicts["rates", ""]["figures"]["count"] == 6 * 5 * 2, "of the files as they are"
    assert "uap" in verdicts["beats_control", "staa__emo18"]["figures"]
    assert not {("beats_control", "uap__emo18"), ("direction", "uap__emo18")} & verdicts.keys()

    recipe = run / "recipe.toml"
    rich = recipe.read_text()
    recipe.write_text(rich.replace('protocol = "speakers:s0,s1,s2,s3/s4,s5"\n', ""))
    assert failing(check_run(run, "split", "clean_audio")) == {"split"}
    recipe.write_text(rich.replace("clip_seconds = 0.22\n", ""))
    assert failing(check_run(run, "split", "clean_audio")) == {"clean_audio"}

    card = json.loads((run / "vectors" / "uap__emo18" / "card.json").read_text())
    card["inputs"]["split"], card["source_sha256"] = "0" * 64, "1" * 64
    storage.write_card(run / "vectors" / "uap__emo18", card)
    found = check_run(run, "split", "white_box_marks")
    assert "the vector uap__emo18 names the split 000000000000" in found["split", ""].explanation
    assert "the vector uap__emo18 was trained on" in found["white_box_marks", ""].explanation


def test_the_command_names_a_failure_leaves_with_1_and_the_report_shows_it(tampered):
    copy_victim(tampered, nudge=1e-7)
    # an evaluation knows a copy by its hash, which the nudge changes
    result = CliRunner().invoke(app, ["selfcheck", str(tampered), "--clips", "2", "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert " rows of results" in found["checked"] == selfcheck_json(tampered)["checked"]
    assert not re.search(r"\b1 [a-z]+s\b", found["checked"]), "one is no plural"
    assert [one["name"] for one in found["checks"] if one["verdict"] == "fail"] == [
        "white_box_marks"
    ]
    assert RunFolder.read(tampered).selfcheck.stale is False
    page = report.build(tampered).read_text(encoding="utf-8")
    first_screen = page[: page.index('<dl class="brief">')]
    assert "self-check failed: white box marks" in first_screen
    assert "Self-check of the evaluation" in page
    evaluate_again(tampered)
    summary = tampered / "results" / "summary.json"
    summary.write_text(summary.read_text() + "\n")
    assert RunFolder.read(tampered).selfcheck.stale is True


def test_the_command_shows_a_table_and_leaves_with_0(tampered):
    result = CliRunner().invoke(app, ["selfcheck", str(tampered), "--clips", "2"])
    assert result.exit_code == 0, result.output
    assert "0 of" in result.stdout and "known_optimum" in result.stdout
    assert "looked at: " in result.stdout
    assert "skipped" in result.stdout  # two clips tell nothing of attacks


def test_help_tells_of_the_exit_code():
    told = CliRunner().invoke(app, ["selfcheck", "--help"]).stdout
    assert "The exit code is 1 if a check fails" in " ".join(told.split())


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no finished run"):
        selfcheck.selfcheck(tmp_path)
    result = CliRunner().invoke(app, ["selfcheck", str(tmp_path / "missing")])
    assert result.exit_code == 3 and not (tmp_path / "missing").exists()


def test_a_checked_run_is_not_checked_again_until_its_results_change(tampered):
    assert selfcheck.is_current(tampered, 0) and not selfcheck.is_current(tampered, 1)
    summary = tampered / "results" / "summary.json"
    summary.write_text(summary.read_text() + "\n")
    assert not selfcheck.is_current(tampered, 0)
