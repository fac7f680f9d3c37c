"""Channels: as long as their input, aligned with it, the same each time, and true to their name."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.speech import RATE, real_speech, tone
from tests.support.waveforms import chirp, lag

from staanet import audio
from staanet.transforms import TRANSFORMS, clip_seed, parse_transform, transform_samples

TEXTS = [
    "average",
    "bandpass",
    "clipping",
    "cut:0,300",
    "pcm16",
    "gain:-6",
    "gsm",
    "highpass",
    "hum:30",
    "lowpass",
    "median",
    "mp3",
    "mp3:16",
    "mp3:32",
    "mp3:160",
    "mulaw",
    "music:30",
    "noise:20",
    "opus",
    "opus:6",
    "opus:64",
    "packet_loss:3",
    "pitch:0.1",
    "quantise:10",
    "random_gain",
    "repair",
    "resample:8000",
    "resample:11025",
    "rir:0.3",
    "round_trip",
    "round_trip:8000",
    "silence:0,300",
    "speed:0.2",
    "tilt:-3",
    "tone:40,2000",
    "vorbis",
]


def test_every_channel_is_tried_here():
    assert {name.partition(":")[0] for name in TEXTS} == set(TRANSFORMS)


KEEPS_TIME = [text for text in TEXTS if not text.startswith(("speed", "pitch"))]


def channel_samples(name: str, clean: np.ndarray, rate: int) -> np.ndarray:
    """A clip after a channel, cut or filled up to its own length."""
    changed = transform_samples(parse_transform(name), clean, rate)[: len(clean)]
    return np.pad(changed, (0, len(clean) - len(changed)))


@pytest.mark.parametrize("name", KEEPS_TIME)
def test_a_chirp_arrives_in_time(name):
    clean = chirp()
    heard = channel_samples(name, clean, RATE)
    assert lag(clean, heard) == 0
    agreement = np.corrcoef(clean, heard)[0, 1]
    assert agreement > (0.8 if name.startswith("rir") else 0.9), agreement


@pytest.mark.parametrize("name", KEEPS_TIME)
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_chirp_arrives_in_time_at_any_rate(name, rate):
    if name == "mp3:160" and rate < 16_000:
        pytest.skip("MP3 has no 160 kbit/s below 16 kHz")
    name = "mp3:40" if name in ("mp3:16", "mp3:32") and rate > 24_000 else name
    clean = chirp(rate=rate)
    assert abs(lag(clean, channel_samples(name, clean, rate))) <= rate // 8000


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in TEXTS
        if not n.startswith(
            ("gsm", "opus", "noise", "median", "repair", "average", "clipping", "packet", "speed")
            + ("pitch",)
        )
    ],
)
def test_an_impulse_stays_where_it_was(name):
    clean = np.zeros(4001, np.int16)
    clean[1777] = 20_000
    heard = transform_samples(parse_transform(name), clean, RATE)
    assert int(np.abs(heard.astype(int)).argmax()) == 1777


@pytest.mark.parametrize("name", TEXTS)
def test_a_clip_has_the_length_that_the_channel_tells(name):
    channel = parse_transform(name)
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
        heard = transform_samples(channel, tone(0.4, 300)[:length], RATE, seed=1)
        assert (
            heard.shape == (channel.new_length(length) if length else 0,)
            and heard.dtype == np.int16
        )


@pytest.mark.parametrize("name", TEXTS)
def test_the_same_clip_sounds_the_same_and_is_left_alone(name):
    clean = tone(0.5, 300)
    before = clean.copy()
    first, again = (transform_samples(parse_transform(name), clean, RATE, seed=3) for _ in range(2))
    assert np.array_equal(first, again) and np.array_equal(clean, before)
    assert first is not clean


@pytest.mark.parametrize("name", ["noise:20", "rir"])
def test_another_seed_is_another_noise_and_another_room(name):
    clean, channel = tone(0.5, 300), parse_transform(name)
    assert not np.array_equal(
        transform_samples(channel, clean, RATE, seed=1),
        transform_samples(channel, clean, RATE, seed=2),
    )
    assert clip_seed("a") != clip_seed("b")


@pytest.mark.parametrize("name", TEXTS)
def test_silence_and_full_scale_survive(name):
    channel = parse_transform(name)
    assert (
        np.abs(transform_samples(channel, np.zeros(2000, np.int16), RATE).astype(int)).max() <= 64
    )
    loud = np.where(np.arange(4000) // 40 % 2, 32_767, -32_768).astype(np.int16)
    heard = channel_samples(name, loud, RATE)
    assert np.corrcoef(loud, heard)[0, 1] > 0.4  # nothing wraps around


def test_the_file_as_it_is_stays_bit_equal():
    clean = tone(0.3, 300)
    assert np.array_equal(transform_samples(parse_transform("pcm16"), clean, RATE), clean)


def test_real_speech_arrives_in_time():
    path = sorted((real_speech("emodb") / "wav").glob("*.wav"))[3]
    clean = audio.load_samples(path, RATE)
    for name in KEEPS_TIME:
        assert abs(lag(clean, channel_samples(name, clean, RATE))) <= 1, name
