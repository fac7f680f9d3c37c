"""What audio promises: a file is read whole or refused with a reason, and integers stay integers."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import resource
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from staanet import audio
from staanet.audio import AudioLimits
from staanet.audio.containers.flac import flac_frame_rate
from staanet.errors import InvalidInput, StorageFault, UnusableClip

RATE = 16_000
SPEECH = (np.sin(np.arange(RATE) * 0.05) * 9000).astype(np.int16) + np.random.default_rng(
    0
).integers(-900, 900, RATE, dtype=np.int16)


def coded(
    form: str,
    subtype: str | None = None,
    *,
    channels: int = 1,
    samples: np.ndarray = SPEECH,
    rate: int = RATE,
    **options: Any,
) -> bytes:
    """A file made by libsndfile."""
    buffer = io.BytesIO()
    data = np.repeat(samples[:, None], channels, axis=1)
    if data.dtype == np.int16 and subtype in ("FLOAT", "DOUBLE"):
        data = data / 32768
    soundfile.write(buffer, data, rate, format=form, subtype=subtype, **options)
    return buffer.getvalue()


def wav(
    data: bytes,
    *,
    coding: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    declared: int | None = None,
    after: bytes = b"",
) -> bytes:
    """A WAV file made by hand, whose data chunk may declare what it does not hold."""
    block = channels * bits // 8 & 0xFFFF
    form = struct.pack("<HHIIHH", coding, channels, rate, rate * block & 0xFFFF_FFFF, block, bits)
    length = len(data) if declared is None else declared
    body = b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", length) + data + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def flac_claiming(frames: int, *, md5: bytes | None = None) -> bytes:
    """A good FLAC file whose stream info claims another number of frames (and MD5)."""
    data = coded("FLAC", "PCM_16")
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | frames
    data = patched(data, 18, packed.to_bytes(8, "big"))
    return data if md5 is None else patched(data, 26, md5)


def mp3_first_frame(data: bytes) -> int:
    """The length of the frame that holds the Xing header: the next frame begins like it."""
    return data.index(data[:2], 4)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def put(data: bytes, name: str = "clip.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put


def refusal(path: Path | str, limits: AudioLimits = AudioLimits()) -> str:
    """Why the clip cannot be used, as it is printed."""
    with pytest.raises(UnusableClip) as caught:
        audio.read_audio(path, limits)
    return str(caught.value)


# ---------------------------------------------------------------- good files

READABLE = [
    ("WAV", "PCM_U8", 1, 2**-7),
    ("WAV", "PCM_16", 1, 0.0),
    ("WAV", "PCM_24", 2, 0.0),
    ("WAV", "PCM_32", 8, 0.0),
    ("WAV", "FLOAT", 1, 0.0),
    ("WAV", "DOUBLE", 2, 0.0),
    ("WAV", "ULAW", 1, 0.02),
    ("WAV", "ALAW", 2, 0.02),
    ("WAVEX", "PCM_16", 2, 0.0),
    ("RF64", "PCM_16", 1, 0.0),
    ("FLAC", "PCM_S8", 1, 2**-7),
    ("FLAC", "PCM_16", 1, 0.0),
    ("FLAC", "PCM_24", 2, 0.0),
    ("OGG", "VORBIS", 1, 0.3),
    ("OGG", "OPUS", 2, 0.3),
    ("MP3", "MPEG_LAYER_III", 1, 0.3),
]


@pytest.mark.parametrize(("form", "subtype", "channels", "error"), READABLE)
def test_every_usual_format_is_read_whole(put, form, subtype, channels, error) -> None:
    sound = audio.read_audio(put(coded(form, subtype, channels=channels)))
    assert sound.samples.dtype == np.float32
    assert (sound.sample_rate, sound.channels) == (RATE, channels)
    assert len(sound.samples) == len(SPEECH)
    assert np.abs(sound.samples - audio.to_float(SPEECH)).max() <= error
    averaged = f"{channels} channels averaged to mono"
    assert sound.notes == ((averaged,) if channels > 1 else ())


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM", "GSM610", "G721_32"])
def test_block_codings_of_wav_are_read_with_their_padding(put, subtype) -> None:
    sound = audio.read_audio(put(coded("WAV", subtype)))
    assert len(SPEECH) <= len(sound.samples) < len(SPEECH) + 1100


def test_big_endian_wav_is_read(put) -> None:
    sound = audio.read_audio(put(coded("WAV", "PCM_16", endian="BIG")))
    assert np.array_equal(audio.snap(sound.samples), SPEECH)


def test_channels_are_averaged(put) -> None:
    pair = np.stack([SPEECH, -SPEECH // 2], axis=1)
    sound = audio.read_audio(put(wav(pair.astype("<i2").tobytes(), channels=2)))
    assert np.array_equal(sound.samples, (pair.mean(axis=1) / 32768).astype(np.float32))


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_pcm16_at_its_own_rate_gives_back_its_integers(put, form) -> None:
    every = np.arange(-32768, 32768, dtype=np.int16)
    path = put(coded(form, "PCM_16", samples=every))
    assert np.array_equal(audio.load_samples(path, RATE), every)


def test_float_wav_beyond_full_scale_is_clipped_and_said(put) -> None:
    data = np.array([0.5, 1.5, -2.0, 1.0], "<f4").tobytes()
    sound = audio.read_audio(put(wav(data, coding=3, bits=32)))
    assert sound.samples.tolist() == [0.5, 1.0, -1.0, 1.0]
    assert sound.notes == ("2 samples beyond full scale, clipped",)


@pytest.mark.parametrize(
    ("data", "name", "note"),
    [
        (coded("WAV", "PCM_16"), "a.mp3", ("named .mp3 but is WAV",)),
        (coded("MP3"), "a.WAV", ("named .WAV but is MP3",)),
        (coded("OGG", "OPUS"), "a.opus", ()),
        (coded("FLAC", "PCM_16"), "a.dat", ()),
        (coded("OGG", "VORBIS"), "a", ()),
    ],
)
def test_content_decides_and_a_wrong_name_is_said(put, data, name, note) -> None:
    assert audio.read_audio(put(data, name)).notes == note


@pytest.mark.parametrize("form", ["FLAC", "MP3"])
def test_id3_tags_in_front_are_skipped(put, form) -> None:
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    assert len(audio.read_audio(put(tag + coded(form))).samples) == len(SPEECH)


@pytest.mark.parametrize("after", [b"TAG" + bytes(125), bytes(100), b"APETAGEX" + bytes(24)])
def test_tags_behind_an_mp3_are_skipped(put, after) -> None:
    assert len(audio.read_audio(put(coded("MP3") + after)).samples) == len(SPEECH)


@pytest.mark.parametrize(
    "after",
    [
        b"LIST\x04\0\0\0abcd",
        b"LIST\x03\0\0\0abc\0",  # padded to an even length
        b"LIST\x03\0\0\0abc",  # the pad byte left out at the end, as many writers do
    ],
)
def test_chunks_behind_the_data_are_no_samples(put, after) -> None:
    sound = audio.read_audio(put(wav(SPEECH.tobytes(), after=after)))
    assert np.array_equal(audio.snap(sound.samples), SPEECH)


def test_a_wrong_riff_size_is_forgiven_where_the_data_is_whole(put) -> None:
    for size in (0, 0xFFFF_FFFF, 36):
        data = patched(wav(SPEECH.tobytes()), 4, struct.pack("<I", size))
        assert len(audio.read_audio(put(data)).samples) == len(SPEECH)


def test_what_follows_the_riff_is_ignored(put) -> None:
    assert len(audio.read_audio(put(wav(SPEECH.tobytes()) + b"junk!")).samples) == len(SPEECH)


def test_mp3_without_a_frame_count_is_read_and_marked(put) -> None:
    data = coded("MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    sound = audio.read_audio(put(data[mp3_first_frame(data) :]))
    assert len(sound.samples) % 576 == 0
    assert sound.notes == ("MP3 that does not prove its exact length",)


def test_mp3_without_the_encoders_delay_is_read_and_marked(put) -> None:
    data = coded("MP3")
    at = data.index(b"LAME")
    sound = audio.read_audio(put(patched(data, at, bytes(36))))
    assert (len(sound.samples) + 529) % 576 == 0
    assert sound.notes == ("MP3 that does not prove its exact length",)


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 1), (44_100, 2), (8_000, 1), (24_000, 2)])
def test_mp3_of_every_version_is_read_whole(put, rate, channels) -> None:
    for mode in ("CONSTANT", "AVERAGE", "VARIABLE"):
        data = coded("MP3", rate=rate, channels=channels, bitrate_mode=mode, compression_level=0.5)
        assert len(audio.read_audio(put(data)).samples) == len(SPEECH)


def test_flac_without_md5_is_read_and_marked(put) -> None:
    sound = audio.read_audio(put(flac_claiming(len(SPEECH), md5=bytes(16))))
    assert np.array_equal(audio.snap(sound.samples), SPEECH)
    assert sound.notes == ("FLAC without MD5: nothing proves it whole",)


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 44_100, 96_000, 123_456 // 10])
def test_flac_of_every_rate_agrees_with_its_frames(put, rate) -> None:
    for samples in (SPEECH, SPEECH[:100], SPEECH[:5000]):
        assert audio.read_audio(put(coded("FLAC", rate=rate, samples=samples))).sample_rate == rate


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not audio (0 bytes)"),
        (b"RIFF", "not audio (4 bytes)"),
        (b"file,label\na.wav,joy\n", r"not audio (starts with 'file,label\na')"),
        (b"\x7fELF\2\1\1" + bytes(30), r"not audio (starts with '\x7fELF\x02"),
        (b"ID3", "not audio (3 bytes)"),
        (b"ID3" + b"\x7f" * 20, "not audio (23 bytes)"),
        (b"FORM\0\0\0\x30AIFF" + bytes(50), "cannot be decoded ("),
        (b"RIFF\x04\0\0\0WAVE", "no audio data found (12 bytes)"),
        (b"RIFF\x04\0\0\0WAVEdata\0\0\0\0", "no WAV format before its data"),
        (b"RIFF\0\0\0\0WAVE" + b"abcd\0\0\0\0" * 1001, "no audio data found in 1000 chunks"),
        (b"fLaC", "not audio: no FLAC stream info (4 bytes)"),
        (b"fLaC\1\0\0\x22" + bytes(60), "not audio: no FLAC stream info (68 bytes)"),
        (b"OggS", "cut in OGG page 0 at byte 0 of 4"),
        (b"\xff\xfb\x90\x00" + bytes(20), "cut in MP3 frame 0 at byte 0 of 24"),
        (wav(b""), "0 samples"),
        (wav(bytes(400), bits=12), "contradicts itself"),
        (wav(bytes(400), coding=0x1234), "cannot be decoded"),
    ],
)
def test_what_is_no_audio_is_refused(put, data, reason) -> None:
    message = refusal(put(data))
    assert reason in message
    assert message.startswith(str(put(data)))
    assert message.endswith("Re-copy or drop the row")


def test_half_a_wav_names_both_numbers(put) -> None:
    assert "holds 7978 of 16000 declared frames" in refusal(put(wav(SPEECH.tobytes())[:16_000]))
    assert "holds 7977 of 16000 declared frames" in refusal(put(wav(SPEECH.tobytes())[:15_999]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wav(bytes(401)), "its 401 bytes of data are no whole number of frames of 2 bytes"),
        (wav(bytes(400), declared=2**32 - 1), "holds 200 of 2147483647 declared frames"),
        (wav(bytes(400), declared=402), "holds 200 of 201 declared frames"),
        (wav(bytes(400), declared=0), "declares 0 frames, but 400 bytes follow that are no chunk"),
        (wav(bytes(400), declared=398), "declares 199 frames, but 2 bytes follow"),
        (wav(bytes(400), after=b"LIST\xff\0\0\0"), "declares 200 frames, but 8 bytes follow"),
        (wav(bytes(400), after=b"data\x04\0\0\0abcd"), "declares 200 frames, but 12 bytes"),
        (wav(bytes(400), after=b"abcd\0\0\0\0" * 1001), "declares 200 frames, but 8008 bytes"),
        (patched(wav(bytes(400)), 28, b"\1\2\3\0"), "(16000 Hz, 197121 bytes a second)"),
        (patched(wav(bytes(400)), 32, b"\0\0"), "(1 x 16 bits, 0 bytes a frame)"),
        (coded("RF64", "PCM_16")[:-2], "holds 15999 of 16000 declared frames"),
        (coded("WAVEX", "PCM_16", channels=2)[:-1], "holds 15999 of 16000 declared frames"),
        (coded("WAV", "MS_ADPCM")[:-9], "holds 15 of 16 declared frames"),
    ],
)
def test_a_wav_whose_header_disagrees_with_its_data_is_refused(put, data, reason) -> None:
    assert reason in refusal(put(data))


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3"])
def test_a_compressed_file_cut_anywhere_is_refused(put, form) -> None:
    data = coded(form)
    for end in [len(data) // 2, len(data) - 1, *np.linspace(1, len(data) - 2, 25).astype(int)]:
        refusal(put(data[:end]))


def test_opus_cut_is_refused_at_a_page_and_between_pages(put) -> None:
    data = coded("OGG", "OPUS", samples=np.tile(SPEECH, 5))
    last = data.rindex(b"OggS")
    assert f"cut in OGG page 6 at byte {last} of {len(data) - 1}" in refusal(put(data[:-1]))
    assert f"cut: its last OGG page is missing (6 pages, {last} bytes)" in refusal(put(data[:last]))


def test_a_damaged_ogg_page_is_named(put) -> None:
    data = coded("OGG", "VORBIS")
    second = data.index(b"OggS", 4)
    flipped = patched(data, second + 40, bytes([data[second + 40] ^ 1]))
    assert f"OGG page 1 at byte {second} is damaged (checksum)" in refusal(put(flipped))
    assert "damaged, or follows the last page" in refusal(put(data + data))
    third = data.index(b"OggS", second + 4)
    without = data[:second] + data[third:]
    assert "is of another stream or out of order" in refusal(put(without))


def test_a_flipped_byte_in_flac_names_the_frame(put) -> None:
    data = coded("FLAC", "PCM_16")
    place = len(data) * 3 // 4
    message = refusal(put(patched(data, place, bytes([data[place] ^ 1]))))
    assert "damaged after frame 8192 of 16000 declared frames (" in message


def test_flac_md5_must_be_that_of_the_samples(put) -> None:
    data = flac_claiming(len(SPEECH), md5=hashlib.md5(b"").digest())
    assert "its FLAC MD5 is not that of the decoded samples" in refusal(put(data))


def test_flac_rate_must_be_that_of_its_frames(put) -> None:
    data = coded("FLAC", "PCM_16")
    packed = int.from_bytes(data[18:26], "big") ^ (RATE ^ 22_050) << 44
    message = refusal(put(patched(data, 18, packed.to_bytes(8, "big"))))
    assert "its stream info says 22050 Hz, its first frame 16000 Hz" in message


@pytest.mark.parametrize("claim", [2**36 - 1, 375_000_000, 0, 16_001])
def test_flac_with_a_false_length_is_refused_at_once_without_its_memory(put, claim) -> None:
    path, begun = put(flac_claiming(claim)), time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"holds 16000 of {claim} declared frames" in refusal(path)
    assert time.monotonic() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_flac_that_claims_less_than_it_holds_is_refused(put) -> None:
    assert "MD5" in refusal(put(flac_claiming(8_000)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d, n: d[:-1], "cut in MP3 frame"),
        (lambda d, n: d[: n + n // 2], "cut in MP3 frame 1"),
        (lambda d, n: patched(d, n, b"\0\1"), "MP3 frame 1 at byte"),
        (lambda d, n: d + b"some words", "is damaged"),
        (lambda d, n: d + d[n:], "holds 60 of 30 declared MP3 frames"),
        (lambda d, n: patched(d, d.index(b"LAME") + 21, b"\0"), "(checksum)"),
        (lambda d, n: patched(d, n + 2, bytes([d[n + 2] ^ 4])), "MP3 frame 1"),
    ],
)
def test_a_damaged_mp3_is_refused(put, damage, reason) -> None:
    data = coded("MP3")
    assert reason in refusal(put(damage(data, mp3_first_frame(data))))


def test_mp3_of_varying_rate_without_a_frame_count_is_never_half_read(put) -> None:
    data = coded("MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    message = refusal(put(data[mp3_first_frame(data) :]))
    assert "declared frames. Convert the MP3 to WAV" in message


@pytest.mark.parametrize(("values", "bad", "first"), [((np.nan, np.inf, -np.inf), 3, 10)])
def test_non_finite_samples_are_counted(put, values, bad, first) -> None:
    data = np.zeros(10_000, "<f4")
    data[[first, 4_500, 9_000]] = values
    message = refusal(put(wav(data.tobytes(), coding=3, bits=32)))
    assert f"{bad} non-finite samples, first at {first}" in message
    data[[first, 4_500]] = 0
    message = refusal(put(wav(data.tobytes(), coding=3, bits=32)))
    assert "1 non-finite sample, first at 9000" in message


def test_a_double_beyond_float32_is_not_finite(put) -> None:
    data = np.array([0.0, 1e300], "<f8").tobytes()
    assert "1 non-finite sample, first at 1" in refusal(put(wav(data, coding=3, bits=64)))


# ---------------------------------------------------------------- limits, each with its remedy


@pytest.mark.parametrize("channels", [9, 32, 1024, 65_535])
def test_too_many_channels_are_refused_with_the_remedy(put, channels) -> None:
    message = refusal(put(wav(bytes(4000), channels=channels)))
    assert f"{channels} channels, the limit is 8" in message
    assert "Mix it down to 8 or fewer" in message


def test_no_channel_is_refused(put) -> None:
    assert "0 channels" in refusal(put(wav(bytes(4000), channels=0)))


@pytest.mark.parametrize(
    ("rate", "remedy"),
    [
        (0, "Leave it out"),
        (1, "Leave it out"),
        (3_999, "Leave it out"),
        (192_001, "Resample it to 192000 Hz or less"),
        (768_000, "Resample it to 192000 Hz or less"),
        (2**31 - 1, "Resample it to 192000 Hz or less"),
    ],
)
def test_a_rate_outside_the_limits_is_refused_with_the_remedy(put, rate, remedy) -> None:
    message = refusal(put(wav(bytes(4000), rate=rate)))
    assert f"{rate} Hz" in message
    assert remedy in message


@pytest.mark.parametrize("rate", [4_000, 192_000])
def test_a_rate_at_the_limits_is_read(put, rate) -> None:
    assert audio.load_samples(put(wav(SPEECH.astype("<i2").tobytes(), rate=rate)), 16_000).any()


@pytest.mark.parametrize(
    ("head", "rate"),
    [
        (b"\xff\xf8\xc4\x00\x00", 8_000),  # code 4; block sizes 6 and 7 take one and two bytes more
        (b"\xff\xf8\xcb\x00\x00", 96_000),
        (b"\xff\xf8\xc0\x00\x00", None),
        (b"\xff\xf8\xcf\x00\x00", None),
        (b"\xff\xf8\xcc\x00\x00\x16", 22_000),
        (b"\xff\xf8\xcd\x00\x00\x3e\x81", 16_001),
        (b"\xff\xf8\xce\x00\x00\x06\x41", 16_010),
        (b"\xff\xf8\x6c\x00\x00\xee\x16", 22_000),
        (b"\xff\xf8\x7d\x00\x00\xee\xee\x3e\x81", 16_001),
    ],
)
def test_the_rate_in_a_flac_frame_is_read_as_the_format_has_it(head, rate) -> None:
    assert flac_frame_rate(head.ljust(16, b"\0")) == rate


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_clip_beyond_the_seconds_names_the_limit(put, form) -> None:
    path = put(coded(form))
    message = refusal(path, AudioLimits(max_seconds=0.9))
    assert "longer than the limit of 0.9 s. Cut the file into shorter files" in message
    assert len(audio.read_audio(path, AudioLimits(max_seconds=1.0)).samples) == RATE


def test_a_remedy_names_an_option_that_the_command_has(put) -> None:
    path = put(coded("WAV"))
    assert "--max" not in refusal(path, AudioLimits(max_seconds=0.9))
    assert "--max" not in refusal(path, AudioLimits(max_bytes=100))
    named = AudioLimits(max_seconds=0.9, seconds_option="--max-seconds")
    assert refusal(path, named).endswith("or raise --max-seconds")
    named = AudioLimits(max_bytes=100, bytes_option="--max-mib")
    assert refusal(path, named).endswith("or raise --max-mib")


@pytest.mark.parametrize("form", ["FLAC", "OGG", "MP3"])
def test_the_limits_hold_for_every_format(put, form) -> None:
    path = put(coded(form, channels=2))
    assert "Mix it down to 1 or fewer" in refusal(path, AudioLimits(max_channels=1))
    assert "Resample it to 8000 Hz" in refusal(path, AudioLimits(max_rate_hz=8_000))
    assert "limit of 100 bytes" in refusal(path, AudioLimits(max_bytes=100))


def test_a_legal_bomb_is_refused_in_little_memory(tmp_path) -> None:
    path = tmp_path / "bomb.flac"
    silence = np.zeros((RATE * 60, 8), np.int16)
    with soundfile.SoundFile(path, "w", RATE, 8, "PCM_16", format="FLAC") as file:
        for _ in range(11):
            file.write(silence)
    assert path.stat().st_size < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "longer than the limit of 600 s" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


# ---------------------------------------------------------------- what is not a regular file


def test_only_regular_files_are_opened(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "to-device.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.wav"))
        begun = time.monotonic()
        for name in ("pipe", "folder", "loop", "to-device", "socket"):
            assert "not a regular file" in refusal(tmp_path / f"{name}.wav")
        assert "not a regular file" in refusal("/dev/null")
        assert time.monotonic() - begun < 1


def test_a_file_that_turns_into_a_pipe_while_it_is_opened_is_refused(put, monkeypatch) -> None:
    path, reader = put(coded("WAV", "PCM_16")), os.pipe()[0]
    monkeypatch.setattr(os, "open", lambda *_: reader)
    assert "not a regular file" in refusal(path)


def test_names_that_lead_to_no_file_are_refused(tmp_path) -> None:
    assert "No such file" in refusal(tmp_path / "none.wav")
    assert "no file can have this name" in refusal("a\0b.wav")
    assert "no file can have this name" in refusal("\ud800.wav")
    assert "File name too long" in refusal(tmp_path / ("x" * 300))
    message = refusal(tmp_path / os.fsdecode(b"\xff\n.wav"))
    assert r"\udcff\n.wav: cannot be read" in message


def test_an_undecodable_name_is_read(tmp_path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    Path(path).write_bytes(audio.encode(SPEECH, RATE))
    assert np.array_equal(audio.load_samples(path, RATE), SPEECH)


def test_a_lack_of_file_handles_is_not_the_clips_fault(put, monkeypatch) -> None:
    path = put(audio.encode(SPEECH, RATE))

    def no_more(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", no_more)
    with pytest.raises(StorageFault, match="Too many open files"):
        audio.read_audio(path)


# ---------------------------------------------------------------- clips without sound


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(800), "digital silence"),
        (np.full(800, 77), "constant (DC only)"),
        (np.eye(1, 800, 0) * 9000, "one click"),
        (np.eye(1, 800, 799) * 9000, "one click"),
        (np.eye(1, 800, 400) * 9000 - 3, "one click"),
    ],
)
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_a_clip_without_sound_is_refused_by_name(put, samples, reason, rate) -> None:
    path = put(audio.encode(samples.reshape(-1).astype(np.int16), rate))
    with pytest.raises(UnusableClip, match="Drop the row") as caught:
        audio.load_samples(path, RATE)
    assert caught.value.what == reason


def test_silence_that_appears_by_resampling_is_refused(put) -> None:
    tone = np.tile(np.array([9000, -9000], np.int16), 400)  # at half of 16 kHz: gone at 8 kHz
    with pytest.raises(UnusableClip):
        audio.load_samples(put(audio.encode(np.array([1, -1] * 800, np.int16), RATE)), 4_000)
    assert audio.degeneracy(tone) is None


@pytest.mark.parametrize(
    "samples", [[1, 2, 1, 2], [0, 0, 5, 5], [0, 5, 6, 0], [0, 0, 5, 6, 6], [0, 5, 0, 5, 0, 0]]
)
def test_other_clips_count_as_sound(samples) -> None:
    assert audio.degeneracy(np.array(samples, np.int16)) is None


def test_an_empty_clip_is_no_sound() -> None:
    assert audio.degeneracy(np.array([], np.int16)) == "0 samples"


def test_a_clip_too_short_to_resample_is_refused(put) -> None:
    path = put(audio.encode(np.array([5, 9, 5, 9], np.int16), 192_000))
    with pytest.raises(UnusableClip, match="0 samples"):
        audio.load_samples(path, 4_000)


# ---------------------------------------------------------------- parts and streams


def test_a_part_is_cut_between_two_times_and_a_millisecond_is_forgiven() -> None:
    samples = np.arange(16_000)
    assert audio.cut(samples, RATE).tolist() == samples.tolist()
    assert audio.cut(samples, RATE, 0.25, 0.5).tolist() == list(range(4_000, 8_000))
    assert audio.cut(samples, RATE, 0.5).tolist() == list(range(8_000, 16_000))
    assert audio.cut(samples, RATE, 0.9, 1.0005).tolist() == list(range(14_400, 16_000))
    assert len(audio.cut(samples, RATE, 1.0)) == 0
    assert len(audio.cut(samples, RATE, 0.5, 0.25)) == 0
    for start, end, told in (
        (1.001, None, "the end"),
        (0.0, 1.001, "1.001 s"),
        (-0.5, 0.5, "0.5 s"),
    ):
        with pytest.raises(UnusableClip) as caught:
            audio.cut(samples, RATE, start, end)
        assert str(caught.value) == (
            f"its part from {start:.9g} s to {told} is not in the file, which ends at 1 s. "
            "Correct the times in its row, or drop the row"
        )


def test_a_loaded_part_is_that_of_the_whole_and_an_error_names_the_file(put) -> None:
    path = put(coded("WAV", "PCM_16"))
    part = audio.load_samples(path, RATE, start_s=0.25, end_s=0.5)
    assert np.array_equal(part, SPEECH[4_000:8_000])
    with pytest.raises(UnusableClip) as caught:
        audio.load_samples(path, RATE, start_s=2)
    assert str(caught.value).startswith(f"{path}: its part from 2 s to the end is not in the file")
    assert "Correct the times in its row" in caught.value.remedy


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100, 48_000])
@pytest.mark.parametrize("length", [1, 4_096, 12_289])
def test_a_stream_joined_is_the_file_loaded(put, rate, length) -> None:
    path = put(coded("WAV", "PCM_16", samples=SPEECH[:length], rate=rate))
    joined = np.concatenate(list(audio.stream_samples(path, RATE)))
    sound = audio.read_audio(path)
    assert np.array_equal(joined, audio.snap(audio.resample(sound.samples, rate, RATE)))
    assert joined.dtype == np.int16 and abs(len(joined) - length * RATE / rate) <= 1


def test_a_stream_is_refused_as_the_file_is(put) -> None:
    good = coded("WAV", "PCM_16")
    for data in (good[:-2_000], good[:100], b"", wav(b"\1\0" * 999, channels=9), flac_claiming(99)):
        path = put(data)
        with pytest.raises(UnusableClip) as caught:
            list(audio.stream_samples(path, RATE))
        assert str(caught.value) == refusal(path)
    short = AudioLimits(max_seconds=0.5)
    with pytest.raises(UnusableClip, match="limit of 0.5 s"):
        list(audio.stream_samples(put(good), RATE, short))


def test_the_length_that_a_file_declares_is_told_without_proof(put, tmp_path, monkeypatch) -> None:
    assert audio.declared_seconds(put(coded("FLAC", "PCM_16"))) == 1
    assert audio.declared_seconds(str(put(flac_claiming(8_000)))) == 0.5
    assert audio.declared_seconds(put(b"nothing")) == 0
    assert audio.declared_seconds(tmp_path / "none") == 0
    assert audio.declared_seconds(put(coded("WAV")), AudioLimits(max_bytes=999)) == 0

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    path = put(coded("WAV"))
    monkeypatch.setattr(os, "open", full)
    assert audio.declared_seconds(path) == 0


def test_a_wav_header_stops_where_its_sizes_do() -> None:
    most = (2**32 - 1 - 36) // 2
    head = audio.wav_header(most, 16_000)
    assert head[4:8] == struct.pack("<I", 36 + 2 * most) and head[40:] == struct.pack(
        "<I", 2 * most
    )
    with pytest.raises(InvalidInput, match=f"{most + 1} samples are more than a WAV file holds"):
        audio.wav_header(most + 1, 16_000)


# ---------------------------------------------------------------- the grid


def test_all_integers_survive_the_way_to_float_and_back() -> None:
    every = np.arange(-32768, 32768, dtype=np.int16)
    floats = audio.to_float(every)
    assert floats.dtype == np.float32
    assert floats.min() == -1
    assert floats.max() < 1
    assert np.array_equal(audio.snap(floats), every)
    assert np.array_equal(audio.snap(floats.astype(np.float64)), every)


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-3, 3)))
def test_snapping_moves_by_half_a_step_at_most_and_never_wraps(samples) -> None:
    snapped = audio.snap(samples)
    within = np.clip(samples, -1, 32767 / 32768)
    assert np.abs(audio.to_float(snapped) - within).max() <= 0.5 / 32768
    assert np.array_equal(audio.snap(audio.to_float(snapped)), snapped)


@given(st.sampled_from([4_000, 8_000, 11_025, 44_100, 48_000, 192_000]), st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_resampling_keeps_the_duration(rate, length) -> None:
    samples = np.zeros(length, np.float32)
    assert abs(len(audio.resample(samples, rate, RATE)) - length * RATE / rate) <= 1


def test_resampling_keeps_a_tone_and_its_place() -> None:
    time_ = np.arange(48_000) / 48_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time_)).astype(np.float32)
    there = audio.resample(tone, 48_000, RATE)
    with_eot = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(there - with_eot)[500:-500].max() < 1e-4


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    samples = audio.to_float(SPEECH)
    assert audio.resample(samples, RATE, RATE) is samples


def test_a_48_khz_file_is_loaded_at_the_rate_of_the_model(put) -> None:
    samples = audio.load_samples(put(coded("WAV", "PCM_16", rate=48_000, channels=2)), RATE)
    assert samples.dtype == np.int16
    assert abs(len(samples) - len(SPEECH) / 3) <= 1


@given(arrays(np.int16, st.integers(1, 20)), st.integers(0, 60), st.integers(0, 30))
def test_fitting_tiles_the_clip(samples, length, start) -> None:
    fitted = audio.fit_length(samples, length, start)
    assert fitted.dtype == samples.dtype
    assert fitted.tolist() == [samples[(start + i) % len(samples)] for i in range(length)]


def test_the_hash_is_of_the_sound_not_of_the_file(put) -> None:
    of_wav = audio.load_samples(put(coded("WAV", "PCM_16"), "a.wav"), RATE)
    of_flac = audio.load_samples(put(coded("FLAC", "PCM_16"), "a.flac"), RATE)
    assert audio.content_hash(of_wav) == audio.content_hash(of_flac)
    assert audio.content_hash(of_wav) == hashlib.sha256(SPEECH.tobytes()).hexdigest()
    assert audio.content_hash(of_wav[::2]) == audio.content_hash(of_wav[::2].copy())


# ---------------------------------------------------------------- writing


@given(
    arrays(np.int16, st.integers(1, 300)),
    st.sampled_from([4_000, 16_000, 44_100, 192_000]),
    st.sampled_from(["WAV", "FLAC"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_is_read_back_exactly(tmp_path_factory, samples, rate, form) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip"
    data = audio.encode(samples, rate, form)
    path.write_bytes(data)
    back, found = audio.read_int16(path)
    assert np.array_equal(back, samples)
    assert found == rate
    assert audio.encode(samples.copy(), rate, form) == data


def test_wav_is_what_libsndfile_would_write() -> None:
    assert audio.encode(SPEECH, RATE) == coded("WAV", "PCM_16")


def test_a_view_is_encoded_like_its_copy() -> None:
    assert audio.encode(SPEECH[::2], RATE) == audio.encode(SPEECH[::2].copy(), RATE)
    assert audio.encode(SPEECH[::2], RATE, "FLAC") == audio.encode(SPEECH[::2].copy(), RATE, "FLAC")


@pytest.mark.parametrize("form", ["OGG", "MP3", "wav", "AIFF"])
def test_a_lossy_or_unknown_format_is_never_written(form) -> None:
    with pytest.raises(InvalidInput, match="WAV or FLAC; a lossy codec changes every sample"):
        audio.encode(SPEECH, RATE, form)


def test_floats_are_never_written() -> None:
    with pytest.raises(AssertionError):
        audio.encode(audio.to_float(SPEECH), RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (coded("WAV", "PCM_24"), "WAV PCM_24, not 16-bit WAV or FLAC"),
        (coded("WAV", "FLOAT"), "WAV FLOAT"),
        (coded("FLAC", "PCM_24"), "FLAC PCM_24"),
        (coded("OGG", "VORBIS"), "OGG VORBIS"),
        (coded("WAV", "PCM_16", channels=2), "2 channels, the limit is 1"),
        (coded("WAV", "PCM_16")[:-7], "holds 15996 of 16000 declared frames"),
        (coded("FLAC", "PCM_16")[:-7], "damaged after frame"),
    ],
)
def test_only_what_we_wrote_is_read_as_exact_integers(put, data, reason) -> None:
    with pytest.raises(UnusableClip) as caught:
        audio.read_int16(put(data))
    assert reason in str(caught.value)


def test_our_own_files_are_read_whatever_the_limits_of_the_input(put) -> None:
    long = np.resize(SPEECH, 4_000 * 601)
    back, _ = audio.read_int16(put(audio.encode(long, 4_000)))
    assert np.array_equal(back, long)


# ---------------------------------------------------------------- mutated files

ORIGINALS = {
    f"{form} {subtype} {channels}": coded(form, subtype, channels=channels, samples=SPEECH[:3000])
    for form, subtype, channels in [
        ("WAV", "PCM_16", 1),
        ("WAV", "PCM_24", 2),
        ("WAV", "FLOAT", 1),
        ("WAVEX", "PCM_16", 2),
        ("RF64", "PCM_16", 1),
        ("WAV", "ULAW", 1),
        ("FLAC", "PCM_16", 1),
        ("FLAC", "PCM_24", 2),
        ("OGG", "VORBIS", 1),
        ("OGG", "OPUS", 2),
        ("MP3", "MPEG_LAYER_III", 1),
    ]
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Cut, or with bytes flipped (header bytes more often), inserted or removed."""
    at = rng.randrange(min(len(data), rng.choice([60, len(data)])))
    match rng.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return patched(data, at, bytes([data[at] ^ 1 << rng.randrange(8)]))
        case 2:
            return patched(data, at, bytes([rng.choice([0, 1, 127, 128, 255])]))
        case 3:
            return data[:at] + rng.randbytes(rng.randrange(1, 40)) + data[at:]
        case _:
            return data[:at] + data[at + rng.randrange(1, 40) :]


@pytest.mark.parametrize("name", sorted(ORIGINALS))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_mutated_file_is_refused_or_has_its_true_length(tmp_path_factory, name, seed) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.bin"
    path.write_bytes(mutated(ORIGINALS[name], random.Random(seed)))
    try:
        sound = audio.read_audio(path)
    except UnusableClip as problem:
        assert problem.where == str(path)
        assert problem.remedy
    else:
        assert len(sound.samples) == 3000
        assert sound.sample_rate == RATE
        assert np.isfinite(sound.samples).all()
        assert np.abs(sound.samples).max() <= 1


# ---------------------------------------------------------------- real speech


def test_all_real_speech_is_read_and_16_khz_is_unchanged() -> None:
    root = Path(os.environ.get("STAANET_DATA", ""))
    files = sorted(root.glob("emodb/wav/*.wav"))[::9] if os.environ.get("STAANET_DATA") else []
    if not files:
        pytest.skip("STAANET_DATA names no folder with emodb/wav")
    for path in files:
        with_eot, rate = soundfile.read(path, dtype="int16")
        assert np.array_equal(audio.load_samples(path, rate), with_eot)
