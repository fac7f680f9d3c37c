"""Level, peak, bandwidth and clipping, against signals whose values are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.support.speech import real_speech

from staanet import audio
from staanet.audio import levels
from staanet.errors import UnusableClip

RATE = 16_000


def tone(seconds: float, amplitude: float, hz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("pause_s", [0.0, 0.5, 4.0])
def test_pauses_do_not_lower_the_active_level(pause_s: float) -> None:
    x = np.concatenate([tone(1, 0.1), np.zeros(round(pause_s * RATE)), tone(1, 0.1)])
    assert levels.active_level_db(x, RATE) == pytest.approx(
        20 * math.log10(0.1 / math.sqrt(2)), abs=0.05
    )


def test_noise_below_the_margin_is_a_pause_and_above_it_is_speech() -> None:
    rng = np.random.default_rng(0)
    speech = tone(1, 0.5)
    for below_db, active in ((30.0, False), (10.0, True)):
        noise = rng.standard_normal(RATE) * 0.5 / math.sqrt(2) * 10 ** (-below_db / 20)
        mean_db = 10 * math.log10(np.mean(np.concatenate([speech, noise]) ** 2))
        level = levels.active_level_db(np.concatenate([speech, noise]), RATE)
        assert level == pytest.approx(mean_db if active else -9.03, abs=0.1)


@pytest.mark.parametrize("gain_db", [-40, -6, 3])
def test_gain_moves_level_and_peak_by_itself_alone(gain_db: float) -> None:
    x = tone(1, 0.3) + 0.01 * np.random.default_rng(1).standard_normal(RATE)
    y = x * 10 ** (gain_db / 20)
    for measure in (lambda z: levels.active_level_db(z, RATE), levels.peak_db):
        assert measure(y) - measure(x) == pytest.approx(gain_db, abs=1e-6)
    assert levels.bandwidth_hz(y, RATE) == levels.bandwidth_hz(x, RATE)


def test_silence_has_no_level() -> None:
    x = np.zeros(RATE)
    assert levels.active_level_db(x, RATE) == levels.peak_db(x) == -math.inf
    assert levels.bandwidth_hz(x, RATE) == levels.clipped_share(x) == 0.0
    assert levels.active_level_db(np.array([0.5]), RATE) == pytest.approx(-6.02, abs=0.01)


def test_the_bandwidth_of_resampled_noise_is_that_of_its_first_rate() -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal(3 * 8000).astype(np.float32)
    wide = audio.to_float(audio.snap(audio.resample(noise, 8000, 48_000)))
    assert 3700 < levels.bandwidth_hz(wide, 48_000) < 4200
    full = 0.1 * np.random.default_rng(2).standard_normal(3 * RATE)
    assert levels.bandwidth_hz(full, RATE) > 7900
    assert levels.bandwidth_hz(tone(1, 0.5, 1000), RATE) == pytest.approx(1000, abs=120)


def test_real_speech_that_was_telephone_speech_is_told_apart() -> None:
    for path in sorted((real_speech("emodb") / "wav").glob("03*.wav"))[:5]:
        sound = audio.read_audio(path)
        narrow = audio.resample(audio.resample(sound.samples, RATE, 8000), 8000, RATE)
        assert levels.bandwidth_hz(sound.samples, RATE) > 7000
        assert levels.bandwidth_hz(audio.to_float(audio.snap(narrow)), RATE) < 4100


def test_clipping_is_counted_at_any_level() -> None:
    x = tone(1, 1.0, 100)
    for ceiling in (0.5, 0.9):
        clipped = np.clip(x, -ceiling, ceiling)
        expected = np.mean(np.abs(x) >= ceiling)
        assert levels.clipped_share(clipped) == pytest.approx(expected, abs=0.002)
        assert levels.clipped_share(audio.snap(clipped)) == pytest.approx(expected, abs=0.002)
    assert levels.clipped_share(0.3 * np.random.default_rng(0).standard_normal(RATE)) == 0.0


def test_a_long_recording_takes_little_memory() -> None:
    import tracemalloc

    x = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    tracemalloc.start()
    levels.bandwidth_hz(x, RATE)
    levels.active_level_db(x, RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20


def notes_of(x: np.ndarray) -> tuple[str, ...]:
    return levels.recording_notes(x.astype(np.float32), RATE)


def test_an_offset_and_digital_silence_are_odd_and_speech_like_noise_is_not() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    assert notes_of(noise) == notes_of(noise + 0.05) == ()
    assert notes_of(0.5 * noise + 0.6) == ("a constant offset of 60 % of full scale",)
    (note,) = notes_of(np.concatenate([noise[:RATE], np.zeros(4 * RATE)]))
    assert note == "at least 75 % of the recording is digital silence"


def test_channels_out_of_phase_and_a_lower_rate_are_told(tmp_path: Path) -> None:
    x = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    cases = {"nearly": np.stack([x, -0.97 * x], 1), "apart": np.stack([x, x[::-1]], 1)}
    for name, channels in cases.items():
        soundfile.write(tmp_path / f"{name}.wav", channels, RATE)
        _, notes = audio.load_recording(tmp_path / f"{name}.wav", RATE)
        assert any("cancel out" in note for note in notes) == (name == "nearly")
    soundfile.write(tmp_path / "exact.wav", np.stack([x, -x], 1), RATE)
    with pytest.raises(UnusableClip, match="digital silence .its channels cancel out"):
        audio.load_recording(tmp_path / "exact.wav", RATE)
    soundfile.write(tmp_path / "low.wav", x, 8000)
    assert audio.load_recording(tmp_path / "low.wav", 8000)[1] == ()
    (note,) = audio.load_recording(tmp_path / "low.wav", RATE)[1]
    assert note == "sampled at 8000 Hz and used at 16000 Hz: nothing above 4000 Hz"
