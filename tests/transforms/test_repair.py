"""Outlier repair restores spikes and leaves clean speech alone."""

from __future__ import annotations

import torch
from tests.support.speech import RATE, real_speech
from tests.support.waveforms import sine

from staanet import audio
from staanet.transforms import Repair


def test_repair_restores_spikes_on_a_smooth_signal():
    x = sine(300) + 0.3 * sine(700)
    places = torch.arange(500, 7500, 487)
    spoilt = x.clone()
    spoilt[0, places] += 0.3
    found = Repair()(spoilt)
    left, done = (spoilt - x).square().sum(), (found - x).square().sum()
    assert float(10 * torch.log10(left / done)) > 20  # dB of the change taken away
    assert torch.equal(Repair()(x)[0, 400:-400], x[0, 400:-400])  # no edge, nothing to repair


def test_repair_leaves_clean_speech_nearly_untouched():
    for path in sorted(real_speech("emodb").rglob("*.wav"))[:300:60]:
        samples = audio.load_samples(path, RATE)
        x = torch.from_numpy(audio.to_float(samples))[None]
        found = Repair()(x)
        changed = float((found != x).float().mean())
        snr = float(
            10 * torch.log10(x.square().sum() / (found - x).square().sum().clamp_min(1e-12))
        )
        assert changed < 0.01 and snr > 25, path.name
