"""Whole files of uncommon containers are read, cut ones refused, and other files named as what they are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from staanet import audio
from staanet.audio import containers
from staanet.core import Corpus, Utterance
from staanet.errors import UnusableClip

RATE = 16_000
SPEECH = np.random.default_rng(0).integers(-9000, 9000, 3000).astype(np.int16)
FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
STREAMED = "streamed: the header declares no length, the sound ends with the file"


def coded(form: str, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, SPEECH, RATE, format=form, subtype=subtype)
    return buffer.getvalue()


def wav(data: bytes, declared: int | None = None, riff: int | None = None) -> bytes:
    size = len(data) if declared is None else declared
    body = b"WAVEfmt \x10\0\0\0" + FORMAT + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


@pytest.fixture
def put(tmp_path: Path):
    def write(data: bytes, name: str = "a.wav") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "form, name",
    [("AIFF", "a.aiff"), ("AU", "a.au"), ("CAF", "a.caf"), ("W64", "a.w64"), ("NIST", "a.sph")],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW"])
def test_an_uncommon_container_is_read_whole_and_a_cut_one_refused(put, form, name, subtype):
    data = coded(form, subtype)
    sound = audio.read_audio(put(data, name))
    assert len(sound.samples) == 3000 and sound.notes == ()
    if subtype == "PCM_16":
        assert np.array_equal(audio.snap(sound.samples), SPEECH)
    frame = {"PCM_16": 2, "PCM_24": 3, "ULAW": 1}[subtype]
    with pytest.raises(UnusableClip, match=r"holds \d+ of 3000 declared frames"):
        audio.read_audio(put(data[: -500 * frame], name))


@pytest.mark.parametrize("declared, riff", [(2**32 - 1, 2**32 - 1), (0, 0), (0, 2**32 - 1)])
def test_a_wav_that_was_streamed_is_read_to_its_end(put, declared, riff):
    path = put(wav(SPEECH.tobytes(), declared, riff))
    sound = audio.read_audio(path)
    assert np.array_equal(audio.snap(sound.samples), SPEECH) and sound.notes == (STREAMED,)
    blocks = np.concatenate(list(audio.stream_samples(path, RATE)))
    assert np.array_equal(blocks, SPEECH)


def test_half_a_frame_at_the_end_of_a_stream_is_told(put):
    sound = audio.read_audio(put(wav(SPEECH.tobytes() + b"\1", 2**32 - 1, 2**32 - 1)))
    assert np.array_equal(audio.snap(sound.samples), SPEECH)
    assert sound.notes == (f"{STREAMED}; its last 1 bytes are no whole frame",)


def test_an_empty_wav_is_no_stream(put):
    with pytest.raises(UnusableClip, match="0 samples"):
        audio.read_audio(put(wav(b"", 0, 36)))


def test_sound_behind_the_declared_end_is_told(put):
    data = wav(SPEECH.tobytes()) + SPEECH.tobytes() * 9
    sound = audio.read_audio(put(data))
    assert len(sound.samples) == 3000
    assert sound.notes == (
        "54000 bytes behind the declared end are not read: as samples they were 27000 frames",
    )
    for harmless in (b"\0", bytes(468), b"TAG" + bytes(125), b"ID3\3\0\0\0\0\0\x0a" + bytes(10)):
        assert audio.read_audio(put(wav(SPEECH.tobytes()) + harmless)).notes == ()


@pytest.mark.parametrize(
    "tail",
    [
        b"TAG" + bytes(125),
        b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8),
        b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8) + b"TAG" + bytes(125),
    ],
)
def test_tags_behind_flac_are_no_damage(put, tail):
    sound = audio.read_audio(put(coded("FLAC") + tail, "a.flac"))
    assert np.array_equal(audio.snap(sound.samples), SPEECH) and sound.notes == ()


@pytest.mark.parametrize("tail", [b"junkjunk" * 20, bytes(1000), coded("FLAC")])
@pytest.mark.parametrize("size", [3000, 9000])
def test_what_stands_behind_flac_is_left_out(put, tail, size):
    samples, buffer = np.resize(SPEECH, size), io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    data = buffer.getvalue()
    sound = audio.read_audio(put(data + tail, "a.flac"))
    assert np.array_equal(audio.snap(sound.samples), samples)
    is_second = tail.startswith(b"fLaC")
    assert sound.notes == ((f"a second FLAC stream at byte {len(data)} is not read",) * is_second)


def test_flac_cut_before_its_last_frame_is_refused_whatever_follows(put):
    with pytest.raises(UnusableClip, match="damaged after|holds|MD5"):
        audio.read_audio(put(coded("FLAC")[:-2000] + b"junk" * 500, "a.flac"))


@pytest.mark.parametrize(
    "data, what, remedy",
    [
        (b"Creative Voice File\x1a" + bytes(99), "VOC", "ffmpeg -i"),
        (b"FORM\0\0>\xdc8SVX" + bytes(99), "8SVX", "ffmpeg -i"),
        (wav(bytes(400)).replace(FORMAT, b"\x55\0" + FORMAT[2:]), "MP3 in a WAV", "pcm_s16le"),
        (b"\0\0\0\x18ftyp3gp4" + bytes(99), "3GP", "ffmpeg -i"),
        (b"\0\0\0\x18ftypM4A " + bytes(99), "MPEG-4", "ffmpeg -i"),
        (bytes.fromhex("fff15080") + bytes(99), "AAC", "ffmpeg -i"),
        (b"#!AMR\n" + bytes(99), "AMR", "ffmpeg -i"),
        (bytes.fromhex("1a45dfa39f428681") + bytes(99), "WebM", "ffmpeg -i"),
        (bytes.fromhex("3026b2758e66cf11") + bytes(99), "Windows Media", "ffmpeg -i"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(99), "AVI", "ffmpeg -i"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>404", "HTML page", "Download"),
        (b"\n<html><body>quota</body>", "HTML page", "Download"),
        (b'{"error": "quota exceeded"}', "JSON", "Download"),
        (b"PK\3\4" + bytes(99), "ZIP", "unzip"),
        (b"\x1f\x8b\x08\0" + bytes(99), "gzip", "gunzip"),
        (b"RIFF", r"not audio \(4 bytes\)", "Re-copy"),
        (b"some words in a text file", "starts with 'some words i'", "Re-copy"),
    ],
)
def test_what_is_not_read_is_named_with_the_command_that_helps(
    put, data, what, remedy, monkeypatch
):
    monkeypatch.setattr(containers, "find_spec", lambda name: None)  # without PyAV
    with pytest.raises(UnusableClip, match=what) as caught:
        audio.read_audio(put(data))
    assert remedy in caught.value.remedy and str(caught.value.where).endswith("a.wav")


# ---------------------------------------------------------------- sound that is odd


def speech_like(rate: int = RATE, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(1).standard_normal(rate)).clip(-1, 1).astype(np.float32)


def notes_of(put, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> tuple:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return audio.read_audio(put(buffer.getvalue())).notes


def test_an_ordinary_recording_has_no_notes(put):
    assert notes_of(put, speech_like()) == () and notes_of(put, speech_like(8000), 8000) == ()
    assert notes_of(put, speech_like(level=0.3)[: RATE // 2] + 0.2) == ()  # an offset is no fault


def test_a_silent_channel_is_named(put):
    x = speech_like()
    stereo = np.stack([x, np.zeros_like(x)], axis=1)
    assert notes_of(put, stereo) == ("2 channels averaged to mono", "no sound in channel 2 of 2")
    centre = np.stack([np.full_like(x, 0.1), x, np.zeros_like(x)], axis=1)
    assert notes_of(put, centre)[1] == "no sound in channel 1, 3 of 3"
    assert notes_of(put, np.stack([x, x], axis=1)) == ("2 channels averaged to mono",)


def test_samples_that_were_clipped_by_us_or_before_are_told_once(put):
    x = speech_like()
    loud = x + 2 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    (note,) = notes_of(put, np.clip(loud, -0.9, 0.9))
    assert note.endswith("% of the samples are clipped in the recording")
    assert float(note.split()[0]) == pytest.approx(100 * np.mean(np.abs(loud) > 0.9), abs=2)
    beyond = notes_of(put, x * 10, subtype="FLOAT")
    assert len(beyond) == 1 and beyond[0].endswith("samples beyond full scale, clipped")


def test_integers_that_overflowed_are_told(put):
    tone = 1.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    wrapped = ((tone * 32767).astype(np.int32) % 65536).astype(np.uint16).view(np.int16)
    notes = [note for note in notes_of(put, wrapped) if "overflowed" in note]
    assert notes == [f"{4 * 100 * 2} jumps across the whole scale: integers that overflowed?"]


def test_a_recording_of_8_bits_is_told(put):
    coarse = np.round(speech_like() * 128) / 128
    (note,) = notes_of(put, coarse)
    assert note.startswith("samples in steps of 256 of the 32768")


def test_integers_in_a_float_file_are_told(put):
    notes = notes_of(put, np.round(x := speech_like() * 32768).astype(np.float32), subtype="FLOAT")
    largest = np.abs(np.round(x)).max()
    assert notes[1] == f"its floats reach {largest:.0f}: integers that were not scaled"


def test_almost_no_level_and_a_spectrum_of_half_the_rate_are_told(put):
    assert notes_of(put, speech_like(level=2e-4)) == ("almost no level: -74 dB of full scale",)
    narrow = audio.resample(speech_like(8000), 8000, RATE)
    (note,) = notes_of(put, narrow)
    assert (
        note.startswith("no spectrum above 4") and "at 16000 Hz: recorded at a lower rate?" in note
    )


def test_notes_travel_with_the_clip(put):
    x = speech_like()
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([x, np.zeros_like(x)], axis=1), RATE, format="WAV")
    path = put(buffer.getvalue())
    corpus = Corpus("c", (Utterance("a", path, "joy", "s"),), ("joy",))
    assert corpus[0].notes == audio.read_audio(path).notes != ()
