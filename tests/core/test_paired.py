"""A paired comparison raises no false alarm, and finds what it says it would find."""

from __future__ import annotations

import numpy as np
import pytest

from staanet.core.paired import POWER, Difference, paired_difference
from staanet.errors import InvalidInput


def outcomes(rng, sizes, *, speaker_effect=0.0, difference=0.0):
    """Two attacks on the same clips, equally strong apart from ``difference``."""
    speakers = np.repeat(np.arange(len(sizes)), sizes)
    rate = rng.beta(2, 2, len(sizes)) * (1 - difference)
    effect = rng.normal(0, speaker_effect, len(sizes)) if speaker_effect else 0.0
    a = rng.random(len(speakers)) < np.clip(rate + effect, 0, 1)[speakers]
    b = rng.random(len(speakers)) < np.clip(rate - effect, 0, 1)[speakers]
    a |= ~a & (rng.random(len(speakers)) < difference / max((~a).mean(), 1e-9))
    return a, b, [str(speaker) for speaker in speakers]


@pytest.mark.parametrize("sizes", [[30] * 2, [12] * 3, [20] * 5, [12] * 10, [5, 20, 60] * 4])
@pytest.mark.parametrize("speaker_effect", [0.0, 0.15])
def test_equal_attacks_are_told_apart_at_most_as_often_as_stated(sizes, speaker_effect):
    rng = np.random.default_rng(len(sizes))
    trials = 1500
    alarms = sum(
        paired_difference(*outcomes(rng, sizes, speaker_effect=speaker_effect)).is_shown
        for _ in range(trials)
    )
    assert alarms / trials <= 0.06


@pytest.mark.parametrize("sizes", [[12] * 10, [40] * 10, [12] * 24])
def test_the_least_difference_is_shown_with_the_stated_power(sizes):
    rng = np.random.default_rng(1)
    least = 0.0
    for _ in range(3):  # outcomes that differ by it are a little less variable than equal ones
        drawn = [outcomes(rng, sizes, difference=least) for _ in range(150)]
        least = float(np.median([paired_difference(*each).least for each in drawn]))
    trials = 600
    shown = sum(
        paired_difference(*outcomes(rng, sizes, difference=least)).is_shown for _ in range(trials)
    )
    assert abs(shown / trials - POWER) <= 0.05


def test_the_difference_is_that_of_the_rates_and_its_sign_follows_the_order():
    a, b, speakers = [1, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1], list("aabbcc")
    forward, backward = (paired_difference(*pair, speakers) for pair in ((a, b), (b, a)))
    assert forward.value == pytest.approx(np.mean(a) - np.mean(b))
    assert backward.value == pytest.approx(-forward.value)
    assert backward.low == pytest.approx(-forward.high) and backward.p == pytest.approx(forward.p)
    assert forward.low <= forward.value <= forward.high
    assert (forward.count, forward.clusters) == (6, 3)


def test_the_interval_leaves_out_0_where_p_is_below_a_twentieth():
    rng = np.random.default_rng(2)
    for _ in range(200):
        found = paired_difference(*outcomes(rng, [15] * 8, difference=0.15))
        assert found.is_shown == (found.p < 0.05)


def test_more_speakers_show_smaller_differences():
    rng = np.random.default_rng(3)
    least = [
        np.median([paired_difference(*outcomes(rng, [20] * n)).least for _ in range(50)])
        for n in (3, 6, 12, 24)
    ]
    assert least == sorted(least, reverse=True)


def test_all_clips_alike_still_have_an_interval():
    found = paired_difference([1] * 40, [0] * 40, [str(i % 8) for i in range(40)])
    assert found.value == 1 and found.low < 1 and found.p > 0


def test_one_speaker_or_no_clip_says_nothing_of_others():
    one = paired_difference([1, 0], [0, 0], ["a", "a"])
    assert one == Difference(0.5, None, None, None, None, 2, 1) and not one.is_shown
    assert paired_difference([], [], []) == Difference(None, None, None, None, None, 0, 0)


def test_other_clips_are_refused():
    with pytest.raises(InvalidInput, match="2 outcomes against 3"):
        paired_difference([1, 0], [0, 0, 1], ["a", "a", "b"])
