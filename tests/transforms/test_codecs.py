"""Codecs: bit rates, the same function on tensors and on samples, and what a machine lacks."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from tests.support.speech import RATE, tone
from tests.support.waveforms import chirp, lag

from staanet import audio
from staanet.errors import InvalidInput, StaaNetError
from staanet.transforms import Mp3, parse_transform, transform_samples


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_quantise_leaves_so_many_levels_and_moves_half_a_step(bits):
    x = torch.linspace(-1, 1, 100_001)[None]
    result = parse_transform(f"quantise:{bits}")(x)
    assert len(result.unique()) == min(2**bits, len(result.unique())) >= min(2**bits, 60_000)
    top = 1 - 2.0 ** (1 - bits)  # the highest level of so many bits
    assert (result - x)[x <= top].abs().max() <= 2.0**-bits and result.max() == top


@pytest.mark.parametrize("text", ["mp3:64", "opus:24", "gsm", "mulaw", "vorbis"])
def test_a_codec_is_the_same_on_samples_and_on_tensors(text):
    samples = tone(0.3, 440.0)
    expected = audio.to_float(transform_samples(parse_transform(text), samples, RATE))
    result = parse_transform(text)(torch.from_numpy(audio.to_float(samples))[None])
    assert np.array_equal(result[0].numpy(), expected)


def test_a_higher_bit_rate_is_nearer_to_the_clip():
    clean = tone(1.0, 300)
    for low, high in (("mp3:16", "mp3:160"), ("opus:6", "opus:128")):
        far, near = (
            np.square(
                transform_samples(parse_transform(n), clean, RATE).astype(float) - clean
            ).mean()
            for n in (low, high)
        )
        assert near < far / 2


def test_three_minutes_pass_through_vorbis():
    clean = np.tile(chirp(), 180)
    assert (
        lag(clean[-RATE:], transform_samples(parse_transform("vorbis"), clean, RATE)[-RATE:]) == 0
    )


def test_a_bit_rate_that_the_rate_does_not_have_is_refused():
    with pytest.raises(InvalidInput, match="320 kbit/s at 16000 Hz") as error:
        transform_samples(Mp3(kbps=320), chirp(), RATE)
    assert "mp3:64" in error.value.remedy


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis", "gsm", "mulaw"])
def test_a_codec_that_is_missing_is_told_with_a_remedy(name, monkeypatch):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAVEX": "", "FLAC": ""})
    with pytest.raises(StaaNetError, match="libsndfile") as error:
        parse_transform(name)
    assert "pip install" in error.value.remedy
