"""Fraudulent victims are found, honest ones and black boxes are not accused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.fraud_victims import (
    Broken,
    Denying,
    Detached,
    Noisy,
    Quantised,
    Softmax,
    Straight,
    Training,
)
from tests.support.hum_runs import check_run

from staanet import sanity
from staanet.victims import load_victim


@pytest.mark.parametrize(
    "fraud, check",
    [
        (Softmax, "logits"),
        (Noisy, "deterministic"),
        (Quantised, "gradients"),
        (Straight, "gradients"),
        (Detached, "gradients"),
        (Broken, "gradients"),
        (Training, "eval_mode"),
        (Denying, "eval_mode"),
    ],
)
def test_a_fraudulent_victim_is_found(run, fraud, check):
    victims = {"emo18": fraud(load_victim(run / "victims" / "emo18"))}
    checks = check_run(run, check, victims=victims)
    assert checks[check, "emo18"].verdict == "fail", checks[check, "emo18"]
    assert checks[check, "emo18"].remedy
    assert checks[check, "other"].verdict == "pass"


def test_clean_accuracy_is_held_against_the_best_constant_answer():
    labels = ["joy"] * 6 + ["fear"] * 6
    speakers = [f"s{i % 3}" for i in range(12)]

    def verdict(answers: Sequence[str]) -> str:
        return sanity.clean_accuracy("v", labels, answers, speakers).verdict

    assert verdict(labels) == "pass"
    assert verdict(["joy"] * 12) == "fail"
    assert verdict(["joy"] * 6 + ["fear"] * 2 + ["joy"] * 4) == "warn"
