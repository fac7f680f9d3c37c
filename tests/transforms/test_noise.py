"""Noise and random gain have the level and the range that their text says; rooms die away."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from tests.support.speech import RATE, tone
from tests.support.waveforms import generator, sine

from staanet.transforms import Noise, Room, parse_transform, transform_samples


def test_noise_has_its_level_and_gain_its_range():
    x = torch.stack([sine(300)[0], 0.1 * sine(500)[0]])
    noise = parse_transform("noise:20")(x, None, generator()) - x
    ratio = 10 * torch.log10(x.square().mean(dim=1) / noise.square().mean(dim=1))
    assert torch.allclose(ratio, torch.full((2,), 20.0), atol=0.3)
    assert float(
        (parse_transform("noise:sigma=0.01")(x, None, generator()) - x).std()
    ) == pytest.approx(0.01, rel=0.03)
    many = 0.1 * torch.ones(4000, 1)
    gains = 20 * torch.log10(parse_transform("random_gain:6")(many, None, generator()) / many)
    assert gains.abs().max() <= 6 + 1e-3 and gains.max() > 5.9 and abs(float(gains.mean())) < 0.2


def test_noise_has_the_level_that_its_name_says():
    clean = tone(1.0, 300)
    noise = transform_samples(Noise(snr_db=20.0), clean, RATE, seed=5).astype(float) - clean
    snr = 10 * np.log10(np.square(clean.astype(float)).sum() / np.square(noise).sum())
    assert snr == pytest.approx(20, abs=0.2)


def test_a_room_is_linear_and_dies_away_by_60_db():
    a, b = (tone(0.3, hz, seed) // 3 for seed, hz in enumerate((300, 900)))
    room = functools.partial(transform_samples, Room(rt60_s=0.3))
    both = room((a + b).astype(np.int16), RATE).astype(int)
    disjoint_by = room(a.astype(np.int16), RATE).astype(int) + room(b.astype(np.int16), RATE)
    assert np.abs(both - disjoint_by).max() <= 2
    response = Room(rt60_s=0.3).response(RATE, 0)
    assert np.square(response).sum() == pytest.approx(1)
    energy = np.cumsum(np.square(response[::-1]))[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(energy / energy[0])
    early, late = np.argmax(decay < -15), np.argmax(decay < -35)
    assert 3 * (late - early) / RATE == pytest.approx(0.3, rel=0.15)
