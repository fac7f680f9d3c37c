"""Rates are counted by their definition, and a planted example is counted."""

from __future__ import annotations

from tests.support.models import LinearVictim
from tests.support.speech import RATE

from staanet import audio
from staanet.core import Clip
from staanet.results.cells import ClipResult, Distances
from staanet.sanity.run_figures import count_rates, planted_example


def clip_result(label: str, before: str, after: str) -> ClipResult:
    return ClipResult(
        attack="pgd",
        source="v",
        target="v",
        id="c",
        label=label,
        speaker="s",
        clean_prediction=before,
        adversarial_prediction=after,
        distances=Distances.from_row({}),
    )


def test_a_rate_is_counted_by_its_definition():
    pairs = ("a", "a"), ("a", "b"), ("b", "b"), ("b", "a")
    found = count_rates([clip_result("a", *pair) for pair in pairs], ["a", "b"])
    assert found["fooling_rate"] == (0.5, 4)  # one left the label, one came to it
    assert found["attack_success_rate"] == (0.5, 2)  # of two right ones, one was lost
    assert found["accuracy_before"] == found["accuracy_after"] == (0.5, 4)


def test_a_planted_example_is_counted(linear: LinearVictim):
    w = audio.snap(0.3 * linear.weight.sign().numpy())
    clips = [Clip("up", w, RATE), Clip("down", -w, RATE)]
    assert planted_example(linear, clips).verdict == "pass"
    assert planted_example(linear, clips[:1] * 3).verdict == "skipped"
