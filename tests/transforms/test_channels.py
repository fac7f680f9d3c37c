"""Channels: as long as their input, aligned with it, the same each time, and true to their name."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from tests.support.speech import RATE, real_speech, tone

from staanet import audio
from staanet.errors import InvalidInput, StaaNetError
from staanet.transforms.channels import (
    CHANNELS,
    Gain,
    Mp3,
    Noise,
    Resample,
    Room,
    clip_seed,
    parse_channel,
)

SPOKEN = [
    "pcm16",
    "gain:-6",
    "gsm",
    "mp3",
    "mp3:16",
    "mp3:32",
    "mp3:160",
    "mulaw",
    "noise:20",
    "opus",
    "opus:6",
    "opus:64",
    "resample:8000",
    "resample:11025",
    "rir:0.3",
    "vorbis",
]


def chirp(seconds: float = 1.0, rate: int = RATE, top: float = 3000.0) -> np.ndarray:
    """From 100 Hz up: nothing but the right lag makes it agree with itself."""
    t = np.arange(round(seconds * rate)) / rate
    sweep = np.sin(2 * np.pi * (100 * t + (top - 100) / (2 * seconds) * t**2))
    return audio.snap(0.4 * sweep * np.hanning(len(t)))


def lag(clean: np.ndarray, heard: np.ndarray) -> int:
    """By how many samples ``heard`` comes late: the peak of the cross-correlation."""
    size = 2 * len(clean)
    spectrum = (
        np.fft.rfft(heard.astype(float), size) * np.fft.rfft(clean.astype(float), size).conj()
    )
    peak = int(np.fft.irfft(spectrum).argmax())
    return peak if peak < len(clean) else peak - size


def test_every_channel_is_tried_here():
    assert {name.partition(":")[0] for name in SPOKEN} == set(CHANNELS)


@pytest.mark.parametrize("name", SPOKEN)
def test_a_chirp_arrives_in_time(name):
    clean = chirp()
    heard = parse_channel(name)(clean, RATE)
    assert lag(clean, heard) == 0
    agreement = np.corrcoef(clean, heard)[0, 1]
    assert agreement > (0.8 if name.startswith("rir") else 0.9), agreement


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_chirp_arrives_in_time_at_any_rate(name, rate):
    if name == "mp3:160" and rate < 16_000:
        pytest.skip("MP3 has no 160 kbit/s below 16 kHz")
    name = "mp3:40" if name in ("mp3:16", "mp3:32") and rate > 24_000 else name
    clean = chirp(rate=rate)
    assert abs(lag(clean, parse_channel(name)(clean, rate))) <= rate // 8000


@pytest.mark.parametrize("name", [n for n in SPOKEN if not n.startswith(("gsm", "opus", "noise"))])
def test_an_impulse_stays_where_it_was(name):
    clean = np.zeros(4001, np.int16)
    clean[1777] = 20_000
    heard = parse_channel(name)(clean, RATE)
    assert int(np.abs(heard.astype(int)).argmax()) == 1777


@pytest.mark.parametrize("name", SPOKEN)
def test_a_clip_keeps_its_length(name):
    channel = parse_channel(name)
    for length in [
        0,
        *range(1, 12),
        79,
        160,
        161,
        575,
        577,
        1151,
        1153,
        2047,
        3333,
        4095,
        4097,
        4999,
        5000,
    ]:
        heard = channel(tone(0.4, 300)[:length], RATE, seed=1)
        assert heard.shape == (length,) and heard.dtype == np.int16


@pytest.mark.parametrize("name", SPOKEN)
def test_the_same_clip_sounds_the_same_and_is_left_alone(name):
    clean = tone(0.5, 300)
    before = clean.copy()
    first, again = (parse_channel(name)(clean, RATE, seed=3) for _ in range(2))
    assert np.array_equal(first, again) and np.array_equal(clean, before)
    assert first is not clean


@pytest.mark.parametrize("name", ["noise:20", "rir"])
def test_another_seed_is_another_noise_and_another_room(name):
    clean, channel = tone(0.5, 300), parse_channel(name)
    assert not np.array_equal(channel(clean, RATE, seed=1), channel(clean, RATE, seed=2))
    assert clip_seed("a") != clip_seed("b")


@pytest.mark.parametrize("name", SPOKEN)
def test_silence_and_full_scale_survive(name):
    channel = parse_channel(name)
    assert np.abs(channel(np.zeros(2000, np.int16), RATE).astype(int)).max() <= 64
    loud = np.where(np.arange(4000) // 40 % 2, 32_767, -32_768).astype(np.int16)
    assert np.corrcoef(loud, channel(loud, RATE))[0, 1] > 0.4  # nothing wraps around


def test_the_file_as_it_is_stays_bit_equal():
    clean = tone(0.3, 300)
    assert np.array_equal(parse_channel("pcm16")(clean, RATE), clean)


@pytest.mark.parametrize("db", [-40.0, -6.0, 0.0, 3.0])
def test_gain_is_linear_to_half_a_step(db):
    clean = tone(0.2, 440)
    heard = Gain(db)(clean, RATE)
    assert np.abs(heard - clean * 10 ** (db / 20)).max() <= 0.5 + 1e-9
    assert np.array_equal(heard, clean) == (db == 0)


def test_gain_up_and_down_gives_the_clip_back():
    clean = (tone(0.2, 440) // 4).astype(np.int16)
    assert np.abs(Gain(-6.0)(Gain(6.0)(clean, RATE), RATE).astype(int) - clean).max() <= 1


def test_a_room_is_linear_and_dies_away_by_60_db():
    a, b = (tone(0.3, hz, seed) // 3 for seed, hz in enumerate((300, 900)))
    room = Room(0.3)
    both = room((a + b).astype(np.int16), RATE).astype(int)
    apart = room(a.astype(np.int16), RATE).astype(int) + room(b.astype(np.int16), RATE)
    assert np.abs(both - apart).max() <= 2
    response = room.response(RATE, 0)
    assert np.square(response).sum() == pytest.approx(1)
    energy = np.cumsum(np.square(response[::-1]))[::-1]  # Schroeder's backward integral
    decay = 10 * np.log10(energy / energy[0])
    early, late = np.argmax(decay < -15), np.argmax(decay < -35)
    assert 3 * (late - early) / RATE == pytest.approx(0.3, rel=0.15)


def test_noise_has_the_level_that_its_name_says():
    clean = tone(1.0, 300)
    noise = Noise(20.0)(clean, RATE, seed=5).astype(float) - clean
    snr = 10 * np.log10(np.square(clean.astype(float)).sum() / np.square(noise).sum())
    assert snr == pytest.approx(20, abs=0.2)


def test_resampling_takes_away_what_lies_above_half_the_rate():
    t = np.arange(RATE) / RATE
    low, high = (audio.snap(0.3 * np.sin(2 * np.pi * hz * t)) for hz in (1000, 6000))
    through = Resample(8_000)
    inner = slice(500, -500)  # away from where the tones begin and end
    assert np.abs(through(low, RATE).astype(int) - low)[inner].max() <= 3
    assert np.abs(through(high, RATE).astype(int))[inner].max() <= 10


def test_a_higher_bit_rate_is_nearer_to_the_clip():
    clean = tone(1.0, 300)
    for low, high in (("mp3:16", "mp3:160"), ("opus:6", "opus:128")):
        far, near = (
            np.square(parse_channel(n)(clean, RATE).astype(float) - clean).mean()
            for n in (low, high)
        )
        assert near < far / 2


def test_three_minutes_pass_through_vorbis():
    clean = np.tile(chirp(), 180)
    assert lag(clean[-RATE:], parse_channel("vorbis")(clean, RATE)[-RATE:]) == 0


def test_real_speech_arrives_in_time():
    path = sorted((real_speech("emodb") / "wav").glob("*.wav"))[3]
    clean = audio.load_samples(path, RATE)
    for name in SPOKEN:
        assert abs(lag(clean, parse_channel(name)(clean, RATE))) <= 1, name


@pytest.mark.parametrize(
    "text, said",
    [
        ("mp4", "Did you mean 'mp3'?"),
        ("", "unknown channel ''"),
        ("gsm:13", "channel gsm takes no setting"),
        ("mp3:", "kbps is ''"),
        ("mp3:loud", "not a whole number from 8 to 320"),
        ("mp3:64.5", "not a whole number"),
        ("mp3:9000", "kbps is '9000'"),
        ("gain:nan", "not a number from -60 to 60"),
        ("rir:inf", "rt60_s is 'inf'"),
        ("resample:0", "hz is '0'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(text, said):
    with pytest.raises(InvalidInput) as error:
        parse_channel(text)
    assert said in str(error.value) and error.value.remedy


def test_a_bit_rate_that_the_rate_does_not_have_is_refused():
    with pytest.raises(InvalidInput, match="320 kbit/s at 16000 Hz") as error:
        Mp3(320)(chirp(), RATE)
    assert "mp3:64" in error.value.remedy


@pytest.mark.parametrize("name", ["mp3", "opus", "vorbis", "gsm", "mulaw"])
def test_a_codec_that_is_missing_is_told_with_a_remedy(name, monkeypatch):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAVEX": "", "FLAC": ""})
    with pytest.raises(StaaNetError, match="libsndfile") as error:
        parse_channel(name)
    assert "pip install" in error.value.remedy
