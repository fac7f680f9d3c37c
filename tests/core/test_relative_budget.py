"""Epsilon relative to the speech of a clip: one rule in numpy and torch, and plain refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.speech import RATE, tone

from staanet.audio import to_float
from staanet.audio.levels import active_level, active_level_db
from staanet.core import Budget
from staanet.errors import InvalidInput


@given(st.integers(1, 5000), st.integers(0, 2**31), st.floats(-60, 10))
def test_a_batch_and_a_clip_alone_have_the_same_epsilon(size, seed, db):
    rng = np.random.default_rng(seed)
    loud = rng.integers(-32768, 32767, size, np.int16)
    clips = [loud, tone(0.3, 300, seed % 9), np.int16(loud // 300), np.zeros(7, np.int16)]
    lengths = torch.tensor([len(clip) for clip in clips])
    x = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in enumerate(clips):
        x[row, : len(clip)] = torch.from_numpy(to_float(clip))
    budget = Budget(epsilon=f"{db:.3f} dB")
    alone = [budget.for_clip(clip, RATE).epsilon_lsb for clip in clips]
    assert (budget.epsilon_of(x, lengths, RATE)[:, 0] * 32768).tolist() == alone
    assert budget.epsilon_of(x[:1, :size], None, RATE).item() * 32768 == alone[0]


def test_a_gain_scales_a_relative_epsilon_and_no_absolute_one():
    clip, relative = tone(1.0, 300), Budget(epsilon="-20 dB")
    for gain in (2, 4, 8):
        epsilons = [relative.for_clip(c, RATE).epsilon_lsb for c in (clip, np.int16(clip // gain))]
        assert abs(epsilons[0] / epsilons[1] - gain) < 0.02 * gain
    absolute = Budget(epsilon=0.01)
    assert absolute.for_clip(clip, None) is absolute


def test_epsilon_lies_so_many_db_below_the_active_speech_and_a_click_hardly_moves_it():
    clip = np.concatenate([tone(1.0, 300), np.zeros(3 * RATE, np.int16)])  # a long pause
    epsilon = Budget(epsilon="-30 dB").for_clip(clip, RATE).epsilon_lsb / 32768
    level = active_level_db(to_float(clip), RATE)
    assert 20 * np.log10(epsilon) == pytest.approx(level - 30, abs=0.05)
    clicked = clip.copy()
    clicked[100:104] = 32767
    assert active_level(to_float(clicked), RATE) < 1.12 * active_level(to_float(clip), RATE)


def test_project_and_violations_use_the_epsilon_of_the_clip():
    clip, budget = tone(0.5, 300), Budget(epsilon="-20 dB")
    largest = budget.for_clip(clip, RATE).epsilon_lsb
    fitted = budget.project(clip, to_float(clip) + 0.5, RATE)
    assert np.abs(fitted.astype(int) - clip).max() == largest
    assert budget.violations(clip, fitted, RATE) == []
    told = budget.violations(clip, np.int16(clip + largest + 1), RATE)
    assert told == [
        f"a sample moved by {largest + 1} steps of 2^-15; epsilon -20 dB allows {largest}"
    ]


@pytest.mark.parametrize(
    "epsilon", ["", "-20", "20 db below", "-101 dB", "21 dB", 0, -1.0, 2.5, True]
)
def test_what_is_no_epsilon_is_refused(epsilon):
    with pytest.raises(InvalidInput, match="epsilon is"):
        Budget(epsilon=epsilon)


def test_a_relative_epsilon_has_one_spelling_and_needs_a_rate():
    assert Budget(epsilon=" -20.50db ") == Budget(epsilon="-20.5 dB")
    with pytest.raises(InvalidInput, match="differs from clip to clip"):
        _ = Budget(epsilon="-20 dB").epsilon_lsb
    with pytest.raises(InvalidInput, match="sample rate"):
        Budget(epsilon="-20 dB").epsilon_of(torch.zeros(1, 4))
