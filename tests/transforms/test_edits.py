"""Silence, cuts and speed move a clip as their text says; devices and tilt do what they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, tone
from tests.support.waveforms import generator, level_db, sine, speechlike

from staanet.transforms import parse_transform, transform_samples


def test_silence_and_cut_undo_each_other():
    clean = tone(0.1, 300)
    longer = transform_samples(parse_transform("silence:1000,500"), clean, RATE)
    assert not longer[:1000].any() and not longer[-500:].any()
    assert np.array_equal(longer[1000:-500], clean)
    assert np.array_equal(transform_samples(parse_transform("cut:1000,500"), longer, RATE), clean)


def test_a_cut_leaves_a_sample():
    assert len(transform_samples(parse_transform("cut:900,900"), tone(0.1, 300), RATE)) == 1


def test_on_a_batch_silence_and_cut_move_each_clip_inside_its_length():
    x, lengths = speechlike(400, 300)
    moved = parse_transform("silence:50")(x, lengths)
    assert torch.equal(moved[1, 50:300], x[1, :250]) and not moved[1, 300:].any()
    cut = parse_transform("cut:50,20")(x, lengths)
    assert torch.equal(cut[1, :230], x[1, 50:280]) and not cut[1, 230:].any()


@pytest.mark.parametrize("percent", [-5.0, 5.0, 20.0])
def test_speed_changes_pitch_and_length_alike(percent):
    factor = 1 + percent / 100
    clean, expected = (
        np.round(8000 * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)).astype(np.int16)
        for hz, samples in ((440.0, RATE), (440.0 * factor, 2 * RATE))
    )
    result = transform_samples(parse_transform(f"speed:{percent}"), clean, RATE)
    assert len(result) == round(RATE / factor)
    inner = slice(100, len(result) - 100)
    error = result[inner].astype(float) - expected[: len(result)][inner]
    assert np.abs(error).max() < 80  # 1 % of the amplitude


def test_tilt_turns_the_spectrum_and_keeps_the_energy():
    mixed = sine(200) + sine(6000)
    tilted = parse_transform("tilt:-12")(mixed / 4)
    assert float(level_db(tilted) - level_db(mixed / 4)) == pytest.approx(0, abs=0.1)
    spectrum = torch.fft.rfft(tilted[0]).abs()
    bins = [round(hz * tilted.shape[1] / RATE) for hz in (200, 6000)]
    expected = 12 * np.log2(6000 / 200) / np.log2(8000 / 100)
    assert 20 * float((spectrum[bins[0]] / spectrum[bins[1]]).log10()) == pytest.approx(
        expected, abs=1.0
    )


def test_a_high_pass_kills_hum_and_keeps_speech():
    highpass = parse_transform("highpass:120")
    assert level_db(highpass(sine(50))) - level_db(sine(50)) < -50
    assert abs(level_db(highpass(sine(300))) - level_db(sine(300))) < 0.2


@pytest.mark.parametrize("percent", [0.1, 1.0, 10.0])
def test_clipping_cuts_so_many_samples(percent):
    x = torch.randn(2, 8000, generator=generator()) / 8
    clipped = parse_transform(f"clipping:{percent}")(x, torch.tensor([8000, 4000]))
    changed = (clipped != x).sum(dim=1)
    assert int(changed[0]) == round(80 * percent)
    assert int((clipped != x)[1, :4000].sum()) == round(40 * percent)


def test_packets_are_lost_as_often_as_asked():
    x = torch.ones(1, 20 * RATE)
    lost = 1 - parse_transform("packet_loss:10")(x, None, generator()).mean()
    assert float(lost) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("semitones", [-1.0, 1.0])
def test_pitch_moves_a_tone_and_keeps_length_and_level(semitones):
    clean = sine(440)
    shifted = parse_transform(f"pitch:{semitones}")(clean)
    assert shifted.shape == clean.shape
    spectrum = torch.fft.rfft(shifted[0] * torch.hann_window(shifted.shape[1])).abs()
    found = float(spectrum.argmax()) * RATE / shifted.shape[1]
    assert found == pytest.approx(440 * 2 ** (semitones / 12), abs=2)
    assert float(level_db(shifted) - level_db(clean)) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("text", ["tone:20", "hum:20", "music:20"])
def test_a_background_lies_so_far_below_the_clip(text):
    clean = sine(300) / 4
    added = parse_transform(text)(clean, None, generator()) - clean
    assert float(level_db(clean) - level_db(added)) == pytest.approx(20, abs=0.1)
