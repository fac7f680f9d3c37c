"""Fraudulent victims are found, honest ones and black boxes are not accused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
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
from tests.support.speech import RATE, clip

from staanet import sanity
from staanet.core import Clip, Victim
from staanet.sanity import Probe, gradient_check
from staanet.victims import TorchVictim, build_victim, load_victim


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


def test_a_network_that_asks_for_float32_inside_is_judged_in_float64(monkeypatch):
    torch.manual_seed(0)
    victim = build_victim("logmel_cnn", ("a", "b", "c")).eval()  # its front end says x.float()
    clips = [clip(0.5, 200 + 50 * i, i) for i in range(8)]
    check = sanity.gradients(victim, clips)
    assert check.verdict == "pass" and check.figures["error"] < 1e-4
    monkeypatch.setattr(gradient_check, "_in_double", lambda victim, x: None)
    assert sanity.gradients(victim, clips).verdict == "pass"
    assert sanity.gradients(Straight(victim), clips).verdict == "fail"


def test_a_kink_beside_a_clip_is_no_wrong_gradient():
    """The slope changes 3e-9 from the clip, so that all larger step sizes agree on another slope."""
    x = torch.full((1, 5), 0.2, dtype=torch.float64)

    class Kinked(Victim):
        def forward(self, waveforms, lengths=None):
            score = waveforms.sum(dim=1)
            return torch.stack([2 * score + (score - 1 - 3e-9).relu(), 0 * score], dim=1)

    def error(slope: float) -> float:
        grad = torch.full((5,), slope, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        precision = gradient_check._DOUBLE
        victim = Kinked(name="kinked", labels=("a", "b"), sample_rate=RATE)
        return gradient_check._clip_error(victim, precision, x, grad, generator)

    assert error(2.0) < 1e-3
    assert error(2.2) > gradient_check._DOUBLE.tolerance


def test_a_victim_that_noise_of_any_size_leaves_alone_is_not_accused():
    def nearly_constant(x: torch.Tensor) -> torch.Tensor:
        quiet = 1e-4 - x.square().mean(dim=1)
        return torch.stack([0 * quiet, quiet], dim=1)

    victim = TorchVictim(nearly_constant, ["loud", "quiet"], RATE)
    whisper = Clip("whisper", clip().pcm16 // 40, RATE)
    clips = [*(clip(seed=i) for i in range(11)), whisper]
    probe = Probe(victim, clips)
    assert len({*probe.clean.tolist()}) == 2
    check = sanity.huge_epsilon(probe)
    assert check.verdict == "pass" and check.figures["held"] == 11, check
