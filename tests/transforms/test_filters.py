"""Filters against NumPy and soxr: what they pass, what they stop, and the level that a gain sets."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, tone
from tests.support.waveforms import generator, level_db, sine

from staanet import audio
from staanet.transforms import Gain, Resample, parse_transform, transform_samples


@pytest.mark.parametrize("width", [3, 5, 9])
def test_median_and_average_are_numpy_s(width):
    x = torch.randn(2, 97, generator=generator()).clamp(-1, 1)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(x.numpy(), ((0, 0), (width // 2, width // 2))), width, axis=1
    )
    assert np.array_equal(parse_transform(f"median:{width}")(x), np.median(around, axis=2))
    assert np.allclose(parse_transform(f"average:{width}")(x), around.mean(axis=2), atol=1e-6)


def test_filters_keep_what_lies_inside_and_kill_what_lies_outside():
    for text, passed, stopped in (
        ("lowpass:4000", [100, 2000, 3700], [4400, 7000]),
        ("bandpass:300-3400", [600, 3000], [60, 3900]),
        ("resample:8000", [100, 3600], [4100, 6000]),
    ):
        transform = parse_transform(text)
        for hz in passed:
            assert abs(level_db(transform(sine(hz))) - level_db(sine(hz))) < 0.2, (text, hz)
        for hz in stopped:
            assert level_db(transform(sine(hz))) - level_db(sine(hz)) < -50, (text, hz)


def test_resampling_is_that_of_soxr_down_and_up():
    samples = tone(0.5, 700.0)
    for hz in (4000, 8000, 11_025):
        down = audio.resample(np.pad(audio.to_float(samples), (0, 800)), RATE, hz)
        expected = audio.resample(down, hz, RATE)[800 : len(samples) - 800]
        result = audio.to_float(transform_samples(Resample(hz=hz), samples, RATE))[800:-800]
        assert np.square(result - expected).sum() / np.square(expected).sum() < 1e-3  # -30 dB


@pytest.mark.parametrize("text", ["resample:16000", "resample:44100", "lowpass:8000"])
def test_what_keeps_all_changes_nothing_and_says_so(text):
    transform, samples = parse_transform(text), tone(0.1, 700.0)
    assert np.array_equal(transform_samples(transform, samples, RATE), samples)
    assert "16000 Hz" in transform.problem_at(RATE) and not transform.problem_at(2 * 48_000)


def test_resampling_takes_away_what_lies_above_half_the_rate():
    t = np.arange(RATE) / RATE
    low, high = (audio.snap(0.3 * np.sin(2 * np.pi * hz * t)) for hz in (1000, 6000))
    resample = functools.partial(transform_samples, Resample(hz=8_000))
    inner = slice(500, -500)  # away from where the tones begin and end
    assert np.abs(resample(low, RATE).astype(int) - low)[inner].max() <= 3
    assert np.abs(resample(high, RATE).astype(int))[inner].max() <= 10


@pytest.mark.parametrize("db", [-40.0, -6.0, 0.0, 3.0])
def test_gain_is_linear_to_half_a_step(db):
    clean = tone(0.2, 440)
    result = transform_samples(Gain(db=db), clean, RATE)
    assert np.abs(result - clean * 10 ** (db / 20)).max() <= 0.5 + 1e-9
    assert np.array_equal(result, clean) == (db == 0)


def test_gain_up_and_down_gives_the_clip_back():
    clean = (tone(0.2, 440) // 4).astype(np.int16)
    louder = transform_samples(Gain(db=6.0), clean, RATE)
    assert np.abs(transform_samples(Gain(db=-6.0), louder, RATE).astype(int) - clean).max() <= 1
