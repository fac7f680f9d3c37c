"""The masking threshold: equal to slow truth, and the laws of what hides what."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tests.support import slow_psychoacoustics as slow

from staanet.audio import psychoacoustics
from staanet.audio.psychoacoustics import (
    LOUDEST_DB,
    absolute_threshold_db,
    bark,
    frame_sizes,
    frequencies,
    masked_excess,
    masking_threshold_db,
    masking_weight,
    power_spectrum,
    valid_frames,
)

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000]


def sine(rate: int, number: int, level_db: float = 0.0, seconds: float = 0.2) -> torch.Tensor:
    """A sine exactly on bin ``number``, of a level below full scale, ``[1, T]``."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    hz = number * rate / frame_sizes(rate)[0]
    return 10 ** (level_db / 20) * torch.sin(2 * torch.pi * hz * time)[None]


def noise(*shape: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return level * torch.randn(*shape, generator=draw, dtype=torch.float64)


def bin_of(hz: float, rate: int) -> int:
    return round(hz * frame_sizes(rate)[0] / rate)


# ---------------------------------------------------------------- against the slow truth


@pytest.mark.parametrize("length", [1, 33, 65, 150])
@pytest.mark.parametrize("full_scale_db", [None, 96.0])
def test_the_threshold_is_that_of_the_definition(length, full_scale_db):
    clip = noise(1, length)
    fast = masking_threshold_db(clip, None, 8_000, full_scale_db=full_scale_db)[0]
    assert np.allclose(fast, slow.threshold_db(clip[0].tolist(), 8_000, full_scale_db), atol=1e-6)


def test_the_excess_is_that_of_the_definition():
    clean = noise(1, 200)
    adversarial = clean + 0.5 * noise(1, 200, seed=1)
    share, excess = masked_excess(clean, adversarial, None, 8_000)
    true = slow.excess(clean[0].tolist(), adversarial[0].tolist(), 8_000)
    assert 0 < true[0] < 1
    assert (float(share), float(excess)) == pytest.approx(true, abs=1e-6)


def test_single_precision_is_enough():
    clip = noise(2, 4_000)
    exact = masking_threshold_db(clip, None, 16_000)
    assert torch.allclose(
        masking_threshold_db(clip.float(), None, 16_000).double(), exact, atol=1e-2
    )


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("rate", RATES)
def test_a_sine_on_a_bin_has_the_square_of_its_amplitude_in_it_and_nothing_far_away(rate):
    power = power_spectrum(sine(rate, 20, -20), None, rate)[0, :, 10]
    assert float(power[20]) == pytest.approx(0.01, rel=1e-6)
    assert float(power[25:].max()) < 1e-12


@pytest.mark.parametrize("rate", RATES)
def test_silence_leaves_the_absolute_threshold(rate):
    threshold = masking_threshold_db(torch.zeros(1, rate // 10).double(), None, rate)
    quiet = absolute_threshold_db(frequencies(rate)) - LOUDEST_DB
    assert torch.allclose(threshold[0], quiet[:, None].expand_as(threshold[0]), atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_a_louder_tone_raises_the_threshold_near_it_and_lowers_it_nowhere(rate):
    there = bin_of(1_000, rate)
    thresholds = [
        masking_threshold_db(level * sine(rate, there), None, rate, full_scale_db=96)[0, :, 10]
        for level in (0, 1e-4, 1e-3, 1e-2, 0.1, 1)
    ]
    for softer, louder in itertools.pairwise(thresholds):
        assert bool((louder >= softer - 1e-9).all())
        assert bool((louder > softer)[there - 2 : there + 3].all())


def test_whichever_bins_become_louder_the_threshold_falls_nowhere():
    """Where the peaks of a spectrum are searched and thinned, it would."""
    z = bark(frequencies(16_000))
    draw = torch.Generator().manual_seed(0)
    level = 100 * torch.rand(5, len(z), 7, generator=draw, dtype=torch.float64)
    more = (torch.rand(level.shape, generator=draw) < 0.1) * 20.0
    before, after = psychoacoustics._spread(level, z), psychoacoustics._spread(level + more, z)
    assert bool((after >= before).all()) and bool((after > before).any())


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("level_db", [0, -30, -50])
def test_at_its_place_a_tone_hides_what_the_closed_form_says(rate, level_db):
    there = bin_of(1_000, rate)
    threshold = masking_threshold_db(sine(rate, there, level_db), None, rate, full_scale_db=96)
    hz = frequencies(rate)[there]
    lobe_db = 10 * math.log10(1.5)  # a Hann window puts half of a sine's power in the two next bins
    hidden = level_db + lobe_db - 6.025 - 0.275 * float(bark(hz))
    quiet = float(absolute_threshold_db(hz)) - 96
    together = 10 * math.log10(10 ** (hidden / 10) + 10 ** (quiet / 10))
    assert float(threshold[0, there, 10]) == pytest.approx(together, abs=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_hides_a_quiet_neighbour_and_not_a_far_one(rate):
    masker = sine(rate, bin_of(1_000, rate))
    next_bin = rate / frame_sizes(rate)[0]
    neighbour, far = (
        float(masked_excess(masker, masker + sine(rate, bin_of(hz, rate), -35), None, rate)[0])
        for hz in (1_000 + next_bin, 3_500)
    )
    assert neighbour == 0 < far


def test_a_tone_hides_more_above_itself_than_below():
    rate, there = 16_000, bin_of(1_000, 16_000)
    threshold = masking_threshold_db(sine(rate, there), None, rate)[0, :, 10]
    z = bark(frequencies(rate))
    below, above = ((z - z[there] - away).abs().argmin() for away in (-2, 2))
    assert float(threshold[above] - threshold[below]) > 10


@pytest.mark.parametrize("gain", [0.001, 0.1, 30])
def test_a_gain_of_the_clip_is_a_gain_of_the_threshold(gain):
    clip = noise(1, 2_000)
    threshold = masking_threshold_db(clip, None, 16_000)
    louder = masking_threshold_db(gain * clip, None, 16_000)
    assert torch.allclose(louder, threshold + 20 * math.log10(gain), atol=1e-6)
    change = 0.5 * noise(1, 2_000, seed=1)
    before = masked_excess(clip, clip + change, None, 16_000)
    after = masked_excess(gain * clip, gain * (clip + change), None, 16_000)
    assert torch.allclose(torch.stack(before), torch.stack(after), atol=1e-6)


def test_at_a_fixed_loudness_a_gain_raises_what_is_masked_and_not_the_absolute_threshold():
    rate, there = 16_000, bin_of(1_000, 16_000)
    soft, loud = (
        masking_threshold_db(sine(rate, there, level), None, rate, full_scale_db=96)[0, :, 10]
        for level in (-40, -20)
    )
    assert float(loud[there] - soft[there]) == pytest.approx(20, abs=0.01)
    assert float(loud[1] - soft[1]) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_padding_changes_nothing(rate):
    lengths = torch.tensor([1, 700, 1_500])
    clips = noise(3, 1_500)
    padded = clips * (torch.arange(1_500) < lengths[:, None])
    dirty = torch.where(padded == 0, 9.0, padded)  # what lies beyond is not looked at
    change = 0.1 * noise(3, 1_500, seed=1)
    together = masking_threshold_db(dirty, lengths, rate)
    share, excess = masked_excess(dirty, dirty + change, lengths, rate)
    weight = masking_weight(dirty, lengths, rate)
    inside = valid_frames(lengths, together.shape[2], rate)
    for row, length in enumerate(lengths.tolist()):
        own = clips[row : row + 1, :length]
        alone = masking_threshold_db(own, None, rate)[0]
        assert alone.shape[1] == int(inside[row].sum()) >= 1
        assert torch.allclose(alone, together[row, :, : alone.shape[1]], atol=1e-6)
        told = masked_excess(own, own + change[row : row + 1, :length], None, rate)
        assert float(told[0]) == pytest.approx(float(share[row]), abs=1e-9)
        assert torch.allclose(told[1][0], excess[row], equal_nan=True)
        assert torch.allclose(masking_weight(own, None, rate)[0], weight[row, :length])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 513, 2_000])
def test_clips_of_any_length_have_finite_figures(rate, length):
    clip = noise(1, length).float()
    threshold = masking_threshold_db(clip, None, rate)
    size, hop = frame_sizes(rate)
    assert threshold.shape == (1, len(frequencies(rate)), -(-length // hop))
    assert bool(threshold.isfinite().all())
    share, excess = masked_excess(clip, clip + 0.3, None, rate)
    assert 0 < float(share) <= 1 and math.isfinite(float(excess))


def test_an_untouched_clip_has_no_excess_even_where_it_is_nearly_silent():
    clip = torch.zeros(1, 900)
    clip[0, 450] = 2.0**-15
    share, excess = masked_excess(clip, clip, None, 16_000)
    assert float(share) == 0 and math.isnan(float(excess))


def test_more_of_the_same_change_is_heard_in_more_bins():
    clip, change = noise(1, 4_000), noise(1, 4_000, seed=1)
    shares = [
        float(masked_excess(clip, clip + g * change, None, 16_000)[0]) for g in (0.03, 0.1, 1)
    ]
    assert shares == sorted(shares) and shares[0] < shares[2]


def test_the_threshold_and_the_spectrum_have_finite_gradients_even_at_silence():
    clip = torch.cat([torch.zeros(1, 600), noise(1, 600).float()], dim=1).requires_grad_()
    masking_threshold_db(clip, None, 16_000).mean().backward()
    assert bool(clip.grad.isfinite().all()) and float(clip.grad.abs().sum()) > 0


def test_the_gradient_is_that_of_a_finite_difference():
    clip, way = noise(1, 200).requires_grad_(), 1e-6 * noise(1, 200, seed=1)
    (gradient,) = torch.autograd.grad(masking_threshold_db(clip, None, 8_000).sum(), clip)
    with torch.no_grad():
        above, below = (masking_threshold_db(clip + s * way, None, 8_000).sum() for s in (1, -1))
    assert float((above - below) / 2) == pytest.approx(float((gradient * way).sum()), rel=1e-3)


# ---------------------------------------------------------------- where to hide


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [1, 2, 100, 5_000])
def test_a_weight_is_above_zero_at_most_one_and_smooth(rate, length):
    clip = noise(2, length).float()
    clip[1, : length // 2] = 0
    weight = masking_weight(clip, None, rate)
    assert weight.shape == clip.shape
    assert bool((weight > 0).all()) and torch.equal(weight.amax(dim=1), torch.ones(2))
    if length > 1:
        step_db = (20 * weight.log10()).diff(dim=1).abs().amax()
        _, hop = frame_sizes(rate)
        assert float(step_db) <= 120 / hop, "no jump between frames"


def test_the_weight_is_large_under_loud_sound_and_knows_no_gain():
    clip = noise(1, 12_000)
    clip[0, 4_000:8_000] *= 0.01
    weight = masking_weight(clip, None, 16_000)[0]
    loud, soft = weight[1_000:3_000].mean(), weight[5_000:7_000].mean()
    assert float(soft) < 0.2 * float(loud)
    assert torch.allclose(masking_weight(5 * clip, None, 16_000)[0], weight)


def test_a_silent_clip_has_equal_weights():
    assert torch.equal(masking_weight(torch.zeros(1, 500), None, 16_000), torch.ones(1, 500))


def test_weighted_clicks_are_heard_less_than_equal_ones_of_the_same_energy():
    clip = noise(1, 16_000)
    clip[0, 4_000:12_000] *= 0.003
    clicks = torch.zeros_like(clip)
    clicks[0, ::100] = 1
    weighted = clicks * masking_weight(clip, None, 16_000)
    shares = [
        float(masked_excess(clip, clip + 0.05 * one / one.norm(), None, 16_000)[0])
        for one in (clicks, weighted)
    ]
    assert shares[1] < 0.7 * shares[0]
